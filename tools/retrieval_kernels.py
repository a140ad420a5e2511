"""Compiled ranking and average precision under ties (numba, parallel over queries).

Everything compiled lives in this one file: numba's on-disk cache looks at the file of the function it
loads, not at the files of the functions that one calls.

A ranking is a list of *tie groups*: items no score tells apart. A tie order is one way to break all of
them. Each query yields one row of AP statistics, in the columns named below.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

STABLE, EXPECTED, LOW, HIGH, CHANCE, MAY_MISS = range(6)
"""Columns of a row of AP statistics.

STABLE: AP with ties in database order. EXPECTED: its mean over all tie orders, an order without a hit
counting 0. LOW, HIGH: the least and greatest AP of the orders that have a hit. CHANCE: the share of orders
that have a hit in the top R. MAY_MISS: 1 where some order has none.
"""

_BINS = 4096  # coarse score bins, to sort only the part of a ranking that is looked at
_BLOCK = 2048  # database items whose codes stay in the cache while their scores are summed
_TEAM = 4  # queries that read the database together


@intrinsic
def _popcount(_context, word):
    """Number of set bits of a uint64."""

    def codegen(_codegen_context, builder, _signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


def harmonic_table(length: int) -> np.ndarray:
    """Harmonic numbers H(0) .. H(length) as float64 pairs (2, length + 1): the value and its rounding error.

    The second row keeps differences of near numbers exact enough to be multiplied by a rank.
    """
    exact = np.zeros(length + 1, np.longdouble)
    np.cumsum(1 / np.arange(1, length + 1, dtype=np.longdouble), out=exact[1:])
    value = exact.astype(np.float64)
    return np.stack([value, (exact - value).astype(np.float64)])


@njit(cache=True)
def _reciprocals(table, begin, end):
    """Sum of 1/p for p = begin + 1 .. end."""
    return (table[0, end] - table[0, begin]) + (table[1, end] - table[1, begin])


@njit(cache=True)
def _packed_sum(table, begin, hits, relevant):
    """Sum of precision at `relevant` hits in a row after rank `begin`, `hits` hits before them."""
    if relevant == 0:
        return 0.0
    if relevant == 1:
        return (hits + 1) / (begin + 1)
    # (hits + i) / (begin + i) = 1 + (hits - begin) / (begin + i)
    return relevant + (hits - begin) * _reciprocals(table, begin, begin + relevant)


@njit(cache=True)
def _random_sum(table, begin, hits, size, relevant):
    """Expected sum of precision at hits when `relevant` of `size` ranks after `begin`, drawn at random, hit.

    Rank begin + i hits with chance relevant/size; given that, (i - 1)(relevant - 1)/(size - 1) hits are
    expected in the ranks of the group before it.
    """
    if relevant == 0 or relevant == size:
        return _packed_sum(table, begin, hits, relevant)
    reciprocals = _reciprocals(table, begin, begin + size)
    total = (hits + 1) * reciprocals
    if relevant > 1:
        total += (relevant - 1) / (size - 1) * (size - (begin + 1) * reciprocals)
    return total * relevant / size


@njit(cache=True)
def ap_over_ties(relevance, ends, top, over, table, row):
    """Fill `row` with the AP statistics of one query.

    relevance: (n,) uint8 in ranking order, ties in database order, whole tie groups, at least `top` items
    or the entire database. ends: (groups,) where each tie group ends. top: R. over: what AP divides by,
    0 for the number of hits in the top R. table: harmonic_table(n) or longer.
    """
    begin = hits = stable_hits = 0
    stable = expected = low = high = 0.0
    for end in ends:
        if begin >= top:
            break
        for rank in range(begin, min(end, top)):
            hit = relevance[rank]
            stable_hits += hit
            stable += hit * np.float64(stable_hits) / np.float64(rank + 1)  # no branch: hits are hard to predict
        if end > top:
            break
        relevant = stable_hits - hits
        expected += _random_sum(table, begin, hits, end - begin, relevant)
        high += _packed_sum(table, begin, hits, relevant)
        low += _packed_sum(table, end - relevant, hits, relevant)
        hits += relevant
        begin = end
    row[STABLE] = 0.0 if stable_hits == 0 else stable / (over if over > 0 else stable_hits)

    # The group that rank R cuts, if any: `slots` of its `size` items are in the top R, and `inside` of its
    # `relevant` ones, a hypergeometric number. Walk over it from the mode, chances relative to the mode's.
    size = relevant = slots = 0
    if begin < top and begin < relevance.size:
        size, slots = end - begin, top - begin
        for rank in range(begin, end):
            relevant += relevance[rank]
    least, most = max(0, relevant - (size - slots)), min(relevant, slots)
    mode = min(most, max(least, (relevant + 1) * (slots + 1) // (size + 2)))
    weights = missing = mean = 0.0
    lowest, highest = np.inf, -np.inf
    row[MAY_MISS] = 0.0
    for direction in (1, -1):
        inside = mode
        weight = 1.0
        while least <= inside <= most:
            if direction == 1 or inside != mode:
                weights += weight
                if hits + inside == 0:
                    missing = weight
                    row[MAY_MISS] = 1.0
                else:
                    divisor = over if over > 0 else hits + inside
                    mean += weight * (expected + _random_sum(table, begin, hits, slots, inside)) / divisor
                    highest = max(highest, (high + _packed_sum(table, begin, hits, inside)) / divisor)
                    lowest = min(lowest, (low + _packed_sum(table, top - inside, hits, inside)) / divisor)
            if direction == 1:
                weight *= (relevant - inside) * (slots - inside)
                weight /= (inside + 1.0) * (size - relevant - slots + inside + 1)
            else:
                weight *= inside * (size - relevant - slots + inside)
                weight /= (relevant - inside + 1.0) * (slots - inside + 1)
            inside += direction
    row[EXPECTED] = mean / weights
    row[CHANCE] = 1.0 - missing / weights
    row[LOW] = lowest if highest > -np.inf else 0.0
    row[HIGH] = highest if highest > -np.inf else 0.0


@njit(cache=True)
def hits_over_ties(relevance, ends, at, stable, expected):
    """Hits in the top N for each N of ascending `at`: ties in database order, and expected over tie orders."""
    begin = hits = 0
    wanted = 0
    for end in ends:
        relevant = 0
        for rank in range(begin, end):
            relevant += relevance[rank]
        inside = 0
        rank = begin
        while wanted < at.size and at[wanted] <= end:
            while rank < at[wanted]:
                inside += relevance[rank]
                rank += 1
            stable[wanted] = hits + inside
            expected[wanted] = hits + relevant * (at[wanted] - begin) / (end - begin)
            wanted += 1
        hits += relevant
        begin = end


@njit(cache=True)
def _shared_labels(query, database):
    """(N,) uint16, 1 where a database item shares a label; query (W,), database (W, N), packed bits."""
    shared = np.zeros(database.shape[1], np.uint16)
    for word in range(query.size):
        bits = query[word]
        for item in range(shared.size):
            shared[item] |= np.uint16((bits & database[word, item]) != 0)
    return shared


@njit(cache=True)
def _add_twice_hamming(key, query, database):
    """Add twice the Hamming distances to key (N,) uint16; query (W,), database (W, N), packed bits."""
    for word in range(query.size):
        bits = query[word]
        for item in range(key.size):
            key[item] += np.uint16(_popcount(bits ^ database[word, item])) << np.uint16(1)


@njit(cache=True)
def _add_twice_distance(key, bits, query, database):
    """Add twice bits minus the dot products of signs to key (N,) uint16; in query and database, (2, W) and (2, W, N),
    first the bits of codes >= 0, then those of codes that are not 0.
    """
    key += np.uint16(2 * bits)
    for word in range(query.shape[1]):
        positive, signed = query[0, word], query[1, word]
        for item in range(key.size):
            both = signed & database[1, word, item]
            unlike = _popcount((positive ^ database[0, word, item]) & both)
            key[item] += np.uint16(unlike << np.uint64(2)) - np.uint16(_popcount(both) << np.uint64(1))


@njit(cache=True)
def _histogram(key, size):
    """(size,) int64, how often key (N,) uint16 takes each value below size."""
    counts = np.zeros((4, size), np.int64)  # of every fourth key: near equal keys do not wait for each other
    a, b, c, d = counts
    whole = key.size // 4 * 4
    for item in range(0, whole, 4):
        a[key[item]] += 1
        b[key[item + 1]] += 1
        c[key[item + 2]] += 1
        d[key[item + 3]] += 1
    for item in range(whole, key.size):
        a[key[item]] += 1
    return a + b + c + d


@njit(cache=True)
def _rank(key, distances, need, top, over_relevant, at, table, row, found):
    """Rank by key (N,) uint16, twice the distance plus 1 if relevant, by counting sort, and measure the ranking.

    Fills row (6,) and found (len(at), 2); returns (distances, 2), irrelevant and relevant items at each distance.
    """
    counts = _histogram(key, 2 * distances).reshape(distances, 2)
    ends = np.zeros(distances, np.int64)
    place = np.zeros(distances, np.int64)
    total = groups = limit = 0
    for d in range(distances):
        size = counts[d, 0] + counts[d, 1]
        place[d] = total
        if size > 0 and total < need:
            ends[groups] = total + size
            groups += 1
            limit = 2 * d + 1
        total += size
    relevance = np.empty(ends[groups - 1], np.uint8)
    for item in range(key.size):
        if key[item] <= limit:
            d = key[item] >> np.uint16(1)
            relevance[place[d]] = key[item] & 1
            place[d] += 1
    ap_over_ties(relevance, ends[:groups], top, counts[:, 1].sum() if over_relevant else 0, table, row)
    hits_over_ties(relevance, ends[:groups], at, found[:, 0], found[:, 1])
    return counts


@njit(parallel=True, cache=True)
def rank_by_hamming(query, database, query_labels, database_labels, bits, top, over_relevant, at, table):
    """Rank the database by Hamming distance for each query and measure the ranking.

    query (Q, W), database (W, N): packed sign bits. query_labels (Q, L), database_labels (L, N): packed
    labels. at: ascending ranks N of precision at N, none above the database's size.
    Returns AP statistics (Q, 6), hits in the top N (Q, len(at), 2; stable, expected), and per Hamming
    distance 0 .. bits the number of items and of relevant items, (Q, bits + 1, 2).
    """
    queries = query.shape[0]
    statistics = np.empty((queries, 6))
    found = np.empty((queries, at.size, 2))
    balls = np.empty((queries, bits + 1, 2), np.int64)
    need = min(database.shape[1], top if at.size == 0 else max(top, at[-1]))
    for q in prange(queries):
        key = _shared_labels(query_labels[q], database_labels)
        _add_twice_hamming(key, query[q], database)
        counts = _rank(key, bits + 1, need, top, over_relevant, at, table, statistics[q], found[q])
        balls[q, :, 0] = counts[:, 0] + counts[:, 1]
        balls[q, :, 1] = counts[:, 1]
    return statistics, found, balls


@njit(parallel=True, cache=True)
def rank_by_signs(query, database, query_labels, database_labels, bits, top, over_relevant, at, table):
    """Rank the database by descending dot product of signs, where 0 has the sign 0, and measure the ranking.

    query (Q, 2, W), database (2, W, N): packed bits of codes >= 0 and of codes that are not 0. The rest, and the
    two results, are as in rank_by_hamming.
    """
    queries = query.shape[0]
    statistics = np.empty((queries, 6))
    found = np.empty((queries, at.size, 2))
    need = min(database.shape[2], top if at.size == 0 else max(top, at[-1]))
    for q in prange(queries):
        key = _shared_labels(query_labels[q], database_labels)
        _add_twice_distance(key, bits, query[q], database)
        _rank(key, 2 * bits + 1, need, top, over_relevant, at, table, statistics[q], found[q])
    return statistics, found


@njit(cache=True)
def _dot_products(queries, database):
    """(Q, N) float64 dot products; queries (Q, K), database (K, N), K a multiple of 4.

    Products of float32 are exact in float64 and each sum runs over the bits in order, so equal codes get
    equal scores: no tie is made or broken by how a BLAS blocks its loops.
    """
    items = database.shape[1]
    scores = np.zeros((len(queries), items))
    for begin in range(0, items, _BLOCK):
        end = min(begin + _BLOCK, items)
        for q in range(len(queries)):
            part = scores[q, begin:end]
            for bit in range(0, queries.shape[1], 4):
                a, b = np.float64(queries[q, bit]), np.float64(queries[q, bit + 1])
                c, d = np.float64(queries[q, bit + 2]), np.float64(queries[q, bit + 3])
                a_row, b_row = database[bit, begin:end], database[bit + 1, begin:end]
                c_row, d_row = database[bit + 2, begin:end], database[bit + 3, begin:end]
                for item in range(part.size):
                    score = part[item] + a * np.float64(a_row[item])
                    score = score + b * np.float64(b_row[item])
                    score = score + c * np.float64(c_row[item])
                    part[item] = score + d * np.float64(d_row[item])
    return scores


@njit(cache=True)
def _head(scores, need):
    """Database indices of the best `need` items and of all that tie with the last of them, in order.

    Bins of scores choose what is sorted: whole bins from the best one down, so whole tie groups.
    """
    best, worst = scores.max(), scores.min()
    scale = (_BINS - 1) / (best - worst) if best > worst else 0.0
    counts = np.zeros(_BINS, np.int64)
    for score in scores:
        counts[int((best - score) * scale)] += 1
    last = total = 0
    while total + counts[last] < need:
        total += counts[last]
        last += 1
    chosen = np.empty(total + counts[last], np.int64)
    taken = 0
    for item in range(scores.size):
        if int((best - scores[item]) * scale) <= last:
            chosen[taken] = item
            taken += 1
    return chosen[np.argsort(-scores[chosen], kind="mergesort")]


@njit(parallel=True, cache=True)
def rank_by_dot(query, database, query_labels, database_labels, top, over_relevant, at, table):
    """Rank the database by descending dot product for each query and measure the ranking.

    query (Q, K), database (K, N): real codes, K a multiple of 4. The rest, and the first two results, are as
    in rank_by_hamming; the third is the number of relevant items (Q,).
    """
    queries, items = query.shape[0], database.shape[1]
    statistics = np.empty((queries, 6))
    found = np.empty((queries, at.size, 2))
    relevant = np.empty(queries, np.int64)
    need = min(items, top if at.size == 0 else max(top, at[-1]))
    for team in prange(-(-queries // _TEAM)):
        first = team * _TEAM
        scores = _dot_products(query[first : first + _TEAM], database)
        for member in range(len(scores)):
            q = first + member
            shared = _shared_labels(query_labels[q], database_labels)
            total = np.int64(shared.sum())
            relevant[q] = total
            order = _head(scores[member], need)
            relevance = shared[order].astype(np.uint8)
            ends = np.empty(order.size, np.int64)
            groups = 0
            for rank in range(1, order.size + 1):
                if rank == order.size or scores[member, order[rank]] != scores[member, order[rank - 1]]:
                    ends[groups] = rank
                    groups += 1
            over = total if over_relevant else 0
            ap_over_ties(relevance, ends[:groups], top, over, table, statistics[q])
            hits_over_ties(relevance, ends[:groups], at, found[q, :, 0], found[q, :, 1])
    return statistics, found, relevant
