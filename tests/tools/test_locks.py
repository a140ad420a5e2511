"""Two commands on one output: the second one says who holds it, and leaves what is there alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import build_index
import create_lmdb
import get_data
import miniatures
import numpy as np
import pytest
import report
import score_run
from atomic_writes import locks
from dhn.codes import files as codes
from dhn.datasets.archives import unpack
from dhn.download import download
from dhn.runs.folder import Run, RunError

CASES = {  # the command, what it is called with, its output
    "create_lmdb": (create_lmdb.main, "images.npz out", "out"),
    "build_index": (build_index.main, "--codes database.npz --out index", "index/index.json"),
    "build_index, LanceDB": (build_index.main, "--codes database.npz --backend lancedb --uri lance", "lance"),
    "score_run": (score_run.main, "--run run", "run/metrics.json"),
    "report": (report.main, "--run run", "run/report.html"),
    "get_data": (get_data.main, "birds.json --root data", "data/birds/split.json"),
}


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """What the commands read, in the working directory."""
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", images=np.zeros((4, 4, 4), np.uint8), labels=np.arange(4))
    random = np.random.RandomState(0)
    Path("run").mkdir()
    for folder in (".", "run"):
        for name, count in (("query", 3), ("database", 8)):
            labels = np.eye(2, dtype=np.uint8)[np.arange(count) % 2]
            codes.save(Path(folder, f"{name}.npz"), random.randn(count, 8).astype(np.float32), labels)
    miniatures.photos(Path("photos"), count=3)
    numbers = {"query": {"per_label": 1}, "train": {"per_label": 1}, "database": "rest", "R": 10}
    recipe = {"source": {"kind": "folder", "path": "photos"}, "splits": {"mine": numbers}}
    Path("birds.json").write_text(json.dumps(recipe))
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_the_second_one_says_who_holds_it(files, name, capsys):
    if "LanceDB" in name:
        pytest.importorskip("lancedb")
    main, words, output = CASES[name]
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with locks.hold(output):
        status = main(words.split())
        said = capsys.readouterr().err
        assert status in (1, 2) and f"process {os.getpid()} on " in said and "wait for it or stop it" in said, said
        assert not Path(output).exists()
    if name != "report":  # which wants scores first
        assert main(words.split()) == 0, capsys.readouterr().err
        assert Path(output).exists()


def test_the_others(files):
    """What needs more than a command line: a training, an archive, a download."""
    run = Run("fashion_mnist", "dhn", 8, files)
    holder = f"process {os.getpid()} on .* wait for it or stop it"
    with run.lock(), pytest.raises(RunError, match=f"is being trained by {holder}"), run.lock():
        pass
    assert list(run.folder.iterdir()) == []
    with locks.hold("out"), pytest.raises(locks.HeldError, match=f"cannot write out: {holder}"):
        unpack(miniatures.write_zip(Path("a.zip"), {"a": b"1"}), "out", lambda name: name, 100)
    with locks.hold("file"), pytest.raises(locks.HeldError, match=f"file: {holder}"):
        download(["http://127.0.0.1:9/file"], "file", "0" * 64)
