"""Folders that appear when all of their files are complete."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from atomic_writes import StrPath, error_of, naming, sync

_AT_FDCWD, _EXCHANGE = -100, 2  # of Linux's renameat2


@contextlib.contextmanager
def replacing_folder(path: StrPath) -> Iterator[Path]:
    """The empty folder `path`.partial, held by this process alone; filled, it takes the place of `path` in one step.

    A folder at `path` gives way then; what a killed writer left in `path`.partial is removed first.

    Raises:
        BlockingIOError: another process is writing the same folder.
        OSError: it cannot be written; `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(target.name + ".partial")
    with naming(path, partial), contextlib.ExitStack() as held:
        if target.exists() and not target.is_dir():
            raise error_of(NotADirectoryError("expected a folder, or nothing, found a file there"), path)
        handle = _hold(partial, path)
        held.callback(os.close, handle)
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield partial
            for file in (*sorted(partial.rglob("*")), partial):
                sync(file)
            if target.exists():  # nobody takes it for a folder to fill while it stands at `partial`, to be removed
                held.callback(os.close, _lock(target))
            _publish(partial, target)
        finally:
            if not _is_at(handle, target):  # the write has failed
                shutil.rmtree(partial, ignore_errors=True)


def _hold(partial: Path, path: StrPath) -> int:
    """Make `partial` and lock it; returns the descriptor that holds the lock."""
    while True:
        partial.mkdir(exist_ok=True)
        try:
            handle = _lock(partial)
        except BlockingIOError:
            busy = f"another process{_holder(partial)} is writing it; wait for it or stop it"
            raise error_of(BlockingIOError(busy), path) from None
        except FileNotFoundError:
            continue
        if _is_at(handle, partial):
            return handle
        os.close(handle)  # it was another's, who has finished


def _lock(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open folder still is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(folder: Path) -> str:
    """The process that has locked `folder`, by its number, in parentheses; "" where the system does not say."""
    try:
        inode, locks = os.stat(folder).st_ino, Path("/proc/locks").read_text().split("\n")
    except OSError:
        return ""
    pids = [fields[4] for line in locks if len(fields := line.split()) > 5 and fields[5].endswith(f":{inode}")]
    return f" ({pids[0]})" if pids and int(pids[0]) > 0 else ""


def _publish(partial: Path, target: Path) -> None:
    """Put the folder `partial` at `target`, and remove the folder that is there."""
    if not target.exists():
        os.rename(partial, target)
        sync(target.parent)
        return
    old = partial
    if not _exchange(partial, target):  # two steps: killed between them, it leaves the old folder at `target`.old
        old = target.with_name(target.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
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
