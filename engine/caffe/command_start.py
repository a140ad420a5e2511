"""What a signal does to a `caffe` command that still imports its modules, which takes seconds: one line, then it ends.

The commands are the scripts that pip or `caffe shim` writes, and modules of caffe.cli that `python -m` runs. In any
other program that imports caffe, signals are left as they are.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from atomic_writes import ending

_SCRIPT = re.compile(rb"^from caffe\.cli\.\w+ import \w+$", re.MULTILINE)
_SCRIPT_BYTES = 1000  # no script of a command is longer


def _command() -> str | None:
    words = sys.orig_argv
    if "-m" in words[:-1] and (module := words[words.index("-m") + 1]).startswith("caffe.cli."):
        name = module.rpartition(".")[2]
        return "caffe" if name == "main" else name
    path = getattr(sys.modules["__main__"], "__file__", None) or ""
    try:
        is_script = os.path.getsize(path) <= _SCRIPT_BYTES
        return Path(path).stem if is_script and _SCRIPT.search(Path(path).read_bytes()) else None
    except OSError:
        return None


if program := _command():
    ending.exit_at_signals(program)
