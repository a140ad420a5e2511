"""Retrieval scores of hash codes: MAP under a named protocol, and what surrounds it.

Pure functions of arrays: no net, no files, no printing. Codes are (N, K) real values, labels (N, C) with
nonzero where an item carries a label; a database item is relevant to a query when they share a label. A row
of -1 throughout says that the labels of an item are unknown: it is left out of the scoring and counted.

Ties. A protocol's own number depends on how equal scores are ordered, which the published scripts leave to
an unstable sort. `map` orders ties by database index; `map_expected` is the mean over all tie orders, each
equally likely; `map_low` and `map_high` are the least and greatest MAP that a tie order can give.

Zeros. A code that is exactly 0 has no sign. The published scripts take numpy's or torch's sign, where it
stays 0 and adds nothing to a dot product; their protocols rank so here too. `standard`, and all that
speaks of Hamming distance, count 0 as +1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dhn.scoring import kernels

RADIUS = kernels.RADIUS
MOST_BITS = 16_383  # a ranking key is twice a distance of up to 2 * bits, plus 1, in 16 bits
WIDE, OFF = 0.2, 0.02
"""When a tie order decides the MAP: its range over tie orders is above WIDE, or `map` is more than OFF from its mean.

Trained DHN codes (48 bits, 10 classes) have ranges up to 0.12, and a `map` within 0.001 of the mean; collapsed ones
have 0.5 and more. 0.02 is what separates DHN from its variants: a database sorted by class must not give it away.
"""


@dataclass(frozen=True)
class Protocol:
    """How a published scorer arrives at its MAP.

    real: rank by dot products of the real-valued codes, not by Hamming distance of their signs.
    top: R, the ranks looked at; None for the entire database.
    over_relevant: AP divides by the number of relevant items in the database, not by the hits in the top R.
    misses: what a query without a hit in the top R counts as: "out" (left out of the mean), "zero", or
    "zero if relevant" (0 when the database holds a relevant item, left out when it holds none).
    zero_is_positive: a code of exactly 0 counts as +1, not as 0.
    minus_one: top = -1 is understood, as the slice [0:-1]: all but the last item.
    """

    real: bool = False
    top: int | None = 5000
    over_relevant: bool = False
    misses: str = "out"
    zero_is_positive: bool = False
    minus_one: bool = False


PROTOCOLS = {
    "standard": Protocol(top=None, over_relevant=True, misses="zero if relevant", zero_is_positive=True),
    "dhn-caffe": Protocol(real=True),
    "hash-caffe": Protocol(),
    "hashnet": Protocol(misses="zero if relevant"),
    "deephash-pytorch": Protocol(misses="zero", minus_one=True),
}
"""The toolkit's own protocol and those of four released scorers: zhuhan1236/dhn-caffe, thuml/hash-caffe,
thuml/HashNet and DeepHash-pytorch's CalcTopMap."""


def score(
    query_codes: ArrayLike,
    query_labels: ArrayLike,
    database_codes: ArrayLike,
    database_labels: ArrayLike,
    protocol: str = "standard",
    top: int | None = None,
    at: Sequence[int] = (100, 500, 1000),
) -> dict:
    """Score the retrieval of a database by queries.

    Codes (Q, K) and (N, K), labels (Q, C) and (N, C). protocol: a key of PROTOCOLS. top: R instead of the
    protocol's. at: ranks N to report precision at; those above the database's size are left out.

    Returns, as numbers that JSON can hold:
    protocol, R, map, map_expected, map_low, map_high (None if no query counts), queries, queries_counted,
    queries_without_hits (in the top R, ties in database order), queries_without_relevant, database, bits,
    queries_unlabelled, database_unlabelled (items left out because their labels are unknown),
    precision_at {N: {stable, expected}} (mean over all queries), precision_radius_2 (mean over all queries,
    an empty ball counting 0), empty_balls, the keys of `within_radius`,
    precision_recall [{radius, precision, recall}] (pooled over all
    pairs of query and item, radii with an empty ball everywhere left out), codes (code_statistics of
    query and database), classes {query, database} (label columns that an item carries), notes (warnings_of).

    Raises ValueError where shapes do not fit each other, codes are not finite, no labels of a side are known, or top
    is not possible.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    rules = PROTOCOLS[protocol]
    query_codes, query_labels, queries_unlabelled = _checked("query", query_codes, query_labels)
    database_codes, database_labels, database_unlabelled = _checked("database", database_codes, database_labels)
    query_signs, query_statistics = _signs("query", query_codes)
    database_signs, database_statistics = _signs("database", database_codes)
    for what, in_query, in_database in (
        ("bits", query_codes.shape[1], database_codes.shape[1]),
        ("label columns", query_labels.shape[1], database_labels.shape[1]),
    ):
        if in_query != in_database:
            raise ValueError(
                f"the query has {in_query} {what} and the database {in_database}: they must be of one kind"
            )
    queries, bits = query_codes.shape
    if bits > MOST_BITS:
        raise ValueError(f"codes of {bits} bits: expected at most {MOST_BITS}; are the codes transposed?")
    items = len(database_codes)
    ranks = _ranks(protocol, top, items)
    depths = np.array(sorted({n for n in at if n <= items}), np.int64)
    if depths.size and depths[0] < 1:
        raise ValueError(f"precision at N wants N of at least 1, found {depths[0]}")

    table = kernels.harmonic_table(ranks)
    labels = _by_item(_packed(query_labels)), _packed(database_labels)
    tail = ranks, rules.over_relevant, depths, table
    signs = query_signs[None], database_signs[None]
    statistics, precisions, balls, ball_aps = _rank_by_signs(*signs, labels, bits, tail)
    relevant = balls[:, :, 1].sum(1)
    if rules.real:
        query, database = (_by_bits(codes) for codes in (query_codes, database_codes))
        statistics, precisions = kernels.rank_by_dot(_by_item(query), database, labels[0], labels[1], *tail)
    elif not rules.zero_is_positive and query_statistics["zeros"] + database_statistics["zeros"]:
        query = np.stack([query_signs, _packed(query_codes)])
        database = np.stack([database_signs, _packed(database_codes)])
        statistics, precisions, _, _ = _rank_by_signs(query, database, labels, bits, tail)

    inside = balls[:, : RADIUS + 1].sum(1)
    scores = {
        "protocol": protocol,
        "R": ranks,
        **mean_over_ties(statistics, relevant, rules.misses),
        "queries": queries,
        "queries_without_hits": int(np.sum(statistics[:, kernels.STABLE] == 0)),
        "queries_without_relevant": int(np.sum(relevant == 0)),
        "queries_unlabelled": queries_unlabelled,
        "database": items,
        "database_unlabelled": database_unlabelled,
        "bits": bits,
        "precision_at": {
            int(n): {"stable": float(stable / n), "expected": float(expected / n)}
            for n, (stable, expected) in zip(depths, precisions.mean(0), strict=True)
        },
        "precision_radius_2": float(np.mean(inside[:, 1] / np.maximum(inside[:, 0], 1))),
        "empty_balls": int(np.sum(inside[:, 0] == 0)),
        **within_radius(balls, ball_aps),
        "precision_recall": precision_recall(balls),
        "codes": {"query": query_statistics, "database": database_statistics},
        "classes": {"query": _count_labels(labels[0].T), "database": _count_labels(labels[1])},
    }
    return {**scores, "notes": warnings_of(scores)}


def headline(scores: Mapping) -> tuple[str, float | None]:
    """Key and value of the MAP to quote: map_expected where the order of ties decides (WIDE, OFF), else map.

    scores: the result of `score`, or what metrics.json holds of a protocol.
    """
    name = "map_expected" if _ties_decide(scores) else "map"
    return name, scores[name]


def warnings_of(scores: Mapping) -> list[str]:
    """Sentences that say why a MAP means little: collapsed codes, a wide range over tie orders, no query that counts.

    scores: the result of `score`, or what metrics.json holds (an older one without distinct codes has fewer reasons).
    """
    notes = []
    rules = PROTOCOLS.get(scores.get("protocol", "").split("@")[0], Protocol())
    for side, items in (("query", "queries"), ("database", "database items")):
        statistics = scores.get("codes", {}).get(side, {})
        codes = None if rules.real else statistics.get("distinct")  # real values may differ where signs do not
        classes = scores.get("classes", {}).get(side, 0)
        count = scores.get("queries" if side == "query" else "database", 0)
        if codes == 1 and count > 1:
            notes.append(
                f"collapsed codes: all {count:,} {items} have the same code"
                + (", 0 in every bit, so " if statistics.get("zeros") == count * scores["bits"] else ", so ")
                + ("every query gets the same ranking" if side == "query" else "they all tie and their order is chance")
            )
        elif codes is not None and codes < min(classes, 2 ** scores["bits"]) and 2 * classes <= count:
            # Classes that share a code cannot be told apart; as many codes as classes may be perfect. A few items of
            # several labels each may well share codes: hence the last condition.
            notes.append(f"collapsed codes: {count:,} {items} of {classes} classes have {codes} distinct codes")
    if scores["map"] is None:
        notes.append("no MAP: no query has a relevant item among the ranks that are looked at")
    elif _ties_decide(scores):
        protocol = f"{scores['protocol']}: " if "protocol" in scores else ""
        notes.append(
            f"{protocol}the order of ties decides the MAP, from {scores['map_low']:.3f} to {scores['map_high']:.3f}; "
            f"quote its expected value over all tie orders, {scores['map_expected']:.4f}"
        )
    return notes


def _ties_decide(scores: Mapping) -> bool:
    if scores["map"] is None:
        return False
    return scores["map_high"] - scores["map_low"] > WIDE or abs(scores["map"] - scores["map_expected"]) > OFF


def mean_over_ties(statistics: np.ndarray, relevant: np.ndarray, misses: str) -> dict:
    """MAP from rows of AP statistics (Q, 6) and numbers of relevant items (Q,); misses as in Protocol.

    Returns map, map_expected, map_low, map_high, queries_counted (with ties in database order). All exact:
    where a query counts only if it has a hit, a tie order also chooses which queries are averaged.
    """
    stable, expected, low, high, _, may_miss = statistics.T
    if misses != "out":
        counted = relevant > 0 if misses == "zero if relevant" else np.ones(len(relevant), bool)
        means = [
            float(value[counted].mean()) if counted.any() else None
            for value in (stable, expected, np.where(may_miss > 0, 0.0, low), high)
        ]
        return _named(means, int(counted.sum()))
    counted = stable > 0
    sure = may_miss == 0
    perhaps = ~sure & (high > 0)
    means = [
        float(stable[counted].mean()) if counted.any() else None,
        _expected_mean(statistics[sure], statistics[perhaps]),
        _extreme_mean(low[sure], np.sort(low[perhaps]), -1),
        _extreme_mean(high[sure], np.sort(high[perhaps])[::-1], 1),
    ]
    return _named(means, int(counted.sum()))


def within_radius(balls: np.ndarray, aps: np.ndarray) -> dict:
    """Recall and MAP within Hamming radius 2: means over the queries that have a relevant item in the database.

    balls (Q, bits + 1, 2): items and relevant items at each distance; aps (Q,): AP of each ball, ties in database
    order. The recall of a query is the share of its relevant items that are in the ball. Its AP ranks the items in the
    ball by Hamming distance and divides by the relevant ones among them. An empty ball counts 0 in both, as in the
    script of Deep Cauchy Hashing (github.com/thulab/DeepHash, get_precision_recall_by_Hamming_Radius). So does a ball
    without a relevant item; that script leaves it out of its MAP, and ranks the ball again by real values.

    Returns recall_radius_2, map_radius_2, and of the latter map_radius_2_expected, _low, _high over all tie orders;
    None where no query has a relevant item.
    """
    relevant, inside = balls[:, :, 1].sum(1), balls[:, : RADIUS + 1].sum(1)
    names = ("recall_radius_2", "map_radius_2", "map_radius_2_expected", "map_radius_2_low", "map_radius_2_high")
    counted = relevant > 0
    if not counted.any():
        return dict.fromkeys(names)
    over_ties = kernels.ap_in_balls(balls, kernels.harmonic_table(int(inside[:, 0].max())))
    values = np.column_stack([inside[:, 1] / np.maximum(relevant, 1), aps, over_ties])  # (Q, 5)
    return dict(zip(names, values[counted].mean(0).tolist(), strict=True))


def precision_recall(balls: np.ndarray) -> list[dict]:
    """Precision and recall within each Hamming radius, pooled over all pairs of query and database item.

    balls (Q, bits + 1, 2): items and relevant items at each distance. Radii that hold no item are left out.
    """
    items, hits = balls.sum(0).cumsum(0).T
    relevant = max(int(hits[-1]), 1)
    return [
        {"radius": radius, "precision": float(hits[radius] / items[radius]), "recall": float(hits[radius] / relevant)}
        for radius in range(len(items))
        if items[radius]
    ]


def code_statistics(codes: np.ndarray) -> dict:
    """Bit balance and saturation of codes (N, K).

    positive_mean, positive_least, positive_most: share of items whose bit is +1, over the bits (0.5 is
    balanced); mean_abs: mean |code|, 1 when every code is binary; zeros: number of codes that are exactly 0;
    distinct: number of different binary codes among the items.
    """
    return _signs("given", codes)[1]


def _checked(side: str, codes: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Codes and labels of the items whose labels are known, and the number of the others."""
    values, vectors = np.asarray(codes, np.float32), np.asarray(labels)
    for what, array in (("codes", values), ("labels", vectors)):
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"the {side} {what} have shape {array.shape}: expected rows by columns, none empty")
    if len(values) != len(vectors):
        raise ValueError(f"the {side} has {len(values)} rows of codes and {len(vectors)} rows of labels")
    unlabelled = 0
    if vectors.dtype.kind not in "bu" and vectors.min() < 0:
        unknown = (vectors == -1).all(1)
        unlabelled = int(unknown.sum())
        values, vectors = values[~unknown], vectors[~unknown]
        if not len(vectors):
            raise ValueError(f"the labels of the {side} are unknown (-1) in all {unlabelled} rows: nothing to score")
        if vectors.min() < 0:
            raise ValueError(
                f"a row of the {side} labels holds {vectors.min()} and others: expected 0 and 1, or -1 throughout a "
                "row whose labels are unknown"
            )
    return np.ascontiguousarray(values), vectors, unlabelled


def _signs(side: str, codes: np.ndarray) -> tuple[np.ndarray, dict]:
    """Codes (N, K) as packed signs (ceil(K / 8), N) and their code_statistics."""
    packed, positive, sums = kernels.pack_signs(codes)
    total, zeros, bad = sums.sum(0)
    if bad:
        first = (~np.isfinite(codes).all(1)).argmax()
        raise ValueError(f"{int(bad)} {side} codes are not finite, the first in row {first}")
    share = positive.sum(0) / len(codes)
    return packed, {
        "positive_mean": float(share.mean()),
        "positive_least": float(share.min()),
        "positive_most": float(share.max()),
        "mean_abs": float(total / codes.size),
        "zeros": int(zeros),
        "distinct": _count_distinct(packed),
    }


def _packed(values: np.ndarray) -> np.ndarray:
    """Values (N, B), nonzero or not, as packed bits (ceil(B / 8), N)."""
    return kernels.pack(np.ascontiguousarray(values).astype(bool, copy=False))


def _count_distinct(packed: np.ndarray) -> int:
    """Number of different items in packed bits (B, N), as of kernels.pack."""
    octets = np.zeros((-(-len(packed) // 8), packed.shape[1], 8), np.uint8)
    for byte, row in enumerate(packed):
        octets[byte >> 3, :, byte & 7] = row
    words = octets.view(np.uint64)[:, :, 0]  # (words, N)
    if len(words) == 1:
        words.sort(axis=1)
    else:
        words = words[:, np.lexsort(words)]
    return 1 + int(np.count_nonzero((words[:, 1:] != words[:, :-1]).any(0)))


def _count_labels(packed: np.ndarray) -> int:
    """Number of labels that some item carries; packed (L, N)."""
    return int(np.unpackbits(np.bitwise_or.reduce(packed, axis=1)).sum())


def _by_item(rows: np.ndarray) -> np.ndarray:
    """(B, Q) as the kernels read queries: (Q, B), in one piece."""
    return np.ascontiguousarray(rows.T)


def _rank_by_signs(query: np.ndarray, database: np.ndarray, labels: tuple, bits: int, tail: tuple) -> tuple:
    """kernels.rank_by_signs of query (M, B, Q) and database (M, B, N)."""
    query = np.ascontiguousarray(query.transpose(2, 0, 1))
    return kernels.rank_by_signs(query, database, labels[0], labels[1], bits, *tail)


def _by_bits(codes: np.ndarray) -> np.ndarray:
    """Codes (N, K) as kernels.rank_by_dot takes a database: (K, N), K filled up to a multiple of 4."""
    values = np.zeros((-(-codes.shape[1] // 4) * 4, len(codes)), np.float32)
    values[: codes.shape[1]] = codes.T
    return values


def _ranks(protocol: str, top: int | None, items: int) -> int:
    """R, never above the number of database items."""
    top = PROTOCOLS[protocol].top if top is None else top
    if top == -1 and PROTOCOLS[protocol].minus_one and items > 1:
        return items - 1
    if top is None:
        return items
    if top < 1:
        raise ValueError(f"R = {top} is not possible with protocol {protocol}: expected at least 1")
    return min(top, items)


def _named(means: list[float | None], counted: int) -> dict:
    return {**dict(zip(("map", "map_expected", "map_low", "map_high"), means, strict=True)), "queries_counted": counted}


def _extreme_mean(sure: np.ndarray, perhaps: np.ndarray, sign: int) -> float | None:
    """Least (sign -1) or greatest (1) mean of all of `sure` and any of `perhaps`, sorted best first."""
    total, count = float(sure.sum()), len(sure)
    for value in perhaps:
        if count and sign * (value - total / count) <= 0:
            break
        total, count = total + float(value), count + 1
    return total / count if count else None


def _expected_mean(sure: np.ndarray, perhaps: np.ndarray) -> float | None:
    """Expected mean AP over the queries that have a hit, at least one having one; rows of AP statistics.

    The number n of others that count is a sum of independent draws, and E[1 / (a + n)] is the integral over
    t in (0, 1) of t^(a - 1) times the product of (1 - p_i + p_i t): a polynomial, so Gauss-Legendre is exact
    with half its degree in nodes. Far fewer are enough for a high degree, its mass being near t = 1.
    """
    if not len(perhaps):
        return float(sure[:, kernels.EXPECTED].mean()) if len(sure) else None
    chance = perhaps[:, kernels.CHANCE]
    degree = len(sure) + len(perhaps)
    nodes, weights = np.polynomial.legendre.leggauss(min(degree // 2 + 1, 50 + int(4 * degree**0.5)))
    t, weights = (nodes + 1) / 2, weights / 2
    factors = 1 - chance[:, None] * (1 - t)  # (queries, nodes)
    product = np.exp(np.log(factors).sum(0) + len(sure) * np.log(t)) * weights
    total = sure[:, kernels.EXPECTED].sum() * (product / t).sum() if len(sure) else 0.0
    total += perhaps[:, kernels.EXPECTED] @ (product / factors).sum(1)
    return float(total / (1 if len(sure) else 1 - np.prod(1 - chance)))
