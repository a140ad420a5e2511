"""`caffe train` in several processes: starting them, finding out which one this is, and ending all with one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from atomic_writes import ending

from caffe import glog, parallel
from caffe.errors import ours

_UID = "CAFFE_UID"  # where the processes that `launch` starts find each other
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_GRACE = 10  # seconds that processes get to end by themselves after another one
_joined = False


@dataclass(frozen=True)
class Place:
    """Which of several processes this is. uid: where they meet; None: torchrun's environment says it."""

    rank: int
    count: int
    local_rank: int
    uid: str | None


def place() -> Place | None:
    """This process's place among those that `launch` or torchrun started; None where it is alone."""
    uid = os.environ.get(_UID)
    if uid is None and any(name not in os.environ for name in _TORCHRUN):
        return None
    rank, count, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Place(rank, count, local_rank, uid) if count > 1 else None


@contextmanager
def joined(here: Place) -> Iterator[None]:
    """While entered, this process is one of several solvers; when one fails, one of them says why.

    Raises what was raised where this process is the one to say it, and SystemExit where another one says it.
    """
    from caffe import group  # here: it imports torch, which a command's help needs not

    global _joined
    _joined = True
    _end_with_parent(here)
    parallel.set_solver_rank(here.rank)
    parallel.set_solver_count(here.count)
    parallel.set_multiprocess(True)
    store = group.open_store(here.uid)
    try:
        with _signals_are_failures(), group.sign_of_life(store, here.rank):
            yield
    except Exception as error:
        if not group.claim(store, here.rank, str(error), wait=isinstance(error, group.LostError)):
            raise SystemExit(1) from None
        if here.rank and ours(error):
            raise ValueError(f"process {here.rank} of {here.count}: {error}") from None
        raise


_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


@contextmanager
def _signals_are_failures() -> Iterator[None]:
    """While entered, a signal ends this process as an error does; torchrun sends SIGTERM to all when one has ended.
    Afterwards it is ignored: the process is ending. (SIGINT and SIGHUP are a solver's own while it trains.)"""
    from caffe import group  # here: it imports torch, which a command's help needs not

    def ignore() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def fail(number: int, frame: FrameType | None) -> NoReturn:
        ignore()
        cause = ", as all processes are when one fails" if number == signal.SIGTERM else ""
        raise group.LostError(f"ended by {signal.Signals(number).name}{cause}. {_RESUME}")

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has SIGHUP
            signal.signal(number, fail)
    try:
        yield
    finally:
        ignore()


def _end_with_parent(here: Place) -> None:
    """Have the system end this process when `launch`'s does, however that ends."""
    if here.uid is not None:
        ending.end_with(os.getppid(), signal.SIGTERM)


def run(main: Callable[[], int]) -> int:
    """main()'s status. A process that was one of several ends here: an interpreter that closes down while threads of
    torch.distributed still run may abort."""
    try:
        status = main()
    except BaseException as error:
        if not _joined:
            raise
        status = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
    if _joined:
        _exit(status)
    return status


def _exit(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `caffe` with these arguments in `count` processes on this machine; returns the status of all, 0 or 1.

    SIGINT and SIGHUP go on to the root, which tells the others what is to be done. When a process fails, the others are
    ended too.
    """
    from caffe import group  # here: it imports torch, which a command's help needs not

    uid = group.new_uid().decode()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    common = {"OMP_NUM_THREADS": str(max(cores // count, 1)), **os.environ, _UID: uid, "WORLD_SIZE": str(count)}
    command = [sys.executable, "-m", "caffe.cli.main", *arguments]
    processes: list[subprocess.Popen] = []
    came: list[int] = []  # signals

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        for rank in range(count):
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            # apart from the terminal: what is typed there comes here alone, and from here to the root
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return _watch(processes, came, uid)
    finally:
        _end_all(processes)
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(processes: Sequence[subprocess.Popen], came: list[int], uid: str) -> int:
    """Wait for the processes; returns 0 where all did what they were to do. Says why not, where none of them did."""
    from caffe import group  # here: it imports torch, which a command's help needs not

    store = group.open_store(uid)
    while True:
        statuses = [process.poll() for process in processes]
        if all(status == 0 for status in statuses):
            return 0
        # those that a signal ended first: the others lost their connection to them
        failures = sorted((status, rank) for rank, status in enumerate(statuses) if status)
        if failures:
            status, failed = failures[0]
            sentence = f"process {failed} of {len(processes)} {_ending(status)}"
            if group.claim(store, -1, sentence):
                glog.error("caffe.cpp:83", f"{sentence}; the others are ended too. {_RESUME}")
            _wait(processes, _GRACE)
            return 1
        while came:
            number = came.pop(0)
            if number == signal.SIGTERM or not store.check(["joined/0"]):
                sentence = f"ended by {signal.Signals(number).name}"
                if group.claim(store, -1, sentence):
                    glog.error("caffe.cpp:83", f"caffe train was {sentence}. {_RESUME}")
                return 1
            processes[0].send_signal(number)
        time.sleep(0.05)


_RESUME = "The newest snapshot, where there is one, is complete: -snapshot goes on from it"


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _wait(processes: Sequence[subprocess.Popen], seconds: float) -> bool:
    """Whether all processes ended within so many seconds."""
    until = time.monotonic() + seconds
    while any(process.poll() is None for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _end_all(processes: Sequence[subprocess.Popen]) -> None:
    for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for process in processes:
            if process.poll() is None:
                end(process)
        if _wait(processes, 5):
            return
