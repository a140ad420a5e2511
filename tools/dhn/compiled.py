"""The libraries that are compiled from the files kernels.c when the package is installed, and threads that call them.

Where there is none (no C compiler) the callers compute the same by numpy, more slowly.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ARRAY, COUNT = ctypes.c_void_p, ctypes.c_int64  # arguments of a library's functions
log = logging.getLogger("dhn")  # without handlers, its warnings are lines of stderr
_warned: set[str] = set()  # of what
_lock = threading.Lock()


class Task(ctypes.Structure):
    """Arguments of a library's function: numbers, and addresses of arrays, which live as long as the task."""

    def __init__(self, **values: int | np.ndarray) -> None:
        super().__init__(
            **{name: each.ctypes.data if isinstance(each, np.ndarray) else each for name, each in values.items()}
        )
        self._values = values


def load(source: Path, functions: Mapping[str, tuple[list, type | None]]) -> ctypes.CDLL | None:
    """The library compiled from `source`; None where there is none, or none for this machine.

    functions: by name, the types of their arguments and of what they return. The file's name has the digest of the
    C files in its folder: a library of others is not loaded.
    """
    digest = hashlib.sha256()
    for file in sorted(source.parent.glob("*.[ch]")):  # as engine/caffe/cpu/library_file.py has it, for the build hook
        digest.update(file.read_bytes())
    try:
        library = ctypes.CDLL(str(source.with_name(f"kernels-{digest.hexdigest()[:12]}.so")))
    except OSError:
        return None
    for name, (arguments, result) in functions.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def warn_of_numpy(what: str, source: Path, cost: str) -> None:
    """Say, once, that `what` is computed by numpy because `source` was not compiled, and what that costs."""
    with _lock:
        if what in _warned:
            return
        _warned.add(what)
    log.warning(
        "%s: expected the library that an installation compiles from %s, found none; numpy computes the same, %s; "
        "install a C compiler (gcc), then this package again", what, source, cost,
    )  # fmt: skip


def in_threads(work: Callable[[int, int], object], count: int) -> list:
    """What work(begin, end) returns for parts of 0 .. count, one a core; its calls of a library run side by side."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = min(cores, count)
    places = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        return [work(0, count)]
    with ThreadPoolExecutor(parts) as threads:
        return list(threads.map(work, places[:-1], places[1:]))
