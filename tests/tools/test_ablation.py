"""The ablation: which cells are run, which are left, what its table says of the paper's order."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import ablation
import numpy as np
import pytest
from dhn.codes import files as codes
from dhn.experiments.measure import MEASURED, measure, quoted
from dhn.files import write_json
from dhn.runs.folder import Run, RunError


def row(variant: str, bits: int, value: float | None, seed: int = 1) -> dict:
    facts = dict.fromkeys(MEASURED, value) | {"note": ""}
    return {"variant": variant, "bits": bits, "seed": seed, **facts, "R": 60, "queries": 20, "database": 60}


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> list[str]:
    """In the place of training and scoring: random codes that follow the labels. Returns the names of what was run."""
    calls: list[str] = []

    def train(run: Run, weights=None, gpu=None, settings=None):
        assert run.variant != "dhn_b"
        if run.variant == "dhn_e":
            raise RunError("it diverged")
        calls.append(run.name)
        run.folder.mkdir(parents=True, exist_ok=True)
        record = {"weights_sha256": run.name, "split": {"R": None}, "settings": settings}
        write_json(run.folder / "training.json", record)

    def score(run: Run, gpu=None):
        labels = np.eye(4, dtype=np.uint8)[np.arange(60) % 4]
        noise = np.random.RandomState(run.seed).normal(0, 1, (60, run.bits))
        values = np.tanh(np.repeat(labels * 2.0 - 1, -(-run.bits // 4), axis=1)[:, : run.bits] + noise)
        codes.save(run.folder / "query.npz", values[:20], labels[:20])
        codes.save(run.folder / "database.npz", values, labels)

    monkeypatch.setattr(ablation.training, "train", train)
    monkeypatch.setattr(ablation.scored_run, "score", score)
    return calls


def test_cells_are_measured_once_and_a_failed_one_stops_no_other(tmp_path, stand_in, monkeypatch, capsys):
    runs = [Run("fashion_mnist", variant, 8, tmp_path, seed=2) for variant in ("dhn", "dhn_b", "dhn_e", "dhn_q")]
    rows = list(ablation.cells(runs, None, None, tmp_path / "table"))
    assert stand_in == ["fashion_mnist-dhn-8-seed2", "fashion_mnist-dhn-8-seed2", "fashion_mnist-dhn_q-8-seed2"]
    assert [each["variant"] for each in rows] == ["DHN", "DHN-B", "DHN-E", "DHN-Q"]
    assert rows[2]["map"] is None and "fashion_mnist-dhn_e-8-seed2 failed: it diverged" in capsys.readouterr().out
    binary, real = rows[0], rows[1]
    assert binary["map_low"] < binary["map"] < binary["map_high"]  # few bits: ties
    assert real["map_low"] == pytest.approx(real["map_high"]) and real["R"] == binary["R"] == 60
    assert real["map"] > binary["map"]

    monkeypatch.setattr(ablation, "measure", lambda *_: pytest.fail("measured again"))
    assert list(ablation.cells(runs, None, None, tmp_path / "table")) == rows
    write_json(tmp_path / "table/cells/fashion_mnist-dhn-8-seed2.json", {"made": {}})  # of other weights
    with pytest.raises(BaseException, match="measured again"):
        list(ablation.cells(runs[:1], None, None, tmp_path / "table"))


def test_mean_and_spread_over_seeds():
    rows = [row("DHN", 12, 0.5, 1), row("DHN", 12, 0.7, 2), row("DHN", 12, None, 3), row("ITQ", 12, 0.4)]
    found = {each["variant"]: each for each in ablation.summary(rows)}
    assert found["DHN"]["mean"] == pytest.approx(0.6) and found["DHN"]["spread"] == pytest.approx(0.1 * 2**0.5)
    assert (found["DHN"]["seeds"], found["DHN"]["least"], found["DHN"]["most"]) == (2, 0.5, 0.7)
    assert found["ITQ"]["spread"] is None
    assert ablation.summary([row("DHN", 12, None)])[0]["mean"] is None


def test_where_the_papers_order_does_not_hold_it_says_so():
    values = {"DHN-B": (0.8, 0.8), "DHN": (0.8, 0.81), "DHN-Q": (0.7, 0.9), "DHN-E": (0.6, 0.6), "ITQ": (0.5, 0.65)}
    rows = [row(name, bits, value) for name, pair in values.items() for bits, value in zip((12, 48), pair, strict=True)]
    said = ablation.order(ablation.summary(rows))
    assert "The paper's DHN-B >= DHN does not hold here at 48 bits (0.8000 and 0.8100)." in said
    assert "The paper's DHN > DHN-Q does not hold here at 48 bits (0.8100 and 0.9000)." in said
    assert "The paper's DHN-Q > DHN-E holds here at 12, 48 bits." in said
    assert "The paper's DHN-E > ITQ does not hold here at 48 bits (0.6000 and 0.6500)." in said
    assert "The paper's DHN > ITQ holds here at 12, 48 bits." in said
    assert len(said) == len(set(said))
    near = [row("DHN", 12, 0.70, 1), row("DHN", 12, 0.72, 2), row("DHN-Q", 12, 0.715, 1), row("DHN-Q", 12, 0.716, 2)]
    assert ablation.order(ablation.summary(near)) == [
        "The paper's DHN > DHN-Q does not hold here at 12 bits (0.7100 and 0.7155, a difference within the spread of "
        "the seeds)."
    ]


def test_the_files_hold_the_table(tmp_path, capsys):
    rows = [row("DHN", 12, 0.5, 1), row("DHN", 12, 0.7, 2), row("DHN-E", 12, None, 1), row("ITQ", 12, 0.4, 1)]
    ablation.write("fashion_mnist", rows, tmp_path, 2)
    with open(tmp_path / "ablation.csv", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [each["variant"] for each in found] == ["DHN", "DHN-E", "ITQ"] and float(found[0]["mean"]) == 0.6
    assert found[1]["mean"] == "" and len((tmp_path / "cells.csv").read_text().splitlines()) == 5
    text = (tmp_path / "ablation.md").read_text()
    assert "| DHN | 0.6000 ± 0.1414 |" in text and "| DHN-E | - |" in text and "- The paper's DHN > ITQ holds" in text
    assert "DHN-E, 12 bits: 0 of 2 cells are finished." in text
    page = (tmp_path / "ablation.html").read_text()
    assert page.count("<svg") == 1 and "var(--one)" in page and "0.6000 ± 0.1414" in page
    assert (tmp_path / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "0.6000 ± 0.1414" in printed and "holds here at 12 bits" in printed


def test_the_command_makes_the_table_of_all_cells(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(ablation, "ROOT", tmp_path)
    lines = [row("ITQ", 8, 0.3, seed) for seed in (1, 4)]
    monkeypatch.setattr(ablation, "itq", lambda dataset, bits, seeds, root: lines)
    words = ["fashion_mnist", "--variants", "dhn", "dhn_b", "--bits", "8", "--seeds", "1", "4"]
    assert ablation.main(words) == 0
    with open(tmp_path / "runs/fashion_mnist-ablation/cells.csv", newline="") as stream:
        found = [(each["variant"], each["bits"], each["seed"]) for each in csv.DictReader(stream)]
    assert found[:4] == [("DHN", "8", "1"), ("DHN-B", "8", "1"), ("DHN", "8", "4"), ("DHN-B", "8", "4")]
    assert stand_in.count("fashion_mnist-dhn-8-seed4") == 2
    assert ablation.main([*words[:1], "--variants", "dhn_e", *words[4:]]) == 1


def test_settings_go_to_every_cell_and_stand_in_the_table(tmp_path, stand_in):
    runs = [Run("fashion_mnist", variant, 8, tmp_path) for variant in ("dhn", "dhn_b", "dhn_q")]
    rows = list(ablation.cells(runs, None, None, tmp_path / "table", {"base_lr": 0.1, "lambda": 2}))
    assert [row["settings"] for row in rows] == ["LR=0.1 LAMBDA=2", "LR=0.1 LAMBDA=2", "LR=0.1"]
    assert json.loads((tmp_path / "table/cells/fashion_mnist-dhn_q-8.json").read_text())["settings"] == {"base_lr": 0.1}
    assert list(ablation.cells(runs, None, None, tmp_path / "table", {"base_lr": 0.1, "lambda": 2})) == rows
    said = [line for line in ablation.remarks(rows) if line.startswith("Trained")]
    assert said == [
        "Trained with LR=0.1 LAMBDA=2: DHN, 8 bits, seed 1; DHN-B, 8 bits, seed 1.",
        "Trained with LR=0.1: DHN-Q, 8 bits, seed 1.",
    ]


def test_bad_input_is_one_sentence(capsys):
    assert ablation.main(["nowhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ablation: there is no data set 'nowhere'") and said.count("\n") == 1


def test_json_of_a_cell_says_what_it_is_of(tmp_path, stand_in):
    ablation.cell(Run("fashion_mnist", "dhn_b", 8, tmp_path), None, None, tmp_path)
    facts = json.loads(Path(tmp_path / "cells/fashion_mnist-dhn_b-8.json").read_text())
    assert facts["made"] == {"weights": "fashion_mnist-dhn-8", "split": {"R": None}, "real": True}


def test_a_browser_shows_the_page(tmp_path, shown):
    rows = [row("DHN", bits, 0.5, seed) for bits in (12, 24, 32, 48) for seed in (1, 2)]
    ablation.write("fashion_mnist", [*rows, row("ITQ", 12, 0.4, 1)], tmp_path, 2)
    assert [seen["drawings"] for seen in shown(tmp_path / "ablation.html")] == [1, 1]


def test_a_variant_that_was_added_stands_after_the_papers(tmp_path, stand_in, monkeypatch, capsys):
    (cell,) = ablation.cells([Run("fashion_mnist", "dhn_x", 8, tmp_path)], None, None, tmp_path / "table")
    assert cell["variant"] == "dhn_x"
    rows = [row("dhn_x", 12, 0.9), row("DHN", 12, 0.5), row("ITQ", 12, 0.4), row("another", 12, 0.3)]
    ablation.write("fashion_mnist", rows, tmp_path, 1)
    lines = (tmp_path / "ablation.md").read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")][2:] == [
        "DHN", "ITQ", "another", "dhn_x"
    ]  # fmt: skip
    assert "dhn_x" in (tmp_path / "ablation.html").read_text() and "dhn_x" in capsys.readouterr().out


def test_collapsed_cells_count_by_their_expected_value_and_a_leaking_split_is_marked(tmp_path, capsys):
    wide = {"map": 0.422, "map_expected": 0.313, "map_low": 0.149, "map_high": 1.0}
    wide["note"] = "collapsed codes: all alike"
    rows = [row("DHN", 12, 0.5), row("DHN-E", 12, 0.4) | wide, row("ITQ", 12, 0.4)]
    means = {each["variant"]: each["mean"] for each in ablation.summary(rows)}
    assert means == {"DHN": 0.5, "DHN-E": 0.313, "ITQ": 0.4}
    leak = "7 query images are also in the database set"
    ablation.write("fashion_mnist", rows, tmp_path, 1, leak)
    files = [(tmp_path / f"ablation.{form}").read_text() for form in ("md", "html")]
    for text in (capsys.readouterr().out, *files):
        text = " ".join(text.split())
        assert "DHN-E, 12 bits, seed 1: collapsed codes: all alike." in text and leak in text and "0.3130" in text
    with open(tmp_path / "cells.csv", newline="") as stream:
        assert [each["note"] for each in csv.DictReader(stream)] == ["", "collapsed codes: all alike", ""]


def test_a_measure_says_when_codes_collapsed(tmp_path):
    labels = np.eye(2, dtype=np.uint8)[np.arange(40) // 20]
    for side in ("query", "database"):
        codes.save(tmp_path / f"{side}.npz", np.full((40, 8), 0.9), labels)
    facts = measure(tmp_path, False, None)
    assert "all 40 database items have the same code" in facts["note"]
    assert facts["map_low"] < quoted(facts) == facts["map_expected"] < facts["map"]  # the order favours some
    codes.save(tmp_path / "database.npz", np.where(labels.argmax(1)[:, None], 1.0, -1.0) * np.ones((1, 8)), labels)
    codes.save(tmp_path / "query.npz", np.where(labels.argmax(1)[:, None], 1.0, -1.0) * np.ones((1, 8)), labels)
    facts = measure(tmp_path, False, None)
    assert facts["note"] == "" and quoted(facts) == facts["map"] == 1
