"""LRN across channels on a CPU, compiled (numba): each value is read once, where torch's operations pass over all.

The kernels run without the GIL on parts of a batch, `by_threads`. They know float32 and beta 3/4, AlexNet's and
GoogLeNet's: two roots; any other power is torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba import njit

_TOGETHER = 512  # positions of an image whose channels are worked on together: long enough rows that stay in the cache
_ALONE = 100_000  # values below which another thread costs more than it saves


def by_threads(kernel: Callable[..., None], output: torch.Tensor, *inputs: torch.Tensor, constants: tuple) -> None:
    """kernel(output, *inputs, *constants) on arrays (N, C, H * W), the batch shared out among torch's threads."""
    arrays = [each.detach().contiguous().numpy().reshape(*each.shape[:2], -1) for each in (output, *inputs)]
    count = len(output)
    threads = 1 if output.numel() < _ALONE else max(1, min(count, torch.get_num_threads()))
    cuts = [count * thread // threads for thread in range(threads + 1)]
    parts = [[array[begin:end] for array in arrays] for begin, end in pairwise(cuts)]
    with ThreadPoolExecutor(threads) as pool:  # its threads start with its tasks: one part is none's but this thread's
        others = [pool.submit(kernel, *part, *constants) for part in parts[1:]]
        kernel(*parts[0], *constants)
        for other in others:
            other.result()


@njit(nogil=True, cache=True, error_model="numpy")
def _scales(s, x, n, c, begin, size, factor, plus):
    """s = plus + factor * the sum of x^2 over the `size` channels around c, at the positions from `begin` on."""
    s[:] = 0
    for other in range(max(0, c - size // 2), min(x.shape[1], c + size // 2 + 1)):
        row = x[n, other, begin : begin + s.size]
        for i in range(s.size):
            s[i] += row[i] * row[i]
    for i in range(s.size):
        s[i] = plus + factor * s[i]


@njit(nogil=True, cache=True, error_model="numpy")
def forward(y, x, size, alpha, k):
    """y = x s^-3/4; s = k + alpha / size * (the sum of x^2 over `size` channels). Arrays (N, C, positions)."""
    room = np.empty(_TOGETHER, np.float32)
    factor, plus = np.float32(alpha / size), np.float32(k)
    for n in range(x.shape[0]):
        for begin in range(0, x.shape[2], _TOGETHER):
            s = room[: min(_TOGETHER, x.shape[2] - begin)]
            for c in range(x.shape[1]):
                _scales(s, x, n, c, begin, size, factor, plus)
                row, out = x[n, c, begin : begin + s.size], y[n, c, begin : begin + s.size]
                for i in range(s.size):
                    root = np.sqrt(s[i])
                    out[i] = row[i] / (root * np.sqrt(root))


@njit(nogil=True, cache=True, error_model="numpy")
def backward(dx, x, dy, size, alpha, k):
    """dx = dy s^-3/4 - 3/2 alpha / size * x * (the sum of dy y / s over `size` channels). Arrays (N, C, positions)."""
    channels = x.shape[1]
    room = np.empty(_TOGETHER, np.float32)
    ratios = np.empty((channels, _TOGETHER), np.float32)
    factor, plus, down = np.float32(alpha / size), np.float32(k), np.float32(1.5 * alpha / size)
    for n in range(x.shape[0]):
        for begin in range(0, x.shape[2], _TOGETHER):
            s = room[: min(_TOGETHER, x.shape[2] - begin)]
            for c in range(channels):
                _scales(s, x, n, c, begin, size, factor, plus)
                row, grad = x[n, c, begin : begin + s.size], dy[n, c, begin : begin + s.size]
                out, ratio = dx[n, c, begin : begin + s.size], ratios[c, : s.size]
                for i in range(s.size):
                    root = np.sqrt(s[i])
                    out[i] = grad[i] / (root * np.sqrt(root))
                    ratio[i] = out[i] * row[i] / s[i]
            for c in range(channels):
                s[:] = 0
                for other in range(max(0, c - size // 2), min(channels, c + size // 2 + 1)):
                    ratio = ratios[other, : s.size]
                    for i in range(s.size):
                        s[i] += ratio[i]
                row, out = x[n, c, begin : begin + s.size], dx[n, c, begin : begin + s.size]
                for i in range(s.size):
                    out[i] -= down * row[i] * s[i]
