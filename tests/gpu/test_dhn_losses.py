"""DHN's losses where the codes are on a GPU: one formula, the numbers of numpy's, and nothing that waits."""

from __future__ import annotations

import caffe
import fixtures
import hashing_losses
import numpy as np
import pytest
import torch
from caffe.proto import caffe_pb2, text
from check_dhn import images, net_text
from check_nets import solver
from simulated_cuda import CUDA

B, K, C = 24, 12, 4
ARGUMENTS = {
    "pairwise_cross_entropy": [(n, w) for n in ("mean", "sum", "authors") for w in (1, 0.25, "balanced")],
    "squared_similarity": [(n, w) for n in ("mean", "sum") for w in (1, 0.25, "balanced")],
    "log_cosh_quantization": [(n,) for n in ("mean", "sum", "authors")],
}
CASES = [(name, arguments) for name, each in ARGUMENTS.items() for arguments in each]


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Codes, some of them large or 0, and labels, one row of them unknown."""
    random = np.random.RandomState(0)
    codes, labels = random.standard_normal((B, K)).astype(np.float32), (random.rand(B, C) < 0.3).astype(np.float32)
    codes[0], codes[1, 0], labels[2] = 40, 0, -1
    return codes, labels


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_both_back_ends_agree(simulated_gpu, name, arguments):
    formula, (codes, labels) = getattr(hashing_losses, name), batch()
    labels = () if name == "log_cosh_quantization" else (labels,)
    loss, gradient = formula(codes, *labels, *arguments)
    there = torch.from_numpy(codes).to(CUDA)
    simulated_gpu.clear()
    loss_there, gradient_there = formula(there, *labels, *arguments)
    assert set(simulated_gpu.counts) <= {"to device"}, "the host waits for nothing"
    assert gradient_there.device == CUDA and gradient_there.dtype == torch.float32
    assert isinstance(loss, float) and float(loss_there) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(gradient_there.cpu().numpy(), gradient, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


LOSSES = {
    "pairwise_loss": ("PairwiseLossLayer", 'bottom: "labels"'),
    "squared_similarity_loss": ("SquaredSimilarityLossLayer", 'bottom: "labels"'),
    "quantization_loss": ("QuantizationLossLayer", ""),
}


@pytest.mark.parametrize("module", LOSSES)
def test_the_layers_do_so_in_a_net_on_each_device(device, module):
    cls, labels = LOSSES[module]
    prototxt = f"""
        layer {{ name: "in" type: "Input" top: "x" top: "labels"
                 input_param {{ shape {{ dim: {B} dim: {K} }} shape {{ dim: {B} dim: {C} }} }} }}
        layer {{ name: "codes" type: "Scale" bottom: "x" top: "codes" }}
        layer {{ name: "loss" type: "Python" bottom: "codes" {labels} top: "loss" loss_weight: 2
                 python_param {{ module: "{module}" layer: "{cls}" }} }}"""
    net = caffe.Net(text.parse(prototxt, caffe_pb2.NetParameter()), caffe.TRAIN)
    codes, net.blobs["labels"].data[...] = batch()
    net.blobs["x"].data[...] = codes
    net.forward()
    net.backward()
    name = {"pairwise_loss": "pairwise_cross_entropy", "squared_similarity_loss": "squared_similarity"}
    formula = getattr(hashing_losses, name.get(module, "log_cosh_quantization"))
    loss, gradient = formula(codes, *([batch()[1]] if labels else []), "mean")
    assert net.blobs["loss"].data.item() == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(net.blobs["codes"].diff, 2 * gradient, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


def test_an_iteration_of_dhn_copies_its_batch_and_tables_and_waits_for_nothing(simulated_gpu, tmp_path):
    fixtures.write_lmdb(str(tmp_path / "lmdb"), images(64, seed=1))
    losses = """
        layer { name: "pairwise_loss" type: "Python" bottom: "hash_layer" bottom: "label" top: "pairwise_loss"
          loss_weight: 1 python_param { module: "pairwise_loss" layer: "PairwiseLossLayer" } }
        layer { name: "quantization_loss" type: "Python" bottom: "hash_layer" top: "quantization_loss" loss_weight: 0.1
          python_param { module: "quantization_loss" layer: "QuantizationLossLayer" } }"""
    training = solver(net_text(str(tmp_path / "lmdb"), "true", losses))
    training.step(2)
    simulated_gpu.clear()
    training.step(3)
    assert simulated_gpu.counts == {"to device": 3 * 3, "to device, blocking": 3}, (
        "3 tables of pairs, 1 batch of images"
    )
