"""Reading the log of `caffe train` while it grows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NUMBER = r"(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|-?nan|-?inf)"
DISPLAY = re.compile(rf"\] Iteration (\d+) \({NUMBER} iter/s, {NUMBER}s/(\d+) iters\), loss = {NUMBER}(?!\S)", re.I)
OUTPUT = re.compile(rf"\]\s+(Train|Test) net output #\d+: (.+) = {NUMBER}(?: \(\* \S+ = \S+ loss\))?\s*$", re.I)
SNAPSHOT = re.compile(r"\] Snapshotting to (?:binary proto|HDF5) file (\S+\.caffemodel\S*)")


class Display(NamedTuple):
    """A log line with the loss: `seconds` went by for the `iterations` before it (none at a training's start)."""

    iteration: int
    seconds: float
    iterations: int
    loss: float


def parse_display(line: str) -> Display | None:
    """The values of an "Iteration N (...), loss = L" line; None for any other."""
    match = DISPLAY.search(line)
    if match is None:
        return None
    started = float(match[2]) > 0  # the first line of a training has no iterations behind it
    return Display(int(match[1]), float(match[3]), int(match[4]) if started else 0, float(match[5]))


def seconds_per_step(path: Path) -> float | None:
    """Mean seconds of an iteration over a whole log, tests and snapshots between them included."""
    lines = [display for line in path.read_text(errors="replace").splitlines() if (display := parse_display(line))]
    steps = sum(display.iterations for display in lines)
    return sum(display.seconds for display in lines if display.iterations) / steps if steps else None


@dataclass
class Pace:
    """How fast a training of `total` iterations is, from its displays since it was started."""

    total: int
    iteration: int = 0
    iterations: int = 0
    seconds: float = 0.0

    def feed(self, display: Display) -> bool:
        """Take one more display. True for the first that has iterations behind it."""
        first = self.iterations == 0 and display.iterations > 0
        self.iteration = display.iteration
        self.iterations += display.iterations
        self.seconds += display.seconds if display.iterations else 0
        return first

    def left(self) -> str:
        """In words: `about 14 min left at 1.1 s an iteration`; "" where it is not known."""
        if not self.iterations:
            return ""
        each = self.seconds / self.iterations
        return f"about {duration(each * (self.total - self.iteration))} left at {each:.2g} s an iteration"


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `14 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def follow(path: Path, start: int, running: Callable[[], bool], every: float = 0.2) -> Iterator[str]:
    """The lines that are written to a log from byte `start` on, until the writer stops running."""
    with open(path, "rb") as stream:
        stream.seek(start)
        rest = b""
        while True:
            last = not running()
            *lines, rest = (rest + stream.read()).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if last:
                if rest:
                    yield rest.decode(errors="replace")
                return
            time.sleep(every)
