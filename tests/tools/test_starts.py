"""What a command loads before it works: not what it may never need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import score_map

TOOLS = Path(score_map.__file__).parent
LATER = {"caffe", "cv2", "google", "http", "rich", "scipy", "torch"}  # each takes from 20 ms to seconds


def loaded(*command: str) -> set[str]:
    """The top-level names of what a command imports, as Python reports it."""
    words = [sys.executable, "-X", "importtime", str(TOOLS / command[0]), *command[1:]]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    reports = [line.rpartition("|")[2] for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return {name.strip().split(".")[0] for name in reports}


@pytest.mark.parametrize("command", ["create_lmdb", "get_data", "score_map"])
def test_help_does_not_wait_for_libraries(command):
    names = loaded(f"{command}.py", "--help")
    assert "dhn" in names and names & LATER == set()


def test_scores_as_json_do_not_wait_for_libraries(tmp_path):
    np.savez(tmp_path / "a.npz", codes=np.float32([[1, -1], [-1, 1]]), labels=np.uint8([[1, 0], [0, 1]]))
    names = loaded("score_map.py", "--query", str(tmp_path / "a.npz"), "--database", str(tmp_path / "a.npz"), "--json")
    assert "dhn" in names and names & LATER == set()


def test_garbage_is_collected_once_a_command_runs():
    """Not while it imports, and not what it has imported."""
    program = (
        "import gc, sys; sys.modules['__main__'].__file__ = sys.argv[1]; import dhn; importing = gc.isenabled(); "
        "dhn.run(lambda: print(importing, gc.isenabled(), gc.get_freeze_count() > 0) or 0)"
    )
    command = [sys.executable, "-c", program, str(TOOLS / "score_map.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True", "True"]
