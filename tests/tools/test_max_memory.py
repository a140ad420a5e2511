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
    assert text.endswith(" (--other 1)\n")


SHORT = """
import resource, sys
from pathlib import Path
import caffe.errors, caffe.io, dhn, numpy as np
from dhn.datasets import lmdb_records

class Labels:  # whose list was made when there was memory
    def __init__(self, count):
        self.values = [1.0] * count
    def __len__(self):
        return len(self.values)
    def tolist(self):
        return self.values

def main():
    labels, values = Labels(12_000_000), np.ones(12_000_000, np.float32)
    pixels = np.zeros((2, 2, 3), np.uint8)
    lmdb_records.make_datum(pixels, None, Labels(1), 1, "raw")  # what it imports needs memory too
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    caffe.io.array_to_blobproto(values[:1])
    more = 60 if sys.argv[1:] == ["labels"] else 210  # MB: four copies of 48 are made before protobuf is asked
    resource.setrlimit(resource.RLIMIT_AS, (has + (more << 20),) * 2)
    if sys.argv[1:] == ["labels"]:
        lmdb_records.make_datum(pixels, None, labels, 1, "raw")
    else:
        caffe.io.array_to_blobproto(values)

sys.exit(dhn.run(main))
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("labels", "not enough memory for the 12,000,000 labels of an image\n"),
        ("blob", "not enough memory: Error parsing message"),
    ],
)
def test_nothing_is_lost_of_a_message_where_memory_is_short(what, said):
    """protobuf 7 extends a field by what it has memory for, and says nothing: an LMDB of other labels was written."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SHORT, what]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stderr.startswith(f"-c: {said}"), ended.stderr


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
