"""The sample of a step that is repeated."""

from __future__ import annotations

import time


def sampler(step, iterations: int):
    """A function whose sample has `seconds`, the time of one of so many calls of step()."""

    def sample():
        start = time.perf_counter()
        for _ in range(iterations):
            step()
        return {"seconds": (time.perf_counter() - start) / iterations}

    return sample
