"""The loops of a search: packing, the scan over distinct codes, and ranking; kernels.c, or plain.py where it was not
compiled. No function uses several threads and all release Python's lock, so that callers may run them in threads.

    words    (D, W) uint64   distinct binary codes: bit k of a code is bit k % 64 of word k // 64, zeros behind the last
    counts   (D,)   int64    how many items a search may find at each
    offsets  (D + 1,) int64  postings[offsets[d] : offsets[d + 1]] are the rows of the items of code d, by their keys
    codes    (N, K) float32  the items' real-valued codes in the order of the postings: those that tie are neighbours
    ranks    (N,)   int64    of a row, its key's place among all keys in their order
    places   (N,)   int64    of a row, its place among the postings

A *product* of two codes is the inner product of their float32 values in float64: four sums, of the bits 0, 4, 8, ...,
of 1, 5, 9, ..., of 2, ... and of 3, ..., each from the first to the last; then (first + second) + (third + fourth):
the same on all machines, and what vectors of four numbers can do.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from dhn import compiled
from dhn.compiled import ARRAY, COUNT

BLOCK = 512  # distinct codes that are looked at one by one only if the nearest of them is near enough
SOURCE = Path(__file__).with_name("kernels.c")


class Task(compiled.Task):
    """kernels.c's `task`: its part that an index has."""

    _numbers = ("codes", "words", "bits", "items")
    _addresses = ("binary", "offsets", "postings", "ranks", "row_places", "real", "has_bounds", "bounds")
    _fields_ = [(name, COUNT) for name in _numbers] + [(name, ARRAY) for name in _addresses]


_SEARCH = [ctypes.POINTER(Task), COUNT, COUNT, ARRAY, ARRAY, ARRAY]
LIBRARY = compiled.load(
    SOURCE,
    {  # their arguments, and what they return
        "pack": ([ARRAY] * 2 + [COUNT] * 2, None),
        "products": ([ARRAY] * 3 + [COUNT] * 2, ctypes.c_int),
        "is_ascending": ([ARRAY] * 2 + [COUNT], ctypes.c_int),
        "find_twin": ([ARRAY] * 3 + [COUNT], COUNT),
        "find_limits": ([*_SEARCH, COUNT], COUNT),
        "collect": ([*_SEARCH, ARRAY, ARRAY, ctypes.c_int] + [ARRAY] * 3, ctypes.c_int),
    },
)


class Codes(NamedTuple):
    """An index's arrays, as above."""

    words: np.ndarray
    offsets: np.ndarray
    postings: np.ndarray
    codes: np.ndarray
    ranks: np.ndarray
    places: np.ndarray


class Index(NamedTuple):
    """An index's arrays, and where kernels.c finds them. With them are bounds of the products of a code's items, which
    the first search that needs them fills."""

    arrays: Codes
    task: Task

    @classmethod
    def of(cls, arrays: Codes) -> Index:
        """The index of these arrays."""
        items, distinct = len(arrays.postings), len(arrays.words)
        task = Task(
            codes=distinct, words=arrays.words.shape[1], bits=arrays.codes.shape[1], items=items, binary=arrays.words,
            offsets=arrays.offsets, postings=arrays.postings, ranks=arrays.ranks, row_places=arrays.places,
            real=arrays.codes, has_bounds=np.zeros(distinct, np.uint8), bounds=np.empty((items, 4), np.float32),
        )  # fmt: skip
        return cls(arrays, task)


class Nearest(NamedTuple):
    """The first items of queries: those of query q from starts[q] to starts[q + 1] of rows, distances and similarities;
    within (Q,): how many items are not farther than its last one."""

    starts: np.ndarray
    within: np.ndarray
    rows: np.ndarray
    distances: np.ndarray
    similarities: np.ndarray


def _plain() -> ModuleType:
    """What computes without the library; a line of stderr says so."""
    from dhn.search import plain

    compiled.warn_of_numpy("search", SOURCE, "about 10 times slower")
    return plain


def pack(codes: np.ndarray) -> np.ndarray:
    """The signs of codes (n, K) float32 as words (n, W): at least 0 is 1."""
    if LIBRARY is None:
        return _plain().pack(codes)
    words = np.empty((len(codes), -(-codes.shape[1] // 64)), np.uint64)
    LIBRARY.pack(words.ctypes.data, codes.ctypes.data, *codes.shape)
    return words


def is_ascending(text: np.ndarray, offsets: np.ndarray) -> bool:
    """True if the texts (n), bytes text[offsets[i] : offsets[i + 1]], ascend strictly byte by byte."""
    if LIBRARY is None:
        return _plain().is_ascending(text, offsets)
    return bool(LIBRARY.is_ascending(text.ctypes.data, offsets.ctypes.data, len(offsets) - 1))


def find_twin(text: np.ndarray, offsets: np.ndarray, order: np.ndarray) -> int:
    """A text (as of is_ascending) that is equal to another one, which `order` then has next to it; -1 if none is."""
    if LIBRARY is None:
        return _plain().find_twin(text, offsets, order)
    return LIBRARY.find_twin(text.ctypes.data, offsets.ctypes.data, order.ctypes.data, len(order))


def products(codes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Products (n,) of codes (n, K) float32 and a query (K,) float32. Raises MemoryError."""
    if LIBRARY is None:
        return _plain().products(codes, query)
    values = np.empty(len(codes))
    if not LIBRARY.products(values.ctypes.data, codes.ctypes.data, query.ctypes.data, *codes.shape):
        raise MemoryError
    return values


def checksum(words: np.ndarray) -> int:
    """A sum over uint64 words (n,), each with a weight of its own, that changes with any one of them."""
    total, part = 0, 1 << 20  # words at a time
    for begin in range(0, len(words), part):
        chunk = words[begin : begin + part]
        weights = np.arange(2 * begin + 1, 2 * (begin + len(chunk)) + 1, 2, dtype=np.uint64)
        total += int(np.dot(chunk, weights))  # modulo 2 ** 64
    return total % (1 << 64)


def allow(offsets: np.ndarray, postings: np.ndarray, carried: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which items are searched: allowed (N,) bool in the order of the postings, and how many at each code (D,).

    carried (N,) bool: the same by row. A row that is damaged is not among them.
    """
    is_row = (postings >= 0) & (postings < len(carried))
    allowed = is_row & carried[np.where(is_row, postings, 0)] if len(carried) else is_row
    return allowed, np.diff(np.append(0, allowed.cumsum())[offsets])


def find_nearest(
    index: Index,
    counts: np.ndarray,
    allowed: np.ndarray | None,
    packed: np.ndarray,
    queries: np.ndarray,
    wanted: int,
    radius: int,
    by_key: bool,
) -> Nearest | None:
    """The first `wanted` items of each query within the distance `radius`, in the order of distance, greater product,
    rank; by_key: of distance, rank. None if a posting of theirs is damaged. Raises MemoryError.

    packed (Q, W), queries (Q, K) float32: binary and real-valued codes. allowed: of `allow`; None: all items.
    """
    if LIBRARY is None:
        return _plain().find_nearest(index.arrays, counts, allowed, packed, queries, wanted, radius, by_key)
    count, blocks = len(queries), -(-len(index.arrays.words) // BLOCK)
    space = np.empty(3 * count + 1 + -(-count * blocks // 4), np.int64)
    search = index.task, count, wanted, packed.ctypes.data, counts.ctypes.data, space.ctypes.data
    total = LIBRARY.find_limits(*search, radius)
    if total < 0:
        raise MemoryError
    results = np.empty((3, total), np.int64)
    place, size = results.ctypes.data, results.strides[0]
    state = LIBRARY.collect(
        *search, queries.ctypes.data, None if allowed is None else allowed.ctypes.data, by_key,
        place, place + size, place + 2 * size,
    )  # fmt: skip
    if state < 0:
        raise MemoryError
    starts, within = space[2 * count : 3 * count + 1], space[count : 2 * count]
    return Nearest(starts, within, results[0], results[1], results[2].view(np.float64)) if state else None
