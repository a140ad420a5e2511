"""Atomic writes of the engine: `atomic_writes`, by paths as messages have them, and of HDF5 files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import atomic_writes

from caffe.proto import byte_strings

if TYPE_CHECKING:
    import h5py  # imported where it is used: it takes 0.1 s, and few trainings have to do with HDF5


def check_folder(path: str | Path) -> None:
    """Raise FileNotFoundError now, before the work, where there is no folder to write `path` into."""
    folder = Path(byte_strings.path(path)).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {folder}; make it first")


def write_atomic(path: str | Path, data: bytes | memoryview) -> None:
    """Write a file atomically: a reader finds the old one or the complete new one, whatever happens meanwhile."""
    atomic_writes.write_atomic(byte_strings.path(path), lambda stream: stream.write(data))


def remove(path: str | Path) -> None:
    """Remove a file, where there is one, from the disk too."""
    target = Path(os.path.realpath(byte_strings.path(path)))  # a link stays
    if target.is_file():
        target.unlink()
        atomic_writes.sync(target.parent)


def write_atomic_hdf5(path: str | Path, fill: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file atomically; `fill(h5py.File)` writes its content.

    Raises:
        OSError: it cannot be written, or a FIFO or a device is there: HDF5 goes back in what it has written.
    """
    import h5py

    path = byte_strings.path(path)
    try:
        with (
            atomic_writes.replacing(path) as partial,
            h5py.File(partial, "w", locking=False) as file,  # the lock on it is ours
        ):
            fill(file)
    except (OSError, RuntimeError) as error:  # h5py's: "Can't decrement id ref count (... errno = 28 ...)"
        if str(error).startswith("cannot write ") or getattr(error, "filename", None):
            raise
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
