"""The library built from kernels.c, and threads that call it.

It is built when the package is installed, for this very kernels.c: its name has the source's digest. Where there is
none (no C compiler) kernels.py computes by jit.py.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("kernels.c")
_ARRAY, _COUNT = ctypes.c_void_p, ctypes.c_int64


class Task(ctypes.Structure):
    """kernels.c's `task`: what the rankings read and write."""

    _numbers = (
        "queries",
        "items",
        "kinds",
        "octets",
        "label_octets",
        "bits",
        "top",
        "over_relevant",
        "depths",
        "length",
    )
    _arrays = ("query", "database", "query_labels", "database_labels", "at", "table",
               "statistics", "precisions", "ball_aps", "balls")  # fmt: skip
    _fields_ = [(name, _COUNT) for name in _numbers] + [(name, _ARRAY) for name in _arrays]

    def __init__(self, **values: int | np.ndarray):
        super().__init__(
            **{key: each.ctypes.data if isinstance(each, np.ndarray) else each for key, each in values.items()}
        )
        self._held = values  # the arrays live as long as their addresses


_FUNCTIONS = {  # their arguments, and what they return
    "pack": ([_ARRAY] * 2 + [_COUNT] * 4, None),
    "pack_signs": ([_ARRAY] * 4 + [_COUNT] * 4, None),
    "ap_over_ties": ([_ARRAY, _COUNT, _ARRAY] + [_COUNT] * 3 + [_ARRAY, _COUNT, _ARRAY], None),
    "ap_in_balls": ([_ARRAY] * 2 + [_COUNT] * 2 + [_ARRAY, _COUNT], None),
    "rank_by_signs": ([ctypes.POINTER(Task)] + [_COUNT] * 2, ctypes.c_int),
    "rank_by_dot": ([ctypes.POINTER(Task)] + [_COUNT] * 2, ctypes.c_int),
}


def load() -> ctypes.CDLL | None:
    """The library; None where there is none, or none for this machine."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    try:
        library = ctypes.CDLL(str(SOURCE.with_name(f"kernels-{digest}.so")))
    except OSError:
        return None
    for name, (arguments, result) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def in_threads(work: Callable[[int, int], object], count: int) -> list:
    """What work(begin, end) returns for parts of 0 .. count, one a core; its calls of the library run side by side."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = min(cores, count)
    places = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        return [work(0, count)]
    with ThreadPoolExecutor(parts) as threads:
        return list(threads.map(work, places[:-1], places[1:]))
