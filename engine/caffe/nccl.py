"""caffe.NCCL: what several solvers of one training exchange (BVLC's parallel.cpp), each a process of its own.

At each iteration, in this order: all say where they are and what their signals ask for; the Python layers gather what
they need of the others' batches; the gradients become their mean over all solvers. So every solver makes the same
update. torch.distributed carries it: NCCL between GPUs, gloo between CPUs.
"""

from __future__ import annotations

import multiprocessing.util
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from caffe import parallel, solver_state
from caffe.group import Group, new_uid, open_store
from caffe.proto import caffe_pb2

if TYPE_CHECKING:
    from caffe.blob import Blob
    from caffe.solver import Solver

# what a solver says: an iteration begins, the others' states are asked for, its training is over, it was stopped
_STEP, _STATES, _END, _STOPPED = range(4)
_ACTIONS = (None, "snapshot", "stop")  # what a signal asks for; the highest that a solver names is done by all
_current: NCCL | None = None  # of this process


def has_nccl() -> bool:
    """Whether `NCCL` can be used: this torch has torch.distributed."""
    return dist.is_available()


class NCCL:
    """The exchange between the solvers of one training, of which `caffe.set_solver_count` and `set_solver_rank` say how
    many they are and which is this process's.

    Making one waits for the others: 45 seconds for one that gives no sign of life, which `caffe train` gives from its
    begin, and a script when it makes its own. `bcast` then gives all of them the root's parameters, history
    and iteration; `solver.add_callback(nccl)` lets the solver's `step` exchange. A process ends only when all have
    ended their steps.

    Args:
        solver: this process's.
        uid: what `new_uid` gave in one process on this machine; the same in each. None: torchrun's environment says
            where they meet.

    Raises:
        LostError (a ConnectionError): another solver did not come, or is gone.
        ValueError: `uid` is none, or the solvers' nets differ.
    """

    def __init__(self, solver: Solver, uid: bytes | str | None):
        global _current
        self._solver = solver
        self._group = Group(open_store(uid), parallel.solver_rank(), parallel.solver_count())
        self._gradients: torch.Tensor | None = None  # of all parameters, one after the other
        self._exchanging = False  # from an iteration's begin until its gradients are there
        self._parted = False  # whether a solver has said that it ends
        self.action: str | None = None  # what to do after this iteration
        _current = self
        self._finalizer = multiprocessing.util.Finalize(None, self._end_process, exitpriority=100)
        sizes = [len(self._blobs()), sum(blob.count for blob in self._blobs())]
        for rank, found in enumerate(self._group.gather_numbers(sizes)):
            if list(found) != sizes:
                raise ValueError(
                    f"NCCL: expected the same net and solver type everywhere; solver {parallel.solver_rank()} has "
                    f"{sizes[0]} blobs of parameters and history with {sizes[1]} values, solver {rank} has {found[0]} "
                    f"with {found[1]}"
                )

    @staticmethod
    def new_uid() -> bytes:
        """What lets processes on this machine find each other. The process that calls this must outlive them."""
        return new_uid()

    def _blobs(self) -> list[Blob]:
        return [*self._solver.net.learnable_params, *self._solver.history]

    def bcast(self) -> None:
        """Give every solver the root's parameters, history, iteration and, where the root was restored from a state
        that says so, the place of its data layers and random numbers."""
        solver = self._solver
        resumed = solver.resumed.SerializeToString() if solver.resumed and parallel.is_root() else b""
        header = torch.tensor([solver.iter, solver.current_step, len(resumed)], dtype=torch.int64)
        self._group.broadcast(header)
        solver.iter, solver.current_step, size = (int(value) for value in header)
        data = torch.frombuffer(bytearray(resumed or bytes(size or 1)), dtype=torch.uint8)
        self._group.broadcast(data)
        if size and not parallel.is_root():
            state = caffe_pb2.ResumeState.FromString(data.numpy().tobytes())
            solver_state.resume_data(solver, state, "the root's solverstate")
        for blob in self._blobs():
            self._group.broadcast(blob.data_tensor.data)
            blob.data_memory.written()

    def __call__(self, layer: int) -> None:
        """net.after_backward(nccl), BVLC's exchange layer by layer: nothing, since `on_gradients_ready` sends all
        gradients in one message. So nets with shared parameters need no layer_wise_reduce: false."""

    # -- what the solver calls

    def on_start(self) -> None:
        """Begin an iteration together; notes the `action` that all do after it, or that another solver was stopped.

        Raises:
            ValueError: the others are at another iteration, or have ended.
        """
        request = _ACTIONS.index(self._solver.requested_action())
        said = self._meet(_STEP, request)
        while any(state == _STATES for state, _, _ in said) and not self._parted:
            self._gather_states()
            said = self._meet(_STEP, request)
        self.action = _ACTIONS[max(action for _, _, action in said)]
        if any(state == _STOPPED for state, _, _ in said):
            self._solver.stopped = True
            return
        for rank, (state, iteration, _) in enumerate(said):
            if state == _END or iteration != self._solver.iter:
                place = "ended its steps" if state == _END else "is"
                raise ValueError(
                    f"solver {parallel.solver_rank()} begins iteration {self._solver.iter} and solver {rank} {place} "
                    f"at iteration {iteration}: give each solver the same number of steps, and bcast() after a restore"
                )
        self._exchanging = True

    def _meet(self, state: int, request: int = 0) -> list[tuple[int, ...]]:
        """Tell each other (state, iteration, request); the last time where a solver says that it ends."""
        said = self._group.gather_numbers([state, self._solver.iter, request])
        self._parted = any(each in (_END, _STOPPED) for each, _, _ in said)
        if self._parted:
            self._group.part()
        return said

    def on_gradients_ready(self) -> None:
        """Make each gradient its mean over all solvers."""
        blobs = self._solver.net.learnable_params
        diffs = [blob.diff_tensor.data.view(-1) for blob in blobs]
        if diffs:
            self._gradients = torch.cat(diffs, out=self._gradients) if self._fits(diffs) else torch.cat(diffs)
            self._group.all_reduce(self._gradients)
            self._gradients.div_(self._group.count)
            torch._foreach_copy_(diffs, list(self._gradients.split([diff.numel() for diff in diffs])))
            for blob in blobs:
                blob.diff_memory.written()
        self._exchanging = False

    def _fits(self, diffs: list[torch.Tensor]) -> bool:
        return self._gradients is not None and self._gradients.device == diffs[0].device

    def gather_states(self) -> list[bytes]:
        """What the solvers beside the root need to go on where they are, for the root's snapshot; each calls this, or
        begins an iteration."""
        self._meet(_STATES)
        return [] if self._parted else self._gather_states()

    def _gather_states(self) -> list[bytes]:
        return self._group.gather_bytes(solver_state.capture(self._solver).SerializeToString())[1:]

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """See the function."""
        if not self._exchanging:
            return array[None]
        shapes = self._group.gather_numbers([array.ndim, *array.shape, *[0] * (8 - array.ndim)])
        if len(set(shapes)) > 1:
            sizes = ", ".join(str(shape[1 : 1 + shape[0]]) for shape in shapes)
            raise ValueError(f"all_gather: expected arrays of one shape; the solvers have {sizes}")
        return torch.stack(self._group.all_gather(torch.tensor(array))).numpy()

    # -- the end

    def end(self) -> None:
        """Wait until all have ended their steps, and close the connections."""
        global _current
        if _current is self:
            _current = None
            self._finalizer.cancel()
            if not self._parted:
                self._meet(_STOPPED if self._solver.stopped else _END)
            self._group.destroy()

    def _end_process(self) -> None:
        """At the end of a script. One that fails says nothing: the others lose their connections with it."""
        if not self._exchanging and not _process_fails():
            self.end()


def _process_fails() -> bool:
    """Whether the script that is ending was ended by an exception: now (multiprocessing) or before (Python itself)."""
    error = sys.exc_info()[1] or getattr(sys, "last_value", None)
    return error is not None and not (isinstance(error, SystemExit) and not error.code)


def all_gather(array: np.ndarray) -> np.ndarray:
    """The arrays that all solvers give in this place of their nets, by rank: (solver_count, *shape).

    For the forward of Python layers whose value depends on the batches of all solvers, in TRAIN only: all of them call
    it in the same order, with arrays of one shape, up to 8 axes. In a solver that trains alone, and outside of `step`,
    there is one: (1, *shape), this solver's own. BVLC Caffe has no such function.
    """
    return array[None] if _current is None else _current.all_gather(np.ascontiguousarray(array))
