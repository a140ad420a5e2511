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
PAIR = 2  # queries that read the database's signs together, each keeping a key of every item
_TEAM = 4  # and its codes
_BLOCK = 2048  # database items whose codes stay in the cache while their scores are summed
_ROWS = 4096  # codes that are packed together


@intrinsic
def _popcount(_context, octet):
    """Number of set bits of a uint8."""

    def codegen(_codegen_context, builder, _signature, args):
        return builder.ctpop(args[0])

    return types.uint8(types.uint8), codegen


@njit(parallel=True, cache=True)
def pack(flags):
    """Pack bool (N, B) into uint8 (ceil(B / 8), N): bits in order from the highest, zeros behind the last."""
    items, bits = flags.shape
    packed = np.zeros((-(-bits // 8), items), np.uint8)
    for part in prange(-(-items // _ROWS)):
        for item in range(part * _ROWS, min(items, (part + 1) * _ROWS)):
            for bit in range(bits):
                packed[bit >> 3, item] |= np.uint8(flags[item, bit]) << np.uint8(7 - (bit & 7))
    return packed


@njit(parallel=True, cache=True)
def pack_signs(codes):
    """What one pass over float32 codes (N, K) tells: packed bits of codes >= 0, as of `pack`; and of each part of
    _ROWS codes the number of such bits, (parts, K), the sum of |code|, of zeros and of codes that are not finite,
    (parts, 3)."""
    items, bits = codes.shape
    parts = -(-items // _ROWS)
    packed = np.zeros((-(-bits // 8), items), np.uint8)
    positive, sums = np.zeros((parts, bits), np.int64), np.zeros((parts, 3))
    for part in prange(parts):
        for item in range(part * _ROWS, min(items, (part + 1) * _ROWS)):
            total, zeros = 0.0, 0
            for bit in range(bits):
                code = codes[item, bit]
                sign = np.uint8(code >= 0)
                positive[part, bit] += sign
                packed[bit >> 3, item] |= sign << np.uint8(7 - (bit & 7))
                total += np.float64(abs(code))
                zeros += code == 0
            sums[part, 0] += total
            sums[part, 1] += zeros
            sums[part, 2] += not np.isfinite(total)
    return packed, positive, sums


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
def _set_shared(key, begin, query, database):
    """Set key (n,) to 1 where items from `begin` on share a label, else to 0; packed: query (L,), database (L, N)."""
    key[:] = 0
    for octet in range(query.size):
        bits, octets = query[octet], database[octet, begin : begin + key.size]
        for item in range(key.size):
            key[item] |= bits & octets[item]
    for item in range(key.size):
        key[item] = key[item] != 0


@njit(cache=True)
def _add_twice_hamming(key, begin, query, database):
    """Add twice the Hamming distances of items from `begin` on; packed bits: query (B,), database (B, N)."""
    for octet in range(query.size):
        bits, octets = query[octet], database[octet, begin : begin + key.size]
        for item in range(key.size):
            key[item] += _popcount(bits ^ octets[item]) << np.uint8(1)


@njit(cache=True)
def _add_twice_distance(key, begin, bits, query, database):
    """Add twice bits minus the dot products of signs of items from `begin` on; query (2, B), database (2, B, N)."""
    for item in range(key.size):
        key[item] += 2 * bits
    for octet in range(query.shape[1]):
        positive, octets = query[0, octet], database[0, octet, begin : begin + key.size]
        signed, signs = query[1, octet], database[1, octet, begin : begin + key.size]
        for item in range(key.size):
            both = signed & signs[item]
            unlike = _popcount((positive ^ octets[item]) & both)
            key[item] += (unlike << np.uint8(2)) - (_popcount(both) << np.uint8(1))


@njit(cache=True)
def _count(counts, key):
    """Add to counts (4, size) how often key (n,) takes each value below size, every fourth item in a row."""
    a, b, c, d = counts  # near equal keys do not wait for each other
    whole = key.size // 4 * 4
    for item in range(0, whole, 4):
        a[key[item]] += 1
        b[key[item + 1]] += 1
        c[key[item + 2]] += 1
        d[key[item + 3]] += 1
    for item in range(whole, key.size):
        a[key[item]] += 1


@njit(cache=True)
def _measure(key, counts, need, top, over_relevant, at, table, row, found):
    """Rank by key (N,), twice the distance plus 1 if relevant, by counting sort, and measure the ranking.

    counts (distances, 2): irrelevant and relevant items at each distance. Fills row (6,) and found (len(at), 2).
    Overwrites key.
    """
    ends = np.zeros(len(counts), np.int64)
    place = np.zeros(len(counts), np.int64)
    total = groups = limit = 0
    for d in range(len(counts)):
        size = counts[d, 0] + counts[d, 1]
        place[d] = total
        if size > 0 and total < need:
            ends[groups] = total + size
            groups += 1
            limit = 2 * d + 1
        total += size
    near = 0
    for item in range(key.size):  # no branch: near items are hard to predict
        key[near] = key[item]
        near += key[item] <= limit
    relevance = np.empty(near, np.uint8)
    for each in key[:near]:
        d = each >> 1
        relevance[place[d]] = each & 1
        place[d] += 1
    ap_over_ties(relevance, ends[:groups], top, counts[:, 1].sum() if over_relevant else 0, table, row)
    hits_over_ties(relevance, ends[:groups], at, found[:, 0], found[:, 1])


@njit(parallel=True, cache=True)
def rank_by_signs(query, database, query_labels, database_labels, bits, keys, top, over_relevant, at, table):
    """Rank the database by the signs of codes for each query and measure the ranking.

    query (Q, 1, B), database (1, B, N): packed bits of codes >= 0; the distance is Hamming's. Or query (Q, 2, B),
    database (2, B, N): those and the packed bits of codes that are not 0; the distance is K minus the dot product of
    the signs, 0 having the sign 0. query_labels (Q, L), database_labels (L, N): packed labels. keys (threads, PAIR, N):
    room, of an unsigned type that holds twice the greatest distance plus 1; its pages serve all queries of a thread.
    at: ascending ranks N of precision at N, none above the database's size.
    Returns AP statistics (Q, 6), hits in the top N (Q, len(at), 2; stable, expected), and per distance the number of
    items and of relevant items, (Q, bits + 1, 2) or (Q, 2 * bits + 1, 2).
    """
    queries, items = len(query), database.shape[2]
    distances = bits * query.shape[1] + 1
    statistics = np.empty((queries, 6))
    found = np.empty((queries, at.size, 2))
    balls = np.empty((queries, distances, 2), np.int64)
    need = min(items, top if at.size == 0 else max(top, at[-1]))
    threads = len(keys)
    for thread in prange(threads):
        for first in range(thread * PAIR, queries, threads * PAIR):
            members = min(PAIR, queries - first)
            counts = np.zeros((members, 4, 2 * distances), np.int64)
            for begin in range(0, items, _BLOCK):
                for member in range(members):
                    q = first + member
                    key = keys[thread, member, begin : min(begin + _BLOCK, items)]
                    _set_shared(key, begin, query_labels[q], database_labels)
                    if query.shape[1] == 1:
                        _add_twice_hamming(key, begin, query[q, 0], database[0])
                    else:
                        _add_twice_distance(key, begin, bits, query[q], database)
                    _count(counts[member], key)
            for member in range(members):
                q = first + member
                sizes = counts[member].sum(0).reshape(distances, 2)
                balls[q, :, 0] = sizes[:, 0] + sizes[:, 1]
                balls[q, :, 1] = sizes[:, 1]
                _measure(keys[thread, member], sizes, need, top, over_relevant, at, table, statistics[q], found[q])
    return statistics, found, balls


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

    query (Q, K), database (K, N): real codes, K a multiple of 4. The rest, and the
    two results, are as the first two in rank_by_signs.
    """
    queries, items = query.shape[0], database.shape[1]
    statistics = np.empty((queries, 6))
    found = np.empty((queries, at.size, 2))
    need = min(items, top if at.size == 0 else max(top, at[-1]))
    for team in prange(-(-queries // _TEAM)):
        first = team * _TEAM
        scores = _dot_products(query[first : first + _TEAM], database)
        for member in range(len(scores)):
            q = first + member
            shared = np.empty(items, np.uint8)
            _set_shared(shared, 0, query_labels[q], database_labels)
            order = _head(scores[member], need)
            relevance = shared[order]
            ends = np.empty(order.size, np.int64)
            groups = 0
            for rank in range(1, order.size + 1):
                if rank == order.size or scores[member, order[rank]] != scores[member, order[rank - 1]]:
                    ends[groups] = rank
                    groups += 1
            over = np.int64(shared.sum()) if over_relevant else 0
            ap_over_ties(relevance, ends[:groups], top, over, table, statistics[q])
            hits_over_ties(relevance, ends[:groups], at, found[q, :, 0], found[q, :, 1])
    return statistics, found
