"""An index in a folder: opened by memmap, searched exactly, its pictures read by row."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from dhn.search.items import Result, Ties


class Index:
    """An open index. It keeps the generation that it was opened with, whatever a writer does to the folder later.

    about: index.json as a dict. codes (N, K) float32, labels (N, C) uint8 or int8 with rows of -1: memmaps.
    label_names (C): the data set's, else the column numbers as text. Safe to search from several threads.
    """

    about: dict
    codes: np.ndarray
    labels: np.ndarray
    label_names: list[str]

    def __len__(self) -> int:
        """N, how many items it holds."""
        raise NotImplementedError

    @property
    def bits(self) -> int:
        """K, bits of a code."""
        raise NotImplementedError

    def search(
        self,
        queries: np.ndarray,
        top: int | None = 20,
        radius: int | None = None,
        label: str | None = None,
        unique: bool = False,
        ties: Ties = "product",
    ) -> list[list[Result]]:
        """The results of each query (Q, K) float32, as `dhn.search.backends.Backend.search` says."""
        raise NotImplementedError

    def row_of(self, key: str) -> int:
        """The row of a key. Raises SearchError where the index has no such key."""
        raise NotImplementedError

    def keys_of(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The keys of rows."""
        raise NotImplementedError

    def labels_of(self, row: int) -> tuple[str, ...] | None:
        """Names of the labels that an item carries; None where they are unknown."""
        raise NotImplementedError

    def path_of(self, row: int) -> str | None:
        """The path of an item's picture as its data set lists it; None without pictures."""
        raise NotImplementedError

    def picture(self, row: int) -> tuple[bytes, str]:
        """An item's picture as (encoded bytes, media type): its own file, or a PNG of raw pixels.

        Raises SearchError where the index has no pictures or this one is no longer there.
        """
        raise NotImplementedError


def open_index(folder: str | os.PathLike, verify: bool = False) -> Index:
    """Open the index in a folder; milliseconds, whatever its size.

    verify: compare the SHA-256 of every file first. Raises SearchError where there is no index, its format is another,
    a file is missing or of another size, and with verify where a digest differs.
    """
    raise NotImplementedError
