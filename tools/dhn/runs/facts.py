"""The JSON files in a run's folder, checked where they are read: a program goes on only with facts of known types.

dhn.kinds says what the kinds here mean.
"""

from __future__ import annotations

from pathlib import Path

from dhn.files import read_json
from dhn.kinds import damage

TEXT, NUMBER, WHOLE, TEXTS = (str, None), (float, None), (int, None), ([str], None)
BITS = range(1, 1 << 14)  # of a code that can be ranked, scoring.retrieval.MOST_BITS
_RANGE = ("map_expected", "map_low", "map_high")
_COUNTED = {"R": int, "queries_counted": int}
# of a protocol; without a MAP there may be a range: the order of ties also decides whether a query counts
SCORES = (
    _COUNTED | dict.fromkeys(("map", *_RANGE), float),
    _COUNTED | {"map": None, **dict.fromkeys(_RANGE, NUMBER)},
)
SPLIT = {
    "split?": TEXT,
    "form?": TEXT,
    "overlap?": ({str: int}, None),
    "seed?": WHOLE,
    "note?": TEXT,
    "missing?": WHOLE,
}
_METRICS = {
    "protocol": str, "bits": BITS, "queries": int, "database": int, "protocols": {str: SCORES},
    "queries_unlabelled?": int, "database_unlabelled?": int, "precision_radius_2?": NUMBER, "seconds_per_step?": NUMBER,
    "codes?": {"query": {"distinct": int}, "database": {"distinct": int}}, "read_as?": ({str: str}, None),
    "dataset?": TEXT, "variant?": TEXT, "weights_sha256?": TEXT, "split?": (SPLIT, None), "settings?": (dict, None),
    "notes?": TEXTS, "edited?": TEXTS, "versions?": ({str: str}, None),
}  # fmt: skip
METRICS = tuple(_METRICS | scores for scores in SCORES)
RECORD = {
    "iterations?": WHOLE, "seconds_per_step?": NUMBER, "resumed_at?": [int], "recipe?": str, "weights?": str,
    "weights_sha256?": str, "initial_weights?": str, "initial_weights_sha256?": str, "settings?": (dict, None),
    "released?": ({"folder": str, "map": {str: NUMBER}}, None), "split?": (dict, None),
    "pretraining?": {"initial_weights?": str, "initial_weights_sha256?": str},
    "diverged?": {"iteration": int, "what": str, "place": str},
}  # fmt: skip
INITIAL = ("initial_weights", "initial_weights_sha256")  # of RECORD: both or neither


class FactsError(ValueError):
    """A file of a run that does not hold what it should. Names the file and the key."""


def read(path: Path, kinds: dict | tuple[dict, ...]) -> dict:
    """The facts of a file; {} where there is none, or none that is complete.

    kinds: METRICS, RECORD or SPLIT. Raises FactsError where something in it is of another kind.
    """
    return checked(read_json(path), kinds, path)


def checked(facts: dict, kinds: dict | tuple[dict, ...], path: Path) -> dict:
    """What was read of the file `path`, as `read` checks it. kinds: several of which it shall fit one."""
    wrong = damage(facts, *(kinds if isinstance(kinds, tuple) else (kinds,))) if facts else None
    if wrong:
        raise FactsError(f"{path}: is damaged: {wrong}; remove the file and make it again")
    return facts
