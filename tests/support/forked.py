"""Child processes that have imported what their parent has: seconds sooner there than a new Python."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import NoReturn, TextIO


def begin(function: Callable[..., int], *arguments: object) -> tuple[BaseProcess, TextIO]:
    """(a child that calls the function and ends with the status that it returns, what the child writes to stdout and
    stderr, as it comes)."""
    reading, writing = os.pipe()

    def call() -> None:
        os.close(reading)
        for number in (1, 2):
            os.dup2(writing, number)
        os.close(writing)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1) for number in (1, 2))  # not what pytest captures
        sys.exit(function(*arguments))

    process = multiprocessing.get_context("fork").Process(target=call, daemon=True)
    process.start()
    os.close(writing)
    return process, os.fdopen(reading)


def finish(function: Callable[[], int | None], failed: int = 1) -> NoReturn:
    """In a child that os.fork made: call the function and end as Python ends with it, but at once: with the status that
    it returns or exits with, `failed` after a traceback where it raises."""
    status = failed
    try:
        status = function() or 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
