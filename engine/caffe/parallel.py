"""Several solvers side by side, each a process of its own, and which of them this process is (BVLC's parallel.cpp).

Of `solver_count` solvers, number `solver_rank` trains on every solver_count-th record of a Data layer, from record
number solver_rank on. Number 0 is the root: it alone tests, snapshots and logs. What they exchange: caffe.nccl.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_count, _rank, _multiprocess = 1, 0, False
_own_state = False


def solver_count() -> int:
    """How many solvers train side by side."""
    return _count


def solver_rank() -> int:
    """The number of this process's solver."""
    return _rank


def is_root() -> bool:
    """Whether this process's solver is the one that tests, snapshots and logs."""
    return _rank == 0


def multiprocess() -> bool:
    """Whether `set_multiprocess` said that each solver has a process of its own."""
    return _multiprocess


def set_solver_count(count: int) -> None:
    """Say, before nets are made, how many solvers train side by side. Raises ValueError below 1."""
    global _count
    if count < 1:
        raise ValueError(f"set_solver_count: expected 1 or more, found {count}")
    _count = int(count)


def set_solver_rank(rank: int) -> None:
    """Say, before nets are made, which of them this process's solver is. Raises ValueError below 0."""
    global _rank
    if rank < 0:
        raise ValueError(f"set_solver_rank: expected 0 or more, found {rank}")
    _rank = int(rank)


def set_multiprocess(value: bool) -> None:
    """Say that each solver has a process of its own: nets with Python layers train beside others only so."""
    global _multiprocess
    _multiprocess = bool(value)


@contextmanager
def own_state() -> Iterator[None]:
    """While entered, the state that layers restore is this solver's own, not the root's."""
    global _own_state
    _own_state = True
    try:
        yield
    finally:
        _own_state = False


def restores_random_numbers() -> bool:
    """Whether random streams go on from the state that is restored: beside the root from a solver's own only."""
    return is_root() or _own_state
