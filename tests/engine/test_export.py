"""Nets as torch state dicts and ONNX models: what torch and onnxruntime answer with them is what the engine answers."""

from __future__ import annotations

import caffe
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from caffe import export
from caffe.export import save_state_dict, state_dict
from caffe.onnx_export import save_onnx
from caffe.proto import caffe_pb2, text

GAUSS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.5 }'

NORMAL = '{ type: "gaussian" std: 1 }'
# what to export -> the shape of `data`, the layer type, its parameters, further bottoms
LAYERS = {
    "convolution": ((2, 4, 9, 8), "Convolution", f"num_output: 6 kernel_size: 3 pad: 1 dilation: 2 group: 2 {GAUSS}"),
    "without bias": ((2, 3, 7, 6), "Convolution", f"num_output: 2 kernel_h: 3 kernel_w: 2 bias_term: false {GAUSS}"),
    "convolution over one axis": ((2, 3, 9), "Convolution", f"num_output: 2 kernel_size: 3 {GAUSS}"),
    "deconvolution": ((2, 4, 4, 5), "Deconvolution", f"num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 {GAUSS}"),
    "inner product": ((3, 2, 4), "InnerProduct", f"num_output: 5 {GAUSS}"),
    "inner product, transposed, axis 2": ((3, 2, 4), "InnerProduct", f"num_output: 5 axis: 2 transpose: true {GAUSS}"),
    "max pooling": ((2, 3, 8, 9), "Pooling", "pool: MAX kernel_size: 3 stride: 2"),
    "max pooling, padded": ((2, 3, 8, 7), "Pooling", "pool: MAX kernel_size: 3 stride: 2 pad: 2"),
    "max pooling, floor": ((2, 3, 8, 8), "Pooling", "pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR"),
    "average pooling": ((2, 3, 8, 9), "Pooling", "pool: AVE kernel_size: 3 stride: 2"),
    "average pooling, padded": ((2, 3, 8, 7), "Pooling", "pool: AVE kernel_size: 4 stride: 3 pad: 2"),
    "global pooling": ((2, 3, 5, 6), "Pooling", "pool: AVE global_pooling: true"),
    "lrn": ((2, 7, 3, 4), "LRN", "local_size: 5 alpha: 2 beta: 0.75 k: 1.5"),
    "lrn within channels": ((2, 3, 6, 5), "LRN", "local_size: 3 alpha: 2 beta: 0.6 norm_region: WITHIN_CHANNEL"),
    "mvn": ((2, 3, 4, 5), "MVN", ""),
    "mvn across channels": ((4, 6), "MVN", "across_channels: true normalize_variance: false"),
    "batch norm": ((4, 3, 2, 2), "BatchNorm", "eps: 0.1"),
    "scale": ((2, 3, 4), "Scale", f"bias_term: true filler {NORMAL} bias_filler {NORMAL}"),
    "scale by a bottom": ((2, 3, 4), "Scale", f"axis: 0 bias_term: true bias_filler {NORMAL}", "more"),
    "bias": ((2, 3, 4), "Bias", f"filler {NORMAL}"),
    "prelu": ((2, 3, 4), "PReLU", ""),
    "prelu, shared": ((2, 3, 4), "PReLU", 'channel_shared: true filler { type: "constant" value: 0.4 }'),
    "embed": ((2, 3), "Embed", f"input_dim: 9 num_output: 4 {GAUSS}"),
    "softmax": ((2, 5, 3), "Softmax", ""),
    "softmax, last axis": ((2, 5, 3), "Softmax", "axis: -1"),
    "relu": ((2, 5), "ReLU", ""),
    "leaky relu": ((2, 5), "ReLU", "negative_slope: 0.3"),
    "sigmoid": ((2, 5), "Sigmoid", ""),
    "tanh": ((2, 5), "TanH", ""),
    "absval": ((2, 5), "AbsVal", ""),
    "bnll": ((2, 5), "BNLL", ""),
    "elu": ((2, 5), "ELU", "alpha: 0.7"),
    "swish": ((2, 5), "Swish", "beta: 1.5"),
    "clip": ((2, 5), "Clip", "min: -0.5 max: 0.4"),
    "threshold": ((2, 5), "Threshold", "threshold: 0.2"),
    "power": ((2, 5), "Power", "power: 2 scale: 3 shift: 0.5"),
    "exp": ((2, 5), "Exp", "base: 2 scale: 0.5 shift: 1"),
    "log": ((2, 5), "Log", "base: 10 scale: 0.1 shift: 5"),
    "dropout": ((2, 5), "Dropout", ""),
    "flatten": ((2, 3, 4), "Flatten", ""),
    "reshape": ((2, 3, 4), "Reshape", "shape { dim: 0 dim: 2 dim: -1 }"),
    "concat": ((2, 3, 4), "Concat", "axis: 2", "more"),
    "crop": ((2, 3, 4), "Crop", "axis: 1 offset: 1", "small"),
    "tile": ((2, 3, 4), "Tile", "axis: 1 tiles: 3"),
    "eltwise sum": ((2, 3), "Eltwise", "coeff: 2 coeff: -1", "more"),
    "eltwise product": ((2, 3), "Eltwise", "operation: PROD", "more"),
    "eltwise maximum": ((2, 3), "Eltwise", "operation: MAX", "more"),
    "sum": ((2, 3, 4), "Reduction", "axis: 1 coeff: 0.5"),
    "mean": ((2, 3, 4), "Reduction", "operation: MEAN axis: 2"),
    "sum of magnitudes": ((2, 3), "Reduction", "operation: ASUM"),
    "sum of squares": ((2, 3), "Reduction", "operation: SUMSQ axis: 1"),
}  # fmt: skip

# a layer type, in small letters -> the field of its parameters
PARAMS = {
    name.removesuffix("_param").replace("_", ""): name for name in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
}
PARAMS["deconvolution"] = PARAMS["convolution"]


def layer(name: str, kind: str, bottoms: str, param: str = "", top: str | None = None, more: str = "") -> str:
    """A layer in prototxt. bottoms: blobs, separated by spaces; `top` is called as the layer unless given."""
    below = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    fields = f"{PARAMS[kind.lower()]} {{ {param} }}" if param else ""
    return f'layer {{ name: "{name}" type: "{kind}" {below} top: "{top or name}" {more} {fields} }}\n'


def shape_text(shape) -> str:
    return " ".join(f"dim: {dim}" for dim in shape)


def make(source: str, phase: int = caffe.TEST) -> caffe.Net:
    caffe.set_random_seed(0)
    return caffe.Net(text.parse(source, caffe_pb2.NetParameter()), phase)


def inputs(**shapes) -> str:
    return "\n".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {shape_text(shape)} }} }} }}'
        for name, shape in shapes.items()
    )


def run_onnx(net: caffe.Net, path) -> dict[str, np.ndarray]:
    """What onnxruntime makes of the net's inputs, by output."""
    save_onnx(net, path)
    runtime = onnxruntime.InferenceSession(str(path))
    feeds = {value.name: net.blobs[value.name].data for value in runtime.get_inputs()}
    return dict(zip([value.name for value in runtime.get_outputs()], runtime.run(None, feeds), strict=True))


def check(net: caffe.Net, path, seed: int = 0) -> None:
    """onnxruntime answers what the engine answers."""
    rng = np.random.default_rng(seed)
    for name in net.inputs:
        if not net.blobs[name].data.any():
            net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)
    answers = run_onnx(net, path)
    expected = net.forward()
    assert set(answers) == set(expected)
    for name, values in expected.items():
        assert answers[name].shape == values.shape
        np.testing.assert_allclose(answers[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_answers_alike_in_onnxruntime(name, tmp_path):
    shape, kind, param, *further = LAYERS[name]
    extra = {bottom: (2, 2, 3) if bottom == "small" else shape for bottom in further}
    net = make(inputs(data=shape, **extra) + layer("it", kind, " ".join(["data", *further]), param, "out"))
    rng = np.random.default_rng(1)
    if name == "batch norm":
        for blob, values in zip(net.params["it"], (rng.normal(size=3), rng.random(3) + 0.1, [2.5]), strict=True):
            blob.data[...] = values
    if name == "embed":
        net.blobs["data"].data[...] = rng.integers(9, size=shape)
    check(net, tmp_path / "net.onnx")


ALEXNET = (
    inputs(data=(2, 3, 31, 31))
    + layer("conv1", "Convolution", "data", f"num_output: 8 kernel_size: 5 stride: 2 {GAUSS}")
    + layer("relu1", "ReLU", "conv1", top="conv1")
    + layer("norm1", "LRN", "conv1", "local_size: 5 alpha: 1e-4 beta: 0.75")
    + layer("pool1", "Pooling", "norm1", "pool: MAX kernel_size: 3 stride: 2")
    + layer("fc6", "InnerProduct", "pool1", f"num_output: 9 {GAUSS}")
    + layer("drop6", "Dropout", "fc6", top="fc6")
    + layer("hash_layer", "InnerProduct", "fc6", f"num_output: 4 {GAUSS}")
    + layer("tanh", "TanH", "hash_layer", top="hash_layer")
    + layer("half", "Slice", "fc6", "slice_point: 4", "left", more='top: "right"')
    + 'layer { name: "quiet" type: "Silence" bottom: "right" }'
)


def test_a_net_with_layers_in_place_splits_and_two_outputs(tmp_path):
    net = make('name: "small"' + ALEXNET)
    assert net.outputs == ["hash_layer", "left"]
    check(net, tmp_path / "net.onnx")


def test_another_batch_size_is_the_nets_shape_at_the_time(tmp_path):
    net = make(ALEXNET)
    net.blobs["data"].reshape(5, 3, 31, 31)
    net.reshape()
    check(net, tmp_path / "net.onnx")
    assert run_onnx(net, tmp_path / "net.onnx")["hash_layer"].shape == (5, 4)


def test_shared_parameters_and_passed_values(tmp_path):
    names = 'param { name: "w" } param { name: "b" }'
    net = make(
        inputs(data=(2, 3))
        + layer("a", "InnerProduct", "data", f"num_output: 3 {GAUSS}", more=names)
        + layer("b", "InnerProduct", "a", f"num_output: 3 {GAUSS}", more=names)
        + layer("p", "Parameter", "", "shape { dim: 2 }")
        + layer("drop", "Dropout", "data", top="same")
    )
    net.params["p"][0].data[...] = [1, -2]
    assert net.outputs == ["b", "p", "same"]
    check(net, tmp_path / "net.onnx")
    constants = onnx.load(tmp_path / "net.onnx").graph.initializer
    assert [one.name for one in constants if len(one.dims) == 2] == ["a.weight"]


def test_what_has_no_onnx_form_is_named(tmp_path):
    data = inputs(data=(2, 3, 4, 4), label=(2, 1, 4, 4))
    for source, words in (
        (layer("x", "SoftmaxWithLoss", "data label"), r"layer 'x' \(SoftmaxWithLoss\) has no ONNX form here"),
        (layer("x", "Pooling", "data", "pool: STOCHASTIC kernel_size: 2"), r"layer 'x' \(Pooling\): pool: STOCHASTIC"),
        (layer("x", "BatchNorm", "data", "use_global_stats: false"), r"layer 'x' \(BatchNorm\): use_global_stats"),
        (layer("x", "Convolution", "data", "axis: 2 num_output: 1 kernel_size: 1"), r"'x' .*after axis 2"),
    ):
        with pytest.raises(ValueError, match=words):
            save_onnx(make(data + source), tmp_path / "net.onnx")
    net = make('name: "mine" ' + inputs(x=(2, 3)) + 'layer { name: "r" type: "ReLU" bottom: "x" top: "" }')
    with pytest.raises(ValueError, match=r"net 'mine' has no ONNX form: Field 'name' .* is required to be non-empty"):
        save_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"is in phase TRAIN: expected caffe\.TEST"):
        save_onnx(make(ALEXNET, caffe.TRAIN), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_state_dict_loads_into_the_torch_modules_of_the_same_layout(tmp_path):
    net = make(
        inputs(data=(2, 4, 9, 9))
        + layer("conv", "Convolution", "data", f"num_output: 6 kernel_size: 3 group: 2 {GAUSS}")
        + layer("norm", "BatchNorm", "conv", top="conv")
        + layer("affine", "Scale", "conv", f"bias_term: true filler {NORMAL} bias_filler {NORMAL}", top="conv")
        + layer("up", "Deconvolution", "conv", f"num_output: 2 kernel_size: 2 stride: 2 {GAUSS}")
        + layer("fc", "InnerProduct", "up", f"num_output: 5 transpose: true {GAUSS}")
    )
    rng = np.random.default_rng(2)
    for blob, values in zip(net.params["norm"], (rng.normal(size=6), rng.random(6) + 0.1, [2.5]), strict=True):
        blob.data[...] = values
    net.blobs["data"].data[...] = rng.normal(size=(2, 4, 9, 9))
    save_state_dict(net, tmp_path / "net.pt")
    loaded = torch.load(tmp_path / "net.pt", weights_only=True)
    affine = {name: loaded.pop(f"affine.{name}") for name in ("weight", "bias")}
    modules = torch.nn.ModuleDict({
        "conv": torch.nn.Conv2d(4, 6, 3, groups=2),
        "norm": torch.nn.BatchNorm2d(6, affine=False),
        "up": torch.nn.ConvTranspose2d(6, 2, 2, stride=2),
        "fc": torch.nn.Linear(2 * 14 * 14, 5),
    }).eval()  # fmt: skip
    missing, unexpected = modules.load_state_dict(loaded, strict=False)
    assert set(missing) <= {"norm.num_batches_tracked"} and unexpected == []
    with torch.no_grad():
        x = modules["norm"](modules["conv"](torch.tensor(net.blobs["data"].data)))
        x = x * affine["weight"].view(-1, 1, 1) + affine["bias"].view(-1, 1, 1)
        found = modules["fc"](modules["up"](x).flatten(1))
    np.testing.assert_allclose(found, net.forward()["fc"], rtol=1e-4, atol=1e-4)


def test_state_dict_names_and_copies():
    net = make(
        inputs(data=(3, 2, 4), cont=(3, 2))
        + layer("p", "PReLU", "data")
        + layer("r", "RNN", "p cont", more="recurrent_param { num_output: 2 }")
    )
    values = state_dict(net)
    assert [key for key in values if key.startswith("p.")] == ["p.weight"]
    assert [key for key in values if key.startswith("r.")] == [f"r.blob{j}" for j in range(len(net.params["r"]))]
    values["p.weight"].fill_(7)
    assert (net.params["p"][0].data == 0.25).all()


@pytest.mark.parametrize("error", [MemoryError("no more"), OSError(28, "No space left on device")])
def test_why_a_state_dict_is_not_written(tmp_path, monkeypatch, error):
    """torch.save says where its archive ends instead."""

    class Full:
        def write(self, data):
            raise error

    monkeypatch.setattr(export.atomic_writes, "write_atomic", lambda path, fill: fill(Full()))
    with pytest.raises(type(error)) as caught:
        save_state_dict(
            make(inputs(data=(1, 3)) + layer("ip", "InnerProduct", "data", "num_output: 2")), tmp_path / "net.pt"
        )
    assert caught.value is error
