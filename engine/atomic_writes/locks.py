"""One writer of an output at a time.

The lock of `OUT` is a file `.OUT.lock` next to it, which says who holds it and is removed in the end. The system
releases it when the process that holds it ends, however that ends: what a killed process left blocks nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from atomic_writes import LOCK_TEXT, StrPath, clear_killed, error_of, is_written_straight, naming, runs

_NAME_BYTES = 240  # of the output's name in the lock's: a name has 255 at most
_SHOWN = 200  # characters of a command
_ENDING = 10  # seconds for the children of a process that has ended


class HeldError(BlockingIOError):
    """Another process holds the lock of an output: `holder`, in words."""

    holder = "another process"


@contextlib.contextmanager
def hold(path: StrPath) -> Iterator[int]:
    """Hold the lock of the output `path`, a file or a folder, there or not yet.

    Yields a descriptor that a child process may inherit, to hold it in its turn; -1 where there is none to hold: for a
    FIFO or a device, on a file system without locks, and in a folder that cannot be written.

    Raises:
        HeldError: another process holds it. The sentence says which, its command, and since when.
        OSError: there is no folder for it.
    """
    if not os.path.isdir(path) and is_written_straight(path):
        yield -1
        return
    lock = place(path)
    handle = -1
    try:
        with naming(path, lock):
            handle = _lock(lock, path)
            clear_killed(lock.parent)
        yield handle
    finally:
        if handle >= 0:
            try:
                _remove(lock, handle)
            except KeyboardInterrupt:  # it may have come before anything was done
                _remove(lock, handle)
                raise
            finally:
                os.close(handle)


def place(path: StrPath) -> Path:
    """Where the lock of an output is."""
    target = Path(os.path.realpath(path))
    return target.with_name(f".{os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])}.lock")


def _remove(lock: Path, handle: int) -> None:
    """Remove a lock that is held: who opens it meanwhile sees that it is another one."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(handle), os.stat(lock)):
            os.unlink(lock)


def _lock(lock: Path, path: StrPath) -> int:
    """The descriptor of the lock file, held; -1 on a file system without locks."""
    try:
        return _take(lock, path)
    except KeyboardInterrupt:  # a signal is raised when a call returns, before its value has a name
        with contextlib.suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where another process holds it
                _remove(lock, handle)
            finally:
                os.close(handle)
        raise


def _take(lock: Path, path: StrPath) -> int:
    until = time.monotonic() + _ENDING
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            try:  # another user's, whose process was killed: it can be held, if not written
                handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return -1  # nothing can be written here, and who tries to write says so
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                with contextlib.suppress(OSError):
                    os.truncate(handle, 0)
                    os.pwrite(handle, os.fsencode(_self()), 0)
                return handle
            os.close(handle)
        except BlockingIOError:
            holder = os.fsdecode(os.pread(handle, 1000, 0)) or HeldError.holder
            os.close(handle)
            if _has_ended(holder) and time.monotonic() < until:  # a child that it has handed the lock to ends with it
                time.sleep(0.02)
                continue
            named = error_of(HeldError(f"{holder} is writing it; wait for it or stop it"), path)
            named.holder = holder  # type: ignore[attr-defined]
            raise named from None
        except FileNotFoundError:  # its holder has removed it
            os.close(handle)
        except OSError:
            os.close(handle)
            with contextlib.suppress(OSError):
                os.unlink(lock)
            return -1
        except BaseException:  # a signal
            os.close(handle)
            raise


def _has_ended(holder: str) -> bool:
    """Whether the process that wrote this into a lock, on this machine, does not run any more."""
    words = LOCK_TEXT.match(os.fsencode(holder))
    return words is not None and words[2] == os.fsencode(socket.gethostname()) and not runs(int(words[1]))


def _self() -> str:
    """This process, as the next one is told who holds a lock."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    command = command if len(command) <= _SHOWN else command[: _SHOWN - 3] + "..."
    return f"process {os.getpid()} on {socket.gethostname()} ({command}, since {time.strftime('%Y-%m-%d %H:%M:%S')})"
