"""The curves of a training, read from the lines of `caffe train`: train.csv, and TensorBoard's event files.

train.csv has a line for every iteration that the log displays or tests at, and the columns iteration, loss, lr, then
every output of the training net, then those of the test net as `test NAME` (`test 1 NAME` for a second test net). A
place is empty where the log says nothing: a test is rarer than a display. Where a training went on from a snapshot,
what it had done beyond that snapshot before is left out.

    python tools/curves.py runs/mine/train.log        train.csv of a log that tools/train.py did not write
"""

from __future__ import annotations

import sys
from pathlib import Path

import dhn
from atomic_writes.command_lines import Parser
from dhn.files import write_atomic
from dhn.runs.curves import read


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Write train.csv next to the log of a training.")
    parser.add_argument("log", type=Path, help="train.log, or any log of `caffe train`")
    path = parser.parse_args(arguments).log
    try:
        path.stat()  # a log that is not there reads as an empty one
        text = read(path).csv().encode()
        write_atomic(path.with_name("train.csv"), lambda stream: stream.write(text))
    except FileNotFoundError:
        print(f"curves: there is no file {path}", file=sys.stderr)
    except OSError as error:
        print(f"curves: {path}: {error.strerror or error}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(dhn.run(main))
