"""A net or solver that is dropped leaves nothing behind: no layer, no tensor, no memory."""

import gc
import weakref
from pathlib import Path

import caffe
import pytest
import torch
from caffe.layer import Layer

MODULE = """
import caffe

class Twice(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff
"""
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: %(batch)d dim: 3 dim: 18 dim: 18 } } }
layer { name: "label" type: "DummyData" top: "label" top: "cont"
  dummy_data_param { shape { dim: %(batch)d } shape { dim: %(batch)d dim: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "lrn" type: "LRN" bottom: "conv" top: "lrn" }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "winograd" type: "Convolution" bottom: "pool" top: "winograd"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "pointwise" type: "Convolution" bottom: "winograd" top: "pointwise"
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "twice" type: "Python" bottom: "pointwise" top: "twice"
  python_param { module: "memory_layers" layer: "Twice" } }
layer { name: "ip" type: "InnerProduct" bottom: "twice" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "series" type: "Reshape" bottom: "ip" top: "series" reshape_param { shape { dim: 0 dim: 1 dim: 5 } } }
layer { name: "lstm" type: "LSTM" bottom: "series" bottom: "cont" top: "lstm"
  recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "scores" type: "Reshape" bottom: "lstm" top: "scores" reshape_param { shape { dim: 0 dim: 4 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes net and solver for a batch size; returns their paths."""
    (tmp_path / "memory_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def write(batch: int) -> tuple[str, str]:
        net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
        net.write_text(NET % {"batch": batch})
        solver.write_text(f'net: "{net}" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 solver_mode: CPU '
                          f'snapshot_prefix: "{tmp_path}/x"')  # fmt: skip
        return str(net), str(solver)

    return write


def use_net(net, _):
    net = caffe.Net(net, caffe.TRAIN)
    net.forward()
    net.backward()


def use_solver(_, solver):
    caffe.SGDSolver(solver).step(2)


@pytest.mark.parametrize("use", [use_net, use_solver])
def test_a_dropped_net_is_freed(files, monkeypatch, use):
    """Its layers and tensors are gone at once: with a convolution that held its layer, 5 layers of each net stayed."""
    alive = weakref.WeakSet()
    create = Layer.__init__
    monkeypatch.setattr(Layer, "__init__", lambda layer, param: (create(layer, param), alive.add(layer))[0])
    paths, tensors = files(2), []
    for _ in range(3):
        use(*paths)
        gc.collect()
        tensors.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert sorted(layer.type for layer in alive) == []
    assert len(set(tensors)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("use", [use_net, use_solver])
def test_300_nets_take_the_memory_of_the_first_ones(files, use):
    """Each holds 3 MB of inputs: the leak was of 800 MB."""
    paths = files(30)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(20):
        use(*paths)
    first = resident()
    for _ in range(300):
        use(*paths)
    assert resident() - first < 60e6
