"""Timer: how long a stretch of work takes (pycaffe's caffe.Timer)."""

from __future__ import annotations

import time

import torch

from caffe import device, glog


class Timer:
    """A stopwatch. In GPU mode it waits for the device, so that it times work and not the asking for it."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._stopped: float | None = None

    def start(self) -> None:
        """Begin to count; a timer that runs goes on."""
        if self._started is None or self._stopped is not None:
            self._started, self._stopped = _now(), None

    def stop(self) -> None:
        """Stop counting."""
        if self._started is not None and self._stopped is None:
            self._stopped = _now()

    @property
    def ms(self) -> float:
        """Milliseconds between start and stop; a timer that still runs is stopped."""
        if self._started is None:
            glog.warning("benchmark.cpp:81", "Timer has never been run before reading time.")
            return 0.0
        if self._stopped is None:
            self._stopped = _now()
        return (self._stopped - self._started) * 1000


def _now() -> float:
    if device.current().type == "cuda":
        torch.cuda.synchronize(device.current())
    return time.perf_counter()
