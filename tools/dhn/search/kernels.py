"""Compiled loops of a search (numba): packing, the scan over distinct codes, and ranking.

What is compiled and calls each other lives in this one file: numba's on-disk cache looks at the file of the function it
loads, not at the files of the functions that one calls. No loop is parallel itself and all release Python's lock, so
that callers may run them in threads of their own.

    words    (D, W) uint64   distinct binary codes: bit k of a code is bit k % 64 of word k // 64, zeros behind the last
    counts   (D,)   int64    how many items a search may find at each
    offsets  (D + 1,) int64  postings[offsets[d] : offsets[d + 1]] are the rows of the items of code d, by their keys
    codes    (N, K) float32  the items' real-valued codes in the order of the postings: those that tie are neighbours
    ranks    (N,)   int64    of a row, its key's place among all keys in their order
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import alloca_once_value, for_range
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

BLOCK = 512  # distinct codes that are looked at one by one only if the nearest of them is near enough


@intrinsic
def _popcount(_context, word):
    """Number of set bits of a uint64, as a uint8: of a word, not of a code."""

    def codegen(_codegen_context, builder, _signature, args):
        return builder.trunc(builder.ctpop(args[0]), ir.IntType(8))

    return types.uint8(types.uint64), codegen


@intrinsic
def _product(_context, codes, item, vector):
    """Inner product of an item's code, of codes (n, K) float32, and a vector (K,) float64, where products of float32
    are exact.

    Four sums, of the bits 0, 4, 8, ..., of 1, 5, 9, ..., of 2, ... and of 3, ..., each from the first to the last; then
    (first + second) + (third + fourth): the same on all machines, and what vectors of four numbers can do.
    """
    number, index = ir.DoubleType(), ir.IntType(64)

    def codegen(context, builder, signature, args):
        codes, vector = (make_array(signature.args[at])(context, builder, args[at]) for at in (0, 2))
        size = builder.extract_value(vector.shape, 0)
        row, complete = builder.gep(codes.data, [builder.mul(args[1], size)]), builder.and_(size, index(~3))
        sums = alloca_once_value(builder, ir.Constant(ir.VectorType(number, 4), [0.0] * 4))

        def add(bit, total):
            """The total, a number or a vector, and the products from a bit on."""
            kind = total.type
            single = ir.VectorType(ir.FloatType(), 4) if kind != number else ir.FloatType()
            one, other = (
                builder.load(builder.bitcast(builder.gep(data, [bit]), kind.as_pointer()), align=4)
                for data, kind in ((row, single), (vector.data, kind))
            )
            product = builder.fmul(builder.fpext(one, kind), other, flags=("contract",))  # exact, fused or not
            return builder.fadd(total, product, flags=("contract",))

        with for_range(builder, builder.lshr(size, index(2))) as loop:
            builder.store(add(builder.shl(loop.index, index(2)), builder.load(sums)), sums)
        with for_range(builder, builder.and_(size, index(3))) as loop:  # the last ones, fewer than four
            total = builder.load(sums)
            lane = add(builder.add(complete, loop.index), builder.extract_element(total, loop.index))
            builder.store(builder.insert_element(total, lane, loop.index), sums)
        first, second, third, fourth = (builder.extract_element(builder.load(sums), index(lane)) for lane in range(4))
        return builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth))

    return types.float64(codes, types.intp, vector), codegen


@njit(nogil=True, cache=True)
def pack(codes, words):
    """Pack the signs of codes (n, K) float32 into words (n, W), which are zeros: at least 0 is 1."""
    for item in range(codes.shape[0]):
        for bit in range(codes.shape[1]):
            words[item, bit >> 6] |= np.uint64(codes[item, bit] >= 0) << np.uint64(bit & 63)


@njit(nogil=True, cache=True)
def all_finite(codes):
    """True if every value of (n, K) is finite."""
    for item in range(codes.shape[0]):
        for bit in range(codes.shape[1]):
            if not np.isfinite(codes[item, bit]):
                return False
    return True


@njit(nogil=True, cache=True)
def is_ascending(text, offsets):
    """True if the texts (n), bytes text[offsets[i] : offsets[i + 1]], ascend strictly byte by byte."""
    for item in range(1, offsets.size - 1):
        one, other, end = offsets[item - 1], offsets[item], offsets[item + 1]
        stop = offsets[item]
        while one < stop and other < end and text[one] == text[other]:
            one += 1
            other += 1
        if one < stop and (other == end or text[one] > text[other]):
            return False
        if one == stop and other == end:
            return False
    return True


@njit(nogil=True, cache=True)
def find_twin(text, offsets, order):
    """A text (as of is_ascending) that is equal to another one, which `order` then has next to it; -1 if none is."""
    for place in range(1, order.size):
        one, other = order[place - 1], order[place]
        length = offsets[one + 1] - offsets[one]
        if offsets[other + 1] - offsets[other] != length:
            continue
        same = 0
        while same < length and text[offsets[one] + same] == text[offsets[other] + same]:
            same += 1
        if same == length:
            return one
    return np.int64(-1)


@njit(nogil=True, cache=True)
def checksum(words):
    """A sum over uint64 words (n,), each with a weight of its own, that changes with any one of them."""
    total = np.uint64(0)
    for place in range(words.size):
        total += words[place] * (np.uint64(2) * np.uint64(place) + np.uint64(1))
    return total


@njit(nogil=True, cache=True)
def allow(offsets, postings, carried):
    """Which items are searched: allowed (N,) bool in the order of the postings, and how many at each code (D,).

    carried (N,) bool: the same by row. A row that is damaged is not among them.
    """
    allowed = np.zeros(postings.size, np.bool_)
    counts = np.zeros(offsets.size - 1, np.int64)
    for code in range(counts.size):
        for place in range(offsets[code], offsets[code + 1]):
            row = postings[place]
            allowed[place] = 0 <= row < carried.size and carried[row]
            counts[code] += allowed[place]
    return allowed, counts


@njit(nogil=True, cache=True, inline="always")
def _measure(words, query, begin, distances):
    """Fill distances (n,) with the Hamming distances of the codes from `begin` on to a query (W,); their minimum."""
    if words.shape[1] == 1:
        column = words.reshape(-1)[begin : begin + distances.size]  # contiguous: this loop becomes one of vectors
        bits = query[0]
        smallest = distances.dtype.type(255)
        for item in range(column.size):
            distances[item] = _popcount(column[item] ^ bits)
            smallest = min(smallest, distances[item])
        return np.int64(smallest)
    nearest = np.int64(64 * words.shape[1])
    for item in range(distances.size):
        total = np.int64(0)
        for word in range(words.shape[1]):
            total += np.int64(_popcount(words[begin + item, word] ^ query[word]))
        distances[item] = total
        nearest = min(nearest, total)
    return nearest


@njit(nogil=True, cache=True, inline="always")
def _shared_bits(words, begin, end):
    """Mask of the bits of word 0 in which all codes from `begin` to `end` agree, of its highest ones: codes ascend."""
    other = words[begin, 0] ^ words[end - 1, 0]
    for shift in (1, 2, 4, 8, 16, 32):
        other |= other >> np.uint64(shift)
    return ~other


@njit(nogil=True, cache=True)
def _home(words, query):
    """The block that has, or would have, a query's own code (W,)."""
    low, high = 0, words.shape[0]
    while low < high:
        middle = (low + high) >> 1
        word = 0
        while word < query.size - 1 and words[middle, word] == query[word]:
            word += 1
        if words[middle, word] < query[word]:
            low = middle + 1
        else:
            high = middle
    return min(low, words.shape[0] - 1) // BLOCK


@njit(nogil=True, cache=True, inline="always")
def _count(distances, counts, begin, top, histogram, limit, total):
    """Add the items of a block to the histogram (radius + 1,) of distances; the new limit, the items within it."""
    for item in range(distances.size):
        if distances[item] <= limit:
            histogram[distances[item]] += counts[begin + item]
            total += counts[begin + item]
    while limit > 0 and total - histogram[limit] >= top:
        total -= histogram[limit]
        limit -= 1
    return limit, total


@njit(nogil=True, cache=True)
def find_limits(words, counts, queries, top, radius, scratch, minima, limits, within):
    """How far the first `top` items of each query (Q, W) reach.

    radius: no item beyond is looked at. scratch (BLOCK,): uint8, or uint16 for codes of more than 64 bits.
    Fills minima (Q, blocks), at most the least distance in each block; limits (Q,), the least distance within which
    there are `top` items, `radius` if there are fewer; within (Q,), how many items there are within it.

    The block of a query's own code comes first: with a limit from there, most blocks of a net's codes, which are close
    together, are left out by the bits that their codes share.
    """
    blocks = minima.shape[1]
    homes = np.empty(queries.shape[0], np.int64)
    histogram = np.zeros((queries.shape[0], radius + 1), np.int64)
    for query in range(queries.shape[0]):
        limits[query], within[query] = radius, 0
        if blocks == 0:
            continue
        homes[query] = _home(words, queries[query])
        begin = homes[query] * BLOCK
        distances = scratch[: min(BLOCK, words.shape[0] - begin)]
        minima[query, homes[query]] = _measure(words, queries[query], begin, distances)
        limits[query], within[query] = _count(distances, counts, begin, top, histogram[query], radius, 0)
    for block in range(blocks):
        begin = block * BLOCK
        distances = scratch[: min(BLOCK, words.shape[0] - begin)]
        shared = _shared_bits(words, begin, begin + distances.size)
        for query in range(queries.shape[0]):
            if block == homes[query]:
                continue
            nearest = np.int64(_popcount((words[begin, 0] ^ queries[query, 0]) & shared))
            if nearest <= limits[query]:
                nearest = _measure(words, queries[query], begin, distances)
                if nearest <= limits[query]:
                    limits[query], within[query] = _count(
                        distances, counts, begin, top, histogram[query], limits[query], within[query]
                    )
            minima[query, block] = nearest


@njit(nogil=True, cache=True)
def products(codes, query):
    """Inner products (n,) float64 of codes (n, K) and a query (K,) float32."""
    vector = query.astype(np.float64)
    found = np.empty(codes.shape[0], np.float64)
    for item in range(found.size):
        found[item] = _product(codes, item, vector)
    return found


@njit(nogil=True, cache=True)
def _is_before(distance, value, rank, other_distance, other_value, other_rank):
    """True if an item stands before another."""
    if distance != other_distance:
        return distance < other_distance
    return value < other_value if value != other_value else rank < other_rank


@njit(nogil=True, cache=True)
def _split(items, low, high):
    """Swap rows (n, 4) from low to high, at least two of them, until none of the first ones stands behind one of the
    last ones; the last row of the first ones, the first row of the last ones."""
    pivot = (low + high) // 2
    distance, value, rank = items[pivot, 0], items[pivot, 1], items[pivot, 2]
    left, right = low, high
    while left <= right:
        while _is_before(items[left, 0], items[left, 1], items[left, 2], distance, value, rank):
            left += 1
        while _is_before(distance, value, rank, items[right, 0], items[right, 1], items[right, 2]):
            right -= 1
        if left <= right:
            for column in range(4):
                items[left, column], items[right, column] = items[right, column], items[left, column]
            left, right = left + 1, right - 1
    return right, left


@njit(nogil=True, cache=True)
def _select(items, size, wanted):
    """Bring the first `wanted` of `size` rows to the front, the last of them to the place wanted - 1 (quickselect)."""
    low, high, last = 0, size - 1, wanted - 1
    while low < high:
        right, left = _split(items, low, high)
        if right < last < left:
            return
        if last <= right:
            high = right
        else:
            low = left


@njit(nogil=True, cache=True)
def _sort(items, size):
    """Sort the first `size` rows (quicksort, from left to right)."""
    ends, pending = np.empty(size + 1, np.int64), 0  # last rows of the parts to come
    low, high = 0, size - 1
    while low < size:
        while high - low > 8:
            ends[pending] = high
            pending += 1
            high = _split(items, low, high)[0]
        for row in range(low + 1, high + 1):  # few rows: insert one after the other
            distance, value, rank, place = items[row, 0], items[row, 1], items[row, 2], items[row, 3]
            while row > low and _is_before(
                distance, value, rank, items[row - 1, 0], items[row - 1, 1], items[row - 1, 2]
            ):
                for column in range(4):
                    items[row, column] = items[row - 1, column]
                row -= 1
            items[row, 0], items[row, 1], items[row, 2], items[row, 3] = distance, value, rank, place
        low = high + 1
        if pending:
            pending -= 1
            high = ends[pending]


@njit(nogil=True, cache=True)
def collect(
    words, counts, offsets, postings, codes, ranks, row_places, allowed, queries, vectors, by_key, scratch, minima,
    limits, within, starts, rows, distances, similarities,
):  # fmt: skip
    """The first items of each query, in their order. False if a posting of theirs is damaged.

    queries (Q, W), vectors (Q, K): binary and real-valued codes. row_places (N,): of each row among the postings.
    allowed (N,) bool in the order of the postings; of size 0: all items. by_key: ties are broken by the key alone.
    minima (Q, blocks), limits and within (Q,): of find_limits. Fills rows, distances and similarities from
    starts[query] to starts[query + 1], at most as many as there are items within the limit.
    """
    intact = True
    for query in range(queries.shape[0]):
        wanted, limit, vector = starts[query + 1] - starts[query], limits[query], vectors[query].astype(np.float64)
        room = min(3 * wanted, within[query])
        items = np.empty((room, 4))  # distance, -product or 0, rank, place: float64 has all of these numbers
        size, farthest, last_value, last_rank = 0, np.float64(limit), np.inf, np.inf
        for block in range(minima.shape[1] if wanted else 0):
            if minima[query, block] > limit:
                continue
            begin = block * BLOCK
            near = scratch[: min(BLOCK, words.shape[0] - begin)]
            if _measure(words, queries[query], begin, near) > limit:
                continue
            for code in range(near.size):
                distance = np.float64(near[code])
                if distance > farthest or counts[begin + code] == 0:
                    continue
                for place in range(offsets[begin + code], offsets[begin + code + 1]):
                    if allowed.size and not allowed[place]:
                        continue
                    value = 0.0 if by_key else -_product(codes, place, vector)
                    if distance == farthest and value > last_value:
                        continue
                    row = postings[place]
                    rank = np.float64(ranks[row]) if 0 <= row < ranks.size else -1.0  # a damaged one comes first
                    if by_key and distance == farthest and rank > last_rank:
                        break  # the others of this code have keys that come later still
                    if size == room:
                        _select(items, size, wanted)
                        size, farthest = wanted, items[wanted - 1, 0]
                        last_value, last_rank = items[wanted - 1, 1], items[wanted - 1, 2]
                    items[size, 0], items[size, 1], items[size, 2], items[size, 3] = distance, value, rank, place
                    size += 1
        if size < wanted:
            return False
        if size > wanted:
            _select(items, size, wanted)
        _sort(items, wanted)
        for item in range(wanted):
            place, at = np.int64(items[item, 3]), starts[query] + item
            row = postings[place]
            intact &= 0 <= row < postings.size and row_places[row] == place
            rows[at], distances[at] = row, np.int64(items[item, 0])
            similarities[at] = _product(codes, place, vector) if by_key else -items[item, 1]
    return intact
