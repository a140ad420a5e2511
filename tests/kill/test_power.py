"""A power cut at every write, rename and fsync of a command: its output is the old one or the new one, or not there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import caffe
import lmdb
import numpy as np
import power_cuts
import pytest
from dhn.search.index import open_index
from dhn.search.items import SearchError
from lmdb_files import LmdbFileError, open_lmdb

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (on Debian: apt-get install strace)"
)
slow = pytest.mark.slow
ABSENT = "absent"


def outcomes(tmp_path: Path, command: list[str], read: Callable[[Path], object]) -> list[object]:
    """What `read` finds in each state of the folder `files` after a power cut; in the last one after the command."""
    folder, scratch = tmp_path / "files", tmp_path / "state"
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "GLOG_logtostderr": "1",
    }  # fmt: skip
    disk = power_cuts.Disk(folder)
    disk.replay(power_cuts.record(command, folder, tmp_path / "calls", environment))
    assert len(disk.steps) > 5
    found = []
    for end, files in disk.cuts():
        power_cuts.put(files, scratch)
        outcome = read(scratch)
        if outcome not in found:
            found.append(outcome)
        if end == len(disk.steps):
            assert outcome == read(folder), "the command has ended, and a power cut undoes it"
        shutil.rmtree(scratch)
    return found


def records(folder: Path) -> object:
    """The records of an LMDB."""
    if not folder.exists():
        return ABSENT
    try:
        with open_lmdb(str(folder)) as environment, environment.begin() as transaction:
            return [*transaction.cursor()]
    except (lmdb.Error, LmdbFileError) as error:
        return f"damaged: {error}"


SMALL = """
import lmdb, sys
from pathlib import Path
from atomic_writes import make_folder, write_atomic
from atomic_writes.folders import replacing_folder
make_folder("new/folder")
for path in ("old", "new/folder/file"):
    write_atomic(path, lambda stream: stream.write(b"new" * 3000))
with replacing_folder("database") as partial:
    with lmdb.open(str(partial), map_size=1 << 20, sync=False) as environment:
        with environment.begin(write=True) as transaction:
            for key in range(20):
                transaction.put(b"%d" % key, b"new" * 100)
        environment.sync(True)
"""


def test_atomic_writes(tmp_path):
    """A file that is replaced, one in a new folder, and a folder that is replaced, with an LMDB in it."""
    folder = tmp_path / "files"
    (folder / "database").mkdir(parents=True)
    (folder / "old").write_bytes(b"old")
    with lmdb.open(str(folder / "database"), map_size=1 << 20) as database, database.begin(write=True) as transaction:
        transaction.put(b"1", b"old")

    def read(state: Path) -> object:
        files = [path.read_bytes() if path.exists() else ABSENT for path in (state / "old", state / "new/folder/file")]
        return [*files, len(content) if isinstance(content := records(state / "database"), list) else content]

    found = outcomes(tmp_path, [sys.executable, "-c", SMALL], read)
    new = b"new" * 3000
    assert found == [[b"old", ABSENT, 1], [new, ABSENT, 1], [new, new, 1], [new, new, 20]]


NET = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 2 dim: 4 }
  data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: %g momentum: 0.9 lr_policy: "fixed" max_iter: 2 snapshot: 1 random_seed: 3
snapshot_prefix: "s" solver_mode: CPU snapshot_format: %s"""


@slow
@pytest.mark.parametrize(("form", "suffix"), [("BINARYPROTO", ""), ("HDF5", ".h5")])
def test_a_snapshot(tmp_path, form, suffix, monkeypatch):
    """Snapshots over those of another training: weights and state are of one training, or the state is not there."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("net.prototxt").write_text(NET)
    learned = {}
    for rate in (0.1, 0.01):
        Path("solver.prototxt").write_text(SOLVER % (rate, form))
        if rate == 0.1:
            caffe.get_solver("solver.prototxt").solve()
    names = [f"s_iter_{number}" for number in (1, 2)]

    def read(state: Path) -> object:
        outcome = []
        os.chdir(state)
        for name in names:
            weights, resumed = f"{name}.caffemodel{suffix}", f"{name}.solverstate{suffix}"
            if not os.path.exists(weights):
                outcome.append((ABSENT, ABSENT))
                continue
            net = caffe.Net("net.prototxt", weights, caffe.TRAIN)
            values = net.params["ip"][0].data.tobytes()
            history = ABSENT
            if os.path.exists(resumed):
                solver = caffe.get_solver("solver.prototxt")
                solver.restore(resumed)
                assert solver.net.params["ip"][0].data.tobytes() == values
                history = Path(resumed).read_bytes()
            outcome.append((learned.setdefault(values, len(learned)), learned.setdefault(history, len(learned))))
        os.chdir(tmp_path)
        return outcome

    before = read(folder)
    found = outcomes(tmp_path, [sys.executable, "-m", "caffe.cli.main", "train", "-solver", "solver.prototxt"], read)
    after = read(folder)
    absent = learned.get(ABSENT)
    for outcome in found:
        for each, old, new in zip(outcome, before, after, strict=True):
            assert each in (old, new) or (each[1] == absent and each[0] in (old[0], new[0])), found


@slow
@pytest.mark.parametrize("over", [False, True])
def test_an_lmdb(tmp_path, over):
    """create_lmdb, from nothing and over an older LMDB."""
    folder = tmp_path / "files"
    folder.mkdir()
    command = [sys.executable, str(TOOLS / "create_lmdb.py"), "a.npz", "lmdb"]
    for count in (2, 9):
        np.savez(folder / "a.npz", images=np.full((count, 4, 4), count, np.uint8), labels=np.arange(count))
        if over and count == 2:
            import create_lmdb

            assert create_lmdb.main([str(folder / "a.npz"), str(folder / "lmdb")]) == 0
    before = records(folder / "lmdb")
    found = outcomes(tmp_path, command, lambda state: records(state / "lmdb"))
    assert found == [before, records(folder / "lmdb")] and len(found[1]) == 9


@slow
@pytest.mark.parametrize("words", ["--codes", "--codes over", "--append --codes", "--delete a1 a3"])
def test_an_index(tmp_path, words):
    """build_index, new, over an older one, --append and --delete."""
    import build_index

    folder = tmp_path / "files"
    folder.mkdir()
    random = np.random.RandomState(0)
    for name, count in (("a", 6), ("b", 4)):
        names = np.array([f"{name}{row}" for row in range(count)])
        labels = np.eye(2, dtype=np.uint8)[np.arange(count) % 2]
        np.savez(folder / f"{name}.npz", codes=random.randn(count, 8).astype(np.float32), labels=labels, names=names)
    index = folder / "index"
    if words != "--codes":
        assert build_index.main(["--codes", str(folder / "a.npz"), "--out", str(index)]) == 0

    def read(state: Path) -> object:
        if not (state / "index" / "index.json").exists():
            return ABSENT
        try:
            opened = open_index(state / "index", verify=True)
        except (SearchError, OSError) as error:
            return f"damaged: {error}"
        return [*map(str, opened.keys)], np.array(opened.codes).tobytes()

    before = read(folder)
    arguments = words.removesuffix(" over").split() + (["b.npz"] if "--codes" in words else [])
    command = [sys.executable, str(TOOLS / "build_index.py"), *arguments, "--out", "index"]
    assert outcomes(tmp_path, command, read) == [before, read(folder)]
