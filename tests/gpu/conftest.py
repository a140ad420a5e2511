"""The devices that tests run on."""

from __future__ import annotations

from collections.abc import Iterator

import caffe
import pytest
import simulated_cuda
import torch


@pytest.fixture
def simulated_gpu() -> Iterator[simulated_cuda.Simulation]:
    """GPU mode on the simulated device."""
    with simulated_cuda.simulate() as simulation:
        caffe.set_mode_gpu()
        yield simulation


@pytest.fixture(params=["cpu", "simulated", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each device in turn, as the engine's mode: the CPU, the simulated one, and a real card where there is one."""
    if request.param == "simulated":
        request.getfixturevalue("simulated_gpu")
        yield simulated_cuda.CUDA
        return
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    with simulated_cuda.engine_as_it_was():
        caffe.set_mode_gpu() if request.param == "cuda" else caffe.set_mode_cpu()
        yield torch.device(request.param)
