"""A training whose loss is no number any more: seen in the log of `caffe train`, and what is left that is good."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from dhn.runs.log import NUMBER, OUTPUT

LOSS = re.compile(rf"\] Iteration (\d+)(?: \([^)]*\))?, loss = {NUMBER}", re.IGNORECASE)
# the engine's warning, which looks at every blob; BVLC Caffe's log has the net's outputs only
WARNING = re.compile(
    r"\] Iteration (\d+): (the loss is [^\s;]+|the parameters are not finite)[^;]*"
    r"(?:; the first blob that is not finite is (.+ of layer .+ \(\w+\)))?\s*$"
)


@dataclass
class Divergence:
    """The iteration at which a training is seen to have no finite numbers any more.

    what: `the loss is nan` and the like. place: the first blob that is not finite, in words, "" where it is not known.
    """

    iteration: int
    what: str
    place: str = ""

    def __str__(self) -> str:
        where = f", first in {self.place}" if self.place else ""
        return f"{self.what} at iteration {self.iteration:,}{where}"

    def facts(self) -> dict:
        """For a JSON file; `of` makes this of it again."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping) -> Divergence:
        return cls(facts["iteration"], facts["what"], facts["place"])


class LossWatch:
    """Reads the lines of a training's log. `divergence`: the first that says of numbers not finite, None so far."""

    def __init__(self) -> None:
        self.divergence: Divergence | None = None

    def feed(self, line: str) -> bool:
        """Take one more line. True once nothing more is to be learned of a loss that is not finite."""
        if match := WARNING.search(line):  # it may stand before the display or behind it
            self.divergence = self.divergence or Divergence(int(match[1]), match[2])
            self.divergence.place = match[3] or self.divergence.place
            return bool(match[3])
        if self.divergence is None:
            match = LOSS.search(line)
            if match and not math.isfinite(float(match[2])):
                self.divergence = Divergence(int(match[1]), f"the loss is {match[2]}")
            return False
        output = OUTPUT.search(line)
        if output and output[1].lower() == "train":
            if not self.divergence.place and not math.isfinite(float(output[3])):
                self.divergence.place = f"the net's output {output[2]!r}"
            return False
        return not LOSS.search(line)  # a display has its outputs in the lines behind it


def is_finite(state: Path) -> bool:
    """True if the weights and the history of a snapshot, a .solverstate and its .caffemodel, are all finite."""
    try:
        history = caffe_pb2.SolverState.FromString(state.read_bytes()).history if state.exists() else []
        model = caffe_pb2.NetParameter.FromString(state.with_suffix(".caffemodel").read_bytes())
    except (OSError, DecodeError):
        return False
    blobs = [*history, *(blob for layer in model.layer for blob in layer.blobs)]
    return all(np.isfinite(np.array(values)).all() for blob in blobs for values in (blob.data, blob.double_data))


def remove_spoiled(prefix: Path, iteration: int) -> list[Path]:
    """Remove the snapshots of `iteration` and later, and earlier ones that are not finite. Returns what was removed.

    prefix: the solver's snapshot_prefix.
    """
    removed = []
    for model in sorted(prefix.parent.glob(f"{prefix.name}_iter_*.caffemodel")):
        number, state = model.stem.removeprefix(f"{prefix.name}_iter_"), model.with_suffix(".solverstate")
        if number.isdecimal() and (int(number) >= iteration or not is_finite(state)):
            for path in (state, model):
                if path.exists():
                    path.unlink()
                    removed.append(path)
    return removed


def rate_line(solver: Path) -> str:
    """The line of a solver that holds the learning rate, with its number, for a message."""
    for number, line in enumerate(solver.read_text(errors="replace").splitlines(), 1):
        if line.strip().startswith("base_lr"):
            return f"{line.strip()!r}, line {number} of"
    return "base_lr of"
