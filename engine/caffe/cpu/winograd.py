"""Convolution with 3x3 filters by Winograd's F(2x2, 3x3): 16 products for 4 top values, where there were 36.

A tile of 4x4 bottom values and the filter are both transformed to 16 values, whose products, summed over the channels
(16 products of matrices), are transformed to 2x2 top values: y = A^T [(G w G^T) * (B^T x B)] A. The transforms add,
subtract and halve, so float32 keeps its precision: beside float64 the top's error is a third of that of torch's direct
convolution, the weight's gradient's a quarter, the bottom's gradient's 1.4 times.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equations 5 to 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from caffe.cpu import kernels
from caffe.cpu.geometry import Geometry, NewOutput, Wanted

# What was measured on 2 cores (Zen 3): with fewer channels, smaller maps or fewer tiles the transforms cost as much as
# the products that they save.
CHANNELS = 64
MAP = 64
TILES = 256
WORKED = 2_000_000  # values of transformed tiles at a time: they stay near the cores

_FILTER = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_FILTERS = torch.kron(_FILTER, _FILTER)  # (16, 9): G (x) G, for a filter as a column


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
    kernel, stride, pad, dilation, group, (height, width) = geometry
    plain = set(kernel) == {3} and set(stride) == set(dilation) == {1} and max(pad) <= 2
    if not plain or pad[0] != pad[1] or min(weight.shape[1], len(weight) // group) < CHANNELS:
        return False
    fits = height * width >= MAP and max(x.shape[3], width) + 6 <= kernels.WIDEST
    return fits and len(x) * _Tiles(height, width).total >= TILES and kernels.usable(x, weight)


def convolve(
    geometry: Geometry, new_output: NewOutput, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The top (N, num_output, H, W) of x (N, channels, H, W)."""
    y = new_output(x, (len(x), len(weight), *geometry.sizes))
    _convolve_into(y, x, weight, bias, geometry.pad[0], geometry.group)
    return y


def gradients(
    geometry: Geometry, new_output: NewOutput, dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The gradients of bottom and weight, None for one that is not wanted."""
    pad, group = geometry.pad[0], geometry.group
    dx = dweight = None
    if wanted.bottom:
        dx = new_output(x, x.shape)
        # the top's diff convolved by the filters, their inputs and outputs exchanged, turned by 180 degrees
        turned = weight.unflatten(0, (group, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
        _convolve_into(dx, dy, turned, None, 2 - pad, group)
    if wanted.weight:
        dweight = torch.empty_like(weight)
        _weight_gradients(dweight, dy, x, pad, group)
    return dx, dweight


def _of_group(tensor: torch.Tensor, group: int, groups: int, axis: int = 1) -> torch.Tensor:
    return tensor.chunk(groups, axis)[group]


class _Workspace:
    """Buffers for the transformed tiles of two tensors, which all parts of a batch and all groups use in turn."""

    def __init__(self, like: torch.Tensor, tiles: _Tiles, *channels: int):
        self.tiles, self.count = tiles, len(like)
        self.step = min(self.count, max(1, WORKED // (16 * tiles.total * sum(channels))))
        self.buffers = [(each, like.new_empty(16 * each * self.step * tiles.total)) for each in channels]

    def parts(self) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """(images, a tensor (16, channels, images * tiles) for each of `channels`)."""
        for start in range(0, self.count, self.step):
            part = slice(start, min(self.count, start + self.step))
            columns = (part.stop - start) * self.tiles.total
            yield part, [buffer[: 16 * each * columns].view(16, each, columns) for each, buffer in self.buffers]


def _convolve_into(
    y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, pad: int, groups: int
) -> None:
    """Fill y with the convolution of x by the filters `weight` (outputs, channels / groups, 3, 3)."""
    tiles = _Tiles(*y.shape[2:])
    outputs, channels = len(weight) // groups, weight.shape[1]
    workspace = _Workspace(x, tiles, outputs, channels)
    for group in range(groups):
        filters = _of_group(weight, group, groups, axis=0)
        group_bias = None if bias is None else _of_group(bias, group, groups, axis=0)
        top, bottom = _of_group(y, group, groups), _of_group(x, group, groups)
        filter_tiles = (_FILTERS @ filters.reshape(-1, 9).t()).view(16, outputs, channels)
        for part, (top_tiles, bottom_tiles) in workspace.parts():
            _transform_bottom(bottom_tiles, bottom[part], tiles, pad)
            torch.bmm(filter_tiles, bottom_tiles, out=top_tiles)  # (16, outputs, tiles of the part)
            images = top[part]
            kernels.run("winograd_top", images, top_tiles, group_bias, *images.shape, *tiles.grid, images.stride(0))


def _transform_bottom(bottom_tiles: torch.Tensor, x: torch.Tensor, tiles: _Tiles, pad: int) -> None:
    """Fill `bottom_tiles` with the transformed tiles of a bottom, or of a group's share of it."""
    kernels.run("winograd_bottom", bottom_tiles, x, *x.shape, *tiles.grid, pad, x.stride(0))


def _weight_gradients(dweight: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, pad: int, groups: int) -> None:
    """Fill dweight with the gradient of the filters: the transforms' transposes, in the other order."""
    tiles = _Tiles(*dy.shape[2:])
    outputs, channels = len(dweight) // groups, dweight.shape[1]
    workspace = _Workspace(x, tiles, outputs, channels)
    for group in range(groups):
        top, bottom = _of_group(dy, group, groups), _of_group(x, group, groups)
        total = x.new_zeros(16, outputs, channels)
        for part, (diff_tiles, bottom_tiles) in workspace.parts():
            diffs = top[part]
            kernels.run("winograd_diff", diff_tiles, diffs, *diffs.shape, *tiles.grid, diffs.stride(0))
            _transform_bottom(bottom_tiles, bottom[part], tiles, pad)
            total.baddbmm_(diff_tiles, bottom_tiles.transpose(1, 2))
        torch.mm(total.view(16, -1).t(), _FILTERS, out=_of_group(dweight, group, groups, axis=0).view(-1, 9))
