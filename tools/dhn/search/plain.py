"""What kernels.c computes, by numpy: for a machine without a C compiler. kernels.py says what a function computes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dhn.search.kernels import Codes, Nearest

ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, np.uint8)
"""Number of set bits of each uint16."""


def pack(codes: np.ndarray) -> np.ndarray:
    octets = np.zeros((len(codes), -(-codes.shape[1] // 64) * 8), np.uint8)
    octets[:, : -(-codes.shape[1] // 8)] = np.packbits(codes >= 0, axis=1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def _texts(text: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    return [text[begin:end].tobytes() for begin, end in pairwise(offsets.tolist())]


def is_ascending(text: np.ndarray, offsets: np.ndarray) -> bool:
    return all(one < other for one, other in pairwise(_texts(text, offsets)))


def find_twin(text: np.ndarray, offsets: np.ndarray, order: np.ndarray) -> int:
    texts = _texts(text, offsets)
    return next((one for one, other in pairwise(order.tolist()) if texts[one] == texts[other]), -1)


def products(codes: np.ndarray, query: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(codes), 4))
    for bit in range(0, len(query), 4):
        part = codes[:, bit : bit + 4].astype(np.float64)
        sums[:, : part.shape[1]] += part * query[bit : bit + 4].astype(np.float64)
    return (sums[:, 0] + sums[:, 1]) + (sums[:, 2] + sums[:, 3])


def find_nearest(
    index: Codes,
    counts: np.ndarray,
    allowed: np.ndarray | None,
    packed: np.ndarray,
    queries: np.ndarray,
    wanted: int,
    radius: int,
    by_key: bool,
) -> Nearest | None:
    parts, within = [], []
    for code, query in zip(packed, queries, strict=True):
        distances = ONES[(index.words ^ code).view(np.uint16)].sum(1, np.int64)  # (D,)
        sizes = np.bincount(distances, counts, radius + 1)[: radius + 1].cumsum().astype(np.int64)
        limit = min(int(np.searchsorted(sizes, wanted)), radius)
        near = np.flatnonzero(distances <= limit)
        starts, lengths = index.offsets[near], np.diff(index.offsets)[near]
        shifts = np.repeat(starts - (lengths.cumsum() - lengths), lengths)
        places = shifts + np.arange(len(shifts))  # (n,), of all items of these codes
        near = np.repeat(near, lengths)
        if allowed is not None:
            places, near = places[allowed[places]], near[allowed[places]]
        rows = index.postings[places]
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(index.ranks):
            return None
        values = np.zeros(len(rows)) if by_key else -products(index.codes[places], query)
        first = np.lexsort((index.ranks[rows], values, distances[near]))[:wanted]
        if not np.array_equal(index.places[rows[first]], places[first]):
            return None
        parts.append((rows[first], distances[near[first]], products(index.codes[places[first]], query)))
        within.append(sizes[limit])
    rows, distances, similarities = (
        np.concatenate([part[column] for part in parts]) if parts else np.empty(0) for column in range(3)
    )
    starts = np.append(0, np.cumsum([len(part[0]) for part in parts], dtype=np.int64))
    return Nearest(starts, np.array(within, np.int64), rows, distances, similarities)
