"""What an index holds and what a search gives back: words that every backend shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Ties = Literal["product", "key"]
TIES: tuple[Ties, ...] = ("product", "key")


class SearchError(ValueError):
    """An index, a query or an option that a search cannot work with. One sentence: which, expected, found, remedy."""


class Result(NamedTuple):
    """One item that a search found.

    rank: from 1. row: position in the codes file that the index was built from, from 0; after an append the numbers go
    on, after a delete the later items move up. key: the item's name, unique in an index. distance: Hamming distance in
    bits. similarity: inner product of the real-valued codes of query and item in float64, summed as kernels.py
    has it. labels: names of the labels that the item carries; None where they are unknown. path: the picture's path as
    the data set lists it; None for an index without pictures.
    """

    rank: int
    row: int
    key: str
    distance: int
    similarity: float
    labels: tuple[str, ...] | None
    path: str | None


@dataclass(frozen=True)
class Options:
    """How a search goes.

    top: how many results; None: all. radius: only items within that Hamming distance. label: only items that carry the
    label of that name (or column number as text, where the name is none). unique: of items with equal real-valued codes
    only the first. ties: the order of items of one distance, "product": the greater inner product first, then the
    lesser key; "key": the lesser key first.
    """

    top: int | None = 20
    radius: int | None = None
    label: str | None = None
    unique: bool = False
    ties: Ties = "product"

    def __post_init__(self) -> None:
        """Raise SearchError for a value that means nothing."""
        if self.top is not None and self.top < 1:
            raise SearchError(f"top: expected at least 1, found {self.top}")
        if self.radius is not None and self.radius < 0:
            raise SearchError(f"radius: expected a Hamming distance of at least 0, found {self.radius}")
        if self.ties not in TIES:
            raise SearchError(f"ties: expected {' or '.join(TIES)}, found {self.ties!r}")

    def reach(self, bits: int) -> int:
        """The greatest distance of codes of so many bits that is looked at."""
        return bits if self.radius is None else min(self.radius, bits)

    def wanted(self, count: int) -> int:
        """The most results of so many items."""
        return count if self.top is None else min(self.top, count)


DEFAULTS = Options()


@dataclass(frozen=True)
class Items:
    """N items to add to an index.

    codes (N, K) float32: real-valued codes, at least 0 is the bit 1. labels (N, C): 0 and 1 (uint8), -1 throughout a
    row where they are unknown (int8); None where the items have none (C = 0). keys (N): unique names, compared byte by
    byte in UTF-8. paths (N): the pictures' paths as listed; None where there are no pictures.
    """

    codes: np.ndarray
    labels: np.ndarray | None
    keys: Sequence[str]
    paths: Sequence[str] | None = None
