"""The pages of an LMDB, checked before liblmdb reads them, whose process a damaged one would end.

Of a tree of pages each one is looked at, but not what the records hold: neither their bytes nor their overflow pages.

    data.mdb      meta page 0 | meta page 1 | page 2 | ...      each of `page size` bytes
    a page        number u64, pad u16, flags u16, lower u16, upper u16, offsets of nodes u16 ..., free, nodes
    a node        low u16, high u16, flags u16, key size u16, key, data
    a branch's    its child is page low | high << 16 | flags << 32
    a leaf's      its data has low | high << 16 bytes; with flag 1 in overflow pages, whose number follows the key
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = 16  # bytes of a page's header
_NODE = 8  # and of a node's
_BRANCH, _LEAF, _KINDS = 0x01, 0x02, 0x6F
_OVERFLOW = 0x01  # a node's flag; others are of databases within a database and of keys with several values
_LONGEST_KEY = 511
_NOTHING = (1 << 64) - 1  # the root of an empty tree
_PAGES = 1 << 12  # that are looked at together


class PageError(ValueError):
    """data.mdb is damaged; says what was expected and found."""


class _Meta(NamedTuple):
    """What the newer meta page says: page size, pages in use, and of the records' tree flags, depth, count and root."""

    page_size: int
    pages: int
    flags: int
    depth: int
    entries: int
    root: int


def check(folder: str | os.PathLike) -> None:
    """Raises PageError where the LMDB in `folder` is damaged or cut off, OSError where there is no data.mdb."""
    path = Path(folder, "data.mdb")
    meta = _read_meta(path)
    size, expected = path.stat().st_size, meta.pages * meta.page_size
    if size < expected:
        raise PageError(f"data.mdb was cut off: expected {expected} bytes, found {size}")
    if meta.flags:
        raise PageError(f"expected one value a key, found a database with the flags {meta.flags:#x}")
    if meta.root == _NOTHING:
        if meta.entries:
            raise PageError(f"expected {meta.entries} records, found none")
        return
    data = np.memmap(path, np.uint8, "r", shape=(expected,))
    seen, level, entries = np.zeros(meta.pages, bool), np.array([meta.root], np.uint64), 0
    for depth in range(meta.depth, 0, -1):
        children = []
        for begin in range(0, len(level), _PAGES):
            numbers = level[begin : begin + _PAGES]
            _expect((numbers >= 2) & (numbers < meta.pages), numbers, f"a number from 2 to {meta.pages - 1}")
            numbers = numbers.astype(np.int64)
            _expect(~seen[numbers], numbers, "a page that stands once in the tree")
            seen[numbers] = True
            found = _children(data, numbers, meta) if depth > 1 else _count(data, numbers, meta)
            if isinstance(found, int):
                entries += found
            else:
                children.append(found)
        if depth > 1:
            level = np.concatenate(children)
            if len(np.unique(level)) != len(level):
                raise PageError("expected each page once in the tree, found one twice")
    if entries != meta.entries:
        raise PageError(f"expected {meta.entries} records, found {entries}")


def _read_meta(path: Path) -> _Meta:
    """The meta page that liblmdb takes: the one with the greater transaction."""
    with open(path, "rb") as file:
        first, size = _parse_meta(file.read(_HEADER + 136), 0)
        file.seek(size)
        second, other = _parse_meta(file.read(_HEADER + 136), 1)
    if other != size:
        raise PageError(f"expected pages of {size} bytes in both meta pages, found {other}")
    return max((first, second), key=lambda each: each[0])[1]


def _parse_meta(page: bytes, number: int) -> tuple[tuple[int, _Meta], int]:
    """((transaction, what it says), page size) of a meta page."""
    if len(page) < _HEADER + 136:
        raise PageError(f"data.mdb was cut off: expected two meta pages, found {len(page)} bytes of meta page {number}")
    magic, version, _, _ = struct.unpack_from("=IIQQ", page, _HEADER)
    if (magic, version) != (_MAGIC, _VERSION):
        raise PageError(f"not an LMDB file of version {_VERSION}: meta page {number} begins with {magic:#x}, {version}")
    page_size = struct.unpack_from("=I", page, _HEADER + 24)[0]
    _, flags, depth, _, _, _, entries, root = struct.unpack_from("=IHHQQQQQ", page, _HEADER + 72)
    last, transaction = struct.unpack_from("=QQ", page, _HEADER + 120)
    if page_size not in (1 << power for power in range(9, 17)):
        raise PageError(f"meta page {number}: expected pages of 512 to 65536 bytes, found {page_size}")
    if not 1 <= last < 1 << 48 or depth > 32:
        raise PageError(f"meta page {number}: found {last} pages in {depth} levels")
    return (transaction, _Meta(page_size, last + 1, flags, depth, entries, root)), page_size


def _expect(fits: np.ndarray, pages: np.ndarray, expected: str) -> None:
    """Raise PageError of the first page that does not fit."""
    if not fits.all():
        raise PageError(f"page {pages[np.argmin(fits)]} of data.mdb is damaged: expected {expected}")


def _nodes(data: np.ndarray, numbers: np.ndarray, meta: _Meta, kind: int) -> tuple[np.ndarray, ...]:
    """Of the nodes (n,) of pages: the page of each, where it begins in data.mdb, low | high << 16, flags, key size."""
    size, halves = meta.page_size, data.view(np.uint16)
    starts = numbers * size
    own = data.view(np.uint64)[starts // 8]
    _, flags, lower, upper = (halves[starts // 2 + index].astype(np.int64) for index in range(4, 8))
    _expect(own == numbers.astype(np.uint64), numbers, "its own number in its header")
    _expect(flags & _KINDS == kind, numbers, "a leaf" if kind == _LEAF else "a branch")
    fits = (lower >= _HEADER) & (lower % 2 == 0) & (lower <= upper) & (upper <= size)
    _expect(fits, numbers, "its free space within it")
    keys = (lower - _HEADER) // 2
    _expect(keys >= (1 if kind == _LEAF else 2), numbers, "records" if kind == _LEAF else "pages below it")
    rows = np.repeat(np.arange(len(numbers)), keys)
    index = np.arange(len(rows)) - np.repeat(np.cumsum(keys) - keys, keys)
    pages, offsets = numbers[rows], halves[starts[rows] // 2 + _HEADER // 2 + index].astype(np.int64)
    fits = (offsets >= upper[rows]) & (offsets % 2 == 0) & (offsets + _NODE <= size)
    _expect(fits, pages, "nodes within it")
    places = starts[rows] + offsets
    low, high, flags, key_sizes = (halves[places // 2 + part].astype(np.int64) for part in range(4))
    _expect((key_sizes <= _LONGEST_KEY) & (offsets + _NODE + key_sizes <= size), pages, "keys within it")
    return pages, places, low | high << 16, flags, key_sizes


def _children(data: np.ndarray, numbers: np.ndarray, meta: _Meta) -> np.ndarray:
    """The pages below branch pages."""
    _, _, low, flags, _ = _nodes(data, numbers, meta, _BRANCH)
    return (low | flags << 32).astype(np.uint64)


def _count(data: np.ndarray, numbers: np.ndarray, meta: _Meta) -> int:
    """How many records leaf pages have."""
    pages, places, sizes, flags, key_sizes = _nodes(data, numbers, meta, _LEAF)
    _expect((flags & ~_OVERFLOW) == 0, pages, "one value a key")
    ends = places % meta.page_size + _NODE + key_sizes + np.where(flags, 8, sizes)
    _expect(ends <= meta.page_size, pages, "records within it")
    outside = flags == _OVERFLOW
    if outside.any():
        at = (places + _NODE + key_sizes)[outside]
        first = np.ascontiguousarray(data[at[:, None] + np.arange(8)]).view(np.uint64)[:, 0]
        needed = -(-(_HEADER + sizes[outside]) // meta.page_size)
        fits = (first >= 2) & (first < meta.pages) & (first.astype(np.float64) + needed <= meta.pages)
        _expect(fits, pages[outside], "values within data.mdb")
    return len(pages)
