"""What kernels.c computes, by numpy: for a machine without a C compiler. kernels.py says what each function computes.

Sums run in kernels.c's order (numpy's `cumsum`, not its `sum`), so the results are equal to the bit; but for EXPECTED
and CHANCE of a ranking whose last tie group is cut at R: the chances are products in another order.
"""

from __future__ import annotations

import numpy as np

from dhn.scoring.kernels import CHANCE, EXPECTED, HIGH, LOW, MAY_MISS, RADIUS, STABLE

Counts = np.ndarray | np.int64 | int


def pack_signs(codes: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rows: of a part."""
    packed = np.ascontiguousarray(np.packbits(codes >= 0, axis=1).T)
    parts = [codes[begin : begin + rows] for begin in range(0, len(codes), rows)]
    sums = np.zeros((len(parts), 3))
    for part, row in zip(parts, sums, strict=True):
        sizes = np.abs(part).astype(np.float64).cumsum(0)[-1]  # (K,)
        row[:] = _total(sizes), np.sum(part == 0), np.sum(~np.isfinite(part).all(1))
    return packed, np.array([np.sum(part >= 0, axis=0) for part in parts], np.int64), sums


def _reciprocals(table: np.ndarray, begin: Counts, end: Counts) -> np.ndarray:
    """Sums of 1/p for p = begin + 1 .. end."""
    return (table[0, end] - table[0, begin]) + (table[1, end] - table[1, begin])


def _packed_sum(table: np.ndarray, begin: Counts, hits: Counts, relevant: np.ndarray) -> np.ndarray:
    """Sums of precision at `relevant` hits in a row after rank `begin`, `hits` hits before them."""
    # (hits + i) / (begin + i) = 1 + (hits - begin) / (begin + i)
    sums = relevant + (hits - begin) * _reciprocals(table, begin, begin + relevant)
    return np.where(relevant == 1, (hits + 1) / (begin + 1), np.where(relevant == 0, 0.0, sums))


def _random_sum(table: np.ndarray, begin: Counts, hits: Counts, size: Counts, relevant: np.ndarray) -> np.ndarray:
    """Expected sums of precision at hits when `relevant` of `size` ranks after `begin`, drawn at random, hit.

    Rank begin + i hits with chance relevant/size; given that, (i - 1)(relevant - 1)/(size - 1) hits are expected in
    the ranks of the group before it.
    """
    sums = _reciprocals(table, begin, begin + size)
    before = (relevant - 1) / np.maximum(size - 1, 1) * (size - (begin + 1) * sums)
    total = (hits + 1) * sums + np.where(relevant > 1, before, 0)
    is_sure = (relevant == 0) | (relevant == size)
    return np.where(is_sure, _packed_sum(table, begin, hits, relevant), total * relevant / np.maximum(size, 1))


def _total(values: np.ndarray) -> float:
    """The sum from the first value to the last."""
    return float(values.cumsum()[-1]) if len(values) else 0.0


def _sum_of_precisions(relevance: np.ndarray) -> float:
    """The sum of precision at the hits of relevance (n,)."""
    return _total(relevance * relevance.cumsum(dtype=np.int64) / np.arange(1, len(relevance) + 1))


def ap_over_ties(
    relevance: np.ndarray, ends: np.ndarray, top: int, over: int, table: np.ndarray, row: np.ndarray
) -> None:
    hits = np.append(0, relevance.cumsum(dtype=np.int64))  # before each rank
    starts = np.append(0, ends)  # of the groups, and the end of the last
    groups = int(np.searchsorted(ends, top, side="right"))  # that end in the top R
    begins, sizes = starts[:groups], ends[:groups] - starts[:groups]
    relevant, before = hits[ends[:groups]] - hits[begins], hits[begins]
    expected = _total(_random_sum(table, begins, before, sizes, relevant))
    low = _total(_packed_sum(table, begins + sizes - relevant, before, relevant))
    high = _total(_packed_sum(table, begins, before, relevant))
    found = hits[min(top, len(relevance))]
    stable = _sum_of_precisions(relevance[:top]) / (over or found) if found else 0.0

    # The group that rank R cuts, if any: `slots` of its `size` items are in the top R, and `inside` of its `relevant`
    # ones, a hypergeometric number. Chances are relative to the mode's.
    begin, size, slots, relevant_inside = int(starts[groups]), 0, 0, 0
    if begin < top and groups < len(ends):
        size, slots, relevant_inside = ends[groups] - begin, top - begin, hits[ends[groups]] - hits[begin]
    inside = np.arange(max(0, relevant_inside - (size - slots)), min(relevant_inside, slots) + 1)
    mode = np.clip((relevant_inside + 1) * (slots + 1) // (size + 2), inside[0], inside[-1]) - inside[0]
    n = inside[:-1]
    ratios = (relevant_inside - n) * (slots - n) / ((n + 1.0) * (size - relevant_inside - slots + n + 1))
    chances = np.ones(len(inside))
    chances[mode + 1 :] = ratios[mode:].cumprod()
    chances[:mode] = (1 / ratios[:mode][::-1]).cumprod()[::-1]
    has_hit = hits[begin] + inside > 0
    inside = inside[has_hit]
    divisor = over or hits[begin] + inside
    highest = (high + _packed_sum(table, begin, hits[begin], inside)) / divisor
    lowest = (low + _packed_sum(table, top - inside, hits[begin], inside)) / divisor
    mean = (expected + _random_sum(table, begin, hits[begin], slots, inside)) / divisor
    row[STABLE] = stable
    row[EXPECTED] = _total(chances[has_hit] * mean) / _total(chances)
    row[LOW], row[HIGH] = (lowest.min(), highest.max()) if len(inside) else (0, 0)
    row[CHANCE] = 1.0 - _total(chances[~has_hit]) / _total(chances)
    row[MAY_MISS] = not has_hit.all()


def ap_in_balls(balls: np.ndarray, table: np.ndarray) -> np.ndarray:
    aps = np.zeros((len(balls), 3))
    begin = hits = np.zeros(len(balls), np.int64)
    for size, relevant in balls[:, : RADIUS + 1].transpose(1, 2, 0):
        aps[:, 0] += _random_sum(table, begin, hits, size, relevant)
        aps[:, 1] += _packed_sum(table, begin + size - relevant, hits, relevant)
        aps[:, 2] += _packed_sum(table, begin, hits, relevant)
        begin, hits = begin + size, hits + relevant
    return aps / np.maximum(hits, 1)[:, None]


def _hits_over_ties(relevance: np.ndarray, ends: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Hits in the top N for each N of `at`: (len(at), 2), ties in database order and expected."""
    hits = np.append(0, relevance.cumsum(dtype=np.int64))
    group = np.searchsorted(ends, at)  # that rank N is in
    begin, end = np.append(0, ends)[group], ends[group]
    expected = hits[begin] + (hits[end] - hits[begin]) * (at - begin) / (end - begin)
    return np.column_stack([hits[at], expected])


def _shared(query_labels: np.ndarray, database_labels: np.ndarray) -> np.ndarray:
    """1 where items share a label with a query, else 0: (N,) uint8; packed (L,) and (L, N)."""
    return (database_labels & query_labels[:, None]).any(0).astype(np.uint8)


def _signs(packed: np.ndarray, bits: int) -> np.ndarray:
    """Signs (N, bits) float32 of one kind or two of packed bits (M, B, N), see rank_by_signs."""
    planes = np.unpackbits(packed, axis=1, count=bits).astype(np.float32)  # (M, bits, N)
    signs = 2 * planes[0] - 1
    return np.ascontiguousarray((signs * planes[1] if len(planes) == 2 else signs).T)


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
    queries, kinds = query.shape[:2]
    statistics, precisions = np.zeros((queries, 6)), np.zeros((queries, len(at), 2))
    balls, ball_aps = np.zeros((queries, bits * kinds + 1, 2), np.int64), np.zeros(queries)
    signs, items = _signs(query.transpose(1, 2, 0), bits), _signs(database, bits)
    for q in range(queries):
        # a product of signs is a small integer: exact in float32, in any order of its sum
        distances = (bits - items @ signs[q]).astype(np.uint16)
        if kinds == 1:
            distances //= 2  # every bit that differs took 2 from the product
        order = distances.argsort(kind="stable")
        shared = _shared(query_labels[q], database_labels)
        relevance = shared[order]
        balls[q, :, 0] = np.bincount(distances, minlength=bits * kinds + 1)
        balls[q, :, 1] = np.bincount(distances[shared == 1], minlength=bits * kinds + 1)
        ends = balls[q, :, 0].cumsum()[balls[q, :, 0] > 0]
        ap_over_ties(relevance, ends, top, int(shared.sum()) if over_relevant else 0, table, statistics[q])
        precisions[q] = _hits_over_ties(relevance, ends, at)
        inside, hits = balls[q, : RADIUS + 1].sum(0)
        ball_aps[q] = _sum_of_precisions(relevance[:inside]) / max(hits, 1)
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
    statistics, precisions = np.zeros((len(query), 6)), np.zeros((len(query), len(at), 2))
    database = database.astype(np.float64)
    scores, products = np.empty((2, database.shape[1]))
    for q, code in enumerate(query.astype(np.float64)):
        scores[:] = 0
        for value, values in zip(code, database, strict=True):  # bit after bit: equal codes get equal scores
            scores += np.multiply(value, values, out=products)
        order = (-scores).argsort(kind="stable")
        relevance = _shared(query_labels[q], database_labels)[order]
        ends = np.append(np.flatnonzero(np.diff(scores[order])) + 1, len(order))
        ap_over_ties(relevance, ends, top, int(relevance.sum()) if over_relevant else 0, table, statistics[q])
        precisions[q] = _hits_over_ties(relevance, ends, at)
    return statistics, precisions
