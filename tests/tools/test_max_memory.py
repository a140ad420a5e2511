"""--max-memory, which every command takes: what needs more ends with one sentence."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import dhn
import forked
import numpy as np
import pytest

# in a Python of its own: in one that has computed, memory that was freed takes the codes
WITH_30_MB_MORE = """
import resource, sys
from pathlib import Path
import dhn, numpy, score_map
used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
sys.argv = [*sys.argv[1:], "--max-memory", f"{(used >> 20) + 30}M"]
sys.exit(dhn.run(score_map.main))
"""


def run(words: list[str], main) -> tuple[int, str]:
    """(exit status, what is printed) of a command line, in a child: a limit stays."""

    def child() -> int:
        sys.argv = words
        return dhn.run(main)

    process, output = forked.begin(child)
    text = output.read()
    process.join()
    return process.exitcode, text


@pytest.mark.parametrize("words", [["--max-memory", "3G"], ["--max-memory=3G"]])
def test_what_needs_more_is_told_so(words):
    def main() -> int:
        assert sys.argv == ["tools/cut.py", "--other", "1"], "main does not see the option"
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 3 << 30
        return len(np.ones(1 << 29)) * 0  # 4 GiB

    status, text = run(["tools/cut.py", "--other", *words, "1"], main)
    assert status == 1
    assert text.startswith("cut: not enough memory: Unable to allocate 4.00 GiB for an array") and text.count("\n") == 1


@pytest.mark.parametrize("word", ["", "4", "G", "-1G", "1.5G", "4g"])
def test_a_size_that_is_none_is_refused(word):
    status, text = run(["tools/cut.py", "--max-memory", word], lambda: 0)
    assert (status, text) == (1, f"cut: --max-memory: expected a size such as 500M or 4G, found {word!r}\n")


def test_codes_that_unpack_to_more_are_named(tmp_path):
    path = tmp_path / "small.npz"
    np.savez_compressed(path, codes=np.zeros((1 << 23, 8), np.uint8), labels=np.zeros((1 << 23, 2), np.uint8))
    assert path.stat().st_size < 1 << 20
    files = ["--query", str(path), "--database", str(path)]
    command = [sys.executable, "-c", WITH_30_MB_MORE, "score_map.py", *files]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, f"score_map: {path}: does not fit in memory\n")
