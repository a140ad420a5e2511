"""The JSON files in a run's folder, checked where they are read: a program goes on only with facts of known types.

dhn.kinds says what the kinds here mean.
"""

from __future__ import annotations

from pathlib import Path

from dhn.files import read_json
from dhn.kinds import misfit

TEXT, NUMBER, WHOLE, TEXTS = (str, None), (float, None), (int, None), ([str], None)
SCORES = {"R?": (int, str), "map": NUMBER, "map_expected?": NUMBER, "map_low?": NUMBER, "map_high?": NUMBER}
SPLIT = {
    "split?": TEXT,
    "form?": TEXT,
    "overlap?": ({str: int}, None),
    "seed?": WHOLE,
    "note?": TEXT,
    "missing?": WHOLE,
}
METRICS = SCORES | {
    "protocol": str, "bits?": int, "queries?": int, "database?": int, "protocols": {str: SCORES},
    "queries_unlabelled?": int, "database_unlabelled?": int, "precision_radius_2?": NUMBER, "seconds_per_step?": NUMBER,
    "codes?": {"query": {"distinct": int}, "database": {"distinct": int}}, "read_as?": ({str: str}, None),
    "dataset?": TEXT, "variant?": TEXT, "weights_sha256?": TEXT, "split?": (SPLIT, None), "settings?": (dict, None),
    "notes?": TEXTS, "edited?": TEXTS, "versions?": ({str: str}, None),
}  # fmt: skip
RECORD = {
    "iterations?": WHOLE, "seconds_per_step?": NUMBER, "resumed_at?": ([int], None), "recipe?": TEXT, "weights?": TEXT,
    "weights_sha256?": TEXT, "initial_weights?": TEXT, "initial_weights_sha256?": TEXT, "settings?": (dict, None),
    "released?": ({"folder": str, "map": {str: NUMBER}}, None),
}  # fmt: skip


class FactsError(ValueError):
    """A file of a run that does not hold what it should. Names the file and the key."""


def read(path: Path, kinds: dict) -> dict:
    """The facts of a file; {} where there is none, or none that is complete.

    kinds: METRICS, RECORD or SPLIT. Raises FactsError where something in it is of another kind.
    """
    return checked(read_json(path), kinds, path)


def checked(facts: dict, kinds: dict, path: Path) -> dict:
    """What was read of the file `path`, as `read` checks it."""
    key = misfit(facts, kinds) if facts else None
    if key is not None:
        found = repr(facts[key])[:80] if key in facts else "nothing"
        raise FactsError(f"{path}: is damaged: {key!r} cannot be {found}; remove the file and make it again")
    return facts
