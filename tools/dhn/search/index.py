"""An index in a folder: opened by memmap, searched exactly, its pictures read by row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dhn.search import generation, kernels, places, ranking
from dhn.search.items import TIES, Result, SearchError, Ties
from dhn.search.texts import Texts

TILE = 16  # queries that read a block of codes together, from the cache
FILTERS = 8  # labels whose counts are kept
ATTEMPTS = 5  # to open a generation that a writer replaces at the same time


class Ranking(NamedTuple):
    """The first items of a query: rows (n,), Hamming distances (n,), inner products (n,); and how many items are not
    farther than the last, the last ones' ties included."""

    rows: np.ndarray
    distances: np.ndarray
    similarities: np.ndarray
    within: int


class Index:
    """An open index. It keeps the generation that it was opened with, whatever a writer does to the folder later.

    folder: where it is. about: index.json as a dict. codes (N, K) float32, labels (N, C) uint8 or int8 with rows of -1,
    sources (N,) as of generation.py: memmaps. keys, paths: sequences of N texts. label_names (C): the data set's, else
    the column numbers as text. Safe to search from several threads.
    """

    def __init__(self, folder: Path, about: dict, arrays: dict[str, np.ndarray]) -> None:
        self.folder, self.about = folder, about
        self.codes, self.labels, self.sources = arrays["codes"], arrays["labels"], arrays["sources"]
        self.keys = Texts(arrays["keys"], arrays["key_offsets"])
        self.paths = Texts(arrays["paths"], arrays["path_offsets"])
        names = about.get("label_names")
        columns = self.labels.shape[1]
        if not isinstance(names, list) or len(names) != columns:
            names = [str(column) for column in range(columns)]
        self.label_names: list[str] = names
        self._arrays = arrays
        self._counts = lru_cache(FILTERS)(self._count_items)  # of this object: it goes when the index goes

    def __len__(self) -> int:
        """N, how many items it holds."""
        return len(self.codes)

    @property
    def bits(self) -> int:
        """K, bits of a code."""
        return self.codes.shape[1]

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
        return list(self.searches(queries, top, radius, label, unique, ties))

    def searches(
        self,
        queries: np.ndarray,
        top: int | None = 20,
        radius: int | None = None,
        label: str | None = None,
        unique: bool = False,
        ties: Ties = "product",
    ) -> Iterator[list[Result]]:
        """The results of `search`, query by query."""
        return map(self._results, self.rankings(queries, top, radius, label, unique, ties))

    def rankings(
        self,
        queries: np.ndarray,
        top: int | None = 20,
        radius: int | None = None,
        label: str | None = None,
        unique: bool = False,
        ties: Ties = "product",
    ) -> Iterator[Ranking]:
        """What `search` finds, as arrays, query by query; several queries are computed in parallel."""
        queries = check_queries(queries, self.bits)
        reach = check_options(self.bits, top, radius, ties)
        column = None if label is None else label_column(label, self.label_names)
        wanted = len(self) if top is None else min(top, len(self))
        tiles = [queries[begin : begin + TILE] for begin in range(0, len(queries), TILE)]

        def rank(tile: np.ndarray) -> list[Ranking]:
            if unique:
                return [self._rank_unique(query, wanted, reach, column, ties) for query in tile]
            return self._rank(tile, wanted, reach, column, ties)

        if len(tiles) == 1:
            yield from rank(tiles[0])
        elif tiles:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                for rankings in pool.map(rank, tiles):
                    yield from rankings

    def row_of(self, key: str) -> int:
        """The row of a key. Raises SearchError where the index has no such key."""
        row = self.keys.find(key, self._arrays["key_order"])
        if row is None:
            raise SearchError(f"{self.folder}: expected the key of one of its {len(self):,} items, found {key!r}")
        return row

    def keys_of(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The keys of rows."""
        return self.keys.at(np.asarray(rows, np.int64))

    def labels_of(self, row: int) -> tuple[str, ...] | None:
        """Names of the labels that an item carries; None where they are unknown."""
        return self._names(self.labels[row].tolist())

    def names_of(self, labels: np.ndarray) -> list[tuple[str, ...] | None]:
        """Names of the labels (M, C) of other items; None where they are unknown, or not the index's."""
        if labels.shape[1] != self.labels.shape[1]:
            return [None] * len(labels)
        return [self._names(row) for row in labels.tolist()]

    def path_of(self, row: int) -> str | None:
        """The path of an item's picture as its data set lists it; None without pictures."""
        return self.paths[int(row)] or None

    def picture(self, row: int) -> tuple[bytes, str]:
        """An item's picture as (encoded bytes, media type): its own file, or a PNG of raw pixels.

        Raises SearchError where the index has no pictures or this one is no longer there.
        """
        source = int(self.sources[row])
        if source < 0:
            raise SearchError(f"{self.folder}: has no picture of {self.keys[row]}; build it with --images")
        return places.read(self.folder, self.about["pictures"][source], self.keys[row], self.paths[row])

    def _count_items(self, column: int | None) -> tuple[np.ndarray, np.ndarray]:
        """counts (D,) of items that carry a label, or of all, and which items these are (N,) bool; empty: all."""
        if column is None:
            return np.diff(self._arrays["offsets"]), np.empty(0, np.bool_)
        allowed = np.ascontiguousarray(self.labels[:, column] > 0)
        return kernels.count_allowed(self._arrays["offsets"], self._arrays["postings"], allowed), allowed

    def _rank(self, queries: np.ndarray, wanted: int, reach: int, column: int | None, ties: Ties) -> list[Ranking]:
        """The first `wanted` items of each query (Q, K) within the distance `reach`."""
        arrays, count = self._arrays, len(queries)
        words, (counts, allowed) = arrays["words"], self._counts(column)
        packed = np.zeros((count, words.shape[1]), np.uint64)
        kernels.pack(queries, packed)
        narrow = np.uint8 if words.shape[1] == 1 else np.uint16
        scratch = np.empty(kernels.BLOCK, narrow)
        minima = np.empty((count, -(-len(words) // kernels.BLOCK)), narrow)
        limits, within = np.empty(count, np.int64), np.empty(count, np.int64)
        kernels.find_limits(words, counts, packed, wanted, reach, scratch, minima, limits, within)
        rankings = []
        for place in range(count):
            size = min(wanted, int(within[place]))
            found = Ranking(np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size), int(within[place]))
            if size:
                kernels.collect(
                    words, counts, arrays["offsets"], arrays["postings"], self.codes, arrays["key_ranks"], allowed,
                    packed[place], queries[place], ties == "key", scratch, minima[place], limits[place],
                    found.rows, found.distances, found.similarities,
                )  # fmt: skip
            rankings.append(found)
        return rankings

    def _rank_unique(self, query: np.ndarray, wanted: int, reach: int, column: int | None, ties: Ties) -> Ranking:
        """The first `wanted` items of a query (K,) of which no two have equal real-valued codes."""
        size = wanted
        while True:
            [found] = self._rank(query[None], size, reach, column, ties)
            first = ranking.first_of_each(self.codes[found.rows])[:wanted]
            if len(first) == wanted or len(found.rows) < size or size >= len(self):
                return Ranking(found.rows[first], found.distances[first], found.similarities[first], found.within)
            size = min(max(2 * size, found.within), len(self))

    def _results(self, found: Ranking) -> list[Result]:
        rows = found.rows
        columns = (
            range(1, len(rows) + 1), rows.tolist(), self.keys.at(rows), found.distances.tolist(),
            found.similarities.tolist(), map(self._names, self.labels[rows].tolist()),
            (path or None for path in self.paths.at(rows)),
        )  # fmt: skip
        return [Result(*values) for values in zip(*columns, strict=True)]

    def _names(self, labels: list[int]) -> tuple[str, ...] | None:
        if not labels or min(labels) < 0:
            return None
        return tuple(name for name, value in zip(self.label_names, labels, strict=True) if value)


def label_column(label: str, names: Sequence[str]) -> int:
    """The column of a label by its name, or by its number where none has that name. Raises SearchError."""
    if label not in names:
        if label.isdecimal() and int(label) < len(names):
            return int(label)
        raise SearchError(f"label {label!r}: expected one of the index's labels ({', '.join(names) or 'none'})")
    return names.index(label)


def check_queries(queries: np.ndarray, bits: int) -> np.ndarray:
    """Queries as float32 (Q, bits). Raises SearchError for codes of other bits and values that are not finite."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != bits:
        raise SearchError(f"expected queries (Q, {bits}), codes of the index's bits, found {queries.shape}")
    if not np.isfinite(queries).all():
        row = int((~np.isfinite(queries)).any(1).argmax())
        raise SearchError(f"query {row}: expected a code of finite values, found {queries[row].tolist()}")
    return queries


def check_options(bits: int, top: int | None, radius: int | None, ties: str) -> int:
    """The greatest distance that is looked at. Raises SearchError for options that mean nothing."""
    if top is not None and top < 1:
        raise SearchError(f"top: expected at least 1, found {top}")
    if radius is not None and radius < 0:
        raise SearchError(f"radius: expected a Hamming distance of at least 0, found {radius}")
    if ties not in TIES:
        raise SearchError(f"ties: expected {' or '.join(TIES)}, found {ties!r}")
    return bits if radius is None else min(radius, bits)


def open_index(folder: str | os.PathLike, verify: bool = False) -> Index:
    """Open the index in a folder; milliseconds, whatever its size.

    verify: compare the SHA-256 of every file first. Raises SearchError where there is no index, its format is another,
    a file is missing or of another size, and with verify where a digest differs.
    """
    folder = Path(folder)
    for attempt in range(ATTEMPTS):
        facts = generation.read_facts(folder)
        try:
            arrays = generation.open_arrays(folder, facts)
            if verify:
                generation.verify(folder, facts)
        except FileNotFoundError as error:  # replaced since index.json was read
            if attempt == ATTEMPTS - 1:
                raise SearchError(f"{error.filename} is missing; build the index again") from None
        else:
            return Index(folder, facts, arrays)
    raise AssertionError
