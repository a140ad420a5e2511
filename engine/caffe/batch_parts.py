"""A batch worked on part by part, where an operation passes over its values several times."""

from __future__ import annotations

from collections.abc import Callable

import torch

VALUES = 600_000  # of one part: with what is computed from it, it stays in a core's cache


def by_parts(function: Callable[..., tuple[torch.Tensor, ...]], outputs: tuple[torch.Tensor, ...],
             *inputs: torch.Tensor) -> None:  # fmt: skip
    """Fill `outputs` with function(*inputs), which treats each item of the batch (the first axis) alone.

    On a CPU the function sees a few items at a time: what it makes on the way is small and stays in the cache.
    On a GPU it sees them all.
    """
    count = len(inputs[0])
    step = count if inputs[0].is_cuda else max(1, round(VALUES * count / max(1, inputs[0].numel())))
    for start in range(0, count, step):
        part = slice(start, start + step)
        for output, value in zip(outputs, function(*(each[part] for each in inputs)), strict=True):
            output[part] = value
