"""What crosses between host and device in training, counted on the simulated device."""

from __future__ import annotations

from collections import Counter

import caffe
import fixtures
import pytest
from caffe.proto import caffe_pb2, text

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 mean_value: 60 mirror: true }
  data_param { source: "lmdb" batch_size: 8 backend: LMDB } }
"""
DUMMY = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 1 dim: 12 dim: 12 } shape { dim: 8 } data_filler { value: 0.3 } data_filler { value: 1 } } }
"""
LENET = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "scores" type: "InnerProduct" bottom: "ip1" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
ALEXNET = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 5 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "fc6" type: "InnerProduct" bottom: "conv2" top: "fc6"
  inner_product_param { num_output: 12 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6" dropout_param { dropout_ratio: 0.5 } }
layer { name: "scores" type: "InnerProduct" bottom: "fc6" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
"""
LOSS = """
layer { name: "code" type: "InnerProduct" bottom: "scores" top: "code" inner_product_param { num_output: 1
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "code" bottom: "label" top: "loss" }
"""
SOFTMAX = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "accuracy" }
"""
NETS = {"lenet": LENET + LOSS, "alexnet": ALEXNET + LOSS, "classifier": ALEXNET + SOFTMAX}


@pytest.fixture
def train(tmp_path, monkeypatch, simulated_gpu):
    """train(net, steps, solver's fields): what crossed in those steps, after two, which allocate."""
    pictures = fixtures.pictures(20, (1, 12, 12), 3)
    fixtures.write_lmdb(str(tmp_path / "lmdb"), [fixtures.datum(one, i % 3) for i, one in enumerate(pictures)])
    monkeypatch.chdir(tmp_path)

    def run(net: str, steps: int, extra: str = "") -> Counter:
        param = text.parse(
            f'base_lr: 0.01 lr_policy: "inv" gamma: 0.1 power: 0.5 momentum: 0.9 weight_decay: 0.001 {extra}',
            caffe_pb2.SolverParameter(),
        )
        text.parse(net, param.net_param)
        solver = caffe.get_solver(param)
        solver.step(2)
        simulated_gpu.clear()
        solver.step(steps)
        return +simulated_gpu.counts

    return run


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("extra", ["", "average_loss: 4", 'type: "Adam" momentum2: 0.99', "display: 100"])
def test_an_iteration_copies_and_waits_for_nothing_but_its_batch(train, simulated_gpu, net, extra):
    assert train(DATA + NETS[net], 5, extra) == {"waits": 5}
    assert set(simulated_gpu.ahead) <= {"to device"}, "batches come from pinned memory, in the prefetching thread"


def test_without_a_data_layer_an_iteration_copies_nothing(train):
    assert train(DUMMY + NETS["classifier"], 5) == {}


def test_a_display_reads_the_losses_at_once_and_the_outputs(train):
    found = train(DATA + NETS["lenet"], 6, "display: 3 average_loss: 4")  # iterations 2 to 7: displays at 3 and 6
    assert found == {"waits": 6, "sync": 2, "to host, blocking": 2}


def test_clipping_reads_the_norm(train):
    assert train(DATA + NETS["lenet"], 5, "clip_gradients: 0.001") == {"waits": 5, "sync": 5}
