"""Scores of codes files, and metrics.json, the file that keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import numpy as np

from dhn.codes import files as codes
from dhn.codes.array_files import CodesError
from dhn.files import sha256, write_atomic
from dhn.scoring.retrieval import score

PACKAGES = ("dhn-caffe-toolkit", "numpy", "torch", "protobuf", "opencv-python-headless")
PER_PROTOCOL = ("R", "map", "map_expected", "map_low", "map_high", "queries_counted", "queries_without_hits",
                "precision_at", "notes")  # fmt: skip


def score_files(
    query: str,
    database: str,
    protocols: Sequence[str] = ("standard",),
    top: int | None = None,
    *,
    query_labels: str | None = None,
    database_labels: str | None = None,
    codes_are: str | None = None,
    labels_are: str | None = None,
) -> list[dict]:
    """The scores (see retrieval.score) of the codes and labels in files under each protocol.

    query, database: codes files; query_labels, database_labels: where their labels are, if in files of their own.
    codes_are, labels_are: what they are declared to be, see codes.read.

    Each result also has `read_as`: {codes, labels}, what they were taken for, and among its `notes` a sentence on each
    file that was not read plainly. Raises CodesError for files that cannot be used or do not fit each other.
    """
    sides = (
        codes.read(query, query_labels, codes_are, labels_are),
        codes.read(database, database_labels, codes_are, labels_are),
    )
    names = (
        f"{query}, {query_labels}" if query_labels else str(query),
        f"{database}, {database_labels}" if database_labels else str(database),
    )
    first, second = codes.join(*sides, names)
    classes = np.count_nonzero((first.labels == 1).any(0) | (second.labels == 1).any(0))
    read_as = {
        "codes": codes_are or "sign",
        "labels": f"class numbers, {classes} classes" if first.are_classes else "label vectors",
    }
    results = []
    for name in protocols:
        try:
            scores = score(first.codes, first.labels, second.codes, second.labels, name, top)
        except ValueError as error:
            raise CodesError(f"{' and '.join(names)}: {error}") from None
        scores["notes"] = [*first.notes, *second.notes, *scores["notes"]]
        results.append({**scores, "read_as": read_as})
    return results


def metrics(scores: Sequence[dict], weights: str | os.PathLike | None = None, **extra: object) -> dict:
    """What metrics.json holds: the first protocol's scores, the others under `protocols`, and where they come from.

    weights: the .caffemodel that made the codes; its SHA-256 is noted. extra: further entries, e.g. variant, seed.
    """
    return {
        **scores[0],
        "variant": None,
        "seed": None,
        "weights_sha256": None if weights is None else sha256(weights),
        "versions": _versions(),
        **extra,
        "protocols": {each["protocol"]: {key: each[key] for key in PER_PROTOCOL} for each in scores},
    }


def write_metrics(
    path: str | os.PathLike, scores: Sequence[dict], weights: str | os.PathLike | None = None, **extra: object
) -> None:
    """Write `metrics(scores, weights, **extra)` as JSON, atomically."""
    text = json.dumps(metrics(scores, weights, **extra), indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda stream: stream.write(text.encode()))


def _versions() -> dict:
    """Versions of Python and of the packages that had a hand in the numbers."""
    import platform
    from importlib import metadata  # here: it takes a while

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
