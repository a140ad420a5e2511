"""Batches' memory and their way to a GPU, whose streams, events and pinned memory are stood in for on a CPU."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from caffe import device
from caffe.data import upload

CUDA = torch.device("cuda", 1)


class FakeGpu:
    """Notes what is asked of it, in order: (what, in which stream or of what, by which thread)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.log: list[tuple] = []
        self.stream = "compute"  # the current one
        to, empty = torch.Tensor.to, torch.empty
        monkeypatch.setattr(device, "current", lambda: CUDA)
        monkeypatch.setattr(device, "_copy_streams", {})
        monkeypatch.setattr(torch.cuda, "Stream", lambda where: FakeStream(self, f"copies to {where}"))
        monkeypatch.setattr(torch.cuda, "stream", self.using)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda where=None: FakeStream(self, self.stream))
        pinnable = lambda *shape, pin_memory=False, **how: self.made(empty(*shape, **how), pin_memory)  # noqa: E731
        monkeypatch.setattr(torch, "empty", pinnable)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self.made(tensor.clone(), True))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.note("keeps", stream.name))
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, where, **how: self.copied(to, tensor, where, **how))
        self.pinned: set[int] = set()
        self.there: set[int] = set()

    def note(self, *what: object) -> None:
        self.log.append((*what, threading.current_thread().name))

    def made(self, tensor: torch.Tensor, pinned: bool) -> torch.Tensor:
        self.pinned |= {tensor.data_ptr()} if pinned else set()
        return tensor

    @contextmanager
    def using(self, stream: FakeStream):
        self.stream, before = stream.name, self.stream
        yield
        self.stream = before

    def copied(self, to, tensor: torch.Tensor, where: torch.device, non_blocking: bool = False) -> torch.Tensor:
        if where != CUDA:
            return to(tensor, where)
        if tensor.data_ptr() not in self.there:
            assert tensor.data_ptr() in self.pinned and non_blocking, "a copy that the host waits for"
            self.note("copies", self.stream)
            tensor = tensor.clone()
            self.there.add(tensor.data_ptr())
        return tensor


class FakeStream:
    def __init__(self, gpu: FakeGpu, name: str):
        self.gpu, self.name = gpu, name

    def record_event(self) -> str:
        self.gpu.note("event", self.name)
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.gpu.note(f"waits for {event}", self.name)


@pytest.fixture
def gpu(monkeypatch):
    return FakeGpu(monkeypatch)


def test_a_batch_is_copied_in_a_stream_of_its_own_and_awaited_by_the_stream_that_uses_it(gpu):
    data, labels = torch.rand(4, 3), torch.arange(4.0)
    sent = upload.send([data, labels])
    copies, here = "copies to cuda:1", threading.current_thread().name
    assert gpu.log == [("copies", copies, here), ("copies", copies, here), ("event", copies, here)]
    gpu.log.clear()
    found = sent.take()
    assert gpu.log == [(f"waits for event of {copies}", "compute", here), *[("keeps", "compute", here)] * 2]
    assert (found[0] == data).all() and (found[1] == labels).all()


def test_memory_is_pinned_where_a_gpu_computes(gpu):
    for tensor in (upload.empty((2, 3)), upload.HostMemory().take((2, 3))):
        assert tensor.shape == (2, 3) and tensor.data_ptr() in gpu.pinned


def test_on_a_cpu_nothing_is_copied():
    data = torch.rand(3)
    [found] = upload.send([data]).take()
    assert found.data_ptr() == data.data_ptr()


def test_host_memory_is_used_again_when_nobody_holds_the_batch():
    memory = upload.HostMemory()
    first, second = memory.take((2, 3)), memory.take((2, 3))
    places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    held = second.reshape(-1).numpy()[1:]  # what a blob's array is to its batch
    held[:] = 7
    del first, second
    again, more = memory.take((2, 3)), memory.take((2, 3))
    assert again.data_ptr() in places and more.data_ptr() not in places
    again.fill_(1), more.fill_(2)
    assert np.array_equal(held, [7] * 5)
    del held
    assert memory.take((2, 3)).data_ptr() in places


def test_the_last_step_is_done_in_the_stream_of_the_copies(gpu):
    finish = lambda data, labels: (gpu.note("finishes", gpu.stream), [data + 1, labels])[1]  # noqa: E731
    sent = upload.send([torch.zeros(2, dtype=torch.uint8), torch.ones(2)], finish)
    assert [what for what, *_ in gpu.log] == ["copies", "copies", "finishes", "event"]
    assert gpu.log[2][1] == "copies to cuda:1" and sent.tensors[0].tolist() == [1, 1]


def test_host_memory_of_another_type_is_not_used_again():
    memory = upload.HostMemory()
    memory.take((2, 3))
    assert memory.take((2, 3), torch.uint8).dtype == torch.uint8 and len(memory._kept) == 1


def test_host_memory_of_another_shape_is_given_back():
    memory = upload.HostMemory()
    memory.take((2, 3))
    assert memory.take((4,)).shape == (4,)
    assert len(memory._kept) == 1
