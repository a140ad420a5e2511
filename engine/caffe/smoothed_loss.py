"""The loss that a solver displays: the mean over its last `average_loss` iterations (BVLC's UpdateSmoothedLoss)."""

from __future__ import annotations

from collections import deque

import torch


class SmoothedLoss:
    """The mean loss of the last `window` iterations.

    Losses are kept as tensors, on the device they come from, and read together when the mean is asked for: reading
    each iteration's would have each iteration wait for a GPU.
    """

    def __init__(self, window: int):
        self.window = window
        self.mean = 0.0
        self._last: deque[float] = deque()
        self._unread: list[list[torch.Tensor]] = []

    def add(self, losses: list[torch.Tensor]) -> None:
        """An iteration's losses, scalars, one a forward pass: their mean counts."""
        self._unread.append(losses)

    def read(self) -> float:
        """The mean as of the last iteration; one copy from the device."""
        if self._unread:
            values = iter(torch.stack([loss for losses in self._unread for loss in losses]).tolist())
            for losses in self._unread:
                self._smooth(sum(next(values) for _ in losses) / len(losses))
            self._unread.clear()
        return self.mean

    def _smooth(self, loss: float) -> None:
        self._last.append(loss)
        if len(self._last) <= self.window:
            self.mean += (loss - self.mean) / len(self._last)
        else:
            self.mean += (loss - self._last.popleft()) / self.window
