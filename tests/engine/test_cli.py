"""The `caffe` command: log lines held against those recorded from BVLC Caffe, flags, signals, refusals."""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from caffe.cli.main import main
from caffe.cli.signals import SignalActions

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"
sys.path.insert(0, str(CONFORMANCE))

import fixtures  # noqa: E402
import record_logs  # noqa: E402


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    fixtures.write(str(tmp_path / "data"))
    for file, text in record_logs.FILES.items():
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NUMBER = re.compile(r"(?<![\w.])-?(\d+\.?\d*(e[-+]?\d+)?|inf|nan)")
PREFIX = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ ")
MEASURED = ("caffe.cpp:394", "caffe.cpp:40", "caffe.cpp:41", "caffe.cpp:3", "solver.cpp:2", "solver.cpp:327",
            "solver.cpp:4", "net.cpp:59", "net.cpp:60", "net.cpp:62", "net.cpp:63", "net.cpp:721")  # fmt: skip
# Prefetch threads come when they come; BVLC's loss layer makes its inner Softmax through the factory once more.
TIMING = ("blocking_queue.cpp:49", "data_layer.cpp:73")


def lines(log: str) -> list[str]:
    """The log without times and thread numbers, values that training or the clock decides replaced by #."""
    kept = []
    for line in log.splitlines():
        bare = PREFIX.sub("", line)
        if bare.startswith(TIMING) or line.startswith(("$ ", "[exit status")):
            continue
        if bare.startswith("layer_factory.hpp:77] Creating layer loss") and kept and "loss -> loss" in kept[-1]:
            continue
        if bare.startswith(MEASURED):
            where, _, said = bare.partition("] ")
            bare = f"{where}] {NUMBER.sub('#', said)}"
        kept.append(bare.rstrip())
    return kept


def recorded(name: str) -> list[str]:
    return lines((CONFORMANCE / "recorded" / "logs" / f"{name}.txt").read_text())


def run(capfd, command: str) -> tuple[int, str]:
    capfd.readouterr()
    status = main(command.split()[1:])
    return status, capfd.readouterr().err


def same(found: str, name: str) -> None:
    difference = list(difflib.unified_diff(recorded(name), lines(found), "BVLC", "engine", lineterm="", n=1))
    assert not difference, "\n".join(difference)


def test_train_resume_and_test_log_as_bvlc_does(folder, capfd):
    for name in ("train", "train_resumed", "train_finetuned", "train_debug_info", "test", "time", "time_deploy"):
        status, log = run(capfd, record_logs.COMMANDS[name])
        assert status == 0, log
        same(log, name)
    files = {path.name for path in folder.glob("tiny*")}
    assert files == {
        "tiny_iter_10.caffemodel", "tiny_iter_10.solverstate", "tiny_iter_20.caffemodel",
        "tiny_iter_20.solverstate", "tiny_iter_1.caffemodel.h5", "tiny_iter_1.solverstate.h5",
    }  # fmt: skip


def test_an_old_net_says_that_it_was_upgraded(folder, capfd):
    status, log = run(capfd, record_logs.COMMANDS["time_old_net"])
    assert status == 0, log
    same(log, "time_old_net")


@pytest.mark.parametrize(
    "name, words",
    [
        ("train_snapshot_and_weights", "Give a snapshot to resume training or weights to finetune but not both."),
        ("train_without_solver", "Need a solver definition to train"),
        ("train_solver_missing", "nowhere.prototxt"),
        ("train_net_broken", "broken.prototxt:1:"),
        ("train_gpu", "Cannot use GPU"),
        ("test_without_model", "Need a model definition to score"),
        ("test_without_weights", "Need model weights to score"),
        ("test_weights_missing", "nowhere.caffemodel"),
        ("test_unknown_type", "Unknown layer type: Nonsense (known types: "),
        ("time_without_model", "Need a model definition to time"),
        ("device_query", "Cannot use GPU"),
        ("usage_unknown_action", "Unknown action: trian"),
        ("usage_unknown_flag", "unknown command line flag 'slover'"),
    ],
)
def test_refusals_are_one_sentence_and_a_status(folder, capfd, name, words):
    import torch

    if torch.cuda.is_available() and "GPU" in words:
        pytest.skip("this machine has a GPU")
    status, log = run(capfd, record_logs.COMMANDS[name])
    assert status == 1
    assert words in log
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ["usage_no_arguments", "version"])
def test_what_goes_to_stdout(capsys, name):
    text = (CONFORMANCE / "recorded" / "logs" / f"{name}.txt").read_text()
    assert main(record_logs.COMMANDS[name].split()[1:]) == 0
    out = capsys.readouterr().out
    expected = text.split("--- stdout\n")[1].split("[exit status")[0]
    usage = expected.split("  Flags from")[0]
    assert out.startswith(usage)
    flags = set(re.findall(r"(?m)^    -(\w+)", expected))
    assert flags <= set(re.findall(r"(?m)^    -(\w+)", out))


@pytest.mark.parametrize(
    "spelling", ["-iterations 2", "--iterations 2", "-iterations=2", "--iterations=2", "-iterations 2 --logtostderr=1"]
)
def test_flags_are_read_as_gflags_reads_them(folder, capfd, spelling):
    status, log = run(capfd, f"caffe {spelling} time -model deploy.prototxt")
    assert status == 0
    assert "Testing for 2 iterations." in log


def test_a_flag_of_the_wrong_type(capfd):
    status, log = run(capfd, "caffe time -iterations many")
    assert status == 1
    assert "iterations" in log and "many" in log


def test_minloglevel_silences_and_log_dir_writes(folder, capfd):
    import logging

    from caffe import glog

    try:
        status, log = run(capfd, f"caffe time -model deploy.prototxt -iterations 1 -log_dir {folder}")
        assert "Benchmark ends" in (folder / "caffe.INFO").read_text()
        status, log = run(capfd, "caffe time -model deploy.prototxt -iterations 1 -minloglevel 2")
        assert (status, log) == (0, "")
    finally:
        glog.logger.setLevel(logging.INFO)
        del glog.logger.handlers[1:]


def test_gpu_solver_mode_without_a_gpu_warns_and_trains(folder, capfd):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    solver = Path("solver.prototxt")
    solver.write_text(solver.read_text().replace("solver_mode: CPU", "").replace("max_iter: 20", "max_iter: 1"))
    status, log = run(capfd, "caffe train -solver solver.prototxt")
    assert status == 0
    assert "solver_mode is GPU" in log and "training on the CPU" in log


@pytest.mark.parametrize(
    "number, effect, snapshots, ends",
    [
        (signal.SIGINT, "", True, True),
        (signal.SIGHUP, "", True, False),
        (signal.SIGINT, "-sigint_effect=none", False, False),
    ],
)
def test_signals(folder, number, effect, snapshots, ends):
    """SIGINT stops and snapshots, SIGHUP snapshots and goes on, none does nothing."""
    command = [sys.executable, "-m", "caffe.cli.main", *f"train -solver long.prototxt {effect}".split()]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as child:
        log = until(child, "Test net output #1")
        child.send_signal(number)
        if snapshots:
            log += until(child, "Snapshotting solver state")
        if ends:
            log += child.stderr.read()
            assert child.wait(timeout=60) == 0
        else:
            time.sleep(0.5)
            assert child.poll() is None
            child.kill()
            log += child.stderr.read()
    assert ("Snapshotting solver state" in log) == snapshots
    assert ("Optimization stopped early." in log) == ends


def until(child, words: str) -> str:
    """Read the child's log up to the line with `words`."""
    log = ""
    for line in child.stderr:
        log += line
        if words in line:
            return log
    raise AssertionError(f"{words!r} did not come:\n{log}")


def test_an_unknown_signal_effect_is_refused():
    with pytest.raises(ValueError, match='Invalid signal effect "halt"'):
        SignalActions("halt", "snapshot")
