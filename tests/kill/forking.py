"""Commands in children forked from this process, and what they start in children of theirs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
THREADED = ("lance", "pyarrow")  # packages that start threads when they are imported
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_shared = mmap.mmap(-1, 16)  # of all children: events so far, and the one that kills
_folder = ""


def events() -> int:
    """How many events the last command and its children have had."""
    return struct.unpack_from("q", _shared, 0)[0]


def start(main: Callable[[list[str]], int], words: Sequence[str], log: Path, event: int = 0) -> int:
    """Start a command as a new Python would, in a process group of its own; returns its process id.

    event: it is killed just before this one of its events, from 1; 0: it is not.
    """
    global _folder
    _folder = str(Path.cwd())
    struct.pack_into("qq", _shared, 0, 0, event)
    log.write_bytes(b"")
    return _fork(functools.partial(_command, main, list(words)), log=log, new_group=True)


def warm() -> None:
    """Import what the commands that have run imported, so that the next ones need not; raises RuntimeError where that
    starts a thread, which a fork would lose."""
    path = Path("modules")
    names = path.read_text().split("\n") if path.exists() else []
    path.unlink(missing_ok=True)
    for name in dict.fromkeys(names):
        if name and name not in sys.modules and not name.startswith(("_", *THREADED)):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError(f"expected one thread, found {threading.enumerate()}")


def wait(pid: int, until: float) -> int:
    """The status of a command, negative of a signal, as subprocess has it. Kills it where it takes too long."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
            until += 60
        time.sleep(0.002)


def children() -> list[int]:
    """This process's children that have not ended; those that have are reaped."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                break
        except ChildProcessError:
            return []
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _command(main: Callable[[list[str]], int], words: list[str]) -> int:
    import dhn

    sys.argv = [sys.modules[main.__module__].__file__ or main.__module__, *words]
    status = main(words) if main.__module__.startswith("caffe.") else dhn.run(lambda: main(words))
    for number in SIGNALS:  # the command is over; what follows is the test's
        signal.signal(number, signal.SIG_IGN)
    with open(os.path.join(_folder, "modules"), "a") as stream:
        stream.write("".join(f"{name}\n" for name in sys.modules))
    return status


def _fork(call: Callable[[], int], log: Path | None = None, new_group: bool = False, **how: Any) -> int:
    """A child that calls `call` and ends with its status; `how` as of subprocess.Popen."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes now comes in `run`
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return child

    def run() -> int:
        try:
            return begin()
        except KeyboardInterrupt:  # before the command has begun, or when it is over: Python ends so
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
            raise

    def begin() -> int:
        if new_group:
            os.setpgid(0, 0)
        for number in SIGNALS:  # as after an exec
            if callable(signal.getsignal(number)) or new_group:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND) if log else None
        for target, stream in ((1, how.get("stdout")), (2, how.get("stderr"))):
            source = out if out is not None else stream.fileno() if stream is not None else target
            os.dup2(source, target)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor not in how.get("pass_fds", ()):
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(descriptor)
        if how.get("cwd"):
            os.chdir(how["cwd"])
        if how.get("env") is not None:
            os.environ.clear()
            os.environ.update(how["env"])
        if how.get("preexec_fn"):
            how["preexec_fn"]()
        sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace", closefd=False) for number in (1, 2))
        _install()
        return call()

    forked.finish(run)


_installed = False


def _install() -> None:
    """In a child: count the events, and start `python -m` by forking."""
    global _installed
    if _installed:
        return
    _installed = True
    sys.addaudithook(_event)
    synchronize = os.fsync

    def fsync(descriptor: int) -> None:
        _count()
        synchronize(descriptor)

    os.fsync = fsync
    subprocess.Popen, subprocess.run = Forked, _run  # type: ignore[misc,assignment]


def _event(name: str, arguments: tuple) -> None:
    if name in EVENTS:
        if name == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        else:
            path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)) and os.path.abspath(os.fsdecode(path)).startswith(_folder):
            _count()


def _count() -> None:
    count, target = struct.unpack_from("qq", _shared, 0)
    struct.pack_into("q", _shared, 0, count + 1)
    if count + 1 == target:
        os.kill(os.getpid(), signal.SIGKILL)


class Forked:
    """What the commands use of subprocess.Popen, for `python -m caffe.cli.main ...` and `python -m dhn ...`."""

    def __init__(self, words: Sequence[str], **how: Any) -> None:
        assert words[:2] == [sys.executable, "-m"], words
        how.setdefault("env", dict(os.environ))
        self.pid = _fork(functools.partial(_module, words[2], list(words[3:])), **how)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _run(words: Sequence[str], check: bool = False, **how: Any) -> SimpleNamespace:
    child = Forked(words, **how)
    try:
        return SimpleNamespace(returncode=child.wait())
    except BaseException:  # as subprocess.run: after a moment for its own ^C, the child is killed
        time.sleep(0.25)
        child.kill()
        child.wait()
        raise


def _module(name: str, words: list[str]) -> int:
    if name == "caffe.cli.main":
        import caffe.cli.main

        return _command(caffe.cli.main.main, words)
    import extract_codes

    assert (name, words[0]) == ("dhn", "extract-codes")
    return _command(extract_codes.main, words[1:])
