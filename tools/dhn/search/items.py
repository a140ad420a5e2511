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
    bits. similarity: inner product of the real-valued codes of query and item, summed in float64 from the first bit to
    the last. labels: names of the labels that the item carries; None where they are unknown. path: the picture's path
    as the data set lists it; None for an index without pictures.
    """

    rank: int
    row: int
    key: str
    distance: int
    similarity: float
    labels: tuple[str, ...] | None
    path: str | None


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
