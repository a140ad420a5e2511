"""The CUDA kernels as functions on tensors, compiled when they are first needed by NVRTC, which comes with torch.

Where that fails (torch before 2.9, no NVRTC) a line in the log says so once, and layers compute by torch. These kernels
have not run on a card yet: tests run their source on a CPU, thread by thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch

from caffe import glog

BLOCK = 256  # threads
MOST_SIZE = 15  # channels of a window that stay in registers
MOST_VALUES = 2**31 - 1  # of a tensor: the kernels count places in int

Kernel = Callable[..., None]


@functools.cache
def _compiled(name: str, source: str, device: torch.device) -> Kernel | None:
    """The kernel `name` of `source` for `device`; None where it cannot be compiled."""
    try:
        return torch.cuda._compile_kernel(source, name)
    except Exception as error:  # whatever is missing: torch's function, NVRTC, the driver
        _report(f"{type(error).__name__}: {error}")
        return None


@functools.cache
def _report(reason: str) -> None:
    glog.warning(
        "lrn_layer.cu:1",
        f"torch {torch.__version__} did not compile the CUDA kernel of LRN; torch computes it, more slowly: {reason}",
    )


@functools.cache
def _lrn_source(size: int, factor: float, k: float, beta: float) -> str:
    constants = {"SIZE": size, "FACTOR": f"{factor!r}f", "K": f"{k!r}f", "BETA": f"{beta!r}f"}
    lines = [f"#define {name} {value}\n" for name, value in constants.items()]
    return "".join(lines) + Path(__file__).with_name("lrn.cu").read_text()


def lrn(name: str, tensors: tuple[torch.Tensor, ...], size: int, factor: float, k: float, beta: float) -> bool:
    """Run `lrn` (y, x) or `lrn_gradient` (dx, x, dy) on tensors (N, C, ...), the first of which is written.

    s = k + factor * (the sum of x^2 over `size` channels). Returns False, with nothing done, where the kernel is not
    for these tensors (a GPU's, contiguous, float32) or could not be compiled.
    """
    result = tensors[0]
    for_these = all(each.is_cuda and each.dtype == torch.float32 and each.is_contiguous() for each in tensors)
    if not for_these or size > MOST_SIZE or not 0 < result.numel() <= MOST_VALUES:
        return False
    kernel = _compiled(name, _lrn_source(size, float(factor), float(k), float(beta)), result.device)
    if kernel is None:
        return False
    channels, plane = result.shape[1], result.shape[2:].numel()
    places = result.shape[0] * plane
    kernel(grid=(-(-places // BLOCK), 1, 1), block=(BLOCK, 1, 1), args=[*tensors, channels, plane, places])
    return True
