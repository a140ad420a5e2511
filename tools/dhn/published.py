"""The published MAPs that a run is compared with: published.json, by data set and length of code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("published.json")
VARIANTS = {"dhn": "DHN", "dhn_q": "DHN-Q", "dhn_e": "DHN-E", "dhn_b": "DHN-B"}  # as the paper calls them


def method(variant: str) -> str:
    """What the paper calls a variant; a variant that it does not know by its own name."""
    return VARIANTS.get(variant, variant)


@dataclass(frozen=True)
class Published:
    """A method's MAPs on a data set as one source gives them.

    R: the ranks that AP looks at, "all" for the entire database; None where the source that was read does not say.
    net, ranks, split, queries, database (numbers of images): likewise. maps: bits -> MAP, without the lengths that the
    source does not give; empty where nobody gives any.
    """

    dataset: str
    method: str
    title: str
    cite: str
    R: int | str | None
    net: str | None
    maps: dict[int, float]
    ranks: str | None = None  # what database images are ranked by
    split: str | None = None  # the name of the recipe's split that follows it
    queries: int | None = None
    database: int | None = None


@lru_cache
def _file() -> dict:
    return json.loads(FILE.read_text(encoding="utf-8"))


def key(dataset: str | None, split: str | None) -> str | None:
    """What the file calls a data set cut by a split: the data set's name, or another where that split has its own."""
    names = [name for name, facts in _file()["datasets"].items() if facts.get("is") == [dataset, split]]
    return names[0] if names else dataset


def title(dataset: str) -> str:
    """A data set's name as people write it; the name given, where the file does not know the data set."""
    return _file()["datasets"].get(dataset, {}).get("title", dataset)


def stand_in_for(dataset: str) -> tuple[str, str] | None:
    """For a data set that nobody published: the one its split follows, and in words how far the two compare."""
    facts = _file()["datasets"].get(dataset, {})
    return (facts["like"], facts["why"]) if "like" in facts else None


def rows(dataset: str) -> list[Published]:
    """All that was published on a data set: the paper's rows, then later reruns of DHN."""
    published_rows = []
    for row in _file()["rows"]:
        if row["dataset"] == dataset:
            source = _file()["sources"][row["source"]]
            maps = {int(bits): value for bits, value in row["map"].items()}
            published_rows.append(
                Published(
                    dataset,
                    row["method"],
                    source["title"],
                    source["cite"],
                    row["R"],
                    source["net"],
                    maps,
                    source.get("ranks"),
                    source.get("split"),
                    row.get("queries"),
                    row.get("database"),
                )
            )
    return published_rows
