"""caffe.coord_map: its messages, and a crop that a net carries out. Its maps against BVLC's: test_pycaffe_recorded."""

from __future__ import annotations

import caffe
import numpy as np
import pytest
from caffe import coord_map
from caffe import layers as L


def data():
    return L.Input(shape={"dim": [1, 1, 12, 10]})


def conv(bottom, **options):
    return L.Convolution(bottom, num_output=1, **options)


def test_a_crop_lies_over_the_picture():
    """A padded average of the picture, cropped back, is the average of each pixel's own surroundings."""
    net = caffe.NetSpec()
    net.data = data()
    net.mean = conv(net.data, kernel_size=3, pad=4, bias_term=False, weight_filler={"type": "constant", "value": 1 / 9})
    net.crop = coord_map.crop(net.mean, net.data)
    made = caffe.Net(net.to_proto(), caffe.TEST)
    picture = np.random.default_rng(0).normal(size=(12, 10))
    made.blobs["data"].data[...] = picture
    found = made.forward()["crop"][0, 0]
    padded = np.pad(picture, 1)
    expected = sum(padded[y : y + 12, x : x + 10] for y in range(3) for x in range(3)) / 9
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tops_of_one_scale_and_place_are_cropped_at_the_first_spatial_axis():
    top = data()
    crop = coord_map.crop(L.ReLU(top), top).fn
    assert crop.params == {"crop_param": {"axis": 2, "offset": [0]}}


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda top: coord_map.crop(conv(top, kernel_size=2, stride=2), top), AssertionError, "scale mismatch on crop"),
        (lambda top: coord_map.crop(conv(top, kernel_size=3), top), AssertionError, "cannot crop negative offset"),
        (lambda top: coord_map.crop(conv(top, kernel_size=4, pad=2), top), AssertionError, "cannot crop noninteger"),
        (lambda top: coord_map.coord_map(conv(top, kernel_size=3, stride_w=2).fn), AssertionError, "found stride_w"),
        (lambda top: coord_map.coord_map(conv(top, kernel_h=3).fn), AssertionError, "found kernel_h"),
        (lambda top: coord_map.coord_map(conv(top).fn), KeyError, "Convolution layer has none"),
        (lambda top: coord_map.coord_map(L.Flatten(top).fn), coord_map.UndefinedMapException, "Flatten layers"),
        (lambda top: coord_map.coord_map_from_to(L.Flatten(top), top), RuntimeError, "connected by spatial layers"),
        (lambda top: coord_map.compose((1, 1, 0), (2, 1, 0)), coord_map.AxisMismatchException, "axis 1 and at axis 2"),
    ],
)
def test_refusals(build, error, words):
    with pytest.raises(error, match=words):
        build(data())
