"""The JSON files in a run's folder, checked where they are read: a program goes on only with facts of known types.

A kind is a type (float also stands for whole numbers), None, a tuple of kinds, [kind] for a list, {str: kind} for an
object of any keys, or an object of kinds by key; a key that ends in `?` may be left out, and others may be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dhn.files import read_json

LARGEST = 1e15  # no number here is larger
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


def fits(value: object, kind: Any) -> bool:
    """Whether a value of a JSON file is of a kind."""
    if kind is None:
        return value is None
    if isinstance(kind, tuple):
        return any(fits(value, each) for each in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(each, kind[0]) for each in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and _misfit(value, kind) is None
    if kind in (int, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > LARGEST
        return number and (kind is float or isinstance(value, int))
    return isinstance(value, kind)


def _misfit(facts: dict, kinds: dict) -> str | None:
    """The first key whose value is not of its kind, or is missing; None where all are."""
    named = dict.fromkeys(facts, kinds[str]) if str in kinds else kinds
    for key, kind in named.items():
        name = key.removesuffix("?") if str not in kinds else key
        if name in facts and fits(facts[name], kind):
            continue
        if name in facts or name == key:
            return name
    return None


def read(path: Path, kinds: dict) -> dict:
    """The facts of a file; {} where there is none, or none that is complete.

    kinds: METRICS, RECORD or SPLIT. Raises FactsError where something in it is of another kind.
    """
    return checked(read_json(path), kinds, path)


def checked(facts: dict, kinds: dict, path: Path) -> dict:
    """What was read of the file `path`, as `read` checks it."""
    key = _misfit(facts, kinds) if facts else None
    if key is not None:
        found = repr(facts[key])[:80] if key in facts else "nothing"
        raise FactsError(f"{path}: is damaged: {key!r} cannot be {found}; remove the file and make it again")
    return facts
