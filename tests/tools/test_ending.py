"""How commands end: by ^C, SIGTERM and SIGHUP with one line and nothing left behind; by a seed that is none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import ablation
import baselines
import create_lmdb
import forked
import numpy as np
import pytest
import train
from atomic_writes import ending
from caffe import command_start

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.usefixtures("hangups")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_ended(tmp_path, number):
    np.savez(tmp_path / "a.npz", images=np.zeros((60000, 16, 16), np.uint8), labels=np.arange(60000) % 10)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOLS / "create_lmdb.py"), "a.npz", "lmdb"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "lmdb.partial" / "data.mdb").exists():
            assert process.poll() is None
        process.send_signal(number)
        _, log = process.communicate()
    assert (process.returncode, log) == (128 + number, f"create_lmdb: ended by {number.name}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_tool_that_is_interrupted_while_it_imports(tmp_path):
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, str(TOOLS / "score_map.py")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "score_map: ended by SIGINT\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_a_command_runs(number):
    def command() -> int:
        ending.exit_at_signals("command")
        os.kill(os.getpid(), number)
        return 0

    child, output = forked.begin(command)
    with output:
        assert output.read() == f"command: ended by {number.name}\n"
    child.join()
    assert child.exitcode == 128 + number


def test_signals_are_a_commands_own_once_it_runs(capsys):
    def main() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    ending.exit_at_signals("command")
    assert ending.run(main, "command") == 130
    assert capsys.readouterr().err == "command: ended by SIGINT\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_which_program_is_a_command_of_caffe(tmp_path, monkeypatch):
    assert command_start._command() is None
    script = tmp_path / "caffe"
    script.write_text("#!/usr/bin/python3\nimport sys\nfrom caffe.cli.main import main\nsys.exit(main())\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python3", str(script), "train"])
    assert command_start._command() == "caffe"
    script.write_text("import caffe\n")
    assert command_start._command() is None
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "caffe.cli.main", "train"])
    assert command_start._command() == "caffe"
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "caffe.cli.draw_net"])
    assert command_start._command() == "draw_net"


def test_a_signal_that_comes_as_the_command_returns(monkeypatch, capsys):
    """It is raised where the handlers are put back: one line, and they are as before."""

    def main() -> int:
        set_handler = signal.signal

        def interrupted(number, handler):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGHUP)
            return set_handler(number, handler)

        monkeypatch.setattr(signal, "signal", interrupted)
        return 0

    assert ending.run(main, "command") == 129
    assert capsys.readouterr().err == "command: ended by SIGHUP\n"
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(baselines, "fashion_mnist --seed -1"), (ablation, "fashion_mnist --seeds 1 4294967296"),
     (train, "fashion_mnist --seed -1"), (create_lmdb, "a.npz lmdb --shuffle --seed -1")],
)  # fmt: skip
def test_a_seed_that_is_none_is_a_usage_error(command, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments.split())
    assert caught.value.code == 2 and "argument --seed" in capsys.readouterr().err


def test_a_size_that_no_image_has_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        create_lmdb.main(["a.npz", "lmdb", "--resize", "6", "4294967295"])
    assert caught.value.code == 2 and "--resize: expected at most 65535, found 4294967295" in capsys.readouterr().err
