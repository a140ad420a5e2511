"""An index in a folder: opened by memmap, searched exactly, its pictures read by row."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dhn.search import generation, kernels, places, ranking
from dhn.search.items import DEFAULTS, Options, Result, SearchError
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

    folder: where it is. about: index.json as a dict. labels (N, C) uint8 or int8 with rows of -1, sources (N,) as of
    generation.py: memmaps. keys, paths: sequences of N texts. label_names (C): the data set's, else
    the column numbers as text. Safe to search from several threads.
    """

    def __init__(self, folder: Path, about: dict, arrays: dict[str, np.ndarray]) -> None:
        self.folder, self.about = folder, about
        self._codes, self.labels, self.sources = arrays["codes"], arrays["labels"], arrays["sources"]
        self.keys = Texts(arrays["keys"], arrays["key_offsets"])
        self.paths = Texts(arrays["paths"], arrays["path_offsets"])
        names = about.get("label_names")
        columns = self.labels.shape[1]
        if not isinstance(names, list) or len(names) != columns:
            names = [str(column) for column in range(columns)]
        self.label_names: list[str] = names
        self._arrays = arrays
        names_of_kernels = ("words", "offsets", "postings", "codes", "key_ranks", "places")
        self._searched = kernels.Index.of(kernels.Codes(*(arrays[name] for name in names_of_kernels)))
        # of a proxy: a cache of the object's method would hold the object, and its files stay open until gc.collect()
        self._counts = lru_cache(FILTERS)(partial(Index._count_items, weakref.proxy(self)))

    def __len__(self) -> int:
        """N, how many items it holds."""
        return len(self._codes)

    @property
    def bits(self) -> int:
        """K, bits of a code."""
        return self._codes.shape[1]

    def search(self, queries: np.ndarray, options: Options = DEFAULTS) -> list[list[Result]]:
        """The results of each query (Q, K) float32, as `dhn.search.backends.Backend.search` says."""
        return list(self.searches(queries, options))

    def searches(self, queries: np.ndarray, options: Options = DEFAULTS) -> Iterator[list[Result]]:
        """The results of `search`, query by query."""
        return map(self._results, self.rankings(queries, options))

    def rankings(self, queries: np.ndarray, options: Options = DEFAULTS) -> Iterator[Ranking]:
        """What `search` finds, as arrays, query by query; several queries are computed in parallel."""
        queries = check_queries(queries, self.bits)
        column = None if options.label is None else label_column(options.label, self.label_names)
        wanted, reach, by_key = options.wanted(len(self)), options.reach(self.bits), options.ties == "key"
        tiles = [queries[begin : begin + TILE] for begin in range(0, len(queries), TILE)]

        def rank(tile: np.ndarray) -> list[Ranking]:
            if options.unique:
                return [self._rank_unique(query, wanted, reach, column, by_key) for query in tile]
            return self._rank(tile, wanted, reach, column, by_key)

        if len(tiles) == 1:
            yield from rank(tiles[0])
        elif tiles:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                for rankings in pool.map(rank, tiles):
                    yield from rankings

    @property
    def codes(self) -> np.ndarray:
        """Real-valued codes (N, K) float32 of all rows, copied."""
        return self.codes_of(np.arange(len(self)))

    def codes_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Real-valued codes (n, K) float32 of rows."""
        rows = np.asarray(rows, np.int64)
        places = self._arrays["places"][rows]
        if len(rows) and (places.min() < 0 or places.max() >= len(self)):
            raise self._damaged("places")
        if not np.array_equal(self._arrays["postings"][places], rows):
            raise self._damaged("postings")
        return self._codes[places]

    def grouped_codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Real-valued codes (N, K) as they lie in the file, binary codes (N, W) of the rows, and of each row the place
        (N,) of its real-valued code."""
        words = np.empty((len(self), self._arrays["words"].shape[1]), np.uint64)
        words[self._arrays["postings"]] = np.repeat(self._arrays["words"], np.diff(self._arrays["offsets"]), axis=0)
        return self._codes, words, self._arrays["places"]

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
        if source >= len(self.about["pictures"]):
            raise self._damaged("sources")
        if source < 0:
            raise SearchError(f"{self.folder}: has no picture of {self.keys[row]}; build it with --images")
        return places.read(self.folder, self.about["pictures"][source], self.keys[row], self.paths[row])

    @cached_property
    def _sizes(self) -> np.ndarray:
        """How many items each distinct code has (D,); with that, words and offsets are what was written."""
        for name, expected in self.about["sums"].items():
            if kernels.checksum(self._arrays[name].reshape(-1).view(np.uint64)) != expected:
                raise self._damaged(name)
        return np.diff(self._arrays["offsets"])

    def _count_items(self, column: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        """counts (D,) of items that carry a label, or of all, and which items these are (N,) bool in the order of the
        postings; None: all."""
        sizes = self._sizes
        if column is None:
            return sizes, None
        carried = np.ascontiguousarray(self.labels[:, column] > 0)
        allowed, counts = kernels.allow(self._arrays["offsets"], self._arrays["postings"], carried)
        return counts, allowed

    def _damaged(self, name: str) -> SearchError:
        path = self.folder / self.about["generation"] / f"{name}.npy"
        return SearchError(f"{path}: is damaged, it is not what was written; build the index again")

    def _rank(self, queries: np.ndarray, wanted: int, reach: int, column: int | None, by_key: bool) -> list[Ranking]:
        """The first `wanted` items of each query (Q, K) within the distance `reach`."""
        counts, allowed = self._counts(column)
        found = kernels.find_nearest(
            self._searched, counts, allowed, kernels.pack(queries), queries, wanted, reach, by_key
        )
        if found is None:
            raise self._damaged("postings")
        parts = (slice(*ends) for ends in itertools.pairwise(found.starts.tolist()))
        return [
            Ranking(found.rows[part], found.distances[part], found.similarities[part], items)
            for part, items in zip(parts, found.within.tolist(), strict=True)
        ]

    def _rank_unique(self, query: np.ndarray, wanted: int, reach: int, column: int | None, by_key: bool) -> Ranking:
        """The first `wanted` items of a query (K,) of which no two have equal real-valued codes."""
        size = wanted
        while True:
            [found] = self._rank(query[None], size, reach, column, by_key)
            first = ranking.first_of_each(self.codes_of(found.rows))[:wanted]
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
