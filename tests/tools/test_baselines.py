"""Baselines: features of an LMDB's images or of a net's blob, codes made once, scored as DHN is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import baselines as baselines_command
import caffe
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from dhn.codes import files as codes
from dhn.datasets import splits
from dhn.experiments import baselines
from dhn.experiments.classic_hashing import METHODS, BitsError
from dhn.experiments.measure import measure
from dhn.files import sha256, write_json
from dhn.runs.folder import Run, RunError

COUNTS = {"train": 60, "query": 12, "database": 80}
NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 10 dim: 1 dim: 6 dim: 6 } } }
layer { name: "fc1" type: "InnerProduct" bottom: "data" top: "fc1"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "relu1" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "hash_layer" type: "InnerProduct" bottom: "fc1" top: "hash_layer" inner_product_param { num_output: 4 } }
"""


def image(row: int, size: int) -> np.ndarray:
    """A noisy image of class row % 4: the brightest quarter tells the class."""
    pixels = np.random.RandomState(row).randint(0, 120, (size, size))
    half = size // 2
    vertical, horizontal = divmod(row % 4, 2)
    pixels[vertical * half : (vertical + 1) * half, horizontal * half : (horizontal + 1) * half] += 100
    return pixels.astype(np.uint8)


def build(data: Path, size: int = 6) -> None:
    """The lists, split.json and LMDBs of a data set of grey images of 4 classes."""
    first, digests = 0, {}
    for side, count in COUNTS.items():
        rows = range(first, first + count)
        first += count
        listed = data / f"{side}.txt"
        data.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{row} {row % 4}\n" for row in rows))
        digests[listed.name] = sha256(listed)
        out = data / f"{side}_lmdb"
        out.mkdir()
        with lmdb.open(str(out), map_size=1 << 24) as target, target.begin(write=True) as transaction:
            for place, row in enumerate(rows):
                datum = caffe_pb2.Datum(channels=1, height=size, width=size, data=image(row, size).tobytes())
                datum.float_data.extend(np.eye(4)[row % 4])
                transaction.put(f"{place:08d}_{row}".encode(), datum.SerializeToString())
        write_json(out / "source.json", {"recipe": {"inputs": {"list": digests[listed.name]}}, "records": count})
    write_json(data / "split.json", {"seed": 0, "R": "all", "sha256": digests})


@pytest.fixture
def root(tmp_path) -> Path:
    build(tmp_path / "data" / "shapes")
    return tmp_path


def test_pixels_are_those_of_the_lmdb_in_its_order(root, tmp_path):
    found, labels = baselines.pixels(root / "data/shapes/query_lmdb")
    rows = range(COUNTS["train"], COUNTS["train"] + COUNTS["query"])
    assert np.array_equal(found, [image(row, 6).ravel() for row in rows])
    assert np.array_equal(labels, np.eye(4)[[row % 4 for row in rows]])
    build(tmp_path / "large", size=50)
    found, _ = baselines.pixels(tmp_path / "large/query_lmdb")
    assert found.shape == (12, 3 * 32 * 32)


def test_every_method_is_scored_as_the_runs_are(root):
    features, about = baselines.load_features("shapes", root=root)
    rows = baselines.baselines("shapes", features, about, bits=[4, 8], root=root)
    assert [(row["method"], row["bits"]) for row in rows][:3] == [("LSH", 4), ("LSH", 8), ("SH", 4)]
    assert len(rows) == 2 * len(METHODS)
    for row in rows:
        assert (row["R"], row["queries"], row["database"], row["features"]) == (80, 12, 80, "pixels")
        assert row["map_low"] <= row["map"] <= row["map_high"]
    best = {row["method"]: row["map"] for row in rows if row["bits"] == 8}
    assert best["ITQ-CCA"] > 0.9 and best["LSH"] > 0.3  # the classes are a quarter of the images each
    folder = root / "runs/shapes-itq_cca_pixels-8"
    assert measure(folder, False, None)["map"] == best["ITQ-CCA"]
    train, labels = baselines.pixels(root / "data/shapes/train_lmdb")
    database, _ = baselines.pixels(root / "data/shapes/database_lmdb")
    assert np.array_equal(codes.load(folder / "database.npz")[0], METHODS["itq_cca"](train, labels, 8, 1)(database))
    facts = json.loads((folder / "metrics.json").read_text())
    assert facts["dataset"] == "shapes" and "hash-caffe" in facts["protocols"] and "dhn-caffe" not in facts["protocols"]


def test_codes_are_made_once_unless_what_they_depend_on_changes(root, monkeypatch):
    features, about = baselines.load_features("shapes", root=root)
    run = baselines.ensure_codes("shapes", "lsh", 4, 1, features, about, root)
    before = (run.folder / "metrics.json").read_bytes()
    monkeypatch.setitem(METHODS, "lsh", lambda *_: pytest.fail("hashed again"))
    baselines.ensure_codes("shapes", "lsh", 4, 1, features, about, root)
    assert (run.folder / "metrics.json").read_bytes() == before
    with pytest.raises(BaseException, match="hashed again"):
        baselines.ensure_codes("shapes", "lsh", 4, 1, features, {**about, "images": "others"}, root)
    with pytest.raises(BaseException, match="hashed again"):
        baselines.ensure_codes("shapes", "lsh", 4, 2, features, about, root)  # another seed, in its own folder


def test_a_length_that_a_method_cannot_give_leaves_the_others(root, capsys):
    features, about = baselines.load_features("shapes", root=root)
    rows = baselines.baselines("shapes", features, about, ["itq"], [4, 40], root=root)
    assert rows[0]["map"] > 0 and rows[1]["map"] is None
    assert "ITQ, 40 bits: ITQ gives at most as many bits as features have dimensions, 36" in capsys.readouterr().out
    assert not (root / "runs/shapes-itq_pixels-40").exists()


def test_features_of_a_blob_without_the_layers_behind_it(root):
    model, weights = root / "deploy.prototxt", root / "w.caffemodel"
    model.write_text(NET)
    part = root / "part.prototxt"
    baselines.cut(model, "fc1", part)
    net = caffe.Net(str(part), caffe.TEST)
    net.save(str(weights))  # knows nothing of hash_layer
    features, about = baselines.load_features("shapes", "fc1", model, weights, root)
    found, labels = features("query")
    raw, expected = baselines.pixels(root / "data/shapes/query_lmdb")
    net.blobs["data"].reshape(12, 1, 6, 6)
    net.blobs["data"].data[...] = raw.reshape(12, 1, 6, 6)
    net.forward()
    assert np.array_equal(found, net.blobs["fc1"].data) and np.array_equal(labels, expected)
    assert (found >= 0).all()  # behind the ReLU in place
    assert about["features"] == "fc1" and about["net"]
    with pytest.raises(ValueError, match=r"has no blob fc9; it has data, fc1, hash_layer"):
        baselines.cut(model, "fc9", part)


def test_another_net_than_the_default(root, monkeypatch):
    """With weights, the net's committed files; without, the net's run."""
    committed = root / "prototxt/shapes/caffenet"
    committed.mkdir(parents=True)
    (committed / "deploy.prototxt").write_text(NET)
    part, weights = root / "other.prototxt", root / "other.caffemodel"
    baselines.cut(committed / "deploy.prototxt", "fc1", part)
    caffe.Net(str(part), caffe.TEST).save(str(weights))
    monkeypatch.setattr(
        baselines.nets, "default_folder", lambda dataset, net: f"{baselines.nets.ROOT}/prototxt/{dataset}/{net}"
    )
    features, _ = baselines.load_features("shapes", "fc1", weights=weights, root=root, net="caffenet")
    assert len(features("query")[0]) == 12
    with pytest.raises(RunError, match="runs/shapes-dhn-48-caffenet"):
        baselines.load_features("shapes", "fc1", root=root, net="caffenet")


def test_what_is_missing_is_named(root, capsys):
    with pytest.raises(RunError, match=r"features of fc5 need a net: .*dhn-48 holds"):
        folder = Run("shapes", "dhn", 48, root).folder
        folder.mkdir(parents=True)
        (folder / "solver.prototxt").write_text('max_iter: 5 snapshot_prefix: "none"')
        baselines.load_features("shapes", "fc5", root=root)
    with pytest.raises(ValueError, match=r"there is no file .*nowhere"):
        baselines.load_features("shapes", "fc5", root / "nowhere", root / "nowhere", root)
    (root / "data/shapes/database.txt").write_text("60 0\n")
    with pytest.raises(splits.SplitError):
        baselines.load_features("shapes", root=root)
    assert baselines_command.main(["nowhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("baselines: there is no data set 'nowhere'") and said.count("\n") == 1


def test_the_command_writes_a_table(root, monkeypatch, capsys):
    monkeypatch.setattr(baselines_command, "ROOT", root)
    rows = [
        {"method": "LSH", "features": "pixels", "bits": 4, "seed": 1, "R": 80, "map": 0.5, "map_expected": 0.5}
        | {"map_low": 0.4, "map_high": 0.6, "queries": 12, "database": 80, "note": ""},
        {"method": "LSH", "features": "pixels", "bits": 8, "seed": 1, "R": 80, "map": 0.9, "map_expected": 0.3}
        | {"map_low": 0.1, "map_high": 1.0, "queries": 12, "database": 80, "note": "collapsed codes: all alike"},
    ]
    split = {"overlap": {"query_in_database": 7}}
    monkeypatch.setattr(baselines_command, "load_features", lambda *_, **__: (None, {"split": split}))
    monkeypatch.setattr(baselines_command, "baselines", lambda *_: rows)
    assert baselines_command.main(["fashion_mnist"]) == 0
    with open(root / "runs/fashion_mnist-baselines-pixels.csv", newline="") as stream:
        assert [row["map"] for row in csv.DictReader(stream)] == ["0.5", "0.9"]
    text = capsys.readouterr().out
    assert "0.5000" in text and "0.400..0.600" in text
    assert "0.3000*" in text and "LSH, 8 bits: collapsed codes: all alike" in text
    assert "7 query images are also in the database set" in text


def test_unknown_labels_stay_unknown(root):
    """Rows of -1: left out of the scores, and no negative example to ITQ-CCA."""
    path = root / "data/shapes/query_lmdb"
    relabel(path, {0: -np.ones(4), 5: -np.ones(4)})
    _, labels = baselines.pixels(path)
    assert [row for row in range(12) if (labels[row] == -1).all()] == [0, 5]
    train, carried = baselines.pixels(root / "data/shapes/train_lmdb")
    unknown = np.vstack([carried, -np.ones((60, 4))]).astype(np.int8)
    noise = np.random.RandomState(0).randint(0, 256, (60, 36)).astype(np.uint8)
    found = METHODS["itq_cca"](np.vstack([train, noise]), unknown, 4, 1).directions
    alone = METHODS["itq_cca"](np.vstack([train, noise]), np.vstack([carried, carried]), 4, 1).directions
    assert not np.allclose(found, alone)
    with pytest.raises(BitsError, match="ITQ-CCA learns from labels; found 0 of 60 images with known ones"):
        METHODS["itq_cca"](train, -np.ones((60, 4)), 4, 1)
    features, about = baselines.load_features("shapes", root=root)
    (row,) = baselines.baselines("shapes", features, about, ["lsh"], [4], root=root)
    facts = json.loads((root / "runs/shapes-lsh_pixels-4/metrics.json").read_text())
    assert row["queries"] == 10 and facts["queries_unlabelled"] == 2


def relabel(path: Path, rows: dict[int, np.ndarray]) -> None:
    """Give records of an LMDB other labels."""
    with lmdb.open(str(path), map_size=1 << 24) as target, target.begin(write=True) as transaction:
        for row, (key, value) in enumerate(list(transaction.cursor())):
            if row in rows:
                datum = caffe_pb2.Datum.FromString(value)
                del datum.float_data[:]
                datum.float_data.extend(rows[row])
                transaction.put(key, datum.SerializeToString())
