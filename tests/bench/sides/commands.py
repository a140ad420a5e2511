"""A sample: a command, from its start to its end."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time


def setup(folder: str, command: list, makes: str, count: int):
    """`seconds`: the command's time over `count`, what it works through; `bytes`: the size of what it made.

    command: its words; it runs in `folder`, and PYTHON stands for this Python. makes: the folder that the command makes
    there, removed before each run. Raises subprocess.CalledProcessError for a command that fails.
    """
    words = [sys.executable if word == "PYTHON" else word for word in command]
    out = os.path.join(folder, makes)

    def sample():
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(words, cwd=folder, check=True, stdout=sys.stderr)
        return {
            "seconds": (time.perf_counter() - start) / count,
            "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            "bytes": sum(entry.stat().st_size for entry in os.scandir(out)),
        }

    return sample
