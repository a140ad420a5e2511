"""parse_log and plot_training_log on BVLC's own log of a training, and on small ones."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from caffe.cli import parse_log, plot_training_log
from caffe.cli.training_log import Log

BVLC_LOG = Path(__file__).resolve().parents[1] / "conformance" / "recorded" / "logs" / "train.txt"

LOG = """
I1231 23:59:50.000000  1 solver.cpp:60] Solving tiny
I1231 23:59:50.500000  1 solver.cpp:330] Iteration 0, Testing net (#0)
I1231 23:59:51.000000  1 solver.cpp:397]     Test net output #0: accuracy = 0.1
I1231 23:59:51.000001  1 solver.cpp:397]     Test net output #1: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:52.000000  1 solver.cpp:218] Iteration 0 (0 iter/s, 2s/10 iters), loss = 2.25
I1231 23:59:52.000001  1 solver.cpp:237]     Train net output #0: loss = 2.25 (* 1 = 2.25 loss)
I1231 23:59:52.000002  1 sgd_solver.cpp:105] Iteration 0, lr = 0.01
I0101 00:00:10.000000  1 solver.cpp:218] Iteration 10 (1 iter/s, 18s/10 iters), loss = nan
I0101 00:00:10.000001  1 solver.cpp:237]     Train net output #0: loss = nan (* 1 = nan loss)
I0101 00:00:10.000002  1 sgd_solver.cpp:105] Iteration 10, lr = 1e-05
I0101 00:00:20.000000  1 solver.cpp:330] Iteration 20, Testing net (#0)
I0101 00:00:21.000000  1 solver.cpp:397]     Test net output #0: accuracy = 0.75
I0101 00:00:21.000001  1 solver.cpp:397]     Test net output #1: loss = 0.5 (* 1 = 0.5 loss)
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "caffe.log"
    path.write_text(LOG)
    return path


def table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_the_tables(log, tmp_path, capsys):
    assert parse_log.main([str(log), str(tmp_path), "--verbose"]) == 0
    assert capsys.readouterr().out == f"Wrote {log}.train\nWrote {log}.test\n"
    assert Path(f"{log}.test").read_text().splitlines()[0] == "NumIters,Seconds,LearningRate,accuracy,loss"
    test, train = table(Path(f"{log}.test")), table(Path(f"{log}.train"))
    assert [(float(row["NumIters"]), float(row["accuracy"]), float(row["loss"])) for row in test] == [
        (0, 0.1, 2.5),
        (20, 0.75, 0.5),
    ]
    assert float(test[1]["Seconds"]) == 31  # over the turn of the year
    assert [float(row["LearningRate"]) for row in test] == [1e-5, 1e-5]
    assert float(train[0]["loss"]) == 2.25 and math.isnan(float(train[1]["loss"]))
    assert float(train[0]["LearningRate"]) == 0.01


def test_what_is_no_number_is_named_with_its_line(log, tmp_path, capsys):
    lines = LOG.splitlines()
    place = next(place for place, line in enumerate(lines) if ", loss = " in line)
    lines[place] = lines[place].partition("loss = ")[0] + "loss = 1.2.3"
    log.write_text("\n".join(lines))
    assert parse_log.main([str(log), str(tmp_path)]) == 1
    assert f"{log}:{place + 1}: expected a number, found '1.2.3'" in capsys.readouterr().err


def test_delimiter_and_nothing_to_write(log, tmp_path, capsys):
    log.write_text("".join(line + "\n" for line in LOG.splitlines() if "Train net" not in line))
    assert parse_log.main([str(log), str(tmp_path), "--verbose", "--delimiter", ";"]) == 0
    assert f"Not writing {log}.train; no lines to write" in capsys.readouterr().out
    assert not Path(f"{log}.train").exists()
    assert table(Path(f"{log}.test"), ";")[0]["accuracy"] == "0.1"
    for delimiter in ("", "ab"):
        assert parse_log.main([str(log), str(tmp_path), "--delimiter", delimiter]) == 1
        assert f"--delimiter: expected one character, found {delimiter!r}" in capsys.readouterr().err


def test_a_second_separator_is_refused(log, tmp_path, capsys):
    assert parse_log.main(["--", str(log), str(tmp_path)]) == 0
    with pytest.raises(SystemExit) as stop:
        parse_log.main([str(log), "--", "--"])  # argparse alone makes [] of the second word before Python 3.13
    assert stop.value.code == 2 and "expected -- once at most, found it 2 times" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        parse_log.main([str(log), str(tmp_path), "--delimiter=--"])  # and of the value
    assert stop.value.code == 2 and "argument --delimiter: expected a value, found --" in capsys.readouterr().err


def test_bvlcs_log():
    log = Log(BVLC_LOG)
    assert [row["NumIters"] for row in log.train] == [0, 5, 10, 15]
    assert [row["NumIters"] for row in log.test] == [0, 10, 20]
    assert {"accuracy", "loss"} <= set(log.test[0])
    assert [row["loss"] for row in log.losses] == [row["loss"] for row in log.train] or len(log.losses) == 5
    assert log.train[0]["LearningRate"] == 0.05 and log.train[-1]["LearningRate"] == 0.025


def test_refusals(log, tmp_path, capsys):
    (tmp_path / "other.log").write_text("nothing here\n")
    for words, said in {
        ("nowhere.log", str(tmp_path)): "parse_log: Cannot read the log nowhere.log",
        (str(tmp_path / "other.log"), str(tmp_path)): "found no line with `Solving`",
        (str(log), str(tmp_path / "nofolder")): "there is no folder",
    }.items():
        assert parse_log.main(list(words)) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "chart, points",
    [
        (0, ([0, 20], [0.1, 0.75])),
        (1, ([1, 31], [0.1, 0.75])),
        (2, ([0, 20], [2.5, 0.5])),
        (4, ([0, 10], [0.01, 0.01])),
        (6, ([0, 10], [2.25, math.nan])),
    ],
)
def test_curves(log, chart, points):
    x, y = plot_training_log.curve(Log(log), chart, str(log))
    assert x == pytest.approx(points[0]) and y == pytest.approx(points[1], nan_ok=True)


def test_pictures(log, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for name, start in {"a.png": b"\x89PNG", "a.pdf": b"%PDF", "a.svg": b"<?xml"}.items():
        assert plot_training_log.main(["7", str(tmp_path / name), str(log), str(BVLC_LOG)]) == 0
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(start)
        assert plot_training_log.main(["7", str(tmp_path / name), str(log), str(BVLC_LOG)]) == 0
        assert (tmp_path / name).read_bytes() == picture, name
    assert plot_training_log.main(["0", str(tmp_path / "a.docx"), str(log)]) == 1
    assert "expected a picture that ends in one of" in capsys.readouterr().err
    log.write_text(LOG.replace("Test net", "Best net"))
    assert plot_training_log.main(["0", str(tmp_path / "b.png"), str(log)]) == 1
    assert "nothing to draw for chart type 0, Test accuracy" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        plot_training_log.main(["8", "x.png", str(log)])
    assert stopped.value.code == 2
