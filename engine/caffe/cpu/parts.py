"""A batch worked on part by part, where an operation passes over its values several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

CACHED = 600_000  # values of a part: with what is computed from it, it stays in a core's cache
COPIED = 1_200_000  # the same where all that counts is that what is made on the way is small beside the batch


def parts(batch: torch.Tensor, values: int = CACHED) -> Iterator[slice]:
    """Slices of the first axis, of about `values` values each; on a GPU one of all."""
    count = len(batch)
    step = count if batch.is_cuda else max(1, round(values * count / max(1, batch.numel())))
    for start in range(0, count, step):
        yield slice(start, start + step)


def by_parts(fill: Callable[..., object], outputs: tuple[torch.Tensor, ...], *inputs: torch.Tensor) -> None:
    """fill(*outputs, *inputs), which treats each item of the batch alone and writes every value of the outputs."""
    for part in parts(inputs[0]):
        fill(*(each[part] for each in (*outputs, *inputs)))
