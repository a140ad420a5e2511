"""Several solvers that train side by side on DHN's layers, next to one solver that has all their images."""

from __future__ import annotations

import json
import types
from pathlib import Path

import caffe
import lmdb
import numpy as np
import pytest
import side_by_side
import whole_batch
from caffe.proto import caffe_pb2
from multilabel_data import Batches

NET = """
layer {{ name: "data" type: "Python" top: "x" top: "labels" python_param {{ module: "multilabel_data"
        layer: "MultiLabelDataLayer" param_str: '{data}' }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "codes" inner_product_param {{ num_output: 6
        weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "codes" top: "codes" }}
layer {{ name: "pairs" type: "Python" bottom: "codes" bottom: "labels" top: "pairs" loss_weight: 1
        python_param {{ module: "{module}" layer: "{layer}" param_str: '{param}' }} }}
layer {{ name: "quantization" type: "Python" bottom: "codes" top: "quantization" loss_weight: {weight}
        python_param {{ module: "quantization_loss" layer: "QuantizationLossLayer" param_str: '{normalization}' }} }}
"""
LAYERS = {"pairwise_loss": "PairwiseLossLayer", "squared_similarity_loss": "SquaredSimilarityLossLayer"}


@pytest.fixture
def source(tmp_path):
    """An LMDB of 21 images with label vectors, some unknown: 8 do not divide them, so batches cross epochs."""
    numbers = np.random.RandomState(0)
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as env, env.begin(write=True) as txn:
        for key in range(21):
            pixels = numbers.randint(0, 256, (1, 5, 6)).astype(np.uint8)
            datum = caffe_pb2.Datum(channels=1, height=5, width=6, data=pixels.tobytes())
            datum.float_data.extend([-1] * 3 if key % 5 == 0 else numbers.randint(0, 2, 3).tolist())
            txn.put(b"%03d" % key, datum.SerializeToString())
    return tmp_path / "db"


def write_solver(folder: Path, batch: int, module: str, weight: float = 1, **param: object) -> str:
    data = {"source": str(folder / "db"), "batch_size": batch, "mirror": True, "crop": 4, "scale": 0.01}
    normalization = {"normalization": param.get("normalization", "mean")}
    net, path = folder / f"net{batch}.prototxt", folder / f"solver{batch}.prototxt"
    net.write_text(
        NET.format(
            data=json.dumps(data), module=module, layer=LAYERS[module], param=json.dumps(param), weight=weight,
            normalization=json.dumps(normalization),
        )
    )  # fmt: skip
    path.write_text(
        f'net: "{net}" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" random_seed: 5 max_iter: 6 '
        f'snapshot_prefix: "{folder}/s"'
    )
    return str(path)


def weights_of(count: int, path: str, folder: Path) -> np.ndarray:
    """The inner product's weights after training in `count` solvers, each of which has the same."""
    ended = side_by_side.run(count, lambda rank, uid: side_by_side.train(path, f"{folder}/w", uid))
    assert [child.status for child in ended] == [0] * count, "\n".join(child.text for child in ended)
    found = []
    for rank in range(count):
        message = caffe_pb2.NetParameter.FromString((folder / f"w{rank}").read_bytes())
        found.append(np.array(next(layer for layer in message.layer if layer.name == "ip").blobs[0].data))
    assert all(np.array_equal(found[0], each) for each in found)
    return found[0]


@pytest.mark.parametrize(
    "count, module, weight, param",
    [
        (2, "pairwise_loss", 1, {}),
        (4, "pairwise_loss", 0.5, {"similar_weight": "balanced"}),
        (2, "pairwise_loss", 1e-2, {"normalization": "sum"}),
        (2, "pairwise_loss", 1, {"normalization": "authors"}),
        (2, "squared_similarity_loss", 0, {}),
        (2, "squared_similarity_loss", 0.1, {"normalization": "sum", "similar_weight": 3}),
    ],
)
def test_solvers_side_by_side_have_the_objective_of_the_whole_batch(count, module, weight, param, source, tmp_path):
    alone = caffe.get_solver(write_solver(tmp_path, 8, module, weight, **param))
    before = alone.net.params["ip"][0].data.copy()
    alone.step(6)
    expected = alone.net.params["ip"][0].data.ravel()
    found = weights_of(count, write_solver(tmp_path, 8 // count, module, weight, **param), tmp_path)
    assert np.abs(expected - before.ravel()).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_own_pairs_are_another_objective(source, tmp_path):
    """BVLC's averaging: each solver's loss is that of its own pairs."""
    alone = caffe.get_solver(write_solver(tmp_path, 8, "pairwise_loss"))
    alone.step(6)
    found = weights_of(2, write_solver(tmp_path, 4, "pairwise_loss", pairs="own"), tmp_path)
    assert np.abs(found - alone.net.params["ip"][0].data.ravel()).max() > 1e-3


@pytest.mark.parametrize("module", LAYERS)
def test_a_solver_alone_has_its_own_pairs(module, source, tmp_path):
    gradients = []
    for pairs in ("all", "own"):
        solver = caffe.get_solver(write_solver(tmp_path, 8, module, pairs=pairs))
        solver.net.forward()
        solver.net.backward()
        gradients.append(solver.net.params["ip"][0].diff.copy())
    assert np.array_equal(*gradients) and gradients[0].any()
    with pytest.raises(ValueError, match=r"pairs.*all.*own"):
        caffe.get_solver(write_solver(tmp_path, 8, module, pairs="both"))


def test_on_bvlc_caffe_a_batch_is_the_solvers_own(monkeypatch):
    """There is no caffe.all_gather there, whatever set_solver_count said."""
    stock = types.SimpleNamespace(TRAIN=caffe.TRAIN, TEST=caffe.TEST, solver_count=lambda: 2)
    monkeypatch.setattr(whole_batch, "caffe", stock)
    codes, labels = np.zeros((3, 4), np.float32), np.zeros((3, 2), np.float32)
    batch = whole_batch.gather(codes, labels, "all", caffe.TRAIN)
    assert batch.codes is codes and batch.labels is labels and batch.own == slice(0, 3) and batch.solvers == 1
    assert whole_batch.solvers(caffe.TRAIN) == 1


class Numbers:
    """A source of 7 images, each of its own number."""

    labels, resize = 1, None

    def __len__(self):
        return 7

    def name(self, index):
        return str(index)

    def read(self, index):
        return np.full((1, 2, 2), index, np.uint8), np.zeros(1, np.float32)


@pytest.mark.parametrize("count", [2, 3])
def test_the_solvers_shares_are_the_batches_of_one(count):
    whole = Batches(Numbers(), 6, train=True).plans()
    shares = [
        Batches(Numbers(), 6 // count, train=True, solvers=(count, rank)).plans([[6, 1]]) for rank in range(count)
    ]
    next(whole)
    for _ in range(4):
        expected, found = next(whole), [next(share) for share in shares]
        assert [found[place % count][place // count] for place in range(6)] == expected
