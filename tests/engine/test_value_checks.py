"""Checks of values: at once on a CPU, and where something is read anyway, host and device memory kept apart."""

from __future__ import annotations

import caffe
import pytest
import torch
from caffe import layer, synced_memory, value_checks
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 } } }
layer { name: "even" type: "Even" bottom: "x" top: "y" loss_weight: 1 }
"""


class Even(layer.Layer):
    """The sum of its values, which must be even."""

    def reshape(self, bottom, top):
        top[0].reshape()

    def compute(self, x):
        value_checks.check(self, x % 2 != 0, x, lambda place, value: f"value {place} is odd: found {value:g}")
        return x.sum()


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setitem(layer._registry, "Even", Even)
    return lambda: caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST)


@pytest.fixture
def apart(monkeypatch):
    monkeypatch.setattr(synced_memory, "shares_host_memory", lambda where: False)


def given(made: caffe.Net, *values: float) -> caffe.Net:
    made.blobs["x"].set_data(torch.tensor(values))
    return made


ODD = r"layer 'even' \(Even\): value 2 is odd: found 5"


def test_at_once_on_a_cpu(net):
    made = given(net(), 0, 2, 5, 7)
    with pytest.raises(ValueError, match=ODD):
        made._forward_loss(0, 1)
    assert given(made, 0, 2, 4, 6)._forward(0, 1) == 12


def test_when_the_loss_or_the_outputs_are_read(net, apart):
    made = given(net(), 0, 2, 5, 7)
    made._forward_loss(0, 1)
    given(made, 1, 2, 4, 6)._forward_loss(0, 1)
    given(made, 2, 2, 2, 2)._forward_loss(0, 1)
    with pytest.raises(ValueError, match=ODD):  # the first of all
        made._forward(0, 1)
    assert made._forward(0, 1) == 8, "what was raised is forgotten"
    given(made, 0, 2, 5, 7)
    with pytest.raises(ValueError, match=ODD):
        made.forward()


def test_each_net_raises_its_own(net, apart):
    wrong, right = given(net(), 0, 2, 5, 7), given(net(), 0, 2, 4, 6)
    wrong._forward_loss(0, 1)
    assert right._forward(0, 1) == 12
    with pytest.raises(ValueError, match=ODD):
        wrong._forward(0, 1)


@pytest.mark.parametrize("fields, reached", [("", 4), ("display: 2", 2), ("snapshot: 3", 3)])
def test_a_solver_raises_at_a_display_a_snapshot_or_the_end(net, apart, tmp_path, fields, reached):
    prefix = f'snapshot_prefix: "{tmp_path}/s" snapshot_after_train: false max_iter: 4'
    param = text.parse(f'base_lr: 0.1 lr_policy: "fixed" {fields} {prefix}', caffe_pb2.SolverParameter())
    text.parse(NET, param.net_param)
    solver = caffe.get_solver(param)
    given(solver.net, 0, 2, 4, 6)
    solver.step(1)
    given(solver.net, 0, 2, 5, 7)
    with pytest.raises(ValueError, match=ODD):
        solver.solve()
    assert solver.iter == reached
