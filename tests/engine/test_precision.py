"""float32 unless asked otherwise, TF32 as CUDA's switch, bf16 in the products of a net and nowhere else."""

from __future__ import annotations

import caffe
import numpy as np
import pytest
import torch
from caffe import device, precision
from caffe.cli import main
from caffe.proto import caffe_pb2, text

NET = """
name: "small"
layer { name: "x" type: "DummyData" top: "x" top: "label" dummy_data_param {
  shape { dim: 6 dim: 3 dim: 9 dim: 9 } shape { dim: 6 }
  data_filler { type: "gaussian" std: 1 } data_filler { value: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "norm" type: "LRN" bottom: "up" top: "norm" }
layer { name: "ip" type: "InnerProduct" bottom: "norm" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
ULP = 2.0**-8  # the largest relative error of rounding to bf16


@pytest.fixture(autouse=True)
def float32_afterwards():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    kept = [switch.allow_tf32 for switch in switches]
    yield
    caffe.set_mode_cpu()
    caffe.set_precision("float32")
    for switch, value in zip(switches, kept, strict=True):
        switch.allow_tf32 = value


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of the compute capability given, as far as the mode goes."""

    def make(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "set_device", lambda where: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
        caffe.set_mode_gpu()
        assert device.current().type == "cuda"

    return make


def tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_a_gpu_computes_in_float32_unless_told_otherwise(gpu):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    gpu(8, 0)
    assert tf32() == (False, False)
    caffe.set_precision("tf32")
    assert tf32() == (True, True)
    caffe.set_mode_cpu()
    caffe.set_mode_gpu()
    assert tf32() == (True, True), "the choice outlives a change of mode"
    caffe.set_precision("bf16")
    assert tf32() == (False, False)


@pytest.mark.parametrize("name", ["tf32", "bf16"])
def test_an_old_gpu_has_float32_only(gpu, name):
    gpu(7, 5)
    with pytest.raises(ValueError, match=f"precision {name}: expected a GPU of compute capability 8.0 .* found 7.5"):
        caffe.set_precision(name)
    assert precision.current() == "float32" and tf32() == (False, False)


def test_what_there_is_not():
    with pytest.raises(ValueError, match="expected one of float32, tf32, bf16, found 'half'"):
        caffe.set_precision("half")
    with pytest.raises(ValueError, match="tf32 is a GPU's, found CPU mode"):
        caffe.set_precision("tf32")


def net_after_backward(name: str) -> caffe.Net:
    caffe.set_random_seed(4)
    made = caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TRAIN)
    caffe.set_precision(name)
    made.forward()
    made.backward()
    return made


def rounded(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array).bfloat16().double()


@pytest.mark.parametrize("layer", ["conv", "ip"])
def test_bf16_rounds_factors_and_results_of_products(layer):
    net = net_after_backward("bf16")
    bottom, (top,) = net.bottom_names[layer], net.top_names[layer]
    x = rounded(net.blobs[bottom[0]].data)
    weight, bias = (rounded(blob.data) for blob in net.params[layer])
    exact = {
        "conv": torch.nn.functional.conv2d,
        "ip": lambda x, weight, bias: torch.nn.functional.linear(x.flatten(1), weight, bias),
    }[layer](x, weight, bias).numpy()
    found = net.blobs[top].data
    np.testing.assert_allclose(found, exact, rtol=1.01 * ULP, atol=1e-5 * np.abs(exact).max())
    np.testing.assert_array_equal(found, rounded(found).numpy())
    dw = net.params[layer][0].diff
    np.testing.assert_array_equal(dw, rounded(dw).numpy())


def test_bf16_leaves_the_rest_in_float32():
    net = net_after_backward("bf16")
    for name, blob in net.blobs.items():
        assert blob.data.dtype == np.float32 and blob.data_tensor.dtype == blob.diff_tensor.dtype == torch.float32
        assert name == "label" or (blob.data != rounded(blob.data).numpy()).any() == (
            name in ("x", "up", "norm", "loss")
        )
    for blobs in net.params.values():
        assert blobs[0].data_tensor.dtype == torch.float32
        assert (blobs[0].data != rounded(blobs[0].data).numpy()).any()


def test_bf16_is_near_float32_and_float32_is_the_same_after_it():
    half, whole = net_after_backward("bf16"), net_after_backward("float32")
    for name, blobs in whole.params.items():
        expected, found = blobs[0].diff, half.params[name][0].diff
        assert 1e-4 < np.abs(found - expected).max() / np.abs(expected).max() < 0.05
    again = net_after_backward("float32")
    np.testing.assert_array_equal(whole.params["conv"][0].diff, again.params["conv"][0].diff)


def test_without_gradient_too():
    net = net_after_backward("bf16")
    recorded = net.blobs["ip"].data.copy()
    for layer in net.layers:
        layer.propagate_down, layer.param_propagate_down = [False] * len(layer.propagate_down), []
    net.forward(start="conv")
    np.testing.assert_array_equal(net.blobs["ip"].data, recorded)


def test_a_solver_learns_in_bf16():
    param = text.parse('base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 random_seed: 3', caffe_pb2.SolverParameter())
    text.parse(NET, param.net_param)
    solver = caffe.get_solver(param)
    caffe.set_precision("bf16")
    first = float(solver.net.forward()["loss"])
    solver.step(20)
    assert float(solver.net.forward()["loss"]) < 0.2 * first
    weight = solver.net.params["conv"][0].data
    assert (weight != rounded(weight).numpy()).any()


def test_the_flag(tmp_path, logged):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    for name in ("bf16", "float32"):
        assert main.main(["time", "-model", str(path), "-iterations", "1", "-precision", name]) == 0
        assert precision.current() == name
    for name, words in (("tf32", "tf32 is a GPU's, found CPU mode"), ("half", "expected one of float32, tf32, bf16")):
        logged.clear()
        assert main.main(["time", "-model", str(path), "-precision", name]) == 1
        assert words in logged[-1].getMessage()
