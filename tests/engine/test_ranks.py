"""`caffe train -processes N`: several solvers started together, and how they end."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest
from caffe.cli import main as cli
from caffe.cli import ranks
from caffe.proto import caffe_pb2

NET = """
layer { name: "data" type: "Data" top: "x" top: "y" data_param { source: "db" batch_size: 4 backend: LMDB }
        transform_param { mirror: true } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4
        weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
MORTAL = """
layer { name: "mortal" type: "Python" top: "nothing" python_param { module: "mortal" layer: "Mortal" } }
layer { name: "silence" type: "Silence" bottom: "nothing" }
"""
MORTAL_PY = """
import os, pathlib, signal, time, caffe
class Mortal(caffe.Layer):
    def die(self, place):
        rank = os.environ.get("RANK", "")
        if os.environ["DIE"] == place + rank:
            while not pathlib.Path(f"begun{1 - int(rank)}").exists():
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
    def setup(self, bottom, top):
        self.forwards = 0
        self.die("setup")
        pathlib.Path("begun" + os.environ.get("RANK", "")).touch()
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        self.forwards += 1
        if self.forwards == 8:
            self.die("forward")
    def backward(self, top, propagate_down, bottom):
        pass
    def snapshot_state(self):
        if self.forwards > 5:
            self.die("snapshot")
        return b""
    def restore_state(self, state):
        pass
"""
ALONE = ("-m", "caffe.cli.main", "train")
PROCESSES = ("-m", "caffe.cli.main", "train", "-processes", "2")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "caffe.cli.main", "train")
ERROR = re.compile(r"E\d{4} .* caffe\.cpp:")  # not torchrun's
SOLVER = (
    'net: "net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" random_seed: 7 snapshot_prefix: "s" '
    "solver_mode: CPU display: 1 snapshot: "
)


@pytest.fixture
def folder(tmp_path):
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as env, env.begin(write=True) as txn:
        for key in range(16):
            datum = caffe_pb2.Datum(
                channels=1, height=3, width=4, data=bytes([key] * 6 + [255 - key] * 6), label=key % 4
            )
            txn.put(b"%03d" % key, datum.SerializeToString())
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


class Training:
    """`caffe train -processes 2` in a folder, and its log."""

    def __init__(
        self,
        folder: Path,
        *more: str,
        snapshot: int = 5,
        max_iter: int = 1000000,
        start: Sequence[str] = PROCESSES,
        die: str = "",
        **options: object,
    ):
        self.folder = folder
        (folder / "solver.prototxt").write_text(f"{SOLVER} {snapshot} max_iter: {max_iter}")
        environment = {**os.environ, "GLOG_logtostderr": "1", "OMP_WAIT_POLICY": "passive", "DIE": die}
        command = [sys.executable, *start, "-solver", "solver.prototxt"]
        self.process = subprocess.Popen(
            [*command, *more], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **options
        )
        self.lines: list[str] = []

    def read_until(self, text: str) -> None:
        """Read the log up to a line that has this text."""
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"no {text!r} in\n" + "".join(self.lines))

    def end(self) -> tuple[int, list[str]]:
        """The exit status, and the errors that were logged after `read_until`."""
        self.lines += self.process.stderr.read().splitlines()
        return self.process.wait(), [line.partition("] ")[2] for line in self.lines if ERROR.match(line)]

    def processes(self) -> list[str]:
        """The processes of the training that are there: their working directory is its folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):  # ended meanwhile
                if path.resolve() == self.folder.resolve():
                    found.append(path.parent.name)
        return found

    def children(self) -> list[int]:
        """The solvers' process numbers, by rank."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sorted(map(int, found), key=lambda child: Path(f"/proc/{child}/environ").read_bytes().find(b"RANK=1"))


def states(folder: Path) -> dict[str, list[np.ndarray]]:
    found = {}
    for path in folder.glob("s_iter_*.caffemodel"):
        message = caffe_pb2.NetParameter.FromString(path.read_bytes())
        found[path.stem] = [np.array(blob.data) for layer in message.layer for blob in layer.blobs]
    return found


def test_which_process_this_is(monkeypatch):
    for name in (*ranks._TORCHRUN, ranks._UID):
        monkeypatch.delenv(name, raising=False)
    assert ranks.place() is None
    for name, value in zip(ranks._TORCHRUN, ("3", "4", "1", "host", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    assert ranks.place() == ranks.Place(3, 4, 1, None)
    monkeypatch.setenv(ranks._UID, "127.0.0.1:1")
    assert ranks.place() == ranks.Place(3, 4, 1, "127.0.0.1:1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks.place() is None


def test_refusals(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "solver.prototxt").write_text(f"{SOLVER} 0 max_iter: 1")
    assert cli.main(["train", "-solver", "solver.prototxt", "-processes", "0"]) == 1
    assert "-processes 0: expected 1 or more, and without -gpu" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for words, sentence in (
        (["-gpu", "0,1", "-processes", "2"], "-processes 2: expected 1 or more, and without -gpu"),
        (["-gpu", "0,0"], "-gpu 0,0: expected each device once"),
        (["-gpu", "0,2"], "-gpu 0,2: Cannot use GPU"),
    ):
        assert cli.main(["train", "-solver", "solver.prototxt", *words]) == 1
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("gpus, count", [("0,1,2", 3), ("all", 4)])
def test_a_list_of_gpus_starts_a_process_each(gpus, count, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "solver.prototxt").write_text(f"{SOLVER} 0 max_iter: 1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    launched = []
    monkeypatch.setattr(ranks, "launch", lambda *arguments: launched.append(arguments) or 0)
    words = ["train", "-solver", "solver.prototxt", "-gpu", gpus]
    assert cli.main(words) == 0
    assert launched == [(count, words)]


def test_two_processes_train_and_end(folder):
    training = Training(folder, max_iter=7)
    status, errors = training.end()
    assert status == 0 and not errors
    log = "\n".join(training.lines)
    assert log.count("Optimization Done.") == 2  # the solver's and the command's, of the root alone
    assert sorted(path.name for path in folder.glob("s_iter*state")) == ["s_iter_5.solverstate", "s_iter_7.solverstate"]


@pytest.mark.slow
def test_torchrun_starts_them_too(folder):
    """It is the command torchrun."""
    assert Training(folder, max_iter=7).end() == (0, [])
    expected = states(folder)["s_iter_7"]
    (folder / "s_iter_7.caffemodel").unlink()
    assert Training(folder, max_iter=7, start=TORCHRUN).end() == (0, [])
    assert all(map(np.array_equal, states(folder)["s_iter_7"], expected))


def check_ended(training: Training, start: float, sentence: str) -> None:
    """All ended within a minute, and one sentence says why."""
    status, errors = training.end()
    assert time.monotonic() - start < 60
    assert status == 1 and len(errors) == 1 and sentence in errors[0], errors
    assert not training.processes()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_snapshot_resumes_to_the_same_weights(rank, folder):
    training = Training(folder)
    training.read_until("Iteration 7 ")
    children, start = training.children(), time.monotonic()
    os.kill(children[rank], signal.SIGKILL)
    check_ended(training, start, f"process {rank} of 2 was ended by SIGKILL; the others are ended too.")
    if rank == 0:
        return
    resumed = Training(folder, "-snapshot", "s_iter_5.solverstate", max_iter=10)
    assert resumed.end() == (0, [])
    found = states(folder)["s_iter_10"]
    straight = Training(folder, max_iter=10)
    assert straight.end() == (0, [])
    assert all(map(np.array_equal, states(folder)["s_iter_10"], found))


@pytest.fixture
def mortal(folder):
    """The folder, its net with a layer that kills its process where and in the process that DIE names."""
    with open(folder / "net.prototxt", "a") as net:
        net.write(MORTAL)
    (folder / "mortal.py").write_text(MORTAL_PY)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "complete"), [("setup1", []), ("forward0", [3, 6]), ("snapshot0", [3]), ("snapshot1", [3])]
)
def test_a_process_that_dies_ends_those_of_torchrun(place, complete, mortal):
    """Where the others do not know it yet; in an iteration; in the second snapshot, between its two files."""
    training = Training(mortal, snapshot=3, start=TORCHRUN, die=place)
    training.read_until("closing signal SIGTERM")
    sentence = "lost another one" if complete else "ended by SIGTERM, as all processes are when one fails"
    check_ended(training, time.monotonic(), sentence)
    assert sorted(path.name for path in mortal.glob("*.solverstate")) == [f"s_iter_{n}.solverstate" for n in complete]
    if complete:
        resumed = Training(mortal, "-snapshot", f"s_iter_{complete[-1]}.solverstate", start=ALONE, max_iter=8)
        assert resumed.end() == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_in_its_set_up_ends_the_other(rank, mortal):
    training = Training(mortal, die=f"setup{rank}")
    while not (mortal / f"begun{1 - rank}").exists():
        assert training.process.poll() is None
        time.sleep(0.1)
    check_ended(training, time.monotonic(), f"process {rank} of 2 was ended by SIGKILL; the others are ended too.")


@pytest.mark.slow
def test_interrupting_torchrun_stops_all_with_a_snapshot(folder):
    training = Training(folder, snapshot=0, start=TORCHRUN)
    training.read_until("Iteration 7 ")
    start = time.monotonic()
    training.process.send_signal(signal.SIGINT)
    _, errors = training.end()
    assert time.monotonic() - start < 60 and errors == []
    assert not training.processes()
    assert len(list(folder.glob("*.solverstate"))) == 1


@pytest.mark.slow
def test_a_killed_command_leaves_no_process(folder):
    training = Training(folder)
    training.read_until("Iteration 7 ")
    children = training.children()
    training.process.kill()
    training.process.wait()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
def test_a_full_disk_ends_all_with_one_sentence(folder):
    """A limit on the size of files stands for it: the caffemodel fits, the solverstate with its streams does not."""
    training = Training(folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))
    training.read_until("Snapshotting to binary")
    check_ended(training, time.monotonic(), "File too large")
    assert not list(folder.glob("*.solverstate"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, effect", [(signal.SIGINT, "stop"), (signal.SIGHUP, "snapshot"), (signal.SIGTERM, "end")]
)
def test_signals(number, effect, folder):
    """SIGINT stops all with a snapshot, SIGHUP makes one, SIGTERM ends all at once."""
    training = Training(folder, snapshot=0)
    training.read_until("Iteration 7 ")
    start = time.monotonic()
    training.process.send_signal(number)
    if effect == "end":
        check_ended(training, start, "caffe train was ended by SIGTERM")
        return
    if effect == "snapshot":
        training.read_until("Snapshotting solver state")
        training.process.send_signal(signal.SIGINT)
    assert training.end() == (0, []) and time.monotonic() - start < 60
    assert "Optimization stopped early." in training.lines[-2]
    assert len(list(folder.glob("*.solverstate"))) == (2 if effect == "snapshot" else 1)
