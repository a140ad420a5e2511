"""Folders that appear when all of their files are complete."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from atomic_writes import StrPath, error_of, locks, naming, sync

_AT_FDCWD, _EXCHANGE = -100, 2  # of Linux's renameat2


@contextlib.contextmanager
def replacing_folder(path: StrPath) -> Iterator[Path]:
    """The empty folder `path`.partial, held by this process alone; filled, it takes the place of `path` in one step.

    A folder at `path` gives way then; what a killed writer left next to `path` is removed first.

    Raises:
        locks.HeldError: another process is writing the same folder.
        OSError: it cannot be written; `path` is as it was.
    """
    target, partial, old = _places(path)
    with locks.hold(path), naming(path, partial):
        if target.exists() and not target.is_dir():
            raise error_of(NotADirectoryError("expected a folder, or nothing, found a file there"), path)
        _recover(target, partial, old)
        partial.mkdir()
        try:
            yield partial
            sync_tree(partial)
            _publish(partial, target, old)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def recover(path: StrPath) -> None:
    """Remove what a killed writer of the folder `path` left next to it. Raises as replacing_folder."""
    target, partial, old = _places(path)
    if any(map(os.path.lexists, (partial, old, locks.place(path)))):
        with locks.hold(path), naming(path, partial):
            _recover(target, partial, old)


def _places(path: StrPath) -> tuple[Path, Path, Path]:
    """The folder, and where its replacement and what it replaces stand for a moment. A `NAME.old` is the user's."""
    target = Path(os.path.realpath(path))
    return target, target.with_name(target.name + ".partial"), target.with_name(f".{target.name}.old")


def _recover(target: Path, partial: Path, old: Path) -> None:
    _remove(partial)
    if not target.exists() and old.exists():  # killed between the two steps
        os.rename(old, target)
    _remove(old)


def sync_tree(folder: Path) -> None:
    """Bring a folder to the disk with all that is in it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _publish(partial: Path, target: Path, old: Path) -> None:
    """Put the folder `partial` at `target`; the folder that is there is then at `partial`, or removed."""
    if not target.exists():
        os.rename(partial, target)
    elif not _exchange(partial, target):  # two steps: killed between them, it leaves the old folder at `old`
        os.rename(target, old)
        os.rename(partial, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, as Linux can; False where it cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0
