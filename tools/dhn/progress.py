"""How the tools show progress: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if hasattr(sys.stdout, "reconfigure"):  # a file's name may hold what the output's encoding has no letter for
    sys.stdout.reconfigure(errors="backslashreplace")
console = Console(highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text that any terminal takes: bytes of file names that are not UTF-8 as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def say(text: str) -> None:
    """Print a line as it is: brackets in file names are not markup."""
    console.print(printable(text), markup=False)


def counter() -> Progress:
    """A progress display for things that are counted; silent where the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def transfer() -> Progress:
    """A progress display for bytes; silent where the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def training(name: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """A progress line for a training of `total` iterations; yields show(iteration, loss)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(
        *columns,
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(name, total=total, loss="loss = ?")
        yield lambda iteration, loss: progress.update(task, completed=iteration, loss=f"loss = {loss:.4g}")
