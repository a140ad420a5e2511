"""Codes by the authors' way equal caffe.Classifier's own predictions, however many processes make them."""

from __future__ import annotations

import caffe
import cv2
import extract_codes
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from dhn.codes import classifier as classifier_codes
from dhn.codes import files as codes

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 10 dim: 3 dim: 227 dim: 227 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE kernel_size: 57 stride: 57 } }
layer { name: "hash_layer" type: "InnerProduct" bottom: "pool" top: "hash_layer"
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 0.002 } } }
layer { name: "tanh" type: "TanH" bottom: "hash_layer" top: "hash_layer" }
"""
MEAN = (104.0, 117.0, 123.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST).save(tmp_path / "w.caffemodel")
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(90, 120, 3), (300, 260, 3), (64, 64, 3)]):
        picture = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), shape[1::-1])
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    (tmp_path / "list.txt").write_text("0.png 1 0\n1.png 0 1\n2.png 1 1\n")
    image = np.broadcast_to(np.reshape(MEAN, (3, 1, 1)), (3, 4, 4)).astype(np.float32)
    np.save(tmp_path / "mean.npy", image + np.array([-1, 1, -1, 1], np.float32))
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=4, width=4, data=image.ravel())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    return tmp_path


def run(folder, *options):
    given = {"--model": "deploy.prototxt", "--weights": "w.caffemodel", "--source": "list.txt", "--out": "x.npz"}
    words = [word for name, file in given.items() for word in (name, str(folder / file))]
    return extract_codes.main([*words, "--root", str(folder), *options])


@pytest.mark.parametrize("crops, oversample, workers", [("centre", False, "1"), ("ten", True, "2")])
def test_equal_a_classifiers_predictions(folder, crops, oversample, workers):
    mean = str(folder / "mean.npy")
    assert run(folder, "--classifier", crops, "--mean-file", mean, "--workers", workers) == 0
    found, labels = codes.load(folder / "x.npz")
    classifier = caffe.Classifier(
        str(folder / "deploy.prototxt"),
        str(folder / "w.caffemodel"),
        image_dims=(256, 256),
        mean=np.array(MEAN),
        raw_scale=255,
        channel_swap=(2, 1, 0),
    )
    images = [caffe.io.load_image(str(folder / f"{i}.png")) for i in range(3)]
    np.testing.assert_allclose(found, classifier.predict(images, oversample), atol=1e-5)
    assert labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert np.abs(found).max() > 0.01


def test_channel_mean_of_either_file(folder):
    for name in ("mean.npy", "mean.binaryproto"):
        assert classifier_codes.channel_mean(str(folder / name)) == pytest.approx(MEAN)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--workers", "2"], "--workers is an option of --classifier"),
        (["--classifier", "ten"], "needs --mean-file"),
        (["--classifier", "ten", "--mean-value", "1", "--scale", "2"], "--scale does not go with --classifier"),
    ],
)
def test_options_that_do_not_go_together(folder, capsys, options, words):
    with pytest.raises(SystemExit):
        run(folder, *options)
    assert words in capsys.readouterr().err


def test_a_workers_error_is_one_sentence(folder, capsys):
    (folder / "2.png").write_bytes(b"no image")
    assert run(folder, "--classifier", "centre", "--mean-value", "104", "117", "123", "--workers", "1") == 2
    assert "list.txt:3: 2.png: expected a picture" in capsys.readouterr().err
    assert not (folder / "x.npz").exists()


def test_a_blob_that_a_classifier_does_not_give(folder, capsys):
    words = ["--mean-value", "104", "117", "123", "--workers", "1", "--blob", "pool"]
    assert run(folder, "--classifier", "centre", *words) == 2
    assert "a Classifier gives the net's first output, hash_layer; found --blob pool" in capsys.readouterr().err
