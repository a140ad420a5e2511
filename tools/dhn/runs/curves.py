"""The curves of a training, read from the lines of `caffe train`: train.csv, and TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dhn import files
from dhn.runs.log import NUMBER, OUTPUT

VALUE = rf"(loss|lr) = {NUMBER}(?!\S)"
ITERATION = re.compile(rf"\] Iteration (\d+)(?: \([^)]*\))?, (?:{VALUE}|Testing net \(#(\d+)\))", re.I)
FIRST = ("iteration", "loss", "lr")


class Curves:
    """What a training's log says of each iteration: `rows`, iteration -> {column: value}."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self._iteration, self._test = 0, "test"
        self._seen, self._same = "", 0  # an output of several values has a line for each, all of one name
        for line in lines:
            self.feed(line)

    def feed(self, line: str) -> int | None:
        """Take one more line of the log. Returns the iteration whose display this line completes, if it does."""
        if match := ITERATION.search(line):
            return self._take_iteration(int(match[1]), match[2], match[3], match[4])
        if (match := OUTPUT.search(line)) and self.rows:
            column = match[2] if match[1].lower() == "train" else f"{self._test} {match[2]}"
            row = self.rows[self._iteration]
            self._same = self._same + 1 if column == self._seen else 0
            row[f"{column} [{self._same}]" if self._same else column] = float(match[3])
            self._seen = column
        return None

    def _take_iteration(self, iteration: int, what: str | None, value: str, test: str | None) -> int | None:
        """what, value: loss or lr and its value; None where the line begins the test of net number `test`."""
        if iteration < self._iteration:  # a training that went on from a snapshot
            self.rows = {done: row for done, row in self.rows.items() if done < iteration}
        self._iteration, self._seen = iteration, ""
        row = self.rows.setdefault(iteration, {})
        if what is None:  # the beginning of a test
            self._test = "test" if test == "0" else f"test {test}"
            return None
        row[what.lower()] = float(value)
        return iteration if what.lower() == "lr" else None

    def columns(self) -> list[str]:
        """loss and lr, the training net's outputs, the test nets' outputs; each as the log first names it."""
        named = dict.fromkeys(name for row in self.rows.values() for name in row if name not in FIRST)
        return [*FIRST[1:], *sorted(named, key=lambda name: name.startswith("test "))]

    def series(self, column: str) -> tuple[list[int], list[float]]:
        """Iterations and values of a column, in order."""
        points = [(iteration, row[column]) for iteration, row in sorted(self.rows.items()) if column in row]
        return [iteration for iteration, _ in points], [value for _, value in points]

    def csv(self) -> str:
        """The text of train.csv."""
        stream, columns = io.StringIO(), self.columns()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([FIRST[0], *columns])
        for iteration, row in sorted(self.rows.items()):
            writer.writerow([iteration, *(repr(row[name]) if name in row else "" for name in columns)])
        return stream.getvalue()


def read(log: str | os.PathLike) -> Curves:
    """The curves of a whole log; none where there is no log."""
    path = Path(log)
    return Curves(path.read_text(errors="replace").splitlines() if path.exists() else ())


class Recorder:
    """Keeps train.csv next to a log that grows, and event files where tensorboard is installed. A context manager."""

    def __init__(self, log: Path) -> None:
        self._folder, self._curves = log.parent, read(log)
        self._events, self._told = None, -1

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._curves.rows:
            self._write()  # the end of a log is no display, and a test may follow it
        if self._events is not None:
            self._events.close()

    def feed(self, line: str) -> None:
        """Take a new line of the log; the display that it completes is written at once."""
        done = self._curves.feed(line)
        if done is None:
            return
        if self._told < 0:  # the first display: what event files hold of it and of later iterations counts no more
            self._events, self._told = event_writer(self._folder, done), done - 1
        self._write()

    def _write(self) -> None:
        text = self._curves.csv().encode()
        files.write_atomic(self._folder / "train.csv", lambda stream: stream.write(text))
        if self._events is None:
            return
        for iteration in sorted(iteration for iteration in self._curves.rows if iteration > self._told):
            for name, value in self._curves.rows[iteration].items():
                self._events.add_scalar(name, value, iteration)
            self._told = iteration
        self._events.flush()


def event_writer(folder: Path, first: int) -> Any:
    """A writer of TensorBoard's event files into a folder, from iteration `first` on; None without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first)
