"""Compiled loops of a search (numba): packing, the scan over distinct codes, and ranking.

What is compiled and calls each other lives in this one file: numba's on-disk cache looks at the file of the function it
loads, not at the files of the functions that one calls. No loop is parallel itself and all release Python's lock, so
that callers may run them in threads of their own.

    words    (D, W) uint64   distinct binary codes: bit k of a code is bit k % 64 of word k // 64, zeros behind the last
    counts   (D,)   int64    how many items a search may find at each
    offsets  (D + 1,) int64  postings[offsets[d] : offsets[d + 1]] are the rows of the items of code d, by their keys
    codes    (N, K) float32  the items' real-valued codes
    ranks    (N,)   int64    an item's place among all keys in their order
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 512  # distinct codes that are looked at one by one only if the nearest of them is near enough
LANES = 4  # inner products that are summed at the same time: a sum of its own waits for each addition


@intrinsic
def _popcount(_context, word):
    """Number of set bits of a uint64, as a uint8: of a word, not of a code."""

    def codegen(_codegen_context, builder, _signature, args):
        return builder.trunc(builder.ctpop(args[0]), ir.IntType(8))

    return types.uint8(types.uint64), codegen


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
def count_allowed(offsets, postings, allowed):
    """counts (D,): how many items of each distinct code `allowed` (N,) bool lets through."""
    counts = np.zeros(offsets.size - 1, np.int64)
    for code in range(counts.size):
        for place in range(offsets[code], offsets[code + 1]):
            counts[code] += allowed[postings[place]]
    return counts


@njit(nogil=True, cache=True, inline="always")
def _measure(words, query, begin, distances):
    """Fill distances (n,) with the Hamming distances of the codes from `begin` on to a query (W,); their minimum."""
    if words.shape[1] == 1:
        bits = query[0]
        smallest = distances.dtype.type(255)
        for item in range(distances.size):
            distance = _popcount(words[begin + item, 0] ^ bits)
            distances[item] = distance
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


@njit(nogil=True, cache=True)
def find_limits(words, counts, queries, top, radius, scratch, minima, limits, within):
    """How far the first `top` items of each query (Q, W) reach.

    radius: no item beyond is looked at. scratch (BLOCK,): uint8, or uint16 for codes of more than 255 bits.
    Fills minima (Q, blocks), the least distance in each block; limits (Q,), the least distance within which there are
    `top` items, `radius` if there are fewer; within (Q,), how many items there are within it.
    """
    histogram = np.zeros((queries.shape[0], radius + 1), np.int64)
    limits[:] = radius
    within[:] = 0
    for block in range(minima.shape[1]):
        begin = block * BLOCK
        distances = scratch[: min(BLOCK, words.shape[0] - begin)]
        for query in range(queries.shape[0]):
            nearest = _measure(words, queries[query], begin, distances)
            minima[query, block] = nearest
            limit = limits[query]
            if nearest > limit:
                continue
            total = within[query]
            for item in range(distances.size):
                if distances[item] <= limit:
                    histogram[query, distances[item]] += counts[begin + item]
                    total += counts[begin + item]
            while limit > 0 and total - histogram[query, limit] >= top:
                total -= histogram[query, limit]
                limit -= 1
            limits[query] = limit
            within[query] = total


@njit(nogil=True, cache=True, inline="always")
def _product(one, other):
    """Inner product in float64, where products of float32 are exact, summed from the first bit to the last."""
    total = 0.0
    for bit in range(one.size):
        total += np.float64(one[bit]) * np.float64(other[bit])
    return total


@njit(nogil=True, cache=True)
def products(codes, query):
    """Inner products (n,) float64 of codes (n, K) and a query (K,) float32."""
    found = np.empty(codes.shape[0], np.float64)
    for item in range(found.size):
        found[item] = _product(codes[item], query)
    return found


@njit(nogil=True, cache=True, inline="always")
def _is_before(row, distance, product, other, rows, distances, similarities, ranks):
    """True if an item stands before the one at the place `other`."""
    if distance != distances[other]:
        return distance < distances[other]
    if product != similarities[other]:
        return product > similarities[other]
    return ranks[row] < ranks[rows[other]]  # read where nothing else decides: they lie anywhere in memory


@njit(nogil=True, cache=True)
def _sink(rows, distances, similarities, ranks, place, size):
    """Let the item at a place of a heap sink to where it belongs; at the top of a heap is the last of all."""
    row, distance, product = rows[place], distances[place], similarities[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _is_before(
            rows[child], distances[child], similarities[child], child + 1, rows, distances, similarities, ranks
        ):
            child += 1
        if not _is_before(row, distance, product, child, rows, distances, similarities, ranks):
            break
        rows[place], distances[place], similarities[place] = rows[child], distances[child], similarities[child]
        place = child
    rows[place], distances[place], similarities[place] = row, distance, product


@njit(nogil=True, cache=True, inline="always")
def _products_of_lanes(codes, lanes, vector, sums):
    """Inner products sums (LANES,) of a vector and the codes of the rows lanes (LANES,), each as _product has it."""
    one, two, three, four = codes[lanes[0]], codes[lanes[1]], codes[lanes[2]], codes[lanes[3]]
    first = second = third = fourth = 0.0
    for bit in range(vector.size):
        value = np.float64(vector[bit])
        first += np.float64(one[bit]) * value
        second += np.float64(two[bit]) * value
        third += np.float64(three[bit]) * value
        fourth += np.float64(four[bit]) * value
    sums[0], sums[1], sums[2], sums[3] = first, second, third, fourth


@njit(nogil=True, cache=True)
def _offer(row, distance, product, size, rows, distances, similarities, ranks):
    """Put an item among the first ones, which are a heap once they are as many as there is room for; their number."""
    if size < rows.size:
        rows[size], distances[size], similarities[size] = row, distance, product
        size += 1
        if size == rows.size:
            for parent in range(size // 2 - 1, -1, -1):
                _sink(rows, distances, similarities, ranks, parent, size)
    elif _is_before(row, distance, product, 0, rows, distances, similarities, ranks):
        rows[0], distances[0], similarities[0] = row, distance, product
        _sink(rows, distances, similarities, ranks, 0, size)
    return size


@njit(nogil=True, cache=True)
def collect(
    words, counts, offsets, postings, codes, ranks, allowed, query, vector, by_key, scratch, minima, limit,
    rows, distances, similarities,
):  # fmt: skip
    """The first items of one query, in their order.

    query (W,), vector (K,): its binary and its real-valued code. allowed (N,) bool; of size 0: all items. by_key: ties
    are broken by the key alone. minima (blocks,), limit: of find_limits. Fills rows, distances and similarities (n,),
    where n is at most the number of items within the limit.
    """
    size = 0
    lanes, sums = np.zeros(LANES, np.int64), np.zeros(LANES, np.float64)
    for block in range(minima.size):
        if minima[block] > limit:
            continue
        begin = block * BLOCK
        near = scratch[: min(BLOCK, words.shape[0] - begin)]
        _measure(words, query, begin, near)
        for item in range(near.size):
            distance = np.int64(near[item])
            if distance > limit or counts[begin + item] == 0:
                continue
            if size == rows.size and distance > distances[0]:
                continue
            filled = 0
            end = offsets[begin + item + 1]
            for place in range(offsets[begin + item], end):
                row = np.int64(postings[place])
                if allowed.size == 0 or allowed[row]:
                    lanes[filled] = row
                    filled += 1
                if filled == LANES or (place == end - 1 and filled > 0):
                    if not by_key:
                        _products_of_lanes(codes, lanes, vector, sums)
                    for lane in range(filled):
                        size = _offer(lanes[lane], distance, sums[lane], size, rows, distances, similarities, ranks)
                    filled = 0
                    if by_key and size == rows.size and distance == distances[0] and ranks[row] > ranks[rows[0]]:
                        break  # the others of this code have keys that come later still
    for last in range(size - 1, 0, -1):  # the last of the heap to the end
        row, distance, product = rows[last], distances[last], similarities[last]
        rows[last], distances[last], similarities[last] = rows[0], distances[0], similarities[0]
        rows[0], distances[0], similarities[0] = row, distance, product
        _sink(rows, distances, similarities, ranks, 0, last)
    if by_key:
        for place in range(size):
            similarities[place] = _product(codes[rows[place]], vector)
