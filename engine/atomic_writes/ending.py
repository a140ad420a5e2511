"""Commands that are told to end. ^C, SIGTERM and SIGHUP unwind them as an exception does, so that they leave no
temporary file and no child behind. A child ends with its parent, also where that is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before a fork
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl
_DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL,
}  # fmt: skip
_program = ""  # the name in the line of `_exit`


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: `number`."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def _end(number: int, _: FrameType | None) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # what cleans up is not interrupted
    raise Ended(number)


def exit_at_signals(program: str) -> None:
    """Have ^C, SIGTERM and SIGHUP end this process at once, with one line, until `run` or `restore`.

    For a command that imports its modules: it has nothing to clean up yet, and an import that is interrupted shows a
    traceback. A signal that is ignored, or that has a handler already, is left as it is.
    """
    global _program
    _program = program
    for number, handler in _DEFAULTS.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, _exit)


def is_command() -> bool:
    """Whether this process is a command, which has called `exit_at_signals`, and not a program that imports modules."""
    return bool(_program)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    os.write(2, f"{_program}: ended by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def restore() -> None:
    """Have signals do again what they did before `exit_at_signals`."""
    for number, handler in _DEFAULTS.items():
        if signal.getsignal(number) is _exit:
            signal.signal(number, handler)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the system send this process a signal when its parent, the process `parent`, ends, however that ends.

    Of a subprocess: preexec_fn=functools.partial(end_with, os.getpid()). A no-op where the system is not Linux.
    """
    if _LIBRARY is not None:
        _LIBRARY.prctl(_SET_PARENT_DEATH_SIGNAL, number)
        if os.getppid() != parent:  # it has ended already
            os._exit(128 + signal.SIGKILL)


def run(main: Callable[[], int], program: str | None = None) -> int:
    """main()'s exit status; 128 and the signal's number, after one line, where a signal ended it: 130, 143, 129.

    A signal that is ignored (nohup), or that the program has a handler for, is left as it is.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        restore()
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is signal.SIG_DFL:
                before[each] = signal.signal(each, _end)
    try:
        try:
            return main()
        finally:
            _restore(before)  # a signal that has just come is raised here
    except KeyboardInterrupt as error:
        _restore(before)
        came = error.number if isinstance(error, Ended) else signal.SIGINT.value
        print(f"{program or Path(sys.argv[0]).stem}: ended by {signal.Signals(came).name}", file=sys.stderr)
        return 128 + came


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)
