"""Classifier and Detector: what they accept and refuse. Their numbers against BVLC's: test_pycaffe_recorded."""

from __future__ import annotations

import sys
import types

import caffe
import cv2
import numpy as np
import pytest

# The mean of each channel over the input, so that answers can be told by hand.
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param { pool: AVE global_pooling: true } }
"""


@pytest.fixture
def files(tmp_path):
    """(prototxt, caffemodel): a net without parameters, and a file with one layer that it ignores."""
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(NET)
    caffe.Net(str(prototxt), caffe.TEST).save(str(weights))
    return str(prototxt), str(weights)


def steps(height, width):
    """An image whose red is its row, green its column, blue 0.5."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full((height, width), 0.5)], -1).astype(np.float32)


def test_the_centre_crop(files):
    classifier = caffe.Classifier(*files, image_dims=(8, 6))
    assert (list(classifier.crop_dims), classifier.image_dims) == ([4, 4], (8, 6))
    found = classifier.predict([steps(8, 6)], oversample=False)
    np.testing.assert_allclose(found.reshape(1, 3), [[3.5, 2.5, 0.5]], atol=1e-6)


def test_ten_crops_are_averaged_over_any_number_of_images(files):
    classifier = caffe.Classifier(*files, image_dims=np.array([8, 6]), channel_swap=[2, 1, 0], raw_scale=2)
    found = classifier.predict(steps(8, 6) + shift for shift in range(3))
    np.testing.assert_allclose(found, [[1 + 2 * s, 5 + 2 * s, 7 + 2 * s] for s in range(3)], atol=1e-5)


def test_without_image_dims_the_whole_image_is_resized(files):
    classifier = caffe.Classifier(*files, mean=np.array([1.0, 2, 3]), input_scale=0.5)
    constant = np.full((9, 7, 3), 5, np.float32)
    np.testing.assert_allclose(classifier.predict([constant]), [[2, 1.5, 1]], atol=1e-6)


def test_refusals(files):
    with pytest.raises(ValueError, match="at least one image"):
        caffe.Classifier(*files).predict([])
    with pytest.raises(ValueError, match=r"image 1: expected an image \(H, W, 3\) of numbers .* float32 \(8, 6, 1\)"):
        caffe.Classifier(*files).predict([steps(8, 6), steps(8, 6)[..., :1]])
    small = caffe.Classifier(*files, image_dims=(3, 8))
    with pytest.raises(ValueError, match=r"\(4, 4\), found \(3, 8\)"):
        small.predict([steps(8, 8)], oversample=False)
    with pytest.raises(ValueError, match="do not fit"):
        small.predict([steps(8, 8)])
    with pytest.raises(FileNotFoundError):
        caffe.Classifier(files[0], "nowhere.caffemodel")


# -- Detector


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[2:6, 3:7] = (0, 0, 255)  # BGR: red
    cv2.imwrite(str(path), pixels)
    return str(path)


def test_windows_of_any_iterable(files, image):
    detector = caffe.Detector(*files)
    found = detector.detect_windows(zip([image], [[(2, 3, 6, 7), (6, 7, 10, 12)]], strict=True))
    assert [one["window"] for one in found] == [(2, 3, 6, 7), (6, 7, 10, 12)]
    assert {one["filename"] for one in found} == {image}
    np.testing.assert_allclose([one["prediction"].ravel() for one in found], [[1, 0, 0], [0, 0, 0]], atol=1e-6)
    assert detector.detect_windows([(image, [])]) == []


def test_context_beyond_the_image_is_the_mean(files):
    detector = caffe.Detector(*files, mean=np.array([1.0, 2, 3]), raw_scale=10, channel_swap=(2, 1, 0), context_pad=1)
    crop = detector.crop(np.full((10, 10, 3), 9, np.float32), (0, 0, 2, 2))
    assert crop.shape == (4, 4, 3)
    np.testing.assert_allclose(crop[0, 0], [0.3, 0.2, 0.1], atol=1e-6)  # in RGB, before scaling
    np.testing.assert_allclose(crop[2, 2], 9)


def test_detector_refusals(files):
    detector = caffe.Detector(*files)
    with pytest.raises(ValueError, match=r"inside the image of 10 x 10, found \(4, 10, 6, 12\)"):
        detector.crop(np.zeros((10, 10, 3), np.float32), (4, 10, 6, 12))
    with pytest.raises(ValueError, match="less than half of the input's 4 pixels, found 2"):
        detector.configure_crop(2)


def test_selective_search(files, image, monkeypatch):
    detector = caffe.Detector(*files)
    with pytest.raises(ImportError, match=r"selective_search_ijcv_with_python.*MATLAB.*detect_windows"):
        detector.detect_selective_search([image])
    proposer = types.ModuleType("selective_search_ijcv_with_python")
    proposer.get_windows = lambda paths, cmd: [np.array([[2, 3, 6, 7]]) for _ in paths]
    monkeypatch.setitem(sys.modules, proposer.__name__, proposer)
    found = detector.detect_selective_search([image])
    np.testing.assert_allclose(found[0]["prediction"].ravel(), [1, 0, 0], atol=1e-6)
