"""What crosses between host and device in training, counted on a CPU that keeps the two memories apart."""

from __future__ import annotations

import threading
from collections import Counter

import caffe
import fixtures
import numpy as np
import pytest
import torch
from caffe import blob
from caffe.proto import caffe_pb2, text
from torch.utils._python_dispatch import TorchDispatchMode

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 mean_value: 60 mirror: true }
  data_param { source: "lmdb" batch_size: 8 backend: LMDB } }
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

# Operations whose result is host memory, or of a size that the values decide: they wait for the device.
READS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "unique_dim",
    "_unique2",
    "bincount",
    "repeat_interleave",
}
# What numpy and Python get from a tensor without an operation of torch.
READERS = ("numpy", "tolist", "cpu", "__array__")


class Transfers(TorchDispatchMode):
    """Counts, in the thread that trains: "to host" (a blob's or another tensor's values), "to device" (a batch, or a
    host array that was written to)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        self.found: Counter[str] = Counter()
        self.thread = threading.get_ident()
        self.inside = False  # of a counted transfer
        for name in ("to_host", "to_device", "written"):
            monkeypatch.setattr(blob.Memory, name, self._memory(getattr(blob.Memory, name), name))
        for name in READERS:
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name), "to host"))
        monkeypatch.setattr(torch.Tensor, "to", self._to(torch.Tensor.to))

    def _count(self, what: str) -> None:
        if threading.get_ident() == self.thread and not self.inside:
            self.found[what] += 1

    def _counted(self, function, what: str):
        def call(*args, **kwargs):
            self._count(what)
            return function(*args, **kwargs)

        return call

    def _to(self, function):
        def call(tensor, *args, **kwargs):
            if args and isinstance(args[0], torch.device):
                self._count("to device")
            return function(tensor, *args, **kwargs)

        return call

    def _memory(self, function, name: str):
        def call(memory):
            copies = {
                "to_host": memory.head == "device" or memory.host is None,
                "to_device": memory.head == "host" or (memory.head == "synced" and memory.exposed),
                "written": memory.exposed,
            }[name]
            if copies:
                self._count("to device" if name == "to_device" else "to host")
            self.inside, kept = True, self.inside
            try:
                return function(memory)
            finally:
                self.inside = kept

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        masked = name.startswith("index") and any(
            mask is not None and mask.dtype in (torch.bool, torch.uint8)
            for mask in (args[1] if name == "index" else ())
        )
        if name in READS or masked:
            self._count("to host")
        if name == "lift_fresh" and args[0].ndim:  # torch.tensor(values)
            self._count("to device")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def train(tmp_path, monkeypatch):
    """train(net, steps, solver's fields): what crossed in those steps, after a first one, which allocates."""
    pictures = fixtures.pictures(20, (1, 12, 12), 3)
    fixtures.write_lmdb(str(tmp_path / "lmdb"), [fixtures.datum(one, i % 3) for i, one in enumerate(pictures)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blob, "shares_host_memory", lambda where: False)

    def run(net: str, steps: int, extra: str = "") -> Counter:
        param = text.parse(
            f'base_lr: 0.01 lr_policy: "inv" gamma: 0.1 power: 0.5 momentum: 0.9 weight_decay: 0.001 {extra}',
            caffe_pb2.SolverParameter(),
        )
        text.parse(DATA + net, param.net_param)
        solver = caffe.get_solver(param)
        solver.step(1)
        with Transfers(monkeypatch) as transfers:
            solver.step(steps)
        return transfers.found

    return run


BATCH = 2  # its data and its labels


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("extra", ["", "average_loss: 4", 'type: "Adam" momentum2: 0.99', "display: 100"])
def test_an_iteration_reads_nothing_from_the_device(train, net, extra):
    assert train(NETS[net], 5, extra) == {"to device": 5 * BATCH}


def test_a_display_reads_the_losses_at_once_and_the_outputs(train):
    found = train(NETS["lenet"], 6, "display: 3 average_loss: 4")  # iterations 1 to 6: displays at 3 and 6
    assert found == {"to device": 6 * BATCH, "to host": 2 * 2}


def test_clipping_reads_the_norm(train):
    assert train(NETS["lenet"], 5, "clip_gradients: 0.001") == {"to device": 5 * BATCH, "to host": 5}


def test_the_counting_sees_what_it_should(monkeypatch):
    monkeypatch.setattr(blob, "shares_host_memory", lambda where: False)
    made, tensor = blob.Blob((3,)), torch.ones(3)
    with Transfers(monkeypatch) as transfers:
        for read in (
            lambda: tensor.sum().item(), lambda: float(tensor.sum()), lambda: bool((tensor > 0).any()), tensor.nonzero,
            tensor.tolist, tensor.numpy, tensor.cpu, lambda: tensor[tensor > 0], lambda: np.asarray(tensor),
        ):  # fmt: skip
            before = transfers.found["to host"]
            read()
            assert transfers.found["to host"] > before
        transfers.found.clear()
        made.set_data(tensor)
        assert not transfers.found
        held = made.data
        assert transfers.found == {"to host": 1}
        held[0] = 5
        assert made.data_tensor[0] == 5
        assert transfers.found["to device"] == 1
        tensor.to(torch.device("cpu"))
        torch.tensor([1.0])
        assert transfers.found["to device"] == 3
