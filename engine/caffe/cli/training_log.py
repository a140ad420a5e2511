"""Reading the log of a training, BVLC Caffe's or the engine's: what the nets gave, by iteration."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

Row = dict[str, float]

_ITERATION = re.compile(r"Iteration (\d+)")
_RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)")
_LOSS = re.compile(r"Iteration \d+.*?, loss = (\S+)")
_TESTING = re.compile(r"Iteration \d+, Testing net")
_NET_OUTPUT = r"{} net output #(\d+): (\S+) = ([-+.\deE]+|[-+]?nan|[-+]?inf)"
_TRAIN, _TEST = re.compile(_NET_OUTPUT.format("Train")), re.compile(_NET_OUTPUT.format("Test"))
_STAMP = re.compile(r"^[IWEF](\d{2})(\d{2}) (\d{2}):(\d{2}):(\d{2})\.(\d{1,6})")
LOSS = "loss"  # the name under which a row of `losses` has the displayed loss


class Log:
    """What a training log says.

    Attributes:
        train, test: a row for each iteration that was displayed or tested: NumIters, Seconds (since "Solving"),
            LearningRate, and each output of the net by name.
        losses: NumIters, Seconds and the loss of each line "Iteration N ..., loss = X".
        rates: the learning rate that was displayed, by iteration.
        tests: NumIters and Seconds of each line "Iteration N, Testing net".

    Raises:
        FileNotFoundError: no such file.
        ValueError: no line "Solving", from which the seconds count; a line that has no number where one belongs.
    """

    def __init__(self, path: str | Path):
        self.train: list[Row] = []
        self.test: list[Row] = []
        self.losses: list[Row] = []
        self.tests: list[Row] = []
        self.rates: dict[float, float] = {}
        iteration, rate = -1.0, math.nan
        for number, (seconds, line) in enumerate(timed_lines(path), 1):
            place = f"{path}:{number}"
            match = _ITERATION.search(line)
            if match:
                iteration = _number(match[1], place)
            if iteration < 0 or seconds is None:
                continue
            match = _RATE.search(line)
            if match:
                rate = self.rates[iteration] = _number(match[1], place)
            for pattern, rows, name in ((_LOSS, self.losses, LOSS), (_TESTING, self.tests, None)):
                match = pattern.search(line)
                if match:
                    value = {name: _number(match[1], place)} if name else {}
                    rows.append({"NumIters": iteration, "Seconds": seconds, **value})
            for pattern, rows in ((_TRAIN, self.train), (_TEST, self.test)):
                match = pattern.search(line)
                if match:
                    _add(rows, iteration, seconds, rate, match[2], _number(match[3], place))
        for rows in (self.train, self.test):
            _complete_rate(rows)


def _number(text: str, place: str) -> float:
    """place: of the text, for the message of the ValueError that is raised where it is no number."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{place}: expected a number, found {text!r}") from None


def timed_lines(path: str | Path) -> Iterator[tuple[float | None, str]]:
    """(seconds since the line "Solving", the line) of each line of a log; None before it and for a line without time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no line "Solving", from which the seconds count.
    """
    lines = _lines(path)
    year = datetime.fromtimestamp(os.path.getmtime(path)).year
    solving = ((number, _stamp(line, year)) for number, line in enumerate(lines) if "Solving" in line)
    first, start = next(((number, when) for number, when in solving if when is not None), (0, None))
    if start is None:
        raise ValueError(f"{path}: expected the log of a training, found no line with `Solving` and its time")
    yield from ((None, line) for line in lines[:first])
    last = start
    for line in lines[first:]:
        when = _stamp(line, year)
        if when is None:
            yield None, line
            continue
        if when.month < last.month:  # the year has turned
            year += 1
            when = when.replace(year=year)
        last = when
        yield (when - start).total_seconds(), line


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FileNotFoundError(f"Cannot read the log {path}: {error.strerror}") from None


def _stamp(line: str, year: int) -> datetime | None:
    match = _STAMP.match(line)
    if not match:
        return None
    month, day, hour, minute, second, micros = match.groups()
    try:
        return datetime(year, int(month), int(day), int(hour), int(minute), int(second), int(micros.ljust(6, "0")))
    except ValueError:
        return None


def _add(rows: list[Row], iteration: float, seconds: float, rate: float, name: str, value: float) -> None:
    """Put an output into the row of its iteration; a second output of the same name begins a new row."""
    if not rows or rows[-1]["NumIters"] != iteration or name in rows[-1]:
        rows.append({"NumIters": iteration, "Seconds": seconds, "LearningRate": rate})
    rows[-1][name] = value


def _complete_rate(rows: list[Row]) -> None:
    """The first test comes before the first learning rate is displayed: give it that of the next row."""
    if len(rows) > 1 and math.isnan(rows[0]["LearningRate"]):
        rows[0]["LearningRate"] = rows[1]["LearningRate"]
