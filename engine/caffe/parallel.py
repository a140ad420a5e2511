"""Several solvers side by side, each a process of its own, and which of them this process is (BVLC's parallel.cpp).

Of `solver_count` solvers, number `solver_rank` trains on every solver_count-th record of a Data layer, from record
number solver_rank on. Number 0 is the root: it alone tests, snapshots and logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe.solver import Solver

_count, _rank, _multiprocess = 1, 0, False


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


def has_nccl() -> bool:
    """Whether `NCCL` can be used: it cannot."""
    return False


class NCCL:
    """BVLC's exchange of gradients between GPUs. Not part of this engine: making one raises NotImplementedError."""

    def __init__(self, solver: Solver, uid: str):
        raise NotImplementedError(_NO_NCCL)

    @staticmethod
    def new_uid() -> str:
        """Raises NotImplementedError."""
        raise NotImplementedError(_NO_NCCL)


_NO_NCCL = (
    "caffe.NCCL needs an engine that exchanges gradients between GPUs, and this one trains a net on one device; "
    "caffe.has_nccl() says so. Train on one GPU: caffe.set_device(0), caffe.set_mode_gpu(), caffe.get_solver(file)"
    ".solve(), or `caffe train -gpu 0`. iter_size gives the batch of several"
)
