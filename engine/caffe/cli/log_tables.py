"""`parse_log.sh LOG` and `extract_seconds.py LOG OUTPUT`: a training log as the tables that BVLC's shell script makes.

parse_log.sh writes LOG.train and LOG.test into the working folder, columns separated by spaces.
"""

from __future__ import annotations

import sys
from pathlib import Path

from caffe.atomic_files import check_folder, write_atomic
from caffe.cli.arguments import show_errors
from caffe.cli.training_log import LOSS, Log, timed_lines

TEST_HEADER = "#Iters Seconds TestAccuracy TestLoss"
TRAIN_HEADER = "#Iters Seconds TrainingLoss LearningRate"


def tables(log: Log) -> tuple[list[list[str]], list[list[str]]]:
    """(rows of LOG.test, rows of LOG.train): iteration, seconds, and the test's outputs #0 and #1, or loss and rate.

    A value that the log lacks is left out.
    """
    outputs = {row["NumIters"]: list(row.values())[3:5] for row in log.test}
    test = [[row["NumIters"], row["Seconds"], *outputs.get(row["NumIters"], [])] for row in log.tests]
    train = []
    for row in log.losses:
        rate = log.rates.get(row["NumIters"])
        train.append([row["NumIters"], row["Seconds"], row[LOSS], *([] if rate is None else [rate])])
    return _texts(test), _texts(train)


def _texts(rows: list[list[float]]) -> list[list[str]]:
    return [[f"{row[0]:.0f}", f"{row[1]:f}", *(f"{value:g}" for value in row[2:])] for row in rows]


def _aligned(header: str, rows: list[list[str]]) -> bytes:
    """The table with columns two spaces apart, as `column -t` sets them."""
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows), default=0))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join([header, *lines, ""]).encode()


def _parse(words: list[str]) -> int:
    if not words:
        print("Usage parse_log.sh /path/to/your.log")
        return 0
    name = Path(words[0]).name
    for header, rows, kind in zip((TEST_HEADER, TRAIN_HEADER), tables(Log(words[0])), ("test", "train"), strict=True):
        write_atomic(f"{name}.{kind}", _aligned(header, rows))
    return 0


def _extract(words: list[str]) -> int:
    if len(words) < 2:
        print("Usage: ./extract_seconds input_file output_file")
        return 1
    check_folder(words[1])
    lines = [f"{seconds:f}\n" for seconds, line in timed_lines(words[0]) if seconds is not None and "Iteration" in line]
    write_atomic(words[1], "".join(lines).encode())
    return 0


def parse_log(arguments: list[str] | None = None) -> int:
    """Run parse_log.sh; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return show_errors("parse_log.sh", lambda: _parse(words), words)


def extract_seconds(arguments: list[str] | None = None) -> int:
    """Run extract_seconds.py; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return show_errors("extract_seconds.py", lambda: _extract(words), words)
