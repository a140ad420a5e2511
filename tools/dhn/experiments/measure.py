"""What the paper's experiments share: the lengths of codes, one measure for all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dhn.codes import files as codes
from dhn.codes.array_files import CodesError
from dhn.files import load_json
from dhn.kinds import fits
from dhn.layout import target_command
from dhn.runs import facts
from dhn.scoring.retrieval import headline, score

LENGTHS = (12, 24, 32, 48)  # bits of the paper's tables
BINARY, REAL = "hash-caffe", "dhn-caffe"  # protocols that differ in one thing: what ranks, signs or real values
MEASURED = ("R", "map", "map_expected", "map_low", "map_high", "queries", "database", "note")
_KINDS = {
    **dict.fromkeys(("map", "map_expected", "map_low", "map_high"), facts.NUMBER),
    **dict.fromkeys(("R", "queries", "database"), int), "note": str,
}  # fmt: skip


def ranks(data: Path) -> int | None:
    """R of a data set's split (split.json): the ranks that AP looks at; None for the entire database.

    A split that does not state R is measured over the entire database.
    """
    path = data / "split.json"
    again = target_command("data", data.name)
    try:
        split = load_json(path)
    except OSError:
        return None
    except ValueError:
        split = None
    if not isinstance(split, dict):
        raise ValueError(f"{path}: expected a JSON object, found something else; run: {again}")
    top = split.get("R", "all")
    if top in (None, "all"):
        return None
    if not fits(top, int) or top < 1:
        raise ValueError(f"{path}: is damaged: 'R' cannot be {top!r}; run: {again}")
    return int(top)


def measure(folder: Path, real: bool, top: int | None) -> dict:
    """MAP of the codes in a folder (query.npz, database.npz), with its range over tie orders; the keys of MEASURED.

    note: why the MAP means little, as codes that collapsed; "" where nothing is said of it.

    real: rank by dot products of the real-valued codes, not by Hamming distance. top: R; None for all. AP is the mean
    precision at the hits in the top R, a query without a hit there being left out: as the authors' scripts do it.
    """
    query, database = (codes.load(folder / f"{side}.npz") for side in ("query", "database"))
    try:
        scores = score(*query, *database, protocol=REAL if real else BINARY, top=top or len(database[0]), at=())
    except ValueError as error:
        raise CodesError(f"{folder}: {error}") from None
    return {**{key: scores[key] for key in MEASURED[:-1]}, "note": "; ".join(scores["notes"])}


def is_measured(value: object) -> bool:
    """Whether a value of a JSON file has the keys of MEASURED, as `measure` gives them."""
    return fits(value, _KINDS)


def quoted(row: Mapping) -> float | None:
    """The MAP to quote of a row with the keys of MEASURED: its expected value where the order of ties decides it."""
    return headline(row)[1]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample (n - 1), None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
