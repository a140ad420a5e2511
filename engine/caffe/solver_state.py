"""Snapshots of a solver: the net's caffemodel and the solver's state, each written atomically, and read back.

A state holds what BVLC Caffe's does, which either Caffe resumes from, and where data layers and random numbers stand,
which BVLC Caffe skips: a training resumed on a CPU equals the uninterrupted one. From a state of BVLC Caffe, data and
random numbers start again, as they do there. What is added is a field that no schema defines, of bytes that begin with
a mark: so a field of another program, whatever its number, is never taken for it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import DecodeError

from caffe import atomic_files, device, glog, hdf5_files, parallel, weight_files
from caffe.layer import Layer
from caffe.proto import byte_strings, caffe_pb2, kinds, text, wire

if TYPE_CHECKING:
    import h5py

    from caffe.solver import Solver

_MARK = b"caffe: where data and random numbers stand\n"  # before a ResumeState
_RESUME, _DATASET = 418360000, "resume state"  # the field of a binary solverstate, the dataset of one in HDF5
_OLD_RESUME, _OLD_DATASET = 10000, "resume"  # where earlier versions put it, without the mark


def check_prefix(prefix: str, place: str) -> None:
    """Raise PermissionError now, not at the first snapshot, where snapshots could not be written. place: of the prefix,
    for the message."""
    probe = Path(byte_strings.path(f"{prefix}.tempfile"))
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(
            f"{place}: Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists and is "
            f"writable: {error.strerror}"
        ) from None


def snapshot(solver: Solver, before: caffe_pb2.ResumeState | None = None, others: Sequence[bytes] = ()) -> Path:
    """Write a snapshot of the current state, caffemodel and solverstate; returns the solverstate's path.

    before: where data and random numbers stand, if not where they are now. A snapshot in the midst of a test resumes
    before it: a resumed training makes that test again. others: of several solvers what `capture` gave in those other
    than the root, serialized.
    """
    resume = caffe_pb2.ResumeState()
    resume.CopyFrom(before or capture(solver))
    for other in others:
        resume.solver.add().ParseFromString(other)
    stem = byte_strings.path(f"{solver.param.snapshot_prefix}_iter_{solver.iter}")
    if solver.param.snapshot_format == caffe_pb2.SolverParameter.HDF5:
        model, state = Path(f"{stem}.caffemodel.h5"), Path(f"{stem}.solverstate.h5")
        atomic_files.remove(state)  # an older one does not stand next to new weights
        glog.info("solver.cpp:474", f"Snapshotting to HDF5 file {model}")
        weight_files.save_hdf5(solver.net, model, solver.param.snapshot_diff)
        glog.info("sgd_solver.cpp:296", f"Snapshotting solver state to HDF5 file {state}")
        atomic_files.write_atomic_hdf5(state, lambda file: _fill_hdf5(solver, file, model, resume))
    else:
        model, state = Path(f"{stem}.caffemodel"), Path(f"{stem}.solverstate")
        atomic_files.remove(state)
        glog.info("solver.cpp:464", f"Snapshotting to binary proto file {model}")
        weight_files.save(solver.net, model, solver.param.snapshot_diff)
        glog.info("sgd_solver.cpp:284", f"Snapshotting solver state to binary proto file {state}")
        learned = byte_strings.from_path(model)
        message = caffe_pb2.SolverState(iter=solver.iter, learned_net=learned, current_step=solver.current_step)
        for blob in solver.history:
            blob.to_proto(message.history.add())
        content = _MARK + resume.SerializeToString()
        field = wire.header(_RESUME, len(content)) + content
        atomic_files.write_atomic(state, byte_strings.serialize(message) + field)
    return state


def _fill_hdf5(solver: Solver, file: h5py.File, model: Path, resume: caffe_pb2.ResumeState) -> None:
    file.create_dataset("iter", data=np.array([solver.iter], np.int32))
    file.create_dataset("learned_net", data=np.bytes_(os.fsencode(model)))
    file.create_dataset("current_step", data=np.array([solver.current_step], np.int32))
    group = file.create_group("history")
    for i, blob in enumerate(solver.history):
        group.create_dataset(str(i), data=blob.data)
    file.create_dataset(_DATASET, data=np.frombuffer(_MARK + resume.SerializeToString(), np.uint8))


def _read_resume(path: Path) -> caffe_pb2.ResumeState | None:
    """What `snapshot` added to the binary solverstate `path`; None where another program wrote it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for field in wire.fields(file, size):
            if field.wire == wire.BYTES and field.number in (_RESUME, _OLD_RESUME):
                file.seek(field.start)
                content = file.read(field.size)
                state = _unmark(content, path) if field.number == _RESUME else _old_resume(content)
                if state is not None:
                    return state
    return None


def _read_hdf5_resume(file: h5py.File) -> caffe_pb2.ResumeState | None:
    """`_read_resume` of a solverstate in HDF5."""
    for name in (_DATASET, _OLD_DATASET):
        values = file.get(name)
        if getattr(values, "dtype", None) == np.uint8:
            content = values[...].tobytes()
            state = _unmark(content, file.filename) if name == _DATASET else _old_resume(content)
            if state is not None:
                return state
    return None


def _unmark(content: bytes, path: str | Path) -> caffe_pb2.ResumeState | None:
    """The state behind the mark; None where there is none. Raises ValueError, which names the file."""
    if not content.startswith(_MARK):
        return None
    try:
        return caffe_pb2.ResumeState.FromString(content[len(_MARK) :])
    except DecodeError:
        raise ValueError(
            f"{path}: is damaged: where data and random numbers stood cannot be read; resume from an earlier snapshot"
        ) from None


def _old_resume(content: bytes) -> caffe_pb2.ResumeState | None:
    """The state in `content` as earlier versions wrote it, without a mark: it names the generators' devices."""
    try:
        state = caffe_pb2.ResumeState.FromString(content)
    except DecodeError:
        return None
    state.DiscardUnknownFields()
    devices = {each.device for each in state.generator}
    return state if devices and devices <= {"cpu", "cuda"} and state.ByteSize() == len(content) else None


def capture(solver: Solver) -> caffe_pb2.ResumeState:
    """Where the random numbers, and the data layers of the train net and the test nets, stand.

    Raises:
        TypeError: the snapshot_state of a Python layer gave something else than bytes.
    """
    captured = caffe_pb2.ResumeState()
    for name, generator in device.generator_states().items():
        captured.generator.add(device=name, state=generator)
    for net, name, layer in _layers(solver):
        state = layer.snapshot_state()
        if isinstance(state, bytes):
            captured.layer.add(net=net, name=name, type=_type(layer), state=state)
        elif state is not None:
            raise TypeError(f"layer {name!r}: snapshot_state must return bytes or None, found {state!r}")
    return captured


def _layers(solver: Solver) -> Iterator[tuple[int, str, Layer]]:
    """(number of the net, as ResumeState.Layer has it, name, layer) of each layer."""
    for number, net in enumerate((solver.net, *solver.test_nets)):
        for name, layer in zip(net._layer_names, net._layers, strict=True):
            yield number, name, layer


def _type(layer: Layer) -> str:
    """The layer's type; a Python layer's with its class."""
    return f"Python {layer.layer_param.python_param.layer}" if layer.type == "Python" else layer.type


def _place(net: int, name: str, kind: str) -> str:
    return f"layer {name!r} ({kind}) of {f'test net #{net - 1}' if net else 'the train net'}"


def resume_data(solver: Solver, captured: caffe_pb2.ResumeState, path: str | Path) -> None:
    """Put random numbers and data layers where they stood. Of several solvers each takes its own state where the
    snapshot has them all; else the others take the root's place in the records, and new random numbers.

    path: the state's, for messages. Raises ValueError where a layer's state does not fit its data.
    """
    rank, count = parallel.solver_rank(), parallel.solver_count()
    if rank and len(captured.solver) == count - 1:
        with parallel.own_state():
            _resume_data_layers(solver, captured.solver[rank - 1], path)
    else:
        _resume_data_layers(solver, captured, path)


def _resume_data_layers(solver: Solver, captured: caffe_pb2.ResumeState, path: str | Path) -> None:
    """Put random numbers and data layers where they stood; a layer that the state does not know starts again."""
    states: dict[tuple[int, str, str], list[bytes]] = defaultdict(list)
    for each in captured.layer:
        states[each.net, each.name, each.type].append(each.state)
    for net, name, layer in _layers(solver):
        key = (net, name, _type(layer))
        if states[key]:
            try:
                layer.restore_state(states[key].pop(0))
            except ValueError as error:
                raise ValueError(
                    f"{path}: {_place(*key)} cannot resume where it stood: {error}. Give it the data of the snapshot; "
                    "with another name it starts again"
                ) from None
        elif layer.snapshot_state() is not None:
            glog.warning("sgd_solver.cpp:318", f"{path} does not know {_place(*key)}: its data start again")
    for key, content in states.items():
        if content:
            glog.warning("sgd_solver.cpp:318", f"{path} knows {_place(*key)}, which is not there any more")
    try:
        device.set_generator_states({each.device: each.state for each in captured.generator})
    except ValueError as error:
        glog.warning("sgd_solver.cpp:318", f"{path}: random numbers start again: {error}")


def restore(solver: Solver, path: str | os.PathLike) -> None:
    """Continue from a solverstate, binary or HDF5: iteration, history, the caffemodel written with it, data.

    Raises:
        FileNotFoundError: the solverstate or its caffemodel is not there.
        ValueError: the file is no solverstate, or belongs to another net, solver type or source of data.
    """
    path = Path(path)
    kinds.check(path, "a solverstate", "an HDF5 solverstate")
    if kinds.is_hdf5(path):
        with hdf5_files.reading(path, "an HDF5 solverstate") as file:
            missing = {"iter", "current_step", "history"} - set(file)
            if missing:
                raise ValueError(f"{path}: expected a solverstate, found an HDF5 file without {sorted(missing)}")
            iteration, step = int(np.ravel(file["iter"])[0]), int(np.ravel(file["current_step"])[0])
            learned = _learned_net(file, path)
            stored = [file["history"][str(i)] for i in range(len(file["history"]))]
            _check_history(solver, [each.shape for each in stored], path)
            history = [hdf5_files.values(each, f"history blob {i}") for i, each in enumerate(stored)]
            resume = _read_hdf5_resume(file)
    else:
        state = text.read_binary(path, caffe_pb2.SolverState())
        if not state.HasField("iter"):
            raise ValueError(f"{path}: expected a solverstate, found a file without an iteration: is it a caffemodel?")
        iteration, step = state.iter, state.current_step
        try:
            learned = byte_strings.path(state.learned_net)
        except ValueError as error:
            raise ValueError(f"{path}: learned_net: {error}") from None
        history = list(state.history)
        _check_history(solver, [tuple(proto.shape.dim) for proto in state.history], path)
        resume = _read_resume(path)
    if resume is not None:
        resume_data(solver, resume, path)
    solver.resumed = resume
    if learned:
        weight_files.copy_trained(solver.net, _find_weights(path, learned))
    glog.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
    for blob, values in zip(solver.history, history, strict=True):
        if isinstance(values, np.ndarray):
            blob.data[...] = values
        else:
            try:
                blob.from_proto(values, reshape=False)
            except ValueError as error:
                raise ValueError(f"{path}: history: {error}") from None
    solver.iter, solver.current_step = iteration, step


def _check_history(solver: Solver, shapes: list[tuple[int, ...]], path: Path) -> None:
    """Raise ValueError unless the shapes of a state's history are those of the solver's."""
    if len(shapes) != len(solver.history):
        raise ValueError(
            f"{path}: Incorrect length of history blobs: expected {len(solver.history)} for this net and solver type "
            f"{solver.type}, found {len(shapes)}"
        )
    for i, (blob, shape) in enumerate(zip(solver.history, shapes, strict=True)):
        if blob.shape != tuple(shape):
            raise ValueError(f"{path}: history blob {i} has shape {tuple(shape)}, expected {blob.shape}: another net's")


def _learned_net(file: h5py.File, path: Path) -> str:
    """The caffemodel that an HDF5 solverstate names; "" where it names none."""
    try:
        return os.fsdecode(file["learned_net"][()]) if "learned_net" in file else ""
    except (AttributeError, OSError, TypeError) as error:
        raise ValueError(f"{path}: expected learned_net to be the name of a caffemodel: {error}") from None


def _find_weights(state: Path, learned: str) -> Path:
    """The caffemodel that a solverstate names: where it says, or, where a run folder was moved, next to the state."""
    for candidate in (Path(learned), state.parent / Path(learned).name):
        if os.path.isfile(candidate):  # False for a name that no file can have
            return candidate
    raise FileNotFoundError(
        f"{state} was written with the weights {learned}, found neither there nor next to it; put the caffemodel back"
    )
