"""The arrays that a loss computes on: numpy's, or, where the engine computes on a GPU, torch's tensors there.

A formula is written once, with the operators and the functions that both have under one name. BVLC Caffe's blobs have
numpy arrays alone; these files never import torch.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType

import numpy as np


def module(array) -> ModuleType:
    """numpy or torch: whose functions `array` is for."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def rows(blob):
    """A blob's data as (B, values): a live numpy view, or on a GPU the tensor itself, without a copy to the host."""
    tensor = getattr(blob, "data_tensor", None)
    values = tensor if tensor is not None and tensor.is_cuda else blob.data
    return values.reshape(values.shape[0], math.prod(values.shape[1:]))


def check_codes(shape: tuple, layer: str) -> None:
    """Raise ValueError, which begins with `layer`, where `shape`, of bottom[0], is not that of codes (B, K)."""
    if not shape or 0 in shape:
        found = "x".join(map(str, shape)) or "one number without axes"
        raise ValueError(f"{layer}: expected codes (B, K) in bottom[0], found {found}")


def on_host(array) -> np.ndarray:
    """`array` as numpy's."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def next_to(codes, array: np.ndarray):
    """`array` where `codes` are. The host does not wait for the copy to a GPU."""
    if isinstance(codes, np.ndarray):
        return array
    return module(codes).from_numpy(array).pin_memory().to(codes.device, non_blocking=True)


def number(value):
    """A sum of numpy's as a float. One on a GPU stays there: to read it is to wait for the GPU."""
    return float(value) if np.isscalar(value) or isinstance(value, np.ndarray) else value


def set_loss(top, loss) -> None:
    """Write a loss, a float or a tensor of one value, into the blob `top`."""
    if isinstance(loss, float):
        top.data[...] = loss
    else:
        top.set_data(loss.reshape(top.shape))


def set_diff(bottom, top, gradient) -> None:
    """Write the gradient (B, values) of the loss in `top`, times the diff of `top`, into the diff of `bottom`."""
    if isinstance(gradient, np.ndarray):
        bottom.diff[...] = top.diff.flat[0] * gradient.reshape(bottom.diff.shape)
    else:
        bottom.set_diff((top.diff_tensor.reshape(()) * gradient).reshape(bottom.shape))
