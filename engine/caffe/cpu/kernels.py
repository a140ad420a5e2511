"""kernels.c as functions on tensors: what torch has no fast operation for on a CPU.

The library is built when the package is installed, for this very kernels.c: its name has the source's digest. Where
there is none (no C compiler, a source tree that was not installed) `usable` is false, and layers compute by torch.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch  # first: it brings the OpenMP library whose threads the kernels use

from caffe.cpu.library_file import library_file

WIDEST = 1024  # values in a row, its padding included, that the kernels have room for
MOST_CHANNELS = 4096  # of LRN

_TENSOR, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS = {
    "batch_norm": [_TENSOR] * 5 + [_COUNT] * 3 + [_NUMBER],
    "channel_gradient": [_TENSOR] * 6 + [_COUNT] * 4,
    "lrn": [_TENSOR] * 2 + [_COUNT] * 4 + [_NUMBER] * 2,
    "lrn_gradient": [_TENSOR] * 3 + [_COUNT] * 4 + [_NUMBER] * 2,
    "max_pool": [_TENSOR] * 3 + [_COUNT] * 11,
    "max_pool_gradient": [_TENSOR] * 3 + [_COUNT] * 3,
    "max_pool_values": [_TENSOR] * 2 + [_COUNT] * 11,
    "scale_channels": [_TENSOR] * 4 + [_COUNT] * 3,
    "update": [_TENSOR] + [_COUNT] * 4 + [_NUMBER] * 6,
    "winograd_5x5_bottom": [_TENSOR] * 2 + [_COUNT] * 8,
    "winograd_5x5_diff": [_TENSOR] * 2 + [_COUNT] * 7,
    "winograd_5x5_multiply": [_TENSOR] * 3 + [_COUNT] * 9,
    "winograd_5x5_top": [_TENSOR] * 3 + [_COUNT] * 7,
    "winograd_convolve": [_TENSOR] * 5 + [_COUNT] * 13,
    "winograd_filters": [_TENSOR] * 2 + [_COUNT] * 5,
    "winograd_weight_gradient": [_TENSOR] * 4 + [_COUNT] * 13,
}


def load(file: Path) -> ctypes.CDLL | None:
    """The library in `file`; None where there is none, or none for this machine."""
    try:
        library = ctypes.CDLL(str(file))
    except OSError:
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


LIBRARY = load(library_file())


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the kernels are there, and made for these: contiguous float32 on a CPU, a value or more each."""
    return LIBRARY is not None and all(
        each.device.type == "cpu" and each.dtype == torch.float32 and each.is_contiguous() and each.numel()
        for each in tensors
    )


def run(name: str, *arguments: torch.Tensor | float | None) -> None:
    """The function `name` of kernels.c on tensors (usable, of the shapes it says), numbers and None for no tensor."""
    given = (each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments)
    getattr(LIBRARY, name)(*given)
