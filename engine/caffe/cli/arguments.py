"""Running the commands that were Python scripts in BVLC Caffe, with argparse's flags."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable

from atomic_writes import ending

from caffe import errors
from caffe.proto import forks


def add_proto(parser: argparse.ArgumentParser) -> None:
    """Add --proto, which `run` applies."""
    parser.add_argument("--proto", help="A fork's caffe.proto, whose own messages and fields are added")


def run(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], None],
    arguments: list[str] | None,
) -> int:
    """Parse the command line and do `action`; returns the exit status.

    An error is shown as one line and gives status 1; a mistake of the engine's is raised as it is.
    """
    values = parser.parse_args(arguments)

    def with_proto() -> None:
        if getattr(values, "proto", None):
            forks.add(values.proto)
        action(values)

    return show_errors(parser.prog, with_proto, arguments)


def show_errors(program: str, action: Callable[[], int | None], arguments: list[str] | None = None) -> int:
    """Do `action` and return its exit status, or 1 after an error, shown as one line. arguments: those of `program`."""

    def command() -> int:
        try:
            return action() or 0
        except Exception as error:
            message = errors.of_command(error, sys.argv[1:] if arguments is None else arguments)
            if message is None:
                raise
            if hasattr(error, "caffe_layer"):
                traceback.print_exc()
            print(f"{program}: {message}", file=sys.stderr)
            return 1

    return ending.run(command, program)
