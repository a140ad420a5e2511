"""The kernels run in more threads than one, also in pytest-xdist's processes."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def three_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)
