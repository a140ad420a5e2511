"""The devices that tests compute on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import caffe
import pytest
import simulated_cuda
import torch

DEVICES = ("cpu", "simulated", "cuda")


@contextlib.contextmanager
def computing_on(name: str) -> Iterator[torch.device]:
    """Nets compute on `name` of DEVICES. A real card's tests are skipped where there is none."""
    if name == "simulated":
        with simulated_cuda.simulate():
            caffe.set_mode_gpu()
            yield simulated_cuda.CUDA
        return
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    with simulated_cuda.engine_as_it_was():
        caffe.set_mode_gpu() if name == "cuda" else caffe.set_mode_cpu()
        yield torch.device(name)
