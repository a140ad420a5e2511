"""Convolution with 3x3 filters by Winograd's F(2x2, 3x3): 16 products for 4 top values, where there were 36.

A tile of 4x4 bottom values and the filter are both transformed to 16 values, whose products, summed over the channels
(16 products of matrices), are transformed to 2x2 top values: y = A^T [(G w G^T) * (B^T x B)] A. The transforms add,
subtract and halve, so float32 keeps its precision: beside float64 the error of top and gradients is 2.7e-7 to 3.2e-7 of
their values, on any processor. That of torch's direct convolution is 3 times as much for the top and 1.1 for the
bottom's gradient where oneDNN has AVX2, 0.83 where it has AVX-512, and 2.8 for the weight's gradient.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equations 5 to 8.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from caffe.cpu import kernels
from caffe.cpu.geometry import Geometry

# What was measured on 2 cores (Zen 3): with fewer channels or tiles the transforms, of the filters too, cost as much as
# the products that they save.
CHANNELS = 16
TILES = 64

# Of the kernels: see winograd.h. The tiles of 256 channels (48 * 16 * 256 values) stay in a core's caches.
PANEL = 16  # channels
CONVOLVED = 48  # tiles that a thread transforms and multiplies at a time
PANELS = 2  # of outputs, multiplied by these tiles before their top is transformed
SUMMED = 96  # tiles at a time of the gradient of the filters
SUMS = 4_000_000  # values of that gradient, transformed, which threads sum apart


class _Tiles(NamedTuple):
    """The tiles of a map of `height` by `width` top values, two each way a tile."""

    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def total(self) -> int:
        rows, columns = self.grid
        return rows * columns


def is_applicable(geometry: Geometry, x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the convolution is one of these, and large enough to gain by it."""
    kernel, stride, pad, dilation, group, sizes = geometry
    plain = set(kernel) == {3} and set(stride) == set(dilation) == {1} and max(pad) <= 2
    if not plain or pad[0] != pad[1] or min(weight.shape[1], len(weight) // group) < CHANNELS:
        return False
    return len(x) * _Tiles(*sizes).total >= TILES and kernels.usable(x, weight)


def _of_group(tensor: torch.Tensor, group: int, groups: int, axis: int = 1) -> torch.Tensor:
    return tensor.chunk(groups, axis)[group]


def _lines(tiles: _Tiles) -> int:
    return 8 * PANEL * (2 * tiles.grid[1] + 2)


def _panels(channels: int) -> int:
    return -(-channels // PANEL)


def convolve_into(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pad: int,
    groups: int,
    turned: bool = False,
) -> None:
    """Fill y with the convolution of x by the filters `weight` (outputs, channels / groups, 3, 3).

    If `turned`, by the same filters turned by 180 degrees, their outputs the channels of x: the bottom's diff y from
    the top's diff x.
    """
    tiles = _Tiles(*y.shape[2:])
    outputs, channels = y.shape[1] // groups, x.shape[1] // groups
    threads = torch.get_num_threads()
    rows = len(x) * tiles.grid[0]
    step = max(1, min(round(CONVOLVED / tiles.grid[1]), -(-rows // threads)))
    panels = min(PANELS, _panels(outputs))
    transformed = x.new_empty(16 * PANEL * _panels(outputs) * channels)
    workspace = x.new_empty(
        threads * 16 * PANEL * (_panels(channels) + panels) * step * tiles.grid[1] + threads * _lines(tiles)
    )
    strides = (9, 9 * outputs) if turned else (9 * channels, 9)
    for group in range(groups):
        top, bottom = _of_group(y, group, groups), _of_group(x, group, groups)
        filters = _of_group(weight, group, groups, axis=0)
        group_bias = None if bias is None else _of_group(bias, group, groups, axis=0)
        kernels.run("winograd_filters", transformed, filters, outputs, channels, *strides, turned)
        shapes = *bottom.shape, bottom.stride(0), *top.shape[1:], top.stride(0)
        kernels.run("winograd_convolve", top, bottom, transformed, group_bias, workspace, *shapes, pad, step, panels,
                    threads)  # fmt: skip


def weight_gradients(dweight: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, pad: int, groups: int) -> None:
    """Fill dweight with the gradient of the filters."""
    tiles = _Tiles(*dy.shape[2:])
    outputs, channels = len(dweight) // groups, dweight.shape[1]
    out, into, threads, rows = _panels(outputs), _panels(channels), torch.get_num_threads(), len(x) * tiles.grid[0]
    sums = 16 * PANEL * PANEL * out * into
    slices = max(1, min(threads, rows, SUMS // sums))
    parts = max(1, min(out, threads // slices))
    step = max(1, min(round(SUMMED / tiles.grid[1]), -(-rows // slices)))
    room = 16 * PANEL * (out + into) * step * tiles.grid[1] + _lines(tiles)
    workspace = x.new_empty(slices * sums + slices * parts * room)
    for group in range(groups):
        top, bottom = _of_group(dy, group, groups), _of_group(x, group, groups)
        shapes = *bottom.shape, bottom.stride(0), *top.shape[1:], top.stride(0)
        filters = _of_group(dweight, group, groups, axis=0)
        kernels.run("winograd_weight_gradient", filters, top, bottom, workspace, *shapes, pad, step, slices, parts)
