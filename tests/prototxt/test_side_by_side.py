"""The demo's net in several solvers with a part of the batch each, next to one solver with the whole batch."""

from __future__ import annotations

from pathlib import Path

import caffe
import lmdb
import net
import numpy as np
import pytest
import side_by_side
from caffe.proto import caffe_pb2, text

STEPS = 20


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """200 drawn images with class vectors, of Fashion-MNIST's shapes."""
    folder, numbers = tmp_path_factory.mktemp("images"), np.random.RandomState(0)
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
        for key in range(200):
            label = key % 10
            pixels = (numbers.randint(0, 120, (1, 28, 28)) + 12 * label).astype(np.uint8)
            datum = caffe_pb2.Datum(channels=1, height=28, width=28, data=pixels.tobytes(), label=label)
            datum.float_data.extend(np.eye(10)[label])
            txn.put(b"%04d" % key, datum.SerializeToString())
    return folder


def write_solver(variant: str, count: int, source: Path, folder: Path) -> str:
    """The demo's solver, its batch divided by `count`, without dropout, which draws other numbers in each solver."""
    texts = net.texts("fashion_mnist", variant, 48, str(folder), None, 1, {"batch_size": 64 // count})
    train_val = texts["train_val.prototxt"].replace("dropout_ratio: 0.2", "dropout_ratio: 0")
    assert train_val.count("dropout_ratio: 0\n") == 2 and f'"batch_size": {64 // count},' in train_val
    for name in ("train", "query"):
        train_val = train_val.replace(f"data/fashion_mnist/{name}_lmdb", str(source))
    (folder / "train_val.prototxt").write_text(train_val)
    (folder / "whole.prototxt").write_text(texts["solver.prototxt"])
    solver = text.read_solver(folder / "whole.prototxt")
    solver.net, solver.max_iter = str(folder / "train_val.prototxt"), STEPS
    for field in ("test_iter", "test_interval", "snapshot"):
        solver.ClearField(field)
    (folder / "solver.prototxt").write_text(text.to_text(solver))
    return str(folder / "solver.prototxt")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dhn", "dhn_e", "dhn_q"])
def test_solvers_side_by_side_learn_what_one_learns(variant, source, tmp_path):
    alone = caffe.get_solver(write_solver(variant, 1, source, tmp_path))
    before = [blob.data.copy() for blob in alone.net.learnable_params]
    alone.step(STEPS)
    expected = [blob.data for blob in alone.net.learnable_params]
    assert max(np.abs(new - old).max() for new, old in zip(expected, before, strict=True)) > 1e-3
    for count in (2, 4):
        path, weights = write_solver(variant, count, source, tmp_path), tmp_path / "w"
        ended = side_by_side.run(count, lambda rank, uid: side_by_side.train(path, str(weights), uid))  # noqa: B023
        assert [child.status for child in ended] == [0] * count, "\n".join(child.text for child in ended)
        message = caffe_pb2.NetParameter.FromString(Path(f"{weights}0").read_bytes())
        found = [np.array(blob.data) for layer in message.layer for blob in layer.blobs]
        apart = [np.abs(new - old.ravel()).max() for new, old in zip(found, expected, strict=True)]
        print(f"{variant}, {count} solvers: at most {max(apart):.2g} apart")
        assert max(apart) < 1e-5
