"""Layers written in Python by the user."""

from __future__ import annotations

import sys

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2, text

MODULE = '''
import abc
import caffe
import numpy as np
from caffe.layer import Layer
from caffe.proto import caffe_pb2

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

class OwnInit(Scale):
    def __init__(self, *arguments):
        self.made = True  # BVLC Caffe wants the base's called; here it need not be

class Watched(Scale):
    def __init__(self, param):
        super().__init__(param)
        self.names = []

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        self.names.append(name)

class Slotted(Scale):
    __slots__ = ("params", "seen")

class Mixed(Scale, abc.ABC):
    def __len__(self):
        return 0  # false, and equal to all: no reason to leave the layer out

    def __eq__(self, other):
        return True

class Attributes(Scale):
    """All names that the engine's own layers have, for other things."""
    NAMES = [name for name in (*dir(Layer), *vars(Layer(caffe_pb2.LayerParameter())), "net", "_object", "param_str_")
             if not name.startswith("__")
             and name not in ("setup", "reshape", "forward", "backward", "blobs", "type", "phase", "param_str")]

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self.params_before = self.params
        for name in self.NAMES:
            setattr(self, name, "mine: " + name)
        self.params = self.params_before

class ClassFacts(Scale):
    bottom_count = top_count = (5, 5)
    is_loss = auto_tops = same_count = True
    no_gradient = no_force_backward = (0,)
    layer_param = propagate_down = param_propagate_down = _record = None
    state = public = precision = 7

    def check(self, bottom):
        raise AssertionError("the engine called a method of the user's")

    check_counts = compute = new_output = run = _run = forget_forward = _buffers = _tops = params_of = check
    snapshot_state = restore_state = check

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self.precision = 8
'''
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


@pytest.mark.parametrize("cls", ["Scale", "OwnInit", "Watched", "Slotted", "Mixed", "Attributes", "ClassFacts"])
def test_every_name_but_caffes_is_the_users(cls, tmp_path):
    """The layer trains, is written and read back, whatever its class and its attributes are called."""
    ip = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }'
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "data" top: "loss" }'
    net = text.parse(DATA + ip + python(cls, 'bottom: "ip" top: "out"', "3") + loss, caffe_pb2.NetParameter())
    param = text.parse(
        f'base_lr: 0.1 lr_policy: "fixed" solver_mode: CPU snapshot_prefix: "{tmp_path}/s" debug_info: true',
        caffe_pb2.SolverParameter(),
    )
    param.net_param.CopyFrom(net)
    solver = caffe.SGDSolver(param)
    solver.net.blobs["data"].data[...] = 1
    solver.step(2)
    layer = solver.net.layers[3]  # after data, its split and ip
    assert type(layer).__name__ == cls and isinstance(layer, caffe.Layer)
    assert solver.net.layer_dict["out"] is layer
    assert (layer.param_str, layer.param_str_, layer.phase, layer.type) == (
        "3", "mine: param_str_" if cls == "Attributes" else "3", caffe.TRAIN, "Python",
    )  # fmt: skip
    assert layer.blobs is solver.net.params["out"]
    assert layer.blobs[0].data[0] != 3 and solver.net.params["ip"][1].data.any()
    solver.snapshot()
    trained = layer.blobs[0].data.copy()
    solver.step(1)
    solver.restore(f"{tmp_path}/s_iter_2.solverstate")
    assert layer.blobs[0].data == trained
    solver.net.save_hdf5(tmp_path / "s.h5")
    again = caffe.Net(net, caffe.TEST, weights=tmp_path / "s.h5")
    assert again.params["out"][0].data == trained
    other = caffe.Net(net, caffe.TEST)
    other.share_with(again)
    again.params["out"][0].data[...] = 5
    assert other.params["out"][0].data == 5
    if cls == "Attributes":
        assert len(layer.NAMES) > 30
        for name in set(layer.NAMES) - {"params"}:
            assert getattr(layer, name) == f"mine: {name}"
    elif cls == "Watched":
        assert layer.names[:3] == ["names", "param_str", "phase"]
    elif cls == "ClassFacts":
        assert layer.precision == 8 and layer.propagate_down is None and layer.state == 7


def test_parameters_of_the_net_reach_the_layer():
    param = text.parse(DATA + python("OwnInit", param="3"), caffe_pb2.NetParameter())
    param.layer[1].blobs.add(data=[4], shape={"dim": [1]})
    param.layer[1].python_param.layer = "Kept"
    sys.modules.pop("user_layers", None)
    import user_layers

    class Kept(user_layers.OwnInit):
        def setup(self, bottom, top):
            self.count = len(self.blobs)

    user_layers.Kept = Kept
    net = caffe.Net(param, caffe.TEST)
    assert net.layers[1].count == 1 and net.params["out"][0].data.tolist() == [4]


def test_blobs_and_type_are_read_only():
    layer = make(DATA + python("Scale", param="3")).layers[1]
    for name in ("blobs", "type"):
        with pytest.raises(AttributeError):
            setattr(layer, name, [])


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
