"""Where an index can live: the one interface of its backends.

`scan` is the index folder itself, searched by reading every distinct code. Others (LanceDB, faiss) outgrow one machine
or serve other programs, and answer as `scan` does, result by result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from dhn.search.items import DEFAULTS, Items, Options, Result


class Backend(Protocol):
    """A collection of items that is searched by the Hamming distance of their binary codes, exactly.

    Results stand in one order: distance, then with ties="product" the greater inner product of the real-valued codes
    (`dhn.search.ranking.products`), then the key in UTF-8 bytes; with ties="key" distance, then key. A backend that
    ranks by distance alone fetches all items of the boundary distance before it cuts at `top`.
    """

    @property
    def bits(self) -> int:
        """K, bits of a code."""

    def add(self, items: Items) -> None:
        """Add items, all or none. Raises SearchError for codes of other bits and for a key that is there already."""

    def search(self, queries: np.ndarray, options: Options = DEFAULTS) -> list[list[Result]]:
        """The results of each query (Q, K) float32, real-valued codes."""

    def range(self, queries: np.ndarray, radius: int, options: Options = DEFAULTS) -> list[list[Result]]:
        """All items within a Hamming distance of each query: search for all of them."""
        return self.search(queries, replace(options, top=None, radius=radius))

    def delete(self, keys: Sequence[str]) -> int:
        """Remove the items of these keys, all or none; returns how many. Raises SearchError for an unknown key."""

    def count(self) -> int:
        """How many items there are."""
