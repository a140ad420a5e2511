"""Weights from elsewhere: BVLC's V1 files into nets to fine-tune, the table of what is copied, torchvision."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from typing import NamedTuple

import caffe
import convert_weights
import h5py
import net as prototxt
import numpy as np
import onnxruntime
import pytest
import torch
from caffe.blob import Blob
from caffe.cli.main import main as caffe_command
from caffe.proto import caffe_pb2, text
from dhn import run as run_command
from dhn.weights import report as weights_report
from dhn.weights.releases import NETS


class Size(NamedTuple):
    """How large an AlexNet is: pixels, channels of conv1 to conv5, outputs of fc6, fc7, fc8."""

    image: int
    channels: tuple[int, ...]
    outputs: tuple[int, ...]


SMALL = Size(67, (4, 8, 8, 8, 8), (16, 16, 10))
FULL = Size(227, (96, 256, 384, 384, 256), (4096, 4096, 1000))
ORDERS = {"AlexNet": ("norm", "pool"), "CaffeNet": ("pool", "norm")}
STEPS = {
    "norm": ("LRN", 'lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }'),
    "pool": ("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
}  # fmt: skip
CONVOLUTIONS = (  # kernel, stride, pad, group, what follows
    (11, 4, 0, 1, True),
    (5, 1, 2, 2, True),
    (3, 1, 1, 1, False),
    (3, 1, 1, 2, False),
    (3, 1, 1, 2, False),
)


def features(size: Size, family: str) -> str:
    """The layers from `data` to fc7, as prototxt, in the order of AlexNet or CaffeNet."""
    layers, top = [], "data"

    def add(name: str, kind: str, bottom: str, to: str, param: str = "") -> str:
        layers.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{to}" {param} }}')
        return to

    fill = 'weight_filler { type: "gaussian" std: 0.01 }'
    for index, (kernel, stride, pad, group, followed) in enumerate(CONVOLUTIONS, 1):
        param = (
            f"num_output: {size.channels[index - 1]} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        )
        name = top = add(f"conv{index}", "Convolution", top, f"conv{index}", f"convolution_param {{ {param} {fill} }}")
        add(f"relu{index}", "ReLU", name, name)
        for step in ORDERS[family] if followed else ("pool",) * (index == 5):
            top = add(f"{step}{index}", STEPS[step][0], top, f"{step}{index}", STEPS[step][1])
    for index, outputs in zip((6, 7), size.outputs, strict=False):
        name = f"fc{index}"
        top = add(name, "InnerProduct", top, name, f"inner_product_param {{ num_output: {outputs} {fill} }}")
        add(f"relu{index}", "ReLU", top, top)
        add(f"drop{index}", "Dropout", top, top, "dropout_param { dropout_ratio: 0.5 }")
    return "\n".join(layers)


WEIGHTS = os.environ.get("DHN_SQUEEZENET_WEIGHTS", "")  # the path of squeezenet_v1.0.caffemodel
SMALL_FIRE = """name: "squeezenet"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 31 dim: 31 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 96 kernel_size: 7 stride: 2 } }
layer { name: "fire2/squeeze1x1" type: "Convolution" bottom: "conv1" top: "fire2/squeeze1x1"
  convolution_param { num_output: 16 kernel_size: 1 } }
layer { name: "conv10" type: "Convolution" bottom: "fire2/squeeze1x1" top: "conv10"
  convolution_param { num_output: 10 kernel_size: 1 } }
"""


def squeezenet_deploy() -> caffe_pb2.NetParameter:
    """The net that turns one picture into codes of 12 bits."""
    message = prototxt.deploy("cifar10", 12, "squeezenet")
    message.layer[0].input_param.shape[0].dim[:] = [1, 3, 131, 131]
    return message


def dhn(size: Size, family: str, batch: int = 4, bits: int = 12) -> str:
    """A net that fine-tunes: random images, labels of two kinds, the hash layer and the losses of DHN."""
    image = f"dim: {batch} dim: 3 dim: {size.image} dim: {size.image}"
    return f"""name: "dhn"
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
  shape {{ {image} }} shape {{ dim: {batch} dim: 2 }}
  data_filler {{ type: "gaussian" std: 60 }} data_filler {{ type: "constant" value: 1 }} }} }}
{features(size, family)}
layer {{ name: "hash_layer" type: "InnerProduct" bottom: "fc7" top: "hash_layer" param {{ lr_mult: 10 }}
  param {{ lr_mult: 20 }} inner_product_param {{ num_output: {bits} weight_filler {{ type: "gaussian" std: 0.01 }} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "hash_layer" top: "hash_layer" }}
layer {{ name: "pairwise_loss" type: "Python" bottom: "hash_layer" bottom: "label" top: "pairwise_loss" loss_weight: 1
  python_param {{ module: "pairwise_loss" layer: "PairwiseLossLayer" }} }}
layer {{ name: "quantization_loss" type: "Python" bottom: "hash_layer" top: "quantization_loss" loss_weight: 1
  python_param {{ module: "quantization_loss" layer: "QuantizationLossLayer" }} }}
"""


def v1_file(path, size: Size, family: str, ordered: bool = True) -> dict[str, list[np.ndarray]]:
    """Write a caffemodel as BVLC released them: V1 layers, 4-D blobs. Returns the values by layer, as nets have them.

    `ordered` False leaves out the layers without parameters.
    """
    source = f'name: "{family}" layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 }} }} }}'
    layers = text.parse(source + features(size, family), caffe_pb2.NetParameter()).layer
    layers.add(name="fc8", type="InnerProduct", bottom=["fc7"], top=["fc8"])
    rng = np.random.default_rng(0)
    channels = (3, *size.channels)
    shapes = {f"conv{i + 1}": (size.channels[i], channels[i] // group, kernel, kernel)
              for i, (kernel, _, _, group, _) in enumerate(CONVOLUTIONS)}  # fmt: skip
    pixels = (((size.image - 11) // 4 + 1 - 3) // 2 + 1 - 3) // 2 + 1
    inputs = (size.channels[-1] * ((pixels - 3) // 2 + 1) ** 2, *size.outputs)
    shapes |= {f"fc{i + 6}": (size.outputs[i], inputs[i]) for i in range(3)}
    net, values = caffe_pb2.NetParameter(name=family), {}
    kinds = {"Input": "DATA", "InnerProduct": "INNER_PRODUCT"}
    for layer in layers:
        if not ordered and layer.name not in shapes:
            continue
        old = net.layers.add(name=layer.name, bottom=layer.bottom, top=layer.top)
        old.type = caffe_pb2.V1LayerParameter.LayerType.Value(kinds.get(layer.type, layer.type.upper()))
        if layer.name not in shapes:
            continue
        old.blobs_lr.extend([1, 2])
        old.weight_decay.extend([1, 0])
        values[layer.name] = []
        for shape in (shapes[layer.name], shapes[layer.name][:1]):
            array = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            blob = Blob((*(1,) * (4 - len(shape)), *shape))
            blob.data[...] = array.reshape(blob.shape)
            proto = old.blobs.add()
            blob.to_proto(proto)
            proto.num, proto.channels, proto.height, proto.width = proto.shape.dim
            proto.ClearField("shape")
            values[layer.name].append(array)
    path.write_bytes(net.SerializeToString())
    return values


def fine_tune(folder, size: Size, iterations: int) -> tuple[dict, dict, float]:
    """Run `caffe train -weights` on a V1 file of this size; returns its values, the trained ones, the loading time."""
    values = v1_file(folder / "alexnet.caffemodel", size, "AlexNet")
    (folder / "train_val.prototxt").write_text(dhn(size, "AlexNet"))
    (folder / "solver.prototxt").write_text(
        f'net: "{folder}/train_val.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: {iterations} momentum: 0.9 '
        f'snapshot_prefix: "{folder}/dhn" solver_mode: CPU random_seed: 1'
    )
    net = caffe.Net(str(folder / "train_val.prototxt"), caffe.TRAIN)
    start = time.process_time()
    net.copy_from(folder / "alexnet.caffemodel")
    took = time.process_time() - start
    for name in (name for name in values if name in net.params):
        for blob, expected in zip(net.params[name], values[name], strict=True):
            np.testing.assert_array_equal(blob.data, expected)
    command = ["train", "-solver", str(folder / "solver.prototxt"), "-weights", str(folder / "alexnet.caffemodel")]
    assert caffe_command(command) == 0
    net.copy_from(folder / f"dhn_iter_{iterations}.caffemodel")
    return values, {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}, took


def check_fine_tuned(values: dict, trained: dict) -> None:
    """Every layer learned, and started from the file: it moved by little."""
    assert set(trained) == {*values, "hash_layer"} - {"fc8"}
    for name, (weight, _) in trained.items():
        assert np.isfinite(weight).all()
        if name != "hash_layer":
            moved = np.abs(weight - values[name][0]).max()
            assert 0 < moved < 0.01, name


def test_fine_tuning_from_a_v1_file(tmp_path):
    check_fine_tuned(*fine_tune(tmp_path, SMALL, 2)[:2])


@pytest.mark.slow
def test_fine_tuning_from_a_v1_file_of_full_size(tmp_path):
    values, trained, took = fine_tune(tmp_path, FULL, 1)
    assert (tmp_path / "alexnet.caffemodel").stat().st_size > 243_800_000
    check_fine_tuned(values, trained)
    assert took < 2, f"loading 233 MB took {took:.1f} s of processor time"


# -- the table


def net_file(path, source: str):
    path.write_text(source)
    return path


def test_the_table_names_what_is_copied_new_and_ignored(tmp_path, capsys):
    v1_file(tmp_path / "alexnet.caffemodel", SMALL, "AlexNet")
    net = net_file(tmp_path / "net.prototxt", dhn(SMALL, "AlexNet"))
    assert convert_weights.main(["show", str(tmp_path / "alexnet.caffemodel"), "--net", str(net)]) == 0
    said = capsys.readouterr()
    lines = [line.split("  ") for line in said.out.splitlines()]
    rows = {parts[1].strip(): " ".join(" ".join(parts[2:]).split()) for parts in lines if parts[0] == "" and parts[1:]}
    assert rows["conv1"] == "4x3x11x11 + 4 4x3x11x11 + 4 copied"
    assert rows["fc7"] == "16x16 + 16 16x16 + 16 copied"
    assert rows["hash_layer"] == "- 12x16 + 12 new: not in the file, learned from scratch"
    assert rows["fc8"] == "10x16 + 10 - ignored: the net has no such layer"
    copied = 4 * 363 + 4 + 8 * 50 + 8 + 8 * 72 + 8 + 2 * (8 * 36 + 8) + 16 * 8 + 16 + 16 * 16 + 16
    assert f"7 copied, 1 new, 1 ignored, 0 mismatched ({copied:,} values copied)" in said.out
    assert "warning" not in said.out and said.err == ""


def test_a_mismatch_says_what_to_do_and_fails(tmp_path, capsys):
    weights = tmp_path / "alexnet.caffemodel"
    v1_file(weights, SMALL, "AlexNet")
    net = net_file(tmp_path / "net.prototxt", dhn(SMALL, "AlexNet").replace('"hash_layer"', '"fc8"'))
    assert convert_weights.main(["show", str(weights), "--net", str(net)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "fc8 10x16 + 10 12x16 + 12 MISMATCHED: rename the layer in the net to learn it from scratch" in said
    with pytest.raises(ValueError, match="Cannot copy param 0 weights from layer 'fc8'; shape mismatch"):
        caffe.Net(str(net), caffe.TRAIN).copy_from(weights)


@pytest.mark.parametrize("form", ["binary", "hdf5"])
def test_the_table_agrees_with_what_loading_does(tmp_path, form):
    net = caffe.Net(str(net_file(tmp_path / "net.prototxt", dhn(SMALL, "AlexNet"))), caffe.TRAIN)
    path = tmp_path / "saved"
    (net.save if form == "binary" else net.save_hdf5)(path)
    found = weights_report.report(path, net)
    assert found.layers("copied") == list(net.params) and len(found.rows) == len(net.params)
    assert found.warnings == []
    other = caffe.Net(str(net_file(tmp_path / "other.prototxt", dhn(SMALL, "AlexNet", bits=16))), caffe.TRAIN)
    found = weights_report.report(path, other)
    assert found.layers("mismatched") == ["hash_layer"]
    with pytest.raises(ValueError, match="hash_layer"):
        other.copy_from(path)


def test_weights_of_which_nothing_fits_are_warned_of(tmp_path):
    v1_file(tmp_path / "a.caffemodel", SMALL, "AlexNet")
    source = dhn(SMALL, "AlexNet")
    for name in (*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7"):
        source = source.replace(f'"{name}"', f'"my_{name}"')
    found = weights_report.show(tmp_path / "a.caffemodel", net_file(tmp_path / "net.prototxt", source))
    assert len(found.warnings) == 1 and "no layer is copied" in found.warnings[0]


@pytest.mark.parametrize("theirs", ORDERS)
@pytest.mark.parametrize("mine", ORDERS)
def test_alexnets_weights_in_caffenet_are_warned_of(tmp_path, theirs, mine, monkeypatch):
    weights = tmp_path / "w.caffemodel"
    net = net_file(tmp_path / "net.prototxt", dhn(SMALL, mine))
    known = {"AlexNet": "bvlc_alexnet", "CaffeNet": "bvlc_reference_caffenet"}
    v1_file(weights, SMALL, theirs)
    stripped = tmp_path / "stripped.caffemodel"
    v1_file(stripped, SMALL, theirs, ordered=False)
    for path, how in ((weights, "by the order of its layers"), (stripped, "by its name"), (stripped, "by its SHA-1")):
        if how == "by its SHA-1":
            release = NETS[known[theirs]]._replace(digest=hashlib.sha1(path.read_bytes()).hexdigest())
            monkeypatch.setitem(NETS, known[theirs], release)
        report = weights_report.show(path, net)
        warnings = report.warnings
        assert report.release == ((known[theirs], how) if how == "by its SHA-1" else None)
        if theirs == mine:
            assert warnings == []
            continue
        (warning,) = warnings
        assert f"{path} holds the weights of {theirs} ({how})" in warning
        assert f"this net is ordered as {mine}" in warning and f"take the weights of {known[mine]}" in warning


@pytest.mark.parametrize("form", ["binary", "hdf5"])
def test_squeezenet_weights_are_matched_layer_by_layer(tmp_path, form, monkeypatch):
    layers = [text.parse(SMALL_FIRE, caffe_pb2.NetParameter()), squeezenet_deploy()]
    source, net = (caffe.Net(str(net_file(tmp_path / "net.prototxt", str(each))), caffe.TEST) for each in layers)
    path = tmp_path / "squeezenet.caffemodel"
    (source.save if form == "binary" else source.save_hdf5)(path)
    release = NETS["squeezenet_v1.0"]._replace(others=((hashlib.sha256(path.read_bytes()).hexdigest(), "decoded"),))
    monkeypatch.setitem(NETS, "squeezenet_v1.0", release)
    report = weights_report.report(path, net)
    assert report.layers("copied") == ["conv1", "fire2/squeeze1x1"]
    assert {"fire9/expand3x3", "pool9/norm", "hash_layer"} < set(report.layers("new"))
    assert report.layers("ignored") == ["conv10"] and not report.layers("mismatched")
    assert f"{path} (squeezenet_v1.0, decoded, by its SHA-256) into net" in report.table()
    assert weights_report.learned_layers(path) == {"conv1", "fire2/squeeze1x1", "conv10"}


@pytest.mark.skipif(not WEIGHTS, reason="DHN_SQUEEZENET_WEIGHTS names no squeezenet_v1.0.caffemodel")
def test_the_weights_of_squeezenet_fill_every_layer_below_the_hash_layer(tmp_path):
    net = caffe.Net(str(net_file(tmp_path / "net.prototxt", str(squeezenet_deploy()))), caffe.TEST)
    report = weights_report.report(WEIGHTS, net)
    assert len(report.layers("copied")) == 25 and report.layers("new") == ["pool9/norm", "hash_layer"]
    assert report.layers("ignored") == ["conv10"] and not report.layers("mismatched") and not report.warnings
    assert report.release[0] == "squeezenet_v1.0"


def no_groups(file):
    file["data"] = np.zeros(3)


def no_layer(file):
    file["data/0"] = np.zeros(3)


def blob_beside_a_layer(file):
    file["data/ip/0"], file["data/ip/inner/0"] = np.zeros(3), np.zeros(3)


def empty(file):
    file["data/ip/0"] = h5py.Empty("f4")


def name_of_a_type(file):
    file["data/ip/0"] = np.dtype("f4")


@pytest.mark.parametrize("fill, found", [
    (no_groups, "found an HDF5 file without the group 'data'"), (no_layer, "found data/0"),
    (blob_beside_a_layer, "found data/ip/0"), (empty, "found data/ip/0"), (name_of_a_type, "found data/ip/0"),
])  # fmt: skip
def test_an_hdf5_file_that_is_no_caffemodel_is_refused(tmp_path, capsys, fill, found):
    net, path = net_file(tmp_path / "net.prototxt", dhn(SMALL, "AlexNet")), tmp_path / "w.caffemodel.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    assert convert_weights.main(["show", str(path), "--net", str(net)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"convert_weights: {path}: expected a caffemodel") and found in error


def test_a_file_that_is_no_caffemodel_is_refused(tmp_path, capsys):
    net = net_file(tmp_path / "net.prototxt", dhn(SMALL, "AlexNet"))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("not a caffemodel")
    for name, words in (("empty", "file without layers"), ("text", "do not decode"), ("missing", "Cannot read")):
        assert convert_weights.main(["show", str(tmp_path / name), "--net", str(net)]) == 1
        assert words in capsys.readouterr().err


def test_an_error_in_a_users_layer_shows_its_code_then_its_name(tmp_path, capsys, monkeypatch):
    (tmp_path / "broken_layer.py").write_text(
        "import caffe\nclass Broken(caffe.Layer):\n    def setup(self, bottom, top):\n        {}['mine']\n"
        "    reshape = forward = lambda self, bottom, top: None\n    backward = None\n"
    )
    net = tmp_path / "net.prototxt"
    net.write_text('layer { name: "x" type: "Python" python_param { module: "broken_layer" layer: "Broken" } }')
    monkeypatch.setattr("sys.argv", ["tools/convert_weights.py"])
    monkeypatch.setattr("sys.path", list(sys.path))
    assert run_command(lambda: convert_weights.main(["show", "w.caffemodel", "--net", str(net)])) == 1
    *shown, last = capsys.readouterr().err.splitlines()
    assert "Traceback" in shown[0] and "    {}['mine']" in map(str.rstrip, shown)
    where = re.escape(f"{tmp_path / 'broken_layer.py'}:4")
    assert re.fullmatch(rf"convert_weights: layer 'x' \(Python, broken_layer.Broken, {where}\): KeyError: 'mine'", last)


# -- to other programs


@pytest.mark.parametrize("suffix", ["pt", "onnx"])
def test_export_writes_what_answers_alike(tmp_path, suffix):
    weights, deploy, target = tmp_path / "w.caffemodel", tmp_path / "deploy.prototxt", tmp_path / f"out.{suffix}"
    values = v1_file(weights, SMALL, "CaffeNet")
    source = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 67 dim: 67 } } }'
    deploy.write_text(source + features(SMALL, "CaffeNet"))
    assert convert_weights.main(["export", str(weights), "--net", str(deploy), str(target)]) == 0
    if suffix == "pt":
        state = torch.load(target, weights_only=True)
        assert set(state) == {f"{name}.{part}" for name in values if name != "fc8" for part in ("weight", "bias")}
        np.testing.assert_array_equal(state["fc6.weight"], values["fc6"][0])
        return
    net = caffe.Net(str(deploy), caffe.TEST, weights=str(weights))
    image = np.float32(np.random.default_rng(1).normal(0, 60, (2, 3, 67, 67)))
    (answer,) = onnxruntime.InferenceSession(str(target)).run(None, {"data": image})
    expected = net.forward(data=image)["fc7"]
    assert expected.any()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_export_names_another_suffix(tmp_path, capsys):
    assert convert_weights.main(["export", "w", "--net", "n", "out.tflite"]) == 1
    assert "expected a name that ends in .pt, .pth, .onnx, found '.tflite'" in capsys.readouterr().err


# -- from torchvision


class TorchvisionAlexNet(torch.nn.Module):
    """A net of the layout of torchvision's AlexNet, its names and shapes included."""

    def __init__(self, classes: int):
        super().__init__()
        nn = torch.nn

        def block(a, b, kernel, stride, pad, pooled):
            return [nn.Conv2d(a, b, kernel, stride, pad), nn.ReLU(), *[nn.MaxPool2d(3, 2)] * pooled]

        self.features = nn.Sequential(
            *block(3, 64, 11, 4, 2, 1), *block(64, 192, 5, 1, 2, 1), *block(192, 384, 3, 1, 1, 0),
            *block(384, 256, 3, 1, 1, 0), *block(256, 256, 3, 1, 1, 1),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


@pytest.mark.parametrize("legacy", [False, True])
def test_torchvisions_alexnet_answers_alike_as_a_caffemodel(tmp_path, legacy):
    torch.manual_seed(0)
    model = TorchvisionAlexNet(7).eval()
    source, target = tmp_path / "alexnet.pth", tmp_path / "alexnet.caffemodel"
    torch.save(model.state_dict(), source, _use_new_zipfile_serialization=not legacy)
    assert convert_weights.main(["torchvision", str(source), str(target)]) == 0
    image = np.random.default_rng(0).integers(256, size=(2, 224, 224, 3), dtype=np.uint8)  # RGB
    scaled = (image / 255 - convert_weights.MEAN_RGB) / convert_weights.STD_RGB
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)), 1).numpy()
    net = caffe.Net(str(target.with_suffix(".prototxt")), caffe.TEST, weights=str(target))
    bgr = image[..., ::-1].transpose(0, 3, 1, 2) - np.reshape(convert_weights.MEAN_VALUES, (1, 3, 1, 1))
    net.blobs["data"].reshape(*bgr.shape)
    answer = net.forward(data=bgr)["prob"]
    np.testing.assert_allclose(answer, expected, rtol=1e-4)
    assert np.ptp(expected) > 1e-3
    header = target.with_suffix(".prototxt").read_text()
    assert all(f"mean_value: {value:g}" in header for value in convert_weights.MEAN_VALUES)


class Program:
    """What a pickle can be besides data: a call, made when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_that_is_a_program_does_not_run(tmp_path, capsys, legacy):
    source, trace = tmp_path / "s.pth", tmp_path / "trace"
    torch.save({"x": Program(trace)}, source, _use_new_zipfile_serialization=not legacy)
    assert convert_weights.main(["torchvision", str(source), str(tmp_path / "o.caffemodel")]) == 1
    assert str(source) in capsys.readouterr().err and not trace.exists()


def test_another_state_dict_is_refused_by_what_is_wrong(tmp_path, capsys):
    good = {f"{theirs}.{part}": torch.zeros([dim or 5 for dim in shape[: 4 if part == "weight" else 1]])
            for theirs, (_, shape) in convert_weights.TORCHVISION.items() for part in ("weight", "bias")}  # fmt: skip
    missing = {name: value for name, value in good.items() if name != "features.0.bias"}
    cases = (
        (missing | {"head.weight": torch.zeros(1)}, "missing: features.0.bias; found besides: head.weight"),
        (good | {"features.3.weight": torch.zeros(256, 48, 5, 5)}, r"features.3.weight: expected the shape (192, 64"),
        ([1, 2], "expected a state dict, found list"),
        (missing | {3: 1}, "found besides: 3"),
        (good | {"features.0.bias": 7}, "features.0.bias: expected a tensor of floating-point numbers, found int"),
        (good | {"features.0.bias": torch.zeros(64).to_sparse()}, "numbers, found torch.sparse_coo of torch.float32"),
        (good | {"features.0.bias": torch.zeros(64, dtype=torch.int8)}, "numbers, found torch.strided of torch.int8"),
        (good | {"classifier.6.bias": torch.tensor(1.0)}, "classifier.6.weight: expected the shape (1, 4096)"),
    )
    for state, words in cases:
        torch.save(state, tmp_path / "s.pth")
        assert convert_weights.main(["torchvision", str(tmp_path / "s.pth"), str(tmp_path / "o.caffemodel")]) == 1
        assert words in capsys.readouterr().err
    (tmp_path / "s.pth").write_bytes(b"no such thing")
    assert convert_weights.main(["torchvision", str(tmp_path / "s.pth"), str(tmp_path / "o.caffemodel")]) == 1
    assert "expected a state dict written by torch.save" in capsys.readouterr().err
    assert not (tmp_path / "o.caffemodel").exists()
