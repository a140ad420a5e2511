"""Solvers that train side by side, each in a forked child: the pattern of BVLC's python/train.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import caffe
import forked


class Ended(NamedTuple):
    """How a child ended, and what it wrote to stdout and stderr."""

    status: int | None
    text: str


def run(count: int, work: Callable[[int, bytes], int | None], seconds: float = 60) -> list[Ended]:
    """Call work(rank, uid) in `count` children that are told to be solvers of one training; how each ended."""
    uid = caffe.NCCL.new_uid()

    def child(rank: int) -> int:
        caffe.set_solver_count(count)
        caffe.set_solver_rank(rank)
        caffe.set_multiprocess(True)
        return work(rank, uid) or 0

    begun = [forked.begin(child, rank) for rank in range(count)]
    ended = []
    for process, output in begun:
        with output:
            text = output.read()
        process.join(seconds)
        process.kill()
        ended.append(Ended(process.exitcode, text))
    return ended


def train(
    solver_file: str, weights: str, uid: bytes | None, snapshot: str | None = None, steps: int | None = None
) -> None:
    """Train as one of the solvers; the parameters at the end go to the file `weights` + rank."""
    solver = caffe.get_solver(solver_file)
    if snapshot:
        solver.restore(snapshot)
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    solver.step(solver.param.max_iter - solver.iter if steps is None else steps)
    solver.net.save(f"{weights}{caffe.solver_rank()}")
