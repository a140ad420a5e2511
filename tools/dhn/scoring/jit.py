"""What kernels.c computes, compiled by numba when it is first called: for a machine without a C compiler.

Equal to the bit; tests compare them. kernels.py says what each function computes. All stands in this one file: numba's
on-disk cache looks at the file of the function it loads, not at the files of the functions that one calls.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import get_num_threads, njit, prange, types
from numba.extending import intrinsic

from dhn.scoring.kernels import CHANCE, EXPECTED, HIGH, LOW, MAY_MISS, RADIUS, STABLE, STRETCH

_BINS = 4096  # coarse score bins, to sort only the part of a ranking that is looked at
PAIR = 2  # queries that read the database's signs together, from the cache
TEAM = 8  # queries that a stretch serves before the next: it is read from memory once for them
_TOGETHER = 4  # queries that read its codes together
_ROWS = 4096  # codes that are packed together
_BLOCK = 2048  # database items whose codes stay in the cache while their scores are summed


@intrinsic
def _popcount(_context, octet):
    """Number of set bits of a uint8."""

    def codegen(_codegen_context, builder, _signature, args):
        return builder.ctpop(args[0])

    return types.uint8(types.uint8), codegen


@intrinsic
def _few(_context, keys, begin, limit):
    """Bits of a uint32: which of the 32 keys (n,) from `begin` on are at most `limit`."""
    keys = types.Array(keys.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place, lanes = ir.IntType(32), ir.VectorType(args[2].type, 32)
        one = builder.insert_element(ir.Constant(lanes, ir.Undefined), args[2], place(0))
        limits = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(place, 32), [0] * 32))
        chunk = builder.load(builder.bitcast(builder.gep(array.data, [args[1]]), lanes.as_pointer()), align=1)
        return builder.bitcast(builder.icmp_unsigned("<=", chunk, limits), place)

    return types.uint32(keys, types.intp, keys.dtype), codegen


@intrinsic
def _lowest(_context, word):
    """Number of the lowest set bit of a uint32; 32 if it has none."""

    def codegen(_codegen_context, builder, _signature, args):
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.uint32(types.uint32), codegen


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
    0 for the number of hits in the top R. table: harmonic_table(top) or longer.
    """
    begin = hits = stable_hits = 0
    stable = expected = low = high = 0.0
    for end in ends:
        if begin >= top:
            break
        for rank in range(begin, min(end, top)):  # no branch: hits are hard to predict; int32 to float64 is fast
            hit = relevance[rank]
            stable_hits += hit
            stable += np.float64(np.int32(hit * stable_hits)) / np.float64(np.int32(rank + 1))
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
def ap_in_balls(balls, table):
    """Expected, least and greatest AP over tie orders of each query's items within RADIUS, (Q, 3).

    balls (Q, bits + 1, 2): items and relevant items at each Hamming distance. AP divides by the relevant items in the
    ball; it is 0 where the ball holds none. table: harmonic_table of the largest ball's size or longer.
    """
    aps = np.zeros((len(balls), 3))
    for q in range(len(balls)):
        begin = hits = 0
        for distance in range(min(RADIUS + 1, balls.shape[1])):
            size, relevant = balls[q, distance]
            aps[q, 0] += _random_sum(table, begin, hits, size, relevant)
            aps[q, 1] += _packed_sum(table, begin + size - relevant, hits, relevant)
            aps[q, 2] += _packed_sum(table, begin, hits, relevant)
            begin += size
            hits += relevant
        aps[q] /= max(hits, 1)
    return aps


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
def _needed(items, top, at):
    """How many ranks are looked at: R, or the greatest N of precision at N."""
    return min(items, top if at.size == 0 else max(top, at[-1]))


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
def _count(pairs, counts, key):
    """Count how often key (n,) takes each value: in `pairs` (65536,) two keys of one octet together, or one of two
    octets; a last odd one in `counts`. One increment for two keys: they are the greatest part of a query's time."""
    whole = key.size - key.size % 2
    for pair in key[:whole].view(np.uint16):
        pairs[pair] += np.uint32(1)
    for item in range(whole, key.size):
        counts[key[item]] += 1


@njit(cache=True)
def _move(pairs, counts, octets):
    """Add to counts (size,) what `_count` left in `pairs`, keys being of `octets`, and clear it there."""
    size = counts.size
    if octets == 2:
        counts += pairs[:size]
        pairs[:size] = 0
        return
    for second in range(size):
        firsts = pairs[256 * second : 256 * second + size]
        total = 0
        for first in range(size):
            counts[first] += firsts[first]
            total += firsts[first]
            firsts[first] = 0
        counts[second] += total


@njit(cache=True)
def _limit(counts, need):
    """The greatest key of the best `need` items and of those that tie with the last; counts (size,), by key."""
    total, key = 0, -1
    while total < need and key + 1 < counts.size:
        total += counts[key + 1] + counts[key + 2]
        key += 2
    return key


@njit(cache=True)
def _pick(near, count, key, limit):
    """Put the keys (n,) that are at most `limit` behind the first `known` of `near`, which has room for one more than
    there are and may be their own memory; returns how many there are then. 32 are looked at together."""
    whole = key.size - key.size % 32
    for begin in range(0, whole, 32):
        word = _few(key, begin, limit)
        for _ in range(3):  # no branch: how many of 32 are near, mostly up to three, is hard to predict
            near[count] = key[begin + (_lowest(word) & np.uint32(31))]
            count += word != 0
            word &= word - np.uint32(1)
        while word:
            near[count] = key[begin + _lowest(word)]
            count += 1
            word &= word - np.uint32(1)
    for item in range(whole, key.size):
        if key[item] <= limit:
            near[count] = key[item]
            count += 1
    return count


@njit(cache=True)
def _mean_precision(relevance):
    """Mean precision at the hits of relevance (n,) in ranking order; 0 without a hit."""
    hits = 0
    total = 0.0
    for rank in range(relevance.size):
        hit = relevance[rank]
        hits += hit
        total += np.float64(np.int32(hit * hits)) / np.float64(np.int32(rank + 1))
    return total / max(hits, 1)


@njit(cache=True)
def _measure(near, counts, inside, top, over_relevant, at, table, row, precisions):
    """Rank by near (n,), keys of whole tie groups in database order, by counting sort, and measure the ranking.

    counts (size,): how many items have each key, near or not. Fills row (6,) and found (len(at), 2); returns AP over
    the first `inside` items, ties in database order.
    """
    ends = np.zeros(counts.size // 2, np.int64)
    place = np.zeros(counts.size // 2, np.uint32)
    total = groups = 0
    for d in range(ends.size):
        size = counts[2 * d] + counts[2 * d + 1]
        if size > 0 and total < near.size:
            place[d] = total
            ends[groups] = total + size
            groups += 1
        total += size
    relevance = np.empty(near.size, np.uint8)
    for item in range(near.size):
        key = near[item]
        d = key >> np.uint8(1)
        rank = place[d]
        relevance[rank] = key & np.uint8(1)
        place[d] = rank + np.uint32(1)
    over = counts[1::2].sum() if over_relevant else 0
    ap_over_ties(relevance, ends[:groups], top, over, table, row)
    hits_over_ties(relevance, ends[:groups], at, precisions[:, 0], precisions[:, 1])
    return _mean_precision(relevance[:inside])


@njit(parallel=True, cache=True)
def rank_by_signs(query, database, query_labels, database_labels, bits, keys, nears, top, over_relevant, at, table):
    """Rank the database by the signs of codes for each query and measure the ranking.

    query (Q, 1, B), database (1, B, N): packed bits of codes >= 0; the distance is Hamming's. Or query (Q, 2, B),
    database (2, B, N): those and the packed bits of codes that are not 0; the distance is K minus the dot product of
    the signs, 0 having the sign 0. query_labels (Q, L), database_labels (L, N): packed labels.
    An item's key is twice its distance, plus 1 if it is relevant. keys (threads, PAIR, STRETCH), nears (threads, TEAM,
    N + 1): room, of an unsigned type that holds the greatest key; of nears, only what near items take is touched.
    at: ascending ranks N of precision at N, none above the database's size. table: harmonic_table(top).
    Returns AP statistics (Q, 6), hits in the top N (Q, len(at), 2; stable, expected), per distance the number of
    items and of relevant items, (Q, bits + 1, 2) or (Q, 2 * bits + 1, 2), and AP over the items within the distance
    RADIUS, ties in database order (Q,), which divides by the relevant items there.
    """
    queries, items = len(query), database.shape[2]
    distances = bits * query.shape[1] + 1
    statistics = np.empty((queries, 6))
    precisions = np.empty((queries, at.size, 2))
    balls = np.empty((queries, distances, 2), np.int64)
    ball_aps = np.empty(queries)
    inner = min(2 * RADIUS + 1, 2 * distances - 1)  # the greatest key within RADIUS
    need = _needed(items, top, at)
    threads = len(keys)
    for thread in prange(threads):
        pairs = np.zeros((PAIR, 65536), np.uint32)
        last = queries * (thread + 1) // threads
        for first in range(queries * thread // threads, last, TEAM):
            members = min(TEAM, last - first)
            counts = np.zeros((members, 2 * distances), np.int64)
            near_counts = np.zeros(members, np.int64)
            for start in range(0, items, STRETCH):
                stop = min(items, start + STRETCH)
                for two in range(0, members, PAIR):
                    for begin in range(start, stop, _BLOCK):
                        for member in range(two, min(two + PAIR, members)):
                            q = first + member
                            key = keys[thread, member - two, begin - start : min(begin + _BLOCK, stop) - start]
                            _set_shared(key, begin, query_labels[q], database_labels)
                            if query.shape[1] == 1:
                                _add_twice_hamming(key, begin, query[q, 0], database[0])
                            else:
                                _add_twice_distance(key, begin, bits, query[q], database)
                            _count(pairs[member - two], counts[member], key)
                    for member in range(two, min(two + PAIR, members)):
                        _move(pairs[member - two], counts[member], keys.itemsize)
                        key, near = keys[thread, member - two, : stop - start], nears[thread, member]
                        limit = max(inner, _limit(counts[member], need))
                        near_counts[member] = _pick(near, near_counts[member], key, limit)
            for member in range(members):
                q = first + member
                balls[q, :, 1] = counts[member, 1::2]
                balls[q, :, 0] = counts[member, ::2] + counts[member, 1::2]
                near = nears[thread, member]
                near = near[: _pick(near, 0, near[: near_counts[member]], max(inner, _limit(counts[member], need)))]
                inside = counts[member, : inner + 1].sum()
                ball_aps[q] = _measure(
                    near, counts[member], inside, top, over_relevant, at, table, statistics[q], precisions[q]
                )
    return statistics, precisions, balls, ball_aps


def rank(query, database, query_labels, database_labels, bits, top, over_relevant, at, table):
    """rank_by_signs with its workspace."""
    kind = np.uint8 if 2 * bits * query.shape[1] + 1 < 256 else np.uint16
    keys = np.empty((get_num_threads(), PAIR, STRETCH), kind)
    nears = np.empty((len(keys), TEAM, database.shape[2] + 1), kind)
    return rank_by_signs(
        query, database, query_labels, database_labels, bits, keys, nears, top, over_relevant, at, table
    )


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
    precisions = np.empty((queries, at.size, 2))
    need = _needed(items, top, at)
    for team in prange(-(-queries // _TOGETHER)):
        first = team * _TOGETHER
        scores = _dot_products(query[first : first + _TOGETHER], database)
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
            hits_over_ties(relevance, ends[:groups], at, precisions[q, :, 0], precisions[q, :, 1])
    return statistics, precisions


@njit(parallel=True, cache=True)
def pack_signs(codes):
    """What one pass over float32 codes (N, K) tells: packed bits of codes >= 0, as of kernels.pack; and of each part of
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
