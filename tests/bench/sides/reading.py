"""A sample: the time in which so many bytes of memory are read, at the rate of a large array's sum, measured now."""

from __future__ import annotations

import time

import torch

SIZE = 1 << 29  # bytes of the array: far more than any cache holds


def setup(folder: str, size: float, cores: int | None = None):
    """size: bytes. cores: that read, None for all of them."""
    if cores:
        torch.set_num_threads(cores)
    array = torch.ones(SIZE // 4)
    array.sum()

    def sample():
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            array.sum()
            seconds.append(time.perf_counter() - start)
        return {"seconds": size * min(seconds) / SIZE}

    return sample
