"""Which device computes, who waits for it, in what numbers, and how alike its results are."""

from __future__ import annotations

import threading

import caffe
import numpy as np
import pytest
import torch
from caffe.cli import main
from caffe.data import upload
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { value: 1 } } }
"""


def net() -> caffe.Net:
    return caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST)


@pytest.mark.parametrize("later", ["cpu", "gpu"])
def test_views_held_across_a_change_of_mode_reach_the_net_and_show_it(simulated_gpu, later):
    modes = {"cpu": caffe.set_mode_cpu, "gpu": caffe.set_mode_gpu}
    modes[{"cpu": "gpu", "gpu": "cpu"}[later]]()
    small = net()
    x, weight, y = small.blobs["x"].data, small.params["ip"][0].data, small.blobs["y"].data
    x[...] = 1
    small.forward()
    assert (y == 3).all()
    modes[later]()
    small.forward()
    weight[...] = 5
    assert small.forward()["y"][0, 0] == 15 and y[0, 0] == 15
    x[0] = 2
    assert small.forward()["y"][0, 0] == 30 and y[0, 0] == 30


def test_caffe_time_waits_for_the_chosen_device(simulated_gpu, tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    assert main.main(["time", "-model", str(tmp_path / "net.prototxt"), "-gpu", "0", "-iterations", "1"]) == 0
    assert set(simulated_gpu.synchronized) == {torch.device("cuda", 0)}


def test_the_chosen_device_is_torchs_current_one(simulated_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    caffe.set_device(2)
    assert chosen == [2]
    caffe.set_mode_cpu()
    caffe.set_device(3)
    assert chosen == [2], "a CPU's script starts no CUDA"
    caffe.set_mode_gpu()
    assert chosen == [2, 3]


@pytest.mark.parametrize("work", [lambda: upload.empty((2,)), lambda: upload.send([torch.ones(2)])])
def test_it_is_so_in_each_thread_that_makes_batches(simulated_gpu, monkeypatch, work):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: chosen.append((number, threading.current_thread())))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (0, thread) in chosen


def test_float32_is_float32_whatever_torch_was_told(simulated_gpu, monkeypatch):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if not hasattr(cudnn, "conv"):
        pytest.skip("torch before 2.9 has one switch")
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "tf32"
    try:
        caffe.set_precision("float32")
        assert [matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision] == ["ieee"] * 3
        caffe.set_precision("tf32")
        assert [matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision] == ["tf32"] * 3
        assert matmul.allow_tf32 and cudnn.allow_tf32
        caffe.set_precision("float32")
        assert not matmul.allow_tf32 and not cudnn.allow_tf32
    finally:
        torch.backends.fp32_precision = before


def test_bf16_adds_in_float32(simulated_gpu):
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    caffe.set_precision("bf16")
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction


POOLED = """
layer { name: "x" type: "DummyData" top: "x" top: "label" dummy_data_param { shape { dim: 4 dim: 2 dim: 13 dim: 12 }
  shape { dim: 4 } data_filler { type: "gaussian" std: 1 } data_filler { value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 3 kernel_size: 3
  weight_filler { type: "msra" } } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def trained(solver_type: str = "SGD") -> list[np.ndarray]:
    """The parameters after 4 iterations."""
    param = text.parse(
        f'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 3 type: "{solver_type}"',
        caffe_pb2.SolverParameter(),
    )
    text.parse(POOLED, param.net_param)
    solver = caffe.get_solver(param)
    solver.step(4)
    return [blob.data.copy() for blob in solver.net.learnable_params]


def test_a_deterministic_net_uses_no_operation_that_is_not(simulated_gpu):
    fast = trained()
    simulated_gpu.record_operations = True
    caffe.set_deterministic(True)
    assert torch.backends.cudnn.deterministic and torch.are_deterministic_algorithms_enabled()
    for expected, found in zip(fast, trained(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert "max_pool2d_with_indices_backward" not in simulated_gpu.operations
    caffe.set_deterministic(False)
    assert not torch.backends.cudnn.deterministic and not torch.are_deterministic_algorithms_enabled()
    trained()
    assert "max_pool2d_with_indices_backward" in simulated_gpu.operations


def test_the_flag(simulated_gpu, tmp_path):
    (tmp_path / "net.prototxt").write_text(POOLED)
    words = ["time", "-model", str(tmp_path / "net.prototxt"), "-gpu", "0", "-iterations", "1"]
    assert main.main([*words, "-deterministic"]) == 0
    assert torch.backends.cudnn.deterministic
    assert main.main(words) == 0
    assert not torch.backends.cudnn.deterministic


def test_host_arrays_are_pinned(simulated_gpu):
    small = net()
    held = small.blobs["x"].data
    assert torch.from_numpy(held).is_pinned() and torch.from_numpy(small.params["ip"][0].data).is_pinned()
    held[...] = 2
    assert (small.forward()["y"] == 6).all()
