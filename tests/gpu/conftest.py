"""The devices that tests run on."""

from __future__ import annotations

from collections.abc import Iterator

import caffe
import devices
import pytest
import simulated_cuda
import torch


@pytest.fixture
def simulated_gpu() -> Iterator[simulated_cuda.Simulation]:
    """GPU mode on the simulated device."""
    with simulated_cuda.simulate() as simulation:
        caffe.set_mode_gpu()
        yield simulation


@pytest.fixture(params=devices.DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each device in turn, as the engine's mode: the CPU, the simulated one, and a real card where there is one."""
    with devices.computing_on(request.param) as where:
        yield where
