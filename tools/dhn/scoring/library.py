"""The library compiled from kernels.c: its task and its functions."""

from __future__ import annotations

import ctypes
from pathlib import Path

from dhn import compiled
from dhn.compiled import ARRAY, COUNT

SOURCE = Path(__file__).with_name("kernels.c")


class Task(compiled.Task):
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
    _addresses = ("query", "database", "query_labels", "database_labels", "at", "table",
               "statistics", "precisions", "ball_aps", "balls")  # fmt: skip
    _fields_ = [(name, COUNT) for name in _numbers] + [(name, ARRAY) for name in _addresses]


LIBRARY = compiled.load(
    SOURCE,
    {  # their arguments, and what they return
        "pack": ([ARRAY] * 2 + [COUNT] * 4, None),
        "pack_signs": ([ARRAY] * 5 + [COUNT] * 4, None),
        "ap_over_ties": ([ARRAY, COUNT, ARRAY] + [COUNT] * 3 + [ARRAY, COUNT, ARRAY], None),
        "ap_in_balls": ([ARRAY] * 2 + [COUNT] * 2 + [ARRAY, COUNT], None),
        "rank_by_signs": ([ctypes.POINTER(Task)] + [COUNT] * 2, ctypes.c_int),
        "rank_by_dot": ([ctypes.POINTER(Task)] + [COUNT] * 2, ctypes.c_int),
    },
)
