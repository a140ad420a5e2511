"""How commands end: by ^C, SIGTERM and SIGHUP with one line and nothing left behind; by a seed that is none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import ablation
import baselines
import create_lmdb
import numpy as np
import pytest
import train
from atomic_writes import ending

TOOLS = Path(__file__).parents[2] / "tools"


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
