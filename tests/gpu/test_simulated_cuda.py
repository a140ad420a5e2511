"""The simulated device refuses what CUDA refuses, computes what the CPU computes, and counts what crosses."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import simulated_cuda
import torch
from caffe import device
from simulated_cuda import CUDA

real_empty, real_to = torch.empty, torch.Tensor.to


def test_tensors_say_where_they_are(simulated_gpu):
    tensor = torch.ones(2, 3, device=CUDA)
    for each in (
        tensor,
        tensor + 1,
        tensor[0],
        tensor.data,
        tensor.detach(),
        tensor.new_empty(0),
        torch.zeros_like(tensor),
    ):
        assert each.device == CUDA and each.is_cuda and not each.is_cpu
    assert torch.ones(2).to(CUDA).device == torch.ones(2).cuda().device == CUDA
    assert tensor.cpu().device.type == "cpu" and tensor.to("cpu").tolist() == [[1, 1, 1]] * 2


def test_views_share_memory_and_operations_in_place_keep_it(simulated_gpu):
    tensor = torch.zeros(6, device=CUDA)
    view = tensor[2:].view(2, 2)
    view.add_(1)
    view[1, 1] = 5
    assert tensor.tolist() == [0, 0, 1, 1, 1, 5]
    assert view.data_ptr() == tensor.data_ptr() + 8
    over = tensor.new_empty(0).set_(tensor.untyped_storage(), 0, (2, 3))
    over.fill_(7)
    assert over.shape == (2, 3) and tensor.tolist() == [7] * 6


def test_autograd_runs_on_it(simulated_gpu):
    x = torch.tensor([1.0, 2.0], device=CUDA).requires_grad_(True)
    edge = torch.autograd.graph.get_gradient_edge(x.square() * 3)
    (gradient,) = torch.autograd.grad([edge], [x], [torch.ones(2, device=CUDA)])
    assert gradient.device == CUDA and gradient.tolist() == [6, 12]


@pytest.mark.parametrize(
    ("refused", "error", "words"),
    [
        (lambda there, here: there + here, RuntimeError, "on the same device"),
        (lambda there, here: torch.cat([there, here]), RuntimeError, "on the same device"),
        (lambda there, here: torch.mm(there, here, out=torch.empty(2, 2)), RuntimeError, "on the same device"),
        (lambda there, here: there.numpy(), TypeError, "can't convert cuda:0"),
        (lambda there, here: np.asarray(there), TypeError, "can't convert cuda:0"),
        (lambda there, here: there.pin_memory(), RuntimeError, "cannot pin"),
        (lambda there, here: there.uniform_(generator=torch.Generator()), RuntimeError, "Expected a 'cuda' device"),
    ],
)
def test_what_cuda_refuses(simulated_gpu, refused, error, words):
    with pytest.raises(error, match=words):
        refused(torch.ones(2, 2, device=CUDA), torch.ones(2, 2))


def test_a_number_of_the_host_is_no_operand_of_another_device(simulated_gpu):
    assert (torch.ones(2, device=CUDA) * torch.tensor(3.0)).tolist() == [3, 3]
    assert torch.empty(2, device=CUDA).uniform_(generator=torch.Generator(CUDA)).device == CUDA


@pytest.mark.parametrize(
    ("crossing", "what"),
    [
        (lambda there, here: here.to(CUDA), "to device, blocking"),
        (lambda there, here: here.to(CUDA, non_blocking=True), "to device, blocking"),  # not pinned
        (lambda there, here: here.pin_memory().to(CUDA), "to device, blocking"),
        (lambda there, here: here.pin_memory().to(CUDA, non_blocking=True), "to device"),
        (lambda there, here: torch.empty(3, pin_memory=True).to(CUDA, non_blocking=True), "to device"),
        (lambda there, here: there.copy_(here), "to device, blocking"),
        (lambda there, here: torch.tensor([1.0], device=CUDA), "to device, blocking"),
        (lambda there, here: here.copy_(there), "to host, blocking"),
        (lambda there, here: here.pin_memory().copy_(there, non_blocking=True), "to host"),
        (lambda there, here: there.cpu(), "to host, blocking"),
        (lambda there, here: there.to("cpu"), "to host, blocking"),
        (lambda there, here: there.sum().item(), "sync"),
        (lambda there, here: float(there.sum()), "sync"),
        (lambda there, here: bool((there > 0).any()), "sync"),
        (lambda there, here: there.tolist(), "sync"),
        (lambda there, here: there.nonzero(), "sync"),
        (lambda there, here: there[there > 0], "sync"),
        (lambda there, here: torch.cuda.synchronize(0), "sync"),
    ],
)
def test_what_crosses_is_counted(simulated_gpu, crossing, what):
    there, here = torch.ones(3, device=CUDA), torch.ones(3)
    simulated_gpu.clear()
    crossing(there, here)
    assert simulated_gpu.counts == {what: 1}


def test_what_stays_on_the_device_is_not_counted(simulated_gpu):
    there = torch.ones(3, device=CUDA)
    simulated_gpu.clear()
    there.to(CUDA), there.clone(), there.double(), there.copy_(there + 1), there.fill_(2), there.sum()
    assert not simulated_gpu.counts


def test_other_threads_are_counted_apart(simulated_gpu):
    thread = threading.Thread(target=lambda: torch.ones(3).to(CUDA))
    thread.start()
    thread.join()
    assert not simulated_gpu.counts and simulated_gpu.ahead == {"to device, blocking": 1}


def test_afterwards_all_is_as_it_was():
    with simulated_cuda.simulate():
        device.set_mode_gpu()
        device.generator(CUDA)
        assert device.current() == CUDA and torch.empty is not real_empty
    assert device.current().type == "cpu" and "cuda:0" not in device._generators
    assert torch.empty is real_empty and torch.Tensor.to is real_to
