"""Atomic writes: a file is there completely, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from caffe.proto import byte_strings

if TYPE_CHECKING:
    import h5py  # imported where it is used: it takes 0.1 s, and few trainings have to do with HDF5


def check_folder(path: str | Path) -> None:
    """Raise FileNotFoundError now, before the work, where there is no folder to write `path` into."""
    folder = Path(byte_strings.path(path)).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {folder}; make it first")


@contextmanager
def _replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write; it replaces `path` once it is on the disk, and is removed if writing fails."""
    path = Path(byte_strings.path(path))
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: a folder is there; take another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes | memoryview) -> None:
    """Write a file atomically: a reader finds the old one or the complete new one, whatever happens meanwhile."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def write_atomic_hdf5(path: str | Path, fill: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file atomically; `fill(h5py.File)` writes its content."""
    import h5py

    with _replacing(path) as temporary, h5py.File(temporary, "w") as file:
        fill(file)
