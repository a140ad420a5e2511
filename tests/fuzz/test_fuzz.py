"""The fuzzer runs, with a fixed seed, and finds nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="a mount namespace needs root")
@pytest.mark.parametrize("words", [("--seconds", "60"), ("--seconds", "30", "--each"), ("--seconds", "30", "--short")])
def test_a_minute_of_damaged_files(words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(FUZZ), "--seed", "1", *words]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert " 0 findings" in ended.stdout
