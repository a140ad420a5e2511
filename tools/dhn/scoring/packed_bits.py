"""Codes and labels as packed bits (numba, parallel over items), as the ranking reads them."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

_ROWS = 4096  # codes that are packed together


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


def count_distinct(packed: np.ndarray) -> int:
    """Number of different items in packed bits (B, N), as of `pack`."""
    octets = np.zeros((-(-len(packed) // 8), packed.shape[1], 8), np.uint8)
    for byte, row in enumerate(packed):
        octets[byte >> 3, :, byte & 7] = row
    words = octets.view(np.uint64)[:, :, 0]  # (words, N)
    if len(words) == 1:
        words.sort(axis=1)
    else:
        words = words[:, np.lexsort(words)]
    return 1 + int(np.count_nonzero((words[:, 1:] != words[:, :-1]).any(0)))


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
