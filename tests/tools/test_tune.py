"""Tuning: parts of the training images alone, cells as the recipe has them but for two numbers, the best one chosen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import lmdb
import numpy as np
import pytest
import tune
from caffe.proto import caffe_pb2
from caffe.proto.text import read_net, read_solver
from dhn.datasets import splits
from dhn.datasets.lmdb_records import LmdbError, check
from dhn.experiments.measure import MEASURED
from dhn.files import write_json
from dhn.runs.folder import Run, RunError

COUNT = 50


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of 12 bits whose training LMDB holds 50 images of 28 x 28."""
    run = Run("fashion_mnist", "dhn", 12, tmp_path)
    out = run.data / "train_lmdb"
    out.mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (COUNT, 784)).astype(np.uint8)
    with lmdb.open(str(out), map_size=1 << 24) as target, target.begin(write=True) as transaction:
        for row in range(COUNT):
            datum = caffe_pb2.Datum(channels=1, height=28, width=28, data=pixels[row].tobytes(), label=row % 10)
            datum.float_data.extend(np.eye(10)[row % 10])
            transaction.put(f"{row:08d}_{row}.png".encode(), datum.SerializeToString())
    write_json(out / "source.json", {"records": COUNT})
    return run


def keys(folder: Path) -> set[bytes]:
    with lmdb.open(str(folder), readonly=True, lock=False) as source, source.begin() as transaction:
        return set(transaction.cursor().iternext(values=False))


def test_validation_images_are_held_out_of_the_training_images(run):
    folder = run.root / "parts"
    assert tune.hold_out(run, folder) == {"query": 5, "database": 5, "train": 40}
    parts = {name: keys(folder / f"{name}_lmdb") for name in ("query", "database", "train")}
    assert set.union(*parts.values()) == keys(run.data / "train_lmdb")
    assert sum(map(len, parts.values())) == COUNT  # disjoint
    assert splits.verify(folder)["counts"] == {"query": 5, "train": 40, "database": 5}
    for name, part in parts.items():
        assert check(folder / f"{name}_lmdb")["records"] == len(part)
    stamp = (folder / "split.json").stat().st_mtime_ns
    tune.hold_out(run, folder)
    assert (folder / "split.json").stat().st_mtime_ns == stamp
    write_json(run.data / "train_lmdb" / "source.json", {"records": COUNT, "other": 1})
    tune.hold_out(run, folder)
    assert (folder / "split.json").stat().st_mtime_ns > stamp


def test_what_the_images_are_read_from_stays_with_the_parts(run, capsys):
    folder = run.root / "parts"
    tune.hold_out(run, folder)
    assert "form" not in json.loads((folder / "split.json").read_text())
    write_json(run.data / "split.json", {"form": "JPEG copies"})
    tune.hold_out(run, folder)
    assert json.loads((folder / "split.json").read_text())["form"] == "JPEG copies"
    assert splits.verify(folder)["form"] == "JPEG copies"
    row = {"pass": "lambda", "learning_rate": 0.1, "lambda": 1, "grid": "ours", **dict.fromkeys(MEASURED, 0.5)}
    (run.root / "runs" / f"{run.name}-tune").mkdir(parents=True)
    tune.write(run, [row], {"learning_rate": 0.1, "lambda": 1}, "ours")
    assert "The images are JPEG copies, not the originals." in " ".join(capsys.readouterr().out.split())


def trial(run: Run, **settings) -> tune.Trial:
    return tune.Trial(run.dataset, run.variant, run.bits, run.root, of=run.name, **settings)


def test_a_cell_is_the_recipe_but_for_its_two_numbers_and_its_images(run, tmp_path):
    cell = trial(run, rate=0.02, penalty=0.25, others={"max_iter": 7})
    assert cell.folder == tmp_path / "runs/fashion_mnist-dhn-12-tune/lr0.02-lambda0.25-7"
    tune.hold_out(run, cell.data)
    tune.write_nets(cell, tune.trial_texts(cell))
    cell_net, cell_solver = (read_net(cell.folder / "train_val.prototxt"), read_solver(cell.folder / "solver.prototxt"))
    tune.net.write(run.dataset, run.variant, run.bits, str(tmp_path / "recipe"))
    net, solver = (read_net(tmp_path / "recipe/train_val.prototxt"), read_solver(tmp_path / "recipe/solver.prototxt"))
    sources = [json.loads(layer.python_param.param_str)["source"] for layer in cell_net.layer[:2]]
    assert sources == [f"runs/fashion_mnist-dhn-12-tune/data/{part}_lmdb" for part in ("train", "query")]
    for mine, theirs in zip(cell_net.layer, net.layer, strict=True):
        if mine.name == "data":
            mine.python_param.param_str = theirs.python_param.param_str
        if mine.name == "quantization_loss":
            assert list(mine.loss_weight) == [0.25]
            mine.loss_weight[0] = theirs.loss_weight[0]
        assert mine == theirs
    assert (cell_solver.base_lr, cell_solver.max_iter) == (pytest.approx(0.02), 7)
    assert list(cell_solver.test_iter) == [1]
    for name in ("lr_policy", "gamma", "stepsize", "momentum", "weight_decay", "random_seed"):
        assert getattr(cell_solver, name) == getattr(solver, name)


def measured_by(best_rate: float, best_penalty: float | None, calls: list):
    def measured(cell: tune.Trial, weights, gpu) -> dict:
        calls.append((cell.rate, cell.penalty, weights))
        if cell.rate > 0.02:
            raise RunError("it diverged")
        found = 1 - abs(np.log10(cell.rate / best_rate)) / 10
        found -= abs(np.log10(cell.penalty / best_penalty)) / 10 if best_penalty else 0
        return {**dict.fromkeys(MEASURED, found), "R": 5, "queries": 5, "database": 5, "note": ""}

    return measured


def test_two_passes_choose_the_best_and_measure_nothing_twice(run, capsys):
    rate, penalty = tune.recipe_values(run)
    calls: list = []
    found = measured_by(rate * 3.16, penalty / 10, calls)
    rows, chosen = tune.tune(run, "ours", "w.caffemodel", None, {}, found)
    rates, penalties = tune.values_of("ours", rate, penalty)
    assert chosen == {"learning_rate": pytest.approx(rate * 3.16), "lambda": pytest.approx(penalty / 10)}
    assert [row["learning_rate"] for row in rows[:4]] == rates and [row["lambda"] for row in rows[4:]] == penalties
    assert len(rows) == 8 and len(calls) == 7  # the recipe's lambda stands in both passes
    assert {row["lambda"] for row in rows[:4]} == {penalty} and all(call[2] == "w.caffemodel" for call in calls)
    (run.root / "runs" / f"{run.name}-tune").mkdir(parents=True, exist_ok=True)
    tune.write(run, rows, chosen, "ours")
    text = capsys.readouterr().out
    assert "chosen: learning rate" in text and "our grid" in text and "not the paper's" in text
    with open(run.root / f"runs/{run.name}-tune/tune.csv", newline="") as stream:
        assert [row["grid"] for row in csv.DictReader(stream)] == ["ours"] * 8
    assert json.loads((run.root / f"runs/{run.name}-tune/tune.json").read_text())["chosen"] == chosen


def test_a_cell_that_diverges_is_passed_over_and_dhn_q_has_no_lambda(run, capsys):
    other = Run(run.dataset, "dhn_q", run.bits, run.root)
    rows, chosen = tune.tune(other, "paper", "w.caffemodel", None, {}, measured_by(1e-3, None, []))
    assert chosen == {"learning_rate": 1e-3, "lambda": None} and len(rows) == 7
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-5 * 10 ** (step / 2) for step in range(7)], 0.01)
    assert "there is no lambda to choose" in capsys.readouterr().out
    rows, chosen = tune.tune(other, "ours", "w.caffemodel", None, {}, measured_by(1e-3, None, []))
    with pytest.raises(RunError, match="no learning rate of the grid x could be trained"):
        tune.one_pass("learning rate", [0.3], lambda value: trial(run, rate=value), "x", _fails)


def _fails(cell):
    raise RunError("it diverged")


def test_collapsed_codes_do_not_win_by_the_order_of_their_ties(run, capsys):
    def measured(cell, weights=None, gpu=None) -> dict:
        facts = {**dict.fromkeys(MEASURED, 0.4), "R": 5, "queries": 5, "database": 5, "note": ""}
        collapsed = {"map": 0.9, "map_expected": 0.3, "map_low": 0.1, "map_high": 1.0, "note": "collapsed codes: alike"}
        return facts | (collapsed if cell.rate == 0.2 else {})

    rows, best = tune.one_pass("learning rate", [0.1, 0.2], lambda value: trial(run, rate=value), "x", measured)
    assert best == 0.1 and [row["map"] for row in rows] == [0.4, 0.9]
    (run.root / "runs" / f"{run.name}-tune").mkdir(parents=True, exist_ok=True)
    tune.write(run, rows, {"learning_rate": 0.1, "lambda": None}, "ours")
    assert "learning rate 0.2: collapsed codes: alike" in " ".join(capsys.readouterr().out.split())


def test_class_numbers_and_unknown_labels_are_listed_as_the_records_have_them(run, tmp_path):
    records = []
    for number, labels in enumerate(({"label": 3}, {"label": -1}, {"label": 0})):
        datum = caffe_pb2.Datum(channels=1, height=1, width=1, data=b"x", **labels)
        records.append((f"{number:08d}_a {number}.png".encode(), datum.SerializeToString()))
    tune.write_part(records, tmp_path / "part_lmdb", tmp_path / "part.txt")
    lines = (tmp_path / "part.txt").read_text().splitlines()
    assert lines == ["00000000_a 0.png 3", "00000001_a 1.png -1", "00000002_a 2.png 0"]
    neither = caffe_pb2.Datum(channels=1, height=1, width=1, data=b"x").SerializeToString()
    half = caffe_pb2.Datum(float_data=[0.5]).SerializeToString()
    with pytest.raises(LmdbError, match=r"record b\.png: expected a label vector in float_data or a class number"):
        tune.write_part([(b"b.png", neither)], tmp_path / "none_lmdb", tmp_path / "none.txt")
    for value, found in ((b"\xff", "found damaged bytes"), (half, "found other numbers")):
        with pytest.raises(LmdbError, match=rf"record b\.png: expected .*{found}"):
            tune.write_part([(b"b.png", value)], tmp_path / "none_lmdb", tmp_path / "none.txt")


def test_the_papers_grids():
    rates, penalties = tune.values_of("paper", 0.1, 1.0)
    assert (rates[0], rates[-1]) == (1e-5, 1e-2) and (penalties[0], penalties[-1]) == (1e-5, 100)
    assert np.allclose(np.diff(np.log10(rates)), 0.5, atol=0.01) and np.allclose(np.diff(np.log10(penalties)), 1)


def test_a_grid_of_values(run):
    assert tune.values_of("lr=0.1,2e-3 lambda=0,1", 0.5, 0.3) == ([0.1, 0.002], [0, 1])
    assert tune.values_of("lambda=4", 0.5, 0.3) == ([0.5], [4]) and tune.values_of("lr=1", 0.5, 0.3) == ([1], [])
    assert tune.values_of("lr=1 lambda=2", 0.5, None) == ([1], [])
    for grid in ("theirs", "lr=", "lr=x", "rate=1", "lr=-1", "lambda=inf"):
        with pytest.raises(ValueError, match=r"--grid .*: expected paper, ours, or values as .*; found"):
            tune.values_of(grid, 0.5, 0.3)
    calls: list = []
    others = {"max_iter": 7, "base_lr": 0.01, "lambda": 2}
    assert tune.recipe_values(run, others) == (0.01, 2)
    _, chosen = tune.tune(run, "lambda=0.5,2", "w.caffemodel", None, others, measured_by(0.01, 0.5, calls))
    assert calls == [(0.01, 2, "w.caffemodel"), (0.01, 0.5, "w.caffemodel")]
    assert chosen == {"learning_rate": 0.01, "lambda": 0.5}


def test_an_edited_cell_is_refused(run):
    cell = trial(run, rate=0.02, penalty=0.25)
    tune.hold_out(run, cell.data)
    tune.write_nets(cell, tune.trial_texts(cell))
    (cell.folder / "solver.prototxt").write_text("base_lr: 3")
    with pytest.raises(RunError, match=r"So LR=0\.02 LAMBDA=0\.25 would not be what is trained"):
        tune.result(cell, None, None)


def test_a_finished_cell_is_not_run_again_and_keeps_no_weights(run, monkeypatch):
    cell = trial(run, rate=0.02, penalty=0.25)
    tune.hold_out(run, cell.data)
    trained = []

    def train(given, weights, gpu, texts):
        trained.append(given.name)
        (given.folder / "dhn_iter_1.caffemodel").write_bytes(b"weights")

    monkeypatch.setattr(tune.training, "train", train)
    monkeypatch.setattr(tune, "extract", lambda *_: None)
    facts = {**dict.fromkeys(MEASURED, 0.5), "R": 5, "queries": 2, "database": 8, "note": ""}
    monkeypatch.setattr(tune, "measure", lambda *_: facts)
    assert tune.result(cell, None, None) == facts
    (cell.folder / "dhn_iter_1.solverstate").touch()  # as where it is killed before it has removed them
    assert tune.result(cell, None, None) == facts
    assert len(trained) == 1 and not list(cell.folder.glob("*_iter_*"))
    weights = run.root / "w.caffemodel"
    weights.write_bytes(b"others")
    tune.result(cell, str(weights), None)  # from other weights: another cell
    assert len(trained) == 2


def test_the_pretraining_sees_the_same_part(run, monkeypatch):
    first = []

    def train(given, weights, gpu, texts):
        tune.write_nets(given, texts(given, {}))
        first.append(given)

    monkeypatch.setattr(tune.training, "train", train)
    calls: list = []
    tune.tune(run, "ours", None, None, {}, measured_by(0.003, 1, calls))
    assert first[0].folder == run.root / f"runs/{run.name}-tune/pretraining"
    assert "runs/fashion_mnist-dhn-12-tune/data/train_lmdb" in (first[0].folder / "train_val.prototxt").read_text()
    assert all(call[2] == str(first[0].weights()) for call in calls)


def test_bad_input_is_one_sentence(capsys, run):
    for words, said in (
        (["fashion_mnist", "--set", "max_iter=0"], "expected a whole number of at least 1, found '0'"),
        (["fashion_mnist", "--weights", "nowhere"], "WEIGHTS=nowhere: there is no such file"),
        (["nowhere"], "there is no data set 'nowhere'"),
    ):
        assert tune.main(words) == 1
        text = capsys.readouterr().err
        assert text.startswith("tune: ") and said in text and text.count("\n") == 1
    (run.data / "train_lmdb" / "source.json").unlink()
    with pytest.raises(RunError, match="train_lmdb is missing; run: make data DATASET=fashion_mnist"):
        tune.hold_out(run, run.root / "parts")
