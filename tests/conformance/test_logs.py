"""The engine's `caffe` command says what BVLC's says (recorded/logs): the same lines and numbers, the same ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import forked
import pytest
import torch
from caffe.cli.main import main
from caffe.proto import caffe_pb2

import fixtures
import logs

# Compared line by line.
SAME = (
    "train",
    "train_resumed",
    "train_finetuned",
    "train_debug_info",
    "train_without_solver_mode",
    "test",
    "time",
    "time_glog_flags",
    "time_deploy",
    "time_old_net",
    "device_query_all",
    "usage_unknown_flag",
    "version",
)
# Refused by both, BVLC aborting (134), the engine with status 1: words of BVLC's message that the engine's keeps.
REFUSED = {
    "train_snapshot_and_weights": "Give a snapshot to resume training or weights to finetune but not both.",
    "train_without_solver": "Need a solver definition to train",
    "train_solver_missing": "nowhere.prototxt",
    "train_net_broken": 'has no field named "tpye"',
    "train_gpu": "Cannot use GPU",
    "test_without_model": "Need a model definition to score",
    "test_without_weights": "Need model weights to score",
    "test_weights_missing": "nowhere.caffemodel",
    "test_unknown_type": "Unknown layer type: Nonsense",
    "time_without_model": "Need a model definition to time",
    "device_query": "Cannot use GPU",
    "usage_unknown_action": "Unknown action: trian",
}
# Same status; of the flags' list, which gflags lays out, the head and the names.
USAGE = ("usage_no_arguments", "usage_helpshort", "usage_help")


def answer(commands: dict[str, str], folder: Path) -> int:
    """Run {log: command} in the folder, and write what each said, and its exit status, to answers.json.

    BVLC's state does not say where the data stand; its train_resumed reads them anew, and so does the engine from such
    a state, not from its own.
    """
    os.chdir(folder)
    os.environ["GLOG_minloglevel"] = "0"  # noqa: SIM112
    answers = {}
    for log, command in commands.items():
        if log == "train_resumed":
            path = Path(command.split("=")[-1])
            state = caffe_pb2.SolverState.FromString(path.read_bytes())
            state.DiscardUnknownFields()
            path.write_bytes(state.SerializeToString())
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status = main(command.split()[1:])
        answers[log] = [error.getvalue(), out.getvalue(), status]
    Path("answers.json").write_text(json.dumps(answers))
    return 0


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """{log: (lines as in a recorded log, exit status)} of the engine, in a process of its own."""
    folder = tmp_path_factory.mktemp("logs")
    (folder / "data").mkdir()
    fixtures.write(str(folder / "data"))
    for file, text in logs.FILES.items():
        (folder / file).write_text(text)
    commands = {log: logs.COMMANDS[log] for log in logs.COMMANDS if log in (*SAME, *REFUSED, *USAGE)}
    child, lines = forked.begin(answer, commands, folder)
    with lines:
        stray = lines.read()
    child.join()
    assert child.exitcode == 0, stray
    answers = json.loads((folder / "answers.json").read_text())
    return {
        log: (error.rstrip().splitlines() + (["--- stdout", *out.strip().splitlines()] if out.strip() else []), status)
        for log, (error, out, status) in answers.items()
    }


@pytest.mark.parametrize("log", SAME)
def test_says_the_same(log, said):
    expected, status = logs.read(log)
    lines, found = said[log]
    assert found == status
    differences = logs.differences(expected, lines)
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("log", REFUSED)
def test_refuses_in_the_same_words(log, said):
    if "GPU" in REFUSED[log] and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    expected, status = logs.read(log)
    lines, found = said[log]
    assert status == 134
    assert found == 1
    assert REFUSED[log] in "\n".join(expected)
    assert REFUSED[log] in "\n".join(lines)


@pytest.mark.parametrize("log", USAGE)
def test_usage(log, said):
    expected, status = logs.read(log)
    lines, found = said[log]
    assert found == status
    head = expected.index("  time            benchmark model execution time") + 1
    assert lines[:head] == expected[:head]
    flags = {line.split()[0] for line in lines if line.startswith("    -")}
    recorded = logs.read("usage_helpshort")[0]
    assert flags >= {line.split()[0] for line in recorded if line.startswith("    -")}


def test_a_difference_is_seen():
    one = "I1124 03:20:06.4 13071 solver.cpp:239] Iteration 5 (5 iter/s, 0s/5 iters), loss = 0.97"
    same = "I0101 00:00:00.1 1 solver.cpp:239] Iteration 5 (70 iter/s, 0.2s/5 iters), loss = 0.9701"
    assert logs.differences([one], [same]) == []
    assert len(logs.differences([one], [same.replace("0.9701", "0.98")])) == 1
    assert len(logs.differences([one], [same.replace("solver.cpp:239", "solver.cpp:240")])) == 1
    assert len(logs.differences([one], [])) == 1
