"""Layers written in Python by the user."""

from __future__ import annotations

import sys

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2, text

MODULE = """
import caffe
import numpy as np

class Scale(caffe.Layer):
    def setup(self, bottom, top):
        self.params = float(self.param_str)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = self.params
        self.seen = []

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data
        self.seen.append(self.phase)

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data

class Growing(caffe.Layer):
    def setup(self, bottom, top):
        self.count = 0

    def reshape(self, bottom, top):
        self.count += 1
        top[0].reshape(self.count, 2)

    def forward(self, bottom, top):
        top[0].data[...] = self.count

    def backward(self, top, propagate_down, bottom):
        pass

class ReshapesInForward(Growing):
    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.count += 1
        top[0].reshape(self.count, 3)
        top[0].data[...] = 1

class Failing(Growing):
    def forward(self, bottom, top):
        raise KeyError("mine")

class Half(caffe.Layer):
    def setup(self, bottom, top):
        pass

class NoLayer:
    pass
"""
PYTHON = (
    'layer {{ name: "{name}" type: "Python" {io} '
    'python_param {{ module: "user_layers" layer: "{cls}" param_str: "{param}" }} }}\n'
)
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 2 } } }\n'


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "user_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("user_layers", None)


def make(source, phase=caffe.TRAIN):
    return caffe.Net(text.parse(source, caffe_pb2.NetParameter()), phase)


def python(cls, io='bottom: "data" top: "out"', param="", name="out"):
    return PYTHON.format(name=name, io=io, cls=cls, param=param)


def test_a_user_layer_runs_learns_and_is_the_nets_layer():
    net = make("force_backward: true\n" + DATA + python("Scale", param="3"))
    net.blobs["data"].data[...] = [[1, 2], [3, 4]]
    assert net.forward()["out"].tolist() == [[3, 6], [9, 12]]
    net.blobs["out"].diff[...] = 2
    net.backward()
    assert net.blobs["data"].diff.tolist() == [[6, 6], [6, 6]]
    assert net.params["out"][0].diff.tolist() == [20]
    assert net.layers[1].seen == [caffe.TRAIN]
    assert type(net.layers[1]).__name__ == "Scale"
    assert net.layers[1].type == "Python"


def test_a_user_layers_loss_trains_through_the_nets_layers():
    source = (
        DATA
        + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }'
    )
    net = make(source + python("Scale", 'bottom: "ip" top: "out" loss_weight: 0.5', "3"))
    net.blobs["data"].data[...] = 1
    net.forward()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][1].diff, 2 * 0.5 * 3)


def test_reshape_in_reshape_and_in_forward_propagates():
    for cls in ("Growing", "ReshapesInForward"):
        net = make(
            python(cls, 'top: "out"')
            + 'layer { name: "p" type: "Power" bottom: "out" top: "p" power_param { scale: 2 } }'
        )
        first = net.forward()["p"].shape
        assert net.forward()["p"].shape[0] == first[0] + 1
        assert net.blobs["p"].data.shape == net.blobs["out"].data.shape


def test_exceptions_surface_as_themselves():
    net = make(python("Failing", 'top: "out"'))
    with pytest.raises(KeyError, match="mine"):
        net.forward()


def test_what_cannot_be_a_layer_is_named():
    with pytest.raises(NotImplementedError, match=r"user_layers.Half defines no reshape\(self, bottom, top\)"):
        make(DATA + python("Half"))
    with pytest.raises(TypeError, match=r"user_layers.NoLayer must derive from caffe.Layer"):
        make(DATA + python("NoLayer"))
    with pytest.raises(AttributeError, match="has no class 'Missing'"):
        make(DATA + python("Missing"))
    with pytest.raises(ImportError) as error:
        make(DATA + python("X").replace("user_layers", "nowhere_to_be_found"))
    assert "PYTHONPATH" in str(error.value) and "Looked in" in str(error.value)


def test_a_module_that_fails_shows_its_traceback(tmp_path):
    (tmp_path / "user_layers.py").write_text("import caffe\n1 / 0\n")
    sys.modules.pop("user_layers", None)
    with pytest.raises(ImportError, match="ZeroDivisionError"):
        make(DATA + python("Scale"))
