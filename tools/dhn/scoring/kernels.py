"""Ranking and average precision under ties, parallel over queries: kernels.c, or plain.py where it was not compiled.

A ranking is a list of *tie groups*: items no score tells apart. A tie order is one way to break all of
them. Each query yields one row of AP statistics, in the columns named below.
"""

from __future__ import annotations

import ctypes
from types import ModuleType

import numpy as np

from dhn import compiled
from dhn.scoring import library
from dhn.scoring.library import LIBRARY

STABLE, EXPECTED, LOW, HIGH, CHANCE, MAY_MISS = range(6)
"""Columns of a row of AP statistics.

STABLE: AP with ties in database order. EXPECTED: its mean over all tie orders, an order without a hit
counting 0. LOW, HIGH: the least and greatest AP of the orders that have a hit. CHANCE: the share of orders
that have a hit in the top R. MAY_MISS: 1 where some order has none.
"""

RADIUS = 2  # of the Hamming ball that papers report precision, recall and MAP in
STRETCH = 196_608  # database items whose keys a query keeps at a time, in its core's cache
_ROWS = 4096  # codes whose statistics are one sum


def _plain() -> ModuleType:
    """What computes without the library; a line of stderr says so."""
    from dhn.scoring import plain

    compiled.warn_of_numpy("scoring", library.SOURCE, "about 15 times slower")
    return plain


def harmonic_table(length: int) -> np.ndarray:
    """Harmonic numbers H(0) .. H(length) as float64 pairs (2, length + 1): the value and its rounding error.

    The second row keeps differences of near numbers exact enough to be multiplied by a rank.
    """
    exact = np.zeros(length + 1, np.longdouble)
    np.cumsum(1 / np.arange(1, length + 1, dtype=np.longdouble), out=exact[1:])
    value = exact.astype(np.float64)
    return np.stack([value, (exact - value).astype(np.float64)])


def pack(flags: np.ndarray) -> np.ndarray:
    """Pack bool (N, B) into uint8 (ceil(B / 8), N): bits in order from the highest, zeros behind the last."""
    if LIBRARY is None:
        return np.ascontiguousarray(np.packbits(flags, axis=1).T)
    flags = np.ascontiguousarray(flags, bool)
    items, bits = flags.shape
    packed = np.empty((-(-bits // 8), items), np.uint8)
    pack_part = LIBRARY.pack

    def work(begin: int, end: int) -> None:
        pack_part(packed.ctypes.data, flags.ctypes.data, items, bits, begin, end)

    compiled.in_threads(work, items)
    return packed


def pack_signs(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What one pass over float32 codes (N, K) tells: packed bits of codes >= 0, as of `pack`; and of each part of
    4,096 codes the number of such bits, (parts, K), the sum of |code|, of zeros and of codes that are not finite,
    (parts, 3)."""
    if LIBRARY is None:
        return _plain().pack_signs(codes, _ROWS)
    codes = np.ascontiguousarray(codes, np.float32)
    items, bits = codes.shape
    packed = np.empty((-(-bits // 8), items), np.uint8)
    parts = -(-items // _ROWS)
    positive, sizes, sums = np.zeros((parts, bits), np.int64), np.zeros((parts, bits)), np.zeros((parts, 3))
    pack_part = LIBRARY.pack_signs

    def work(begin: int, end: int) -> None:
        for part in range(begin, end):
            results = positive[part].ctypes.data, sizes[part].ctypes.data, sums[part].ctypes.data
            rows = part * _ROWS, min(items, (part + 1) * _ROWS)
            pack_part(packed.ctypes.data, *results, codes.ctypes.data, items, bits, *rows)

    compiled.in_threads(work, parts)
    return packed, positive, sums


def ap_over_ties(
    relevance: np.ndarray, ends: np.ndarray, top: int, over: int, table: np.ndarray, row: np.ndarray
) -> None:
    """Fill `row` (6,) float64 with the AP statistics of one query.

    relevance: (n,) uint8 in ranking order, ties in database order, whole tie groups, at least `top` items
    or the entire database. ends: (groups,) int64 where each tie group ends. top: R. over: what AP divides by,
    0 for the number of hits in the top R. table: harmonic_table(top) or longer.
    """
    if LIBRARY is None:
        _plain().ap_over_ties(relevance, ends, top, over, table, row)
        return
    LIBRARY.ap_over_ties(
        relevance.ctypes.data, len(relevance), ends.ctypes.data, len(ends), top, over,
        table.ctypes.data, table.shape[1], row.ctypes.data,
    )  # fmt: skip


def ap_in_balls(balls: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Expected, least and greatest AP over tie orders of each query's items within RADIUS, (Q, 3).

    balls (Q, bits + 1, 2): items and relevant items at each Hamming distance. AP divides by the relevant items in the
    ball; it is 0 where the ball holds none. table: harmonic_table of the largest ball's size or longer.
    """
    if LIBRARY is None:
        return _plain().ap_in_balls(balls, table)
    balls, aps = np.ascontiguousarray(balls, np.int64), np.zeros((len(balls), 3))
    LIBRARY.ap_in_balls(aps.ctypes.data, balls.ctypes.data, *balls.shape[:2], table.ctypes.data, table.shape[1])
    return aps


def rank_by_signs(
    query: np.ndarray,
    database: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    bits: int,
    top: int,
    over_relevant: bool,
    at: np.ndarray,
    table: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank the database by the signs of codes for each query and measure the ranking.

    query (Q, 1, B), database (1, B, N): packed bits of codes >= 0; the distance is Hamming's. Or query (Q, 2, B),
    database (2, B, N): those and the packed bits of codes that are not 0; the distance is K minus the dot product of
    the signs, 0 having the sign 0. query_labels (Q, L), database_labels (L, N): packed labels.
    at: ascending ranks N of precision at N, none above the database's size. table: harmonic_table(top).
    Returns AP statistics (Q, 6), hits in the top N (Q, len(at), 2; stable, expected), per distance the number of
    items and of relevant items, (Q, bits + 1, 2) or (Q, 2 * bits + 1, 2), and AP over the items within the distance
    RADIUS, ties in database order (Q,), which divides by the relevant items there.
    """
    if LIBRARY is None:
        return _plain().rank_by_signs(
            query, database, query_labels, database_labels, bits, top, over_relevant, at, table
        )
    queries, kinds, octets = query.shape
    balls, ball_aps = np.zeros((queries, bits * kinds + 1, 2), np.int64), np.zeros(queries)
    rest = {"kinds": kinds, "octets": octets, "balls": balls, "ball_aps": ball_aps}
    codes, labels = (query, database), (query_labels, database_labels)
    statistics, precisions = _ranked("rank_by_signs", codes, labels, bits, top, over_relevant, at, table, **rest)
    return statistics, precisions, balls, ball_aps


def rank_by_dot(
    query: np.ndarray,
    database: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    top: int,
    over_relevant: bool,
    at: np.ndarray,
    table: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank the database by descending dot product for each query and measure the ranking.

    query (Q, K), database (K, N): real codes, float32, K a multiple of 4. The rest, and the
    two results, are as the first two in rank_by_signs.
    """
    if LIBRARY is None:
        return _plain().rank_by_dot(query, database, query_labels, database_labels, top, over_relevant, at, table)
    codes, labels = (query, database), (query_labels, database_labels)
    return _ranked("rank_by_dot", codes, labels, query.shape[1], top, over_relevant, at, table)


def _ranked(
    name: str,
    codes: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    bits: int,
    top: int,
    over_relevant: bool,
    at: np.ndarray,
    table: np.ndarray,
    **rest: int | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """AP statistics and hits in the top N, by the function `name` of kernels.c. Raises MemoryError."""
    query, database, query_labels, database_labels = (np.ascontiguousarray(each) for each in (*codes, *labels))
    queries, items, label_octets = len(query), database.shape[-1], query_labels.shape[1]
    statistics, precisions = np.zeros((queries, 6)), np.zeros((queries, len(at), 2))
    task = library.Task(
        queries=queries, items=items, label_octets=label_octets, bits=bits, top=top, over_relevant=int(over_relevant),
        depths=len(at), length=table.shape[1], query=query, database=database, query_labels=query_labels,
        database_labels=database_labels, at=at, table=table, statistics=statistics, precisions=precisions, **rest,
    )  # fmt: skip
    function, reference = getattr(LIBRARY, name), ctypes.byref(task)
    if not all(compiled.in_threads(lambda begin, end: function(reference, begin, end), queries)):
        raise MemoryError(f"no memory to rank {items} items for {queries} queries")
    return statistics, precisions
