"""The curves of a training: what is read from its log, train.csv, and TensorBoard's event files."""

from __future__ import annotations

import csv
import math
import sys
import types
from pathlib import Path

import curves as curves_command
import pytest
from dhn.runs import curves
from dhn.runs.log import parse_display

RECORDED = Path(__file__).resolve().parents[1] / "conformance" / "recorded" / "logs"
HEAD = "I1124 03:48:02.483288 32346 "
LOG = [
    "    num_output: 32",
    HEAD + "solver.cpp:347] Iteration 0, Testing net (#0)",
    HEAD + "solver.cpp:414]     Test net output #0: pairwise_loss = 0.75 (* 1 = 0.75 loss)",
    HEAD + "solver.cpp:239] Iteration 0 (0 iter/s, 3.7s/50 iters), loss = 1.25",
    HEAD + "solver.cpp:258]     Train net output #0: pairwise_loss = 0.5 (* 2 = 1 loss)",
    HEAD + "solver.cpp:258]     Train net output #1: share = 0.25",
    HEAD + "solver.cpp:258]     Train net output #2: share = 0.125",
    HEAD + "sgd_solver.cpp:112] Iteration 0, lr = 0.003",
    HEAD + "solver.cpp:239] Iteration 50 (4.8 iter/s, 10.3s/50 iters), loss = nan",
    HEAD + "sgd_solver.cpp:112] Iteration 50, lr = 1e-05",
]
END = [
    HEAD + "solver.cpp:327] Iteration 60, loss = 0.5",
    HEAD + "solver.cpp:347] Iteration 60, Testing net (#1)",
    HEAD + "solver.cpp:414]     Test net output #0: accuracy = 0.875",
]


def test_every_line_of_the_log_has_its_place():
    found = curves.Curves(LOG + END)
    assert found.columns() == [
        "loss",
        "lr",
        "pairwise_loss",
        "share",
        "share [1]",
        "test pairwise_loss",
        "test 1 accuracy",
    ]
    assert found.rows[0] == {
        "loss": 1.25,
        "lr": 0.003,
        "pairwise_loss": 0.5,
        "share": 0.25,
        "share [1]": 0.125,
        "test pairwise_loss": 0.75,
    }
    assert math.isnan(found.rows[50]["loss"]) and found.rows[50]["lr"] == 1e-5
    assert found.rows[60] == {"loss": 0.5, "test 1 accuracy": 0.875}
    assert found.series("lr") == ([0, 50], [0.003, 1e-5])


@pytest.mark.parametrize("damaged", ["1.2.5", "1.25e", ".", "1.25x", "1e5e5"])
def test_a_line_with_half_a_number_has_none(damaged):
    lines = [line.replace("1.25", damaged) for line in LOG]
    found = curves.Curves(lines)
    assert "loss" not in found.rows[0] and found.rows[0]["pairwise_loss"] == 0.5
    assert parse_display(lines[3]) is None and parse_display(LOG[3]).loss == 1.25


def test_csv_has_a_line_an_iteration(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("\n".join(LOG + END))
    assert curves_command.main([str(log)]) == 0
    first, *rows = csv.reader((tmp_path / "train.csv").read_text().splitlines())
    assert first[:3] == ["iteration", "loss", "lr"] and [row[0] for row in rows] == ["0", "50", "60"]
    assert dict(zip(first, rows[0], strict=True))["share [1]"] == "0.125"
    assert dict(zip(first, rows[2], strict=True))["lr"] == ""
    assert curves_command.main([str(tmp_path / "none.log")]) == 1


def test_a_training_that_went_on_from_a_snapshot_replaces_what_it_did_again():
    again = [line.replace("loss = nan", "loss = 0.5") for line in LOG[8:]]
    later = [HEAD + "solver.cpp:239] Iteration 100 (4 iter/s, 9s/50 iters), loss = 9"]
    found = curves.Curves(LOG + later + again)
    assert found.series("loss") == ([0, 50], [1.25, 0.5])


@pytest.mark.parametrize("name", ["train.txt", "train_resumed.txt"])
def test_logs_of_bvlc_caffe_are_read(name):
    found = curves.Curves((RECORDED / name).read_text().splitlines())
    assert {"loss", "lr", "test accuracy", "test loss"} <= set(found.columns())
    assert len(found.series("loss")[0]) > 2 and all(math.isfinite(value) for value in found.series("loss")[1])


@pytest.fixture
def board(monkeypatch):
    """A stand-in for torch.utils.tensorboard; what was written to it: folders, purge steps, scalars."""
    told = types.SimpleNamespace(opened=[], scalars=[], closed=0)

    class SummaryWriter:
        def __init__(self, log_dir, purge_step):
            told.opened.append((log_dir, purge_step))

        def add_scalar(self, name, value, step):
            told.scalars.append((step, name, value))

        def flush(self):
            pass

        def close(self):
            told.closed += 1

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    return told


def test_csv_and_events_are_written_while_the_training_runs(tmp_path, board):
    log = tmp_path / "train.log"
    with curves.Recorder(log) as record:
        for line in LOG[:8]:
            record.feed(line)
        assert (tmp_path / "train.csv").read_text().count("\n") == 2
        assert len(board.scalars) == 6 and {step for step, *_ in board.scalars} == {0}
        for line in LOG[8:] + END:
            record.feed(line)
    assert (tmp_path / "train.csv").read_text() == curves.Curves(LOG + END).csv()
    assert [step for step, *_ in board.scalars] == [0] * 6 + [50] * 2 + [60] * 2
    assert board.opened == [(str(tmp_path), 0)] and board.closed == 1

    log.write_text("\n".join(LOG + END))  # another process goes on from iteration 50
    with curves.Recorder(log) as record:
        for line in LOG[8:]:
            record.feed(line)
    assert board.opened[1:] == [(str(tmp_path), 50)]
    assert [step for step, *_ in board.scalars][10:] == [50] * 2
    assert "\n60," not in (tmp_path / "train.csv").read_text()


def test_without_tensorboard_there_are_no_events(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with curves.Recorder(tmp_path / "train.log") as record:
        for line in LOG:
            record.feed(line)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


def test_tensorboard_reads_the_events(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with curves.Recorder(tmp_path / "train.log") as record:
        for line in LOG:
            record.feed(line)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(each.step, each.value) for each in events.Scalars("lr")] == [
        (0, pytest.approx(0.003)),
        (50, pytest.approx(1e-5)),
    ]


def test_a_training_that_displays_nothing_leaves_nothing(tmp_path):
    with curves.Recorder(tmp_path / "train.log") as record:
        record.feed("I1124 caffe.cpp:1] nothing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".", "missing.log", "a" * 300])
def test_a_log_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert curves_command.main([name]) == 1
    assert capsys.readouterr().err.startswith("curves: ") and not list(tmp_path.iterdir())
