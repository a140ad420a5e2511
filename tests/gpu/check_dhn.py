"""The section of check.py that trains DHN and scores its codes: multi-label layer, both losses, MAP."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import caffe
import check_nets
import fixtures
import numpy as np
from caffe.proto import caffe_pb2, text

if TYPE_CHECKING:
    from check import Report

SIZE, LABELS, BITS, BATCH = 24, 6, 16, 32
TRAIN, QUERY = 480, 96  # images
ITERATIONS = 200
MAP = 0.95  # at least; of untrained codes it is about 0.6

DATA = """
layer { name: "data" type: "Python" top: "data" top: "label" python_param {
  module: "multilabel_data" layer: "MultiLabelDataLayer"
  param_str: '{"source": "SOURCE", "batch_size": BATCH, "shuffle": SHUFFLE, "mean_value": 60, "scale": 0.02}' } }
"""
CODES = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 16 kernel_size: 5 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" }
layer { name: "fc" type: "InnerProduct" bottom: "norm" top: "fc"
  inner_product_param { num_output: BITS weight_filler { type: "xavier" } } }
layer { name: "hash_layer" type: "TanH" bottom: "fc" top: "hash_layer" }
"""
LOSSES = """
layer { name: "pairwise_loss" type: "Python" bottom: "hash_layer" bottom: "label" top: "pairwise_loss" loss_weight: 1
  python_param { module: "pairwise_loss" layer: "PairwiseLossLayer" } }
layer { name: "quantization_loss" type: "Python" bottom: "hash_layer" top: "quantization_loss" loss_weight: 0.1
  python_param { module: "quantization_loss" layer: "QuantizationLossLayer" } }
"""


def images(count: int, seed: int) -> list[bytes]:
    """Records of noisy pictures with 1 or 2 labels of LABELS: label i is a bright bar in the i-th of 6 places."""
    random = np.random.RandomState(seed)
    records = []
    for _ in range(count):
        picture = random.randint(0, 80, (1, SIZE, SIZE))
        chosen = random.choice(LABELS, random.randint(1, 3), replace=False)
        for label in chosen:
            row, column = divmod(int(label), 3)
            picture[:, 12 * row + 2 : 12 * row + 10, 8 * column + 1 : 8 * column + 7] += 150
        datum = caffe_pb2.Datum(channels=1, height=SIZE, width=SIZE, data=picture.astype(np.uint8).tobytes())
        datum.label = int(chosen[0])
        datum.float_data.extend(float(label in chosen) for label in range(LABELS))
        records.append(datum.SerializeToString())
    return records


def mean_average_precision(query: np.ndarray, database: np.ndarray, query_labels, database_labels) -> float:
    """MAP over the whole database by Hamming distance of the codes' signs, ties by database index.

    dhn.scoring's `standard` protocol, without the tools, which a machine with a card may lack.
    """
    positions = np.arange(1, len(database) + 1)
    signs = [np.where(codes >= 0, 1, -1) for codes in (query, database)]
    relevant = query_labels @ database_labels.T > 0  # (Q, N)
    order = np.argsort(-(signs[0] @ signs[1].T), axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precisions = np.where(hits, hits.cumsum(1) / positions, 0).sum(1) / np.maximum(hits.sum(1), 1)
    return float(precisions[relevant.any(1)].mean())


def codes_of(weights: caffe.Net, source: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(codes (N, BITS), labels (N, LABELS)) of the images of an LMDB."""
    net = caffe.Net(text.parse(net_text(source, "false", ""), caffe_pb2.NetParameter()), caffe.TEST)
    net.share_with(weights)
    found = []
    for _ in range(count // BATCH):
        net.forward()
        found.append([net.blobs[name].data.copy() for name in ("hash_layer", "label")])
    codes, labels = zip(*found, strict=True)
    return np.concatenate(codes), np.concatenate(labels)


def net_text(source: str, shuffle: str, losses: str) -> str:
    """The net over an LMDB, as prototxt."""
    filled = DATA.replace("SOURCE", source).replace("SHUFFLE", shuffle) + CODES + losses
    return filled.replace("BATCH", str(BATCH)).replace("BITS", str(BITS))


def dhn(report: Report) -> None:
    """DHN learns codes whose MAP is far above an untrained net's."""
    with tempfile.TemporaryDirectory() as folder:
        for name, count, seed in (("train", TRAIN, 1), ("query", QUERY, 2)):
            fixtures.write_lmdb(f"{folder}/{name}", images(count, seed))
        solver = check_nets.solver(net_text(f"{folder}/train", "true", LOSSES), base_lr=0.05)
        scores = []
        for steps in (0, ITERATIONS):
            solver.step(steps)
            query = codes_of(solver.net, f"{folder}/query", QUERY)
            database = codes_of(solver.net, f"{folder}/train", TRAIN)
            scores.append(mean_average_precision(query[0], database[0], query[1], database[1]))
        losses = {name: float(solver.net.blobs[name].data.sum()) for name in ("pairwise_loss", "quantization_loss")}
        report.check("losses are finite", bool(np.isfinite(list(losses.values())).all()), **losses)
        report.check("MAP", scores[1] >= MAP, untrained=round(scores[0], 3), trained=round(scores[1], 3))
