"""Extraction: codes equal a direct forward pass of each image, whatever the source and the batch size."""

from __future__ import annotations

import signal
import time

import caffe
import cv2
import extract_codes
import forked
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from dhn.codes import extraction
from dhn.codes import files as codes

DEPLOY = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: %d dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "hash_layer" type: "InnerProduct" bottom: "conv" top: "hash_layer"
  inner_product_param { num_output: 8 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "tanh" type: "TanH" bottom: "hash_layer" top: "hash_layer" }
"""
TRAIN_VAL = """
layer { name: "data" type: "Python" top: "data" top: "label" include { phase: TRAIN }
  python_param { module: "multilabel_data" layer: "MultiLabelDataLayer"
    param_str: '{"source": "a", "batch_size": 8, "mean_value": 1, "scale": 7}' } }
layer { name: "data" type: "Python" top: "data" top: "label" include { phase: TEST }
  python_param { module: "multilabel_data" layer: "MultiLabelDataLayer"
    param_str: '{"source": "b", "batch_size": 8, "mean_value": 40, "scale": 0.02}' } }
"""
COUNT = 11


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")


@pytest.fixture
def folder(tmp_path):
    """A run folder with weights, 11 grey images of 8x9 as an LMDB (raw and encoded records) and as a list."""
    rng = np.random.default_rng(0)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY % 1)
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.standard_normal(blob.data.shape) * 0.1
    net.save(str(tmp_path / "w.caffemodel"))
    images = rng.integers(0, 256, (COUNT, 8, 9), dtype=np.uint8)
    labels = rng.integers(0, 2, (COUNT, 4))
    np.savez(tmp_path / "truth.npz", images=images, labels=labels)
    (tmp_path / "images").mkdir()
    lines = []
    environment = lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 22)
    with environment.begin(write=True) as transaction:
        for i, (image, vector) in enumerate(zip(images, labels, strict=True)):
            cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), image)
            lines.append(f"images/{i}.png {' '.join(map(str, vector))}\n")
            datum = caffe_pb2.Datum(channels=1, height=8, width=9, label=i % 3, float_data=vector)
            datum.encoded = i % 2 == 1
            datum.data = cv2.imencode(".png", image)[1].tobytes() if datum.encoded else image.tobytes()
            transaction.put(b"%08d_%d" % (i, i), datum.SerializeToString())
    environment.close()
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


def run(folder, *options, source="lmdb", model="deploy.prototxt", weights="w.caffemodel", out="x.npz"):
    named = {"--model": model, "--weights": weights, "--source": source, "--out": out}
    return extract_codes.main(
        [word for name, file in named.items() for word in (name, str(folder / file))] + [*options]
    )


def direct(folder, prepare, blob="hash_layer"):
    """The codes of each image alone, with `prepare` making it the net's input (6, 5)."""
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST, weights=str(folder / "w.caffemodel"))
    found = []
    for image in np.load(folder / "truth.npz")["images"]:
        net.blobs["data"].reshape(1, 1, 6, 5)
        net.blobs["data"].data[0, 0] = prepare(image)
        net.forward()
        found.append(net.blobs[blob].data.reshape(-1).copy())
    return np.array(found)


def centre(image):
    return image[1:7, 2:7].astype(np.float32)


@pytest.mark.parametrize("batch", [1, 4, 11, 50])
@pytest.mark.parametrize("source", ["lmdb", "list.txt"])
def test_codes_are_those_of_a_direct_forward_pass(folder, source, batch):
    options = ["--batch-size", str(batch), "--mean-value", "100", "--scale", "0.01"]
    assert run(folder, *options, "--root", str(folder), source=source) == 0
    found, labels = codes.load(folder / "x.npz")
    assert (found.shape, found.dtype) == ((COUNT, 8), np.float32)
    np.testing.assert_allclose(found, direct(folder, lambda image: (centre(image) - 100) * 0.01), atol=1e-6)
    np.testing.assert_array_equal(labels, np.load(folder / "truth.npz")["labels"])
    assert sorted(np.load(folder / "x.npz").files) == ["codes", "labels"]


def test_images_are_prepared_as_in_the_train_val_net_beside_the_deploy_net(folder, capsys):
    (folder / "train_val.prototxt").write_text(TRAIN_VAL)
    assert run(folder) == 0
    expected = direct(folder, lambda image: (centre(image) - 40) * 0.02)
    np.testing.assert_allclose(codes.load(folder / "x.npz")[0], expected, atol=1e-6)
    printed = capsys.readouterr().out
    assert "mean_value 40, scale 0.02, crop 6x5" in printed
    assert "11 codes of 8 bits, 4 labels" in printed
    assert "images/s" in printed
    assert run(folder, "--mean-value", "10") == 0  # one setting given, the other read
    expected = direct(folder, lambda image: (centre(image) - 10) * 0.02)
    np.testing.assert_allclose(codes.load(folder / "x.npz")[0], expected, atol=1e-6)


def test_settings_of_stock_data_layers(tmp_path):
    layer = 'layer { name: "d" type: "%s" top: "data" top: "label" include { phase: TEST } transform_param { %s } %s }'
    net = tmp_path / "net.prototxt"
    net.write_text(layer % ("Data", "mean_value: 104 mean_value: 117 mean_value: 123 crop_size: 227", ""))
    assert extraction.settings_of(net) == {"upright": False, "mean_value": [104, 117, 123]}
    size = "image_data_param { new_height: 256 new_width: 240 }"
    net.write_text(layer % ("ImageData", 'mean_file: "m.binaryproto" scale: 0.5', size))
    imaged = {"gray": False, "mean_file": "m.binaryproto", "scale": 0.5, "resize": [256, 240]}
    assert extraction.settings_of(net) == imaged
    net.write_text(layer % ("ImageData", "", "image_data_param { is_color: false }"))
    assert extraction.settings_of(net) == {"gray": True}
    for kind in ("color", "gray"):
        net.write_text(layer % ("Data", f"force_{kind}: true", ""))
        assert extraction.settings_of(net) == {"gray": kind == "gray"}
    layers = ("train", "exclude { phase: TEST }"), ("test", "include { phase: TEST }")
    text = 'layers { name: "%s" type: DATA top: "data" data_param { source: "x" %s } %s }'  # the V1 form
    net.write_text(
        " ".join(text % (name, f'scale: {i + 1} mean_file: "{name}"', rule) for i, (name, rule) in enumerate(layers))
    )
    assert extraction.settings_of(net) == {"upright": False, "mean_file": "test", "scale": 2}
    for layer in ('layer { name: "d" type: "DummyData" top: "data" }', text % ("t", "", "include { phase: TRAIN }")):
        net.write_text(layer)
        with pytest.raises(ValueError, match=r"net.prototxt: expected a test data layer .* found none"):
            extraction.settings_of(net)
    net.write_text("layer { nome")
    with pytest.raises(ValueError, match=r"net.prototxt:1:9: not a valid NetParameter"):
        extraction.settings_of(net)


def test_resize_and_mean_image(folder):
    mean = np.random.default_rng(1).random((1, 1, 7, 6)).astype(np.float32) * 200
    (folder / "m.binaryproto").write_bytes(caffe.io.array_to_blobproto(mean).SerializeToString())
    assert run(folder, "--resize", "7", "6", "--mean-file", str(folder / "m.binaryproto"), "--scale", "0.02") == 0

    def prepare(image):
        return ((cv2.resize(image, (6, 7)).astype(np.float32) - mean[0, 0]) * 0.02)[0:6, 0:5]

    np.testing.assert_allclose(codes.load(folder / "x.npz")[0], direct(folder, prepare), atol=1e-6)


def test_colour_net_and_another_blob(folder):
    (folder / "deploy.prototxt").write_text(DEPLOY % 3)
    rng = np.random.default_rng(2)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.standard_normal(blob.data.shape) * 0.1
    net.save(str(folder / "colour.caffemodel"))
    image = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "colour.png"), image)
    (folder / "colour.txt").write_text("colour.png 2\n")
    options = ["--root", str(folder), "--labels", "5", "--mean-value", "104", "117", "123", "--blob", "conv"]
    assert run(folder, *options, source="colour.txt", weights="colour.caffemodel") == 0
    found, labels = codes.load(folder / "x.npz")
    net.blobs["data"].reshape(1, 3, 6, 5)
    net.blobs["data"].data[0] = (image[1:7, 2:7] - np.float32([104, 117, 123])).transpose(2, 0, 1)
    net.forward()
    np.testing.assert_allclose(found, net.blobs["conv"].data.reshape(1, -1), rtol=1e-5, atol=1e-4)
    assert labels.tolist() == [[0, 0, 1, 0, 0]]


def test_unknown_labels_stay_unknown(folder, capsys):
    (folder / "list.txt").write_text("images/0.png 1 0\nimages/1.png -1 -1\n")
    assert run(folder, "--root", str(folder), source="list.txt") == 0
    assert codes.load(folder / "x.npz")[1].tolist() == [[1, 0], [-1, -1]]
    assert "2 codes of 8 bits, 2 labels, unknown for 1 (" in capsys.readouterr().out
    (folder / "list.txt").write_text("images/0.png 1 0\nimages/1.png -1 1\n")
    assert run(folder, "--root", str(folder), source="list.txt") == 2
    assert "list.txt:2: expected 0 and 1, or -1 throughout; found -1 among other labels" in capsys.readouterr().err


def test_class_numbers_of_a_list_make_as_many_classes_as_the_largest_needs(folder, capsys):
    (folder / "list.txt").write_text("images/0.png 2\nimages/1.png 0\n")
    assert run(folder, "--root", str(folder), source="list.txt") == 0
    assert codes.load(folder / "x.npz")[1].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert "the largest makes 3 classes (--labels C)" in capsys.readouterr().out
    assert run(folder, "--root", str(folder), "--labels", "2", source="list.txt") == 2
    assert "list.txt:1: expected a class number from 0 to 1, or -1 for unknown; found 2" in capsys.readouterr().err


def test_grey_or_colour_is_that_of_the_data_layer_which_has_to_fit_the_deploy_net(folder, capsys):
    (folder / "train_val.prototxt").write_text(TRAIN_VAL.replace('"scale": 0.02', '"gray": true'))
    assert run(folder) == 0
    assert "gray True, mean_value 40, crop 6x5" in capsys.readouterr().out
    (folder / "train_val.prototxt").write_text(TRAIN_VAL.replace('"scale": 0.02', '"gray": false'))
    assert run(folder) == 2
    said = capsys.readouterr().err
    assert "deploy.prototxt takes 1 channel, the data layer of" in said
    assert "train_val.prototxt gives 3: expected" in said


@pytest.mark.parametrize("name", ["m.binaryproto", "m.npy"])
def test_a_damaged_mean_is_one_sentence(folder, capsys, name):
    mean = np.full((1, 8, 9), 3, np.float32)
    whole = caffe.io.array_to_blobproto(mean[None]).SerializeToString()
    if name == "m.npy":
        np.save(folder / name, mean)
        whole = (folder / name).read_bytes()
    options = ["--mean-file", str(folder / name)]
    (folder / name).write_bytes(whole)
    assert run(folder, *options) == 0
    for damaged in (b"", whole[:-5], b"P5 2 2 255 aaaa", b"\x80\x04."):
        (folder / name).write_bytes(damaged)
        capsys.readouterr()
        assert run(folder, *options) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"extract_codes: {folder / name}: expected a mean image") and "pickle" not in said


def test_what_cannot_be_extracted_is_named_and_the_old_codes_stay(folder, capsys):
    codes.save(folder / "x.npz", np.ones((2, 2)), np.ones((2, 2)))
    before = (folder / "x.npz").read_bytes()
    other = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    other.params["hash_layer"][0].data[...] = np.nan
    other.save(str(folder / "nan.caffemodel"))
    (folder / "renamed.prototxt").write_text((DEPLOY % 1).replace('"hash_layer"', '"codes"'))
    (folder / "list.txt").write_text("images/0.png 1 0\nimages/gone.png 1 0\n")
    convolution = (DEPLOY % 1).replace("dim: 6", "dim: 60").partition('layer { name: "hash_layer"')[0]
    (folder / "large.prototxt").write_text(convolution)
    (folder / "colour.prototxt").write_text(DEPLOY % 3)
    (folder / "empty.prototxt").write_text((DEPLOY % 1).replace("dim: 4", "dim: 0"))
    for options, message in (
        ({"model": "none.prototxt"}, "--model: there is no file"),
        ({"weights": "none.caffemodel"}, "--weights: there is no file"),
        ({"source": "none"}, "none: expected an LMDB folder, a list, a picture or a folder of pictures, found nothing"),
        ({"options": ["--blob", "code"]}, "has no blob code; it has data, conv, hash_layer"),
        ({"model": "renamed.prototxt", "options": ["--blob", "codes"]}, "w.caffemodel has no weights for codes of"),
        ({"weights": "nan.caffemodel"}, "00000000_0': its codes are not finite; did the training diverge?"),
        ({"source": "list.txt", "options": ["--root", str(folder)]}, "list.txt:2: images/gone.png: cannot read"),
        ({"model": "large.prototxt", "options": ["--blob", "conv"]}, "expected at least 60x5 pixels to crop from"),
        ({"model": "empty.prototxt"}, "empty.prototxt: expected an input of a value or more along each axis, found"),
        ({"model": "colour.prototxt"}, "Cannot copy param 0 weights from layer 'conv'"),
    ):
        assert run(folder, *options.pop("options", []), **options) == 2
        assert message in capsys.readouterr().err
    assert (folder / "x.npz").read_bytes() == before


def test_a_size_that_no_picture_can_have_is_refused(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(folder, "--resize", "4294967295", "6")
    assert "argument --resize: expected at most 65535, found 4294967295" in capsys.readouterr().err


def test_killed_in_the_middle_it_leaves_no_codes(folder):
    lines = (folder / "list.txt").read_text()
    (folder / "list.txt").write_text(lines * 4000)
    files = {"model": "deploy.prototxt", "weights": "w.caffemodel", "source": "list.txt", "out": "x.npz"}
    words = [word for option, name in files.items() for word in (f"--{option}", str(folder / name))]
    words += ["--root", str(folder), "--batch-size", "1"]
    child, lines = forked.begin(extract_codes.main, words)
    with lines:
        assert next(line for line in lines if line.startswith("images: "))  # it is about to start
        time.sleep(0.3)
        child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (folder / "x.npz").exists()
