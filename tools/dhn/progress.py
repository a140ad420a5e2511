"""How the tools show progress: bars on a terminal, plain lines anywhere else.

`console` is rich's. It is made when it is first asked for: a command that prints nothing does not wait for rich.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    console: Console

if hasattr(sys.stdout, "reconfigure"):  # a file's name may hold what the output's encoding has no letter for
    sys.stdout.reconfigure(errors="backslashreplace")


@functools.cache
def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def __getattr__(name: str) -> Any:
    if name == "console":
        return _console()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def printable(text: str) -> str:
    """Text that any terminal takes: bytes of names that are not UTF-8 as escapes, and nothing that moves its cursor
    or begins a line."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)


def say(text: str) -> None:
    """Print a line as it is: brackets in file names are not markup."""
    _console().print(printable(text), markup=False)


def _progress(*columns: str | ProgressColumn) -> Progress:
    """rich's display of these columns; silent where the output is not a terminal."""
    from rich.progress import Progress

    return Progress(*columns, console=_console(), transient=True, disable=not _console().is_terminal)


def counter() -> Progress:
    """A progress display for things that are counted; silent where the output is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    return _progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def transfer() -> Progress:
    """A progress display for bytes; silent where the output is not a terminal."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    sizes = DownloadColumn(), TransferSpeedColumn()
    return _progress("{task.description}", BarColumn(), *sizes, TimeRemainingColumn())


@contextlib.contextmanager
def training(name: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """A progress line for a training of `total` iterations; yields show(iteration, loss)."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    bar = BarColumn(), MofNCompleteColumn()
    with _progress("{task.description}", *bar, "{task.fields[loss]}", "left", TimeRemainingColumn()) as progress:
        task = progress.add_task(name, total=total, loss="loss = ?")
        yield lambda iteration, loss: progress.update(task, completed=iteration, loss=f"loss = {loss:.4g}")
