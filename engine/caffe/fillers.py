"""Fillers: how a parameter blob gets its first values (Caffe's filler.hpp)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch

from caffe import device
from caffe.blob import Blob
from caffe.proto import caffe_pb2

FAN_IN, FAN_OUT, AVERAGE = 0, 1, 2

_waiting: list[tuple[Blob, caffe_pb2.FillerParameter]] | None = None  # None: outside of `only_unwritten`


def _normal(blob: Blob, mean: float, std: float) -> torch.Tensor:
    return torch.empty(blob.shape).normal_(mean, std, generator=device.generator())


def _uniform(blob: Blob, low: float, high: float) -> torch.Tensor:
    return torch.empty(blob.shape).uniform_(low, high, generator=device.generator())


def _fan(blob: Blob, variance_norm: int) -> float:
    """BVLC's fans: count / num, and count / channels (or the whole count for a 1-D blob)."""
    fan_in = blob.count / blob.shape[0] if blob.shape else blob.count
    fan_out = blob.count / blob.shape[1] if blob.num_axes > 1 else blob.count
    return {FAN_IN: fan_in, FAN_OUT: fan_out, AVERAGE: (fan_in + fan_out) / 2}[variance_norm]


def _constant(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    return torch.full(blob.shape, param.value)


def _uniform_filler(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    if not param.min <= param.max:
        raise ValueError(f"uniform filler: expected min at most max, found min: {param.min:g}, max: {param.max:g}")
    if not param.max - param.min <= torch.finfo(torch.float32).max:
        raise ValueError(f"uniform filler: expected a finite range, found min: {param.min:g}, max: {param.max:g}")
    return _uniform(blob, param.min, param.max)


def _gaussian(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    """With `sparse` n, each value is kept with probability n / num: n inputs an output, on average."""
    if not param.std > 0:
        raise ValueError(f"gaussian filler: expected std above 0, found {param.std:g}; the filler 'constant' has none")
    values = _normal(blob, param.mean, param.std)
    if param.sparse == -1:
        return values
    outputs = blob.shape[0] if blob.shape else 0
    if not 0 <= param.sparse <= outputs:
        raise ValueError(f"gaussian filler: expected sparse from 0 to the {outputs} outputs, found {param.sparse}")
    return values * torch.empty(blob.shape).bernoulli_(param.sparse / outputs, generator=device.generator())


def _positive_unitball(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    """Uniform in (0, 1), then each output's weights sum to 1."""
    values = _uniform(blob, 0.0, 1.0)
    rows = values.view(blob.shape[0], -1)
    rows /= rows.sum(1, keepdim=True)
    return values


def _xavier(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    """Uniform in +-sqrt(3 / fan) (Glorot and Bengio 2010)."""
    scale = math.sqrt(3.0 / _fan(blob, param.variance_norm))
    return _uniform(blob, -scale, scale)


def _msra(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    """Normal with variance 2 / fan (He et al. 2015)."""
    return _normal(blob, 0.0, math.sqrt(2.0 / _fan(blob, param.variance_norm)))


def _bilinear(blob: Blob, param: caffe_pb2.FillerParameter) -> torch.Tensor:
    """The kernel of bilinear upsampling in each channel (Long et al. 2015)."""
    if blob.num_axes != 4 or blob.shape[2] != blob.shape[3]:
        raise ValueError(f"bilinear filler: Blob must be 4 dim. with a square kernel, found {blob.shape_string()}")
    size = blob.shape[3]
    half = math.ceil(size / 2)
    centre = (2 * half - 1 - half % 2) / (2.0 * half)
    line = 1 - (torch.arange(size) / half - centre).abs()
    return (line[:, None] * line[None, :]).expand(blob.shape).contiguous()


FILLERS = {
    "constant": _constant,
    "uniform": _uniform_filler,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}


def fill(blob: Blob, param: caffe_pb2.FillerParameter) -> None:
    """Fill `blob`'s data as `param` says. Raises ValueError for an unknown filler type, and where it cannot fill."""
    if param.type not in FILLERS:
        raise ValueError(f"Unknown filler name: {param.type}; expected one of {', '.join(FILLERS)}")
    if param.sparse != -1 and param.type != "gaussian":
        raise ValueError(f"Sparsity not supported by the {param.type} filler; remove `sparse: {param.sparse}`")
    if not blob.count:
        raise ValueError(f"{param.type} filler: the blob has no values to fill: its shape is {blob.shape_string()}")
    if _waiting is None:
        blob.set_data(FILLERS[param.type](blob, param))
    else:
        _waiting.append((blob, param))


@contextlib.contextmanager
def only_unwritten() -> Iterator[None]:
    """While entered, `fill` checks and waits. At the end the blobs to which nothing was written meanwhile are filled.

    For a net that is made and gets its weights where no seed is given: the others draw other numbers than they would.
    """
    global _waiting
    waiting: list[tuple[Blob, caffe_pb2.FillerParameter]] = []
    _waiting = waiting
    try:
        yield
    finally:
        _waiting = None
    for blob, param in waiting:
        if blob.data_memory.is_zero:
            fill(blob, param)
