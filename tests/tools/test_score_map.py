"""The scoring command: what it prints and writes, and what it says of files it cannot use."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import score_map
from dhn.codes import files as codes
from dhn.experiments import metrics
from dhn.files import write_atomic
from dhn.scoring import retrieval


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, n in (("query", 20), ("database", 300)):
        labels = (rng.random((n, 4)) < 0.3).astype(np.uint8)
        arrays[name] = np.tanh(labels @ rng.standard_normal((4, 24)) + rng.standard_normal((n, 24))), labels
        codes.save(tmp_path / f"{name}.npz", *arrays[name])
    return tmp_path


def run(folder, *options, query="query.npz", database="database.npz"):
    return score_map.main(["--query", str(folder / query), "--database", str(folder / database), *options])


def test_codes_files_come_back_as_written(tmp_path):
    values, labels = np.linspace(-1, 1, 12).reshape(3, 4).astype(np.float32), np.eye(3, 5, dtype=np.uint8)
    codes.save(tmp_path / "new" / "x.npz", values, labels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npz"]
    back, back_labels = codes.load(tmp_path / "new" / "x.npz")
    assert (back.dtype, back_labels.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(back_labels, labels)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.npz"
    codes.save(path, np.ones((2, 2)), np.ones((2, 2)))
    before = path.read_bytes()

    def fail(stream):
        stream.write(before[:50])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_bytes() == before
    codes.save(path, np.zeros((2, 2)), np.ones((2, 2)))  # over the .partial that was left
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]


def test_json_holds_the_scores(files, capsys):
    assert run(files, "--json", "--protocol", "hashnet", "--protocol", "standard", "--top", "50") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    arrays = [*codes.load(files / "query.npz"), *codes.load(files / "database.npz")]
    for line, protocol in zip(lines, ("hashnet", "standard"), strict=True):
        expected = retrieval.score(*arrays, protocol, 50)
        read_as = {"codes": "sign", "labels": "label vectors"}
        assert line == json.loads(json.dumps({**expected, "read_as": read_as}))
        assert line["R"] == 50


def test_table_for_a_person(files, capsys):
    assert run(files, *(f"--protocol={name}" for name in retrieval.PROTOCOLS)) == 0
    printed = capsys.readouterr().out
    arrays = [*codes.load(files / "query.npz"), *codes.load(files / "database.npz")]
    for name in retrieval.PROTOCOLS:
        assert name in printed
        assert f"{retrieval.score(*arrays, name)['map']:.4f}" in printed
    assert "20 queries, 300 database items, 24 bits" in printed


def test_metrics_file(files, capsys):
    weights = files / "w.caffemodel"
    weights.write_bytes(b"weights")
    names = ["--protocol", "standard", "--protocol", "hash-caffe"]
    about = ["--weights", str(weights), "--variant", "dhn", "--seed", "3"]
    assert run(files, *names, "--metrics", str(files / "metrics.json"), *about) == 0
    found = json.loads((files / "metrics.json").read_text())
    assert {"protocol", "R", "map", "map_expected", "map_low", "map_high", "queries", "queries_without_hits",
            "database", "bits", "variant", "seed", "versions", "weights_sha256"} <= set(found)  # fmt: skip
    assert (found["protocol"], found["R"], found["bits"], found["database"]) == ("standard", 300, 24, 300)
    assert (found["variant"], found["seed"]) == ("dhn", 3)
    assert found["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert found["versions"]["numpy"] == np.__version__
    assert list(found["protocols"]) == ["standard", "hash-caffe"]
    assert found["protocols"]["standard"]["map"] == found["map"]
    assert not (files / "metrics.json.partial").exists()
    metrics.write_metrics(files / "again.json", metrics.score_files(files / "query.npz", files / "database.npz"),
                            seconds={"train": 1.5})  # fmt: skip
    assert json.loads((files / "again.json").read_text())["seconds"] == {"train": 1.5}


def test_what_is_not_plain_is_said_on_the_terminal_and_kept_in_the_metrics(files, capsys):
    """Sigmoid outputs with class numbers: declared, read rightly, and said; labels of two queries are unknown."""
    for side in ("query", "database"):
        values, labels = codes.load(files / f"{side}.npz")
        classes = labels.argmax(1)[:, None] + 1
        classes[: 2 if side == "query" else 0] = -1
        np.savez(files / f"{side}.npz", codes=(values.astype(float) + 1) / 2, labels=classes)
    assert run(files) == 2
    assert "declare what they are with --codes sign, 01, packed or threshold=T" in capsys.readouterr().err
    options = ["--codes", "threshold=0.5", "--metrics", str(files / "metrics.json")]
    assert run(files, *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Left out, their labels being unknown: 2 queries, 0 database items." in printed
    assert "18 queries, 300 database items" in printed
    assert f"{files}/database.npz: labels (300, 1): read as class numbers 1 to 4 of 5 classes" in printed
    assert "read as +1 from 0.5 on" in printed
    metrics = json.loads((files / "metrics.json").read_text())
    assert metrics["read_as"] == {"codes": "threshold=0.5", "labels": "class numbers, 4 classes"}
    assert (metrics["queries_unlabelled"], metrics["database_unlabelled"], metrics["queries"]) == (2, 0, 18)
    assert sum("class numbers" in note for note in metrics["notes"]) == 2
    assert run(files, *options, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["notes"] == metrics["notes"]
    assert printed.err.count("note: ") == len(metrics["notes"])


def test_one_column_of_labels_is_declared_on_the_command_line(files, capsys):
    for side in ("query", "database"):
        values, labels = codes.load(files / f"{side}.npz")
        np.savez(files / f"{side}.npz", codes=values, labels=labels[:, :1])
    assert run(files) == 2
    assert "declare `classes` or `vectors` with --labels" in capsys.readouterr().err
    found = []
    for declared in ("classes", "vectors"):
        assert run(files, "--labels", declared, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["map"])
    assert found[0] != found[1]


def test_files_of_others_are_named_one_by_one(files, capsys):
    assert run(files, "--json") == 0
    expected = json.loads(capsys.readouterr().out)
    for side in ("query", "database"):
        values, labels = codes.load(files / f"{side}.npz")
        np.save(files / f"{side}.npy", values)
        np.savetxt(files / f"{side}.txt", labels, "%d")
    labels = ["--query-labels", str(files / "query.txt"), "--database-labels", str(files / "database.txt")]
    assert run(files, *labels, "--json", query="query.npy", database="database.npy") == 0
    assert json.loads(capsys.readouterr().out) == expected


def test_collapsed_codes_are_said(files, capsys):
    """40 database codes all equal: the MAP is whatever the order of the database makes it."""
    labels = np.eye(4)[np.sort(np.arange(40) % 4)]
    codes.save(files / "database.npz", -np.ones((40, 24)), labels)
    assert run(files, "--metrics", str(files / "metrics.json")) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((files / "metrics.json").read_text())
    assert metrics["codes"]["database"]["distinct"] == 1 and metrics["codes"]["query"]["distinct"] == 20
    assert metrics["protocols"]["standard"]["notes"] == metrics["notes"]
    collapsed, ties = metrics["notes"]
    assert f"note: {collapsed}" in printed and f"note: {ties}" in printed
    assert "collapsed codes: all 40 database items have the same code" in collapsed
    assert f"quote its expected value over all tie orders, {metrics['map_expected']:.4f}" in ties


def test_recall_and_map_within_radius_2_are_printed(files, capsys):
    assert run(files, "--metrics", str(files / "metrics.json")) == 0
    metrics = json.loads((files / "metrics.json").read_text())
    within = [f"{metrics[f'{name}_radius_2']:.4f}" for name in ("precision", "recall", "map")]
    expected = "Within Hamming radius 2: precision {}, recall {}, MAP {}".format(*within)
    assert expected in " ".join(capsys.readouterr().out.split())
    assert metrics["map_radius_2_low"] <= metrics["map_radius_2_expected"] <= metrics["map_radius_2_high"]


def bad_file(folder, kind):
    path = folder / "bad.npz"
    values, labels = codes.load(folder / "query.npz")
    if kind == "truncated":
        whole = (folder / "query.npz").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "damaged":
        whole = bytearray((folder / "query.npz").read_bytes())
        whole[300] ^= 255
        path.write_bytes(whole)
    elif kind == "text":
        path.write_text("codes")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "array":
        with open(path, "wb") as stream:
            np.save(stream, values)
    elif kind == "keys":
        np.savez(path, features=values, labels=labels)
    elif kind == "pickled":
        np.savez(path, codes=np.array([[None]]), labels=labels)
    elif kind == "class labels":
        np.savez(path, codes=values, labels=labels[:, 0])
    elif kind == "rows":
        np.savez(path, codes=values, labels=labels[1:])
    elif kind == "nan":
        values[7, 2] = np.nan
        np.savez(path, codes=values, labels=labels)
    elif kind == "bits":
        codes.save(path, values[:, :16], labels)
    elif kind == "label columns":
        codes.save(path, values, labels[:, :3])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "bad.npz: cannot be read (No such file or directory)"),
        ("truncated", "bad.npz: is not an .npz file, or not a complete one"),
        ("damaged", "bad.npz: is not an .npz file, or not a complete one"),
        ("text", "bad.npz: is not an .npz file, or not a complete one"),
        ("empty", "bad.npz: is not an .npz file, or not a complete one"),
        ("array", "bad.npz: expected the arrays codes and labels, found a single array; name the file of its labels"),
        ("keys", "bad.npz: expected the arrays codes and labels, found features, labels"),
        ("pickled", "bad.npz: expected codes to be an array of numbers, found Python objects, which are not loaded"),
        ("class labels", "bad.npz has class numbers and"),
        ("rows", "bad.npz: expected as many labels as codes, found 20 codes, 19 labels"),
        ("nan", "bad.npz: 1 of 20 codes are not finite, the first in row 7"),
        ("bits", "bad.npz has 16 bits and"),
        ("label columns", "bad.npz has 3 label columns and"),
    ],
)
def test_files_that_cannot_be_used_are_named_in_one_sentence(files, capsys, kind, message):
    bad_file(files, kind)
    assert run(files, query="bad.npz") == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_options_that_cannot_be_are_refused(files, capsys):
    assert run(files, "--top", "0") == 2
    assert "R = 0 is not possible with protocol standard" in capsys.readouterr().err
    for options in (["--protocol", "paper"], ["--seed", "1"]):
        with pytest.raises(SystemExit) as stop:
            run(files, *options)
        assert stop.value.code == 2
    missing = files / "none.caffemodel"
    assert run(files, "--metrics", str(files / "metrics.json"), "--weights", str(missing)) == 2
    assert "none.caffemodel" in capsys.readouterr().err
    assert not (files / "metrics.json").exists()
