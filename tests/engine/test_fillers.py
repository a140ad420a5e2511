"""Fillers that wait for a net's weights."""

from __future__ import annotations

import caffe
import numpy as np
import pytest
from caffe import device, fillers
from caffe.proto import caffe_pb2, text

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'


def net(*names: str, filler: str = "gaussian") -> caffe.Net:
    layers = [
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" inner_product_param {{ num_output: 4 '
        f'weight_filler {{ type: "{filler}" }} bias_filler {{ type: "constant" value: 7 }} }} }}'
        for name in names
    ]
    return caffe.Net(text.parse("\n".join([INPUT, *layers]), caffe_pb2.NetParameter()), caffe.TEST)


def test_what_is_written_is_not_filled(tmp_path):
    source = net("a", "b")
    source.params["a"][1].data[...] = 0
    source.save(tmp_path / "ab.caffemodel")
    before = device.generator().get_state()
    with fillers.only_unwritten():
        made = net("a", "b")
        made.copy_from(tmp_path / "ab.caffemodel")
    assert device.generator().get_state().equal(before)  # nothing was drawn
    for name, blobs in source.params.items():
        for expected, blob in zip(blobs, made.params[name], strict=True):
            np.testing.assert_array_equal(blob.data, expected.data)


def test_what_is_not_written_is_filled(tmp_path):
    net("a").save(tmp_path / "a.caffemodel")
    with fillers.only_unwritten():
        made = net("a", "b")
        made.copy_from(tmp_path / "a.caffemodel")
    weight, bias = (blob.data for blob in made.params["b"])
    assert weight.all() and (bias == 7).all()
    with fillers.only_unwritten(), pytest.raises(ValueError, match="Unknown filler name: no"):
        net("a", filler="no")
    assert net("a").params["a"][0].data.all()  # at once again
