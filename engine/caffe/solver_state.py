"""Snapshots of a solver: the net's caffemodel and the solver's state, written whole, and read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from caffe import glog, weight_files
from caffe.proto import caffe_pb2, kinds, text

if TYPE_CHECKING:
    from caffe.solver import Solver


def check_prefix(prefix: str) -> None:
    """Raise PermissionError now, not at the first snapshot, where snapshots could not be written."""
    probe = Path(f"{prefix}.tempfile")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(
            f"Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists and is writable: "
            f"{error.strerror}"
        ) from None


def snapshot(solver: Solver) -> Path:
    """Write caffemodel and solverstate of the moment; returns the solverstate's path."""
    stem = f"{solver.param.snapshot_prefix}_iter_{solver.iter}"
    if solver.param.snapshot_format == caffe_pb2.SolverParameter.HDF5:
        model, state = Path(f"{stem}.caffemodel.h5"), Path(f"{stem}.solverstate.h5")
        glog.info("solver.cpp:474", f"Snapshotting to HDF5 file {model}")
        weight_files.save_hdf5(solver.net, model, solver.param.snapshot_diff)
        glog.info("sgd_solver.cpp:296", f"Snapshotting solver state to HDF5 file {state}")
        weight_files.write_whole_hdf5(state, lambda file: _fill_hdf5(solver, file, model))
    else:
        model, state = Path(f"{stem}.caffemodel"), Path(f"{stem}.solverstate")
        glog.info("solver.cpp:464", f"Snapshotting to binary proto file {model}")
        weight_files.save(solver.net, model, solver.param.snapshot_diff)
        glog.info("sgd_solver.cpp:284", f"Snapshotting solver state to binary proto file {state}")
        message = caffe_pb2.SolverState(iter=solver.iter, learned_net=str(model), current_step=solver.current_step)
        for blob in solver.history:
            blob.to_proto(message.history.add())
        weight_files.write_whole(state, message.SerializeToString())
    return state


def _fill_hdf5(solver: Solver, file: h5py.File, model: Path) -> None:
    file.create_dataset("iter", data=np.array([solver.iter], np.int32))
    file.create_dataset("learned_net", data=np.bytes_(str(model)))
    file.create_dataset("current_step", data=np.array([solver.current_step], np.int32))
    group = file.create_group("history")
    for i, blob in enumerate(solver.history):
        group.create_dataset(str(i), data=blob.data)


def restore(solver: Solver, path: str | os.PathLike) -> None:
    """Continue from a solverstate, binary or HDF5: iteration, history and the caffemodel written with it.

    Raises:
        FileNotFoundError: the solverstate or its caffemodel is not there.
        ValueError: the file is no solverstate, or belongs to another net or solver type.
    """
    path = Path(path)
    kinds.check(path, "a solverstate", "an HDF5 solverstate")
    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            missing = {"iter", "current_step", "history"} - set(file)
            if missing:
                raise ValueError(f"{path}: expected a solverstate, found an HDF5 file without {sorted(missing)}")
            iteration, step = int(np.ravel(file["iter"])[0]), int(np.ravel(file["current_step"])[0])
            learned = file["learned_net"][()].decode() if "learned_net" in file else ""
            history = [file["history"][str(i)][...] for i in range(len(file["history"]))]
            shapes = [values.shape for values in history]
    else:
        state = text.read_binary(path, caffe_pb2.SolverState())
        if not state.HasField("iter"):
            raise ValueError(f"{path}: expected a solverstate, found a file without an iteration: is it a caffemodel?")
        iteration, step, learned = state.iter, state.current_step, state.learned_net
        history, shapes = list(state.history), [tuple(proto.shape.dim) for proto in state.history]
    if len(history) != len(solver.history):
        raise ValueError(
            f"{path}: Incorrect length of history blobs: expected {len(solver.history)} for this net and solver type "
            f"{solver.type}, found {len(history)}"
        )
    for i, (blob, shape) in enumerate(zip(solver.history, shapes, strict=True)):
        if blob.shape != tuple(shape):
            raise ValueError(f"{path}: history blob {i} has shape {tuple(shape)}, expected {blob.shape}: another net's")
    if learned:
        weight_files.copy_trained(solver.net, _beside(path, learned))
    glog.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
    for blob, values in zip(solver.history, history, strict=True):
        if isinstance(values, np.ndarray):
            blob.data[...] = values
        else:
            blob.from_proto(values, reshape=False)
    solver.iter, solver.current_step = iteration, step


def _beside(state: Path, learned: str) -> Path:
    """The caffemodel that a solverstate names: where it says, or, where a run folder was moved, beside the state."""
    for candidate in (Path(learned), state.parent / Path(learned).name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{state} was written with the weights {learned}, found neither there nor beside it; put the caffemodel back"
    )
