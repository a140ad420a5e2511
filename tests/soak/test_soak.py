"""The soak runs a minute and finds nothing; what grows is found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from soak import GROWTH, Sample, findings

COMMAND = Path(__file__).with_name("soak.py")


def samples(memory, threads=10, files=20):
    return [Sample(at, 300_000_000 + memory * at, threads, files) for at in range(40)]


def test_what_stays_is_no_finding():
    assert findings("server", samples(0)) == []


def test_growing_memory_is_a_finding():
    assert findings("server", samples(GROWTH // 16)) == ["server: memory grew from 315 to 336 MB"]


def test_growing_files_and_threads_are_findings():
    grown = [one._replace(files=20 + at, threads=10 + at) for at, one in enumerate(samples(0))]
    assert findings("server", grown) == ["server: threads grew from 29 to 49", "server: files grew from 39 to 59"]


def test_too_few_samples_prove_nothing():
    assert findings("server", samples(0)[:5]) == ["server: 5 samples; expected at least 8, a longer time"]


@pytest.mark.slow
def test_three_minutes_of_training_and_serving():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(COMMAND), "--seconds", "180"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert "0 findings" in ended.stdout
