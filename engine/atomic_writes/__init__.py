"""Atomic writes: a file, or a folder of files, is there completely, or as it was before.

The engine and the tools write all their results through this package. It needs nothing but Python's standard library.

- A link is followed: the file it leads to is replaced, and the link stays.
- A FIFO or a character device (/dev/null, /dev/stdout) is written straight. A block device or a socket is refused.
- Each write has a temporary file of its own, `.NAME.PID.N.part` in the target's folder. A writer that was killed leaves
  it there; the next process that writes into that folder removes it.
- An OSError is one sentence that names the file. Its errno stays.

folders.py does the same for folders, locks.py lets one process at a time write an output, ending.py is about commands
and children that are told to end, command_lines.py about the words they are given.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

StrPath = str | os.PathLike[str]

_NAME_BYTES = 200  # of the target's name in the temporary one: a name has 255 at most
_PART = re.compile(rb"\..+\.([0-9]+)\.[0-9]+\.part", re.DOTALL)
LOCK_TEXT = re.compile(rb"process (\d+) on (\S+) ")  # what a lock (locks.py) begins with
_numbers = itertools.count()
_cleared: set[Path] = set()  # folders in which this process has looked for what killed writers left


def write_atomic(path: StrPath, fill: Callable[[BinaryIO], object]) -> None:
    """Let `fill(stream)` write the file `path`, which appears when it is complete.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    if is_written_straight(path):
        buffer = io.BytesIO()  # `fill` may go back in what it writes, and a FIFO cannot
        fill(buffer)
        with naming(path), open(path, "wb") as stream:
            stream.write(buffer.getbuffer())
        return
    with replacing(path) as partial, open(partial, "wb") as stream:
        fill(stream)


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """An empty temporary file to be written by its path; then it replaces `path` in one step.

    Raises:
        OSError: the file cannot be written, or `path` is no regular file; `path` is as it was.
    """
    if is_written_straight(path):
        raise error_of(OSError(f"expected a regular file, found {_kind(os.stat(path).st_mode)}"), path)
    target = Path(os.path.realpath(path))
    start = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    partial = target.with_name(f".{start}.{os.getpid()}.{next(_numbers)}.part")
    with naming(path, partial):
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            if target.parent not in _cleared:
                _cleared.add(target.parent)
                clear_killed(target.parent)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if target.exists():
                os.fchmod(handle, stat.S_IMODE(target.stat().st_mode))
            yield partial
            os.fsync(handle)
            os.replace(partial, target)
            sync(target.parent)
        finally:
            os.close(handle)
            partial.unlink(missing_ok=True)


def is_written_straight(path: StrPath) -> bool:
    """Whether `path` leads to what no file can replace: a FIFO, a device, an open file of the process (/dev/stdout).

    Raises:
        OSError: a folder, a block device or a socket is there.
    """
    with naming(path):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            kind = IsADirectoryError if stat.S_ISDIR(mode) else OSError
            raise error_of(kind(f"{_kind(mode)} is there; take another name"), path)
        folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        return not stat.S_ISREG(mode) or folder == "/dev" or folder.startswith("/proc/")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a block device", stat.S_IFCHR: "a device", stat.S_IFIFO: "a FIFO"}
    return kinds.get(stat.S_IFMT(mode), "a socket" if stat.S_ISSOCK(mode) else "an open file of the process")


@contextlib.contextmanager
def naming(path: StrPath, *others: StrPath) -> Iterator[None]:
    """Errors of the system about `path`, or about `others`, which stand for it, become sentences that name `path`."""
    try:
        yield
    except OSError as error:
        own = {None, *(os.fspath(each) for each in (path, *others))}
        if error.errno is None or error.strerror is None or error.filename not in own:
            raise  # a sentence already, or of another file
        raise error_of(error, path) from error


def error_of(error: OSError, path: StrPath) -> OSError:
    """`error` as a sentence that names `path`; its type and errno stay."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    folder = Path(os.path.realpath(path)).parent
    if isinstance(error, FileNotFoundError) and not folder.is_dir():
        reason = f"there is no folder {folder}; make it first"
    named = type(error)(f"cannot write {os.fspath(path)}: {reason}")
    named.errno = error.errno
    return named


def sync(path: Path) -> None:
    """Bring a file to the disk, or a folder's entries: a rename survives a power cut only then."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(path: StrPath, size: int, output: StrPath) -> None:
    """Write a file of `size` zeros, which a library is going to map: on a full disk, what it stores in a hole of a file
    ends the process (SIGBUS). Raises OSError, which names `output`."""
    with naming(output, path), open(path, "xb") as stream:
        stream.write(bytes(size))


def make_folder(path: StrPath) -> None:
    """Ensure that there is a folder `path`, and those above it; new ones are on the disk with it."""
    folder = Path(path).absolute()
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in new:
        sync(each.parent)


def clear_killed(folder: Path) -> None:
    """Remove the temporary files and locks that killed writers left in `folder`."""
    for entry in os.scandir(os.fsencode(folder)):
        if _PART.fullmatch(entry.name) or entry.name.endswith(b".lock"):
            _clear_killed(entry)


def _clear_killed(entry: os.DirEntry[bytes]) -> None:
    """Remove a temporary file or lock whose process runs no more."""
    with contextlib.suppress(OSError):  # held on another machine, or not ours to remove
        part = _PART.fullmatch(entry.name)
        if not entry.is_file(follow_symlinks=False) or (part and runs(int(part[1]))):
            return
        handle = os.open(entry.path, os.O_RDONLY)
        try:
            if part or LOCK_TEXT.match(os.pread(handle, 100, 0)):  # another program's lock may be a file alone
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
        finally:
            os.close(handle)


def runs(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True
