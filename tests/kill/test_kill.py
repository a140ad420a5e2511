"""A part of `make kill-test`, with a fixed seed, finds nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).with_name("kill.py")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="a mount namespace needs root")
def test_a_few_kills_of_each_command():
    command = [sys.executable, str(KILL), "--kills", "4", "--signals", "1", "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert " 0 findings" in ended.stdout
