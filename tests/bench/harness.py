"""Rows of sides measured by turns, each side a process of its own, and what follows from their samples.

A row's sides are set up first, then asked for a sample one after the other: A, B, A, B, ... The process that is not
asked is stopped (SIGSTOP), so that none of its threads, spinning or reading ahead, takes time from the other. A round
is one sample of each side; a ratio is that of two samples of one round, so that a noisy machine hurts both.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
import reference

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SAMPLING = HERE / "sides" / "sampling.py"
OPENBLAS = f"{reference.LIBRARIES}/openblas-pthread"  # in the reference's root
LIMIT = 1200  # seconds that a side may take for its set-up or a sample


class RowError(RuntimeError):
    """A row that cannot be measured: what is missing, or how a side ended."""


@dataclass(frozen=True)
class Side:
    """One side of a row.

    task: a module of sides/. options: what its `setup` is given, besides `folder`, the folder for the run's files.
    inside: it runs in the reference, on BVLC Caffe.
    """

    task: str
    options: Mapping = field(default_factory=dict)
    inside: bool = False


@dataclass(frozen=True)
class Goal:
    """What a row is to reach.

    of, to: names of sides; of several in `to` the one that is better in a round. The value is `of`'s figure over
    `to`'s, over `per`; with `faster`, `to`'s over `of`'s: how many times as fast `of` is. to None: `of`'s figure
    itself. It is to be at most `bound`; with `faster`, at least.
    figure: of a sample: `seconds`, or `peak` or `grown` (bytes). rate: what `seconds` are for one of; shown by second.
    """

    bound: float
    of: str = "engine"
    to: str | tuple[str, ...] | None = None
    figure: str = "seconds"
    faster: bool = False
    per: float = 1
    rate: str = ""

    @property
    def others(self) -> tuple[str, ...]:
        """The sides that `of` is compared with."""
        return (self.to,) if isinstance(self.to, str) else self.to or ()

    def values(self, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> list[float]:
        """The value in each round; a round: {side: {figure: value}}."""
        found = []
        for each in rounds:
            mine = each[self.of][self.figure]
            if self.to is None:
                found.append(mine / self.per)
            else:
                other = min(each[side][self.figure] for side in self.others)
                found.append((other / mine if self.faster else mine / other) / self.per)
        return found

    def result(self, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict:
        """The median value, its least and greatest, both sides' medians, and whether the median reaches the bound."""
        values = self.values(rounds)
        middle = statistics.median(values)
        medians = {
            side: statistics.median(each[side][self.figure] for each in rounds) for side in (self.of, *self.others)
        }
        return {
            "figure": self.figure,
            "of": self.of,
            "to": " or ".join(self.others) or None,
            "faster": self.faster,
            "per": self.per,
            "rate": self.rate,
            "bound": self.bound,
            "medians": medians,
            "value": middle,
            "low": min(values),
            "high": max(values),
            "met": middle >= self.bound if self.faster else middle <= self.bound,
        }


@dataclass(frozen=True)
class Row:
    """A row of the table.

    says: one line, what is measured.
    sides: by name, in the order they are asked.
    goals: what is to be reached.
    seconds: after which no further round begins, set-up included.
    rounds: (at least, at most).
    fresh: new processes for each round, one at a time: what is measured needs a process's beginning.
    needs: functions of prepared.py that make files in the run's folder.
    memory: GB that must be free.
    limit: the side that is no other's, but what none of them can do without; in the figure of the first goal.
    program: of Debian's package of that name, which takes the samples.
    """

    says: str
    sides: Mapping[str, Side]
    goals: tuple[Goal, ...]
    seconds: float
    rounds: tuple[int, int] = (3, 15)
    fresh: bool = False
    needs: tuple[Callable[[Path], None], ...] = ()
    memory: float = 0
    program: str = ""
    limit: str = "limit"


class Process:
    """A side that is set up, stopped but while it takes a sample."""

    def __init__(self, name: str, side: Side, folder: Path):
        self.name = name
        self._log = folder / f"{name.replace(' ', '_')}.log"
        options = json.dumps({"folder": str(folder), **side.options})
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [*command(side), str(SAMPLING), side.task, options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=REPOSITORY,
                env=environment(),
                text=True,
            )
        try:
            self._id = self._answer()["process"]
        except BaseException:
            self._process.kill()
            raise
        self._rest()

    def sample(self) -> dict[str, float]:
        """Wake the process, take a sample, stop it. Raises RowError when it ends instead of answering."""
        os.kill(self._id, signal.SIGCONT)
        try:
            self._process.stdin.write("sample\n")
            self._process.stdin.flush()
            return self._answer()
        except BrokenPipeError:
            raise RowError(f"{self.name} ended: {self._said()}") from None
        finally:
            self._rest()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._id, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _rest(self) -> None:
        """Stop the process, and wait until it has stopped."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self._id, signal.SIGSTOP)
            while Path(f"/proc/{self._id}/stat").read_text().rpartition(")")[2].split()[0] not in "TZX":
                time.sleep(0.001)

    def _answer(self) -> dict:
        if not select.select([self._process.stdout], [], [], LIMIT)[0]:
            raise RowError(f"{self.name} has not answered for {LIMIT} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise RowError(f"{self.name} ended with status {self._process.wait()}: {self._said()}")
        return json.loads(line)

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def command(side: Side) -> list[str]:
    """The command that runs Python for a side: this one, or the reference's with OpenBLAS."""
    if not side.inside:
        return [sys.executable]
    enter = [sys.executable, str(Path(reference.__file__).resolve())]
    return [*enter, "env", f"LD_LIBRARY_PATH={OPENBLAS}", "python3"]


def environment() -> dict[str, str]:
    """The variables of both sides: all cores, and no module path that is meant for one of them."""
    cores = str(os.cpu_count())
    given = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {
        **given,
        "OMP_NUM_THREADS": cores,
        "OPENBLAS_NUM_THREADS": cores,
        "OMP_WAIT_POLICY": "passive",  # the engine's default (caffe/cpu/wait_policy.py)
        "GLOG_minloglevel": "2",
    }


def left_out(row: Row) -> str | None:
    """Why a row cannot be measured here, in one sentence; None when it can."""
    if any(side.inside for side in row.sides.values()):
        if reference.missing():
            return reference.missing()
        if not Path(f"{reference.folder()}{OPENBLAS}/libblas.so.3").is_file():
            return (
                f"the reference in {reference.folder()} has netlib's BLAS alone, many times slower than OpenBLAS: "
                "remove that folder and run `make reference` again"
            )
    if row.program and shutil.which(row.program) is None:
        return f"there is no {row.program} on PATH: `apt-get install {row.program}`"
    free = free_memory()
    if free < row.memory:
        return f"it takes {row.memory:g} GB of memory, and {free:.1f} GB are free"
    return None


def free_memory() -> float:
    """GB that processes could still take."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 / 1e9 for line in file if line.startswith("MemAvailable"))


@contextlib.contextmanager
def processes(row: Row, folder: Path) -> Iterator[dict[str, Process]]:
    """The row's sides, set up one after the other, ended afterwards."""
    with contextlib.ExitStack() as stack:
        made = {}
        for name, side in row.sides.items():
            made[name] = Process(name, side, folder)
            stack.callback(made[name].close)
        yield made


def measure(row: Row, folder: Path) -> list[dict[str, dict[str, float]]]:
    """The rounds of a row, each {side: {figure: value}}.

    Raises RowError when a side cannot be set up or ends.
    """
    for make in row.needs:
        make(folder)
    start, rounds = time.monotonic(), []
    least, most = row.rounds

    def go_on() -> bool:
        return len(rounds) < least or (len(rounds) < most and time.monotonic() - start < row.seconds)

    if row.fresh:
        while go_on():
            each = {}
            for name, side in row.sides.items():  # one at a time: each has the machine for itself
                process = Process(name, side, folder)
                try:
                    each[name] = process.sample()
                finally:
                    process.close()
            rounds.append(each)
        return rounds
    with processes(row, folder) as sides:
        while go_on():
            rounds.append({name: process.sample() for name, process in sides.items()})
    return rounds
