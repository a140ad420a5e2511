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
    def count(self) -> int:
        rows, columns = self.grid
        return rows * columns


def serves(layer, x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the convolution that `layer` asks for is one of these, and large enough to gain by it."""
    plain = set(layer.kernel) == {3} and set(layer.stride) == set(layer.dilation) == {1} and max(layer.pad) <= 2
    if not plain or layer.pad[0] != layer.pad[1] or min(weight.shape[1], len(weight) // layer.group) < CHANNELS:
        return False
    height, width = layer.sizes
    fits = height * width >= MAP and max(x.shape[3], width) + 6 <= kernels.WIDEST
    return fits and len(x) * _Tiles(height, width).count >= TILES and kernels.usable(x, weight)


def convolve(layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The top (N, num_output, H, W) of x (N, channels, H, W)."""
    y = layer.room(x, (len(x), len(weight), *layer.sizes))
    _into(y, x, weight, bias, layer.pad[0], layer.group)
    return y


def gradients(layer, dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted) -> tuple:
    """The gradients of bottom and weight, None for one that is not wanted."""
    dx = dweight = None
    if wanted[0]:
        dx = layer.room(x, x.shape)
        turned = weight.unflatten(0, (layer.group, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
        _into(dx, dy, turned, None, 2 - layer.pad[0], layer.group)
    if wanted[1]:
        dweight = torch.empty_like(weight)
        _weight_gradients(dweight, dy, x, layer.pad[0], layer.group)
    return dx, dweight


def _share(tensor: torch.Tensor, group: int, groups: int, axis: int = 1) -> torch.Tensor:
    return tensor.chunk(groups, axis)[group]


class _Rooms:
    """Room for the transformed tiles of two tensors, which all parts of a batch and all groups use in turn."""

    def __init__(self, like: torch.Tensor, tiles: _Tiles, *channels: int):
        self.tiles, self.count = tiles, len(like)
        self.step = min(self.count, max(1, WORKED // (16 * tiles.count * sum(channels))))
        self.rooms = [(each, like.new_empty(16 * each * self.step * tiles.count)) for each in channels]

    def parts(self) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """(images, a tensor (16, channels, images * tiles) for each of `channels`)."""
        for start in range(0, self.count, self.step):
            part = slice(start, min(self.count, start + self.step))
            columns = (part.stop - start) * self.tiles.count
            yield part, [room[: 16 * each * columns].view(16, each, columns) for each, room in self.rooms]


def _into(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, pad: int, groups: int):
    """Fill y with the convolution of x by the filters `weight` (outputs, channels / groups, 3, 3)."""
    tiles = _Tiles(*y.shape[2:])
    outputs, channels = len(weight) // groups, weight.shape[1]
    rooms = _Rooms(x, tiles, outputs, channels)
    for group in range(groups):
        filters, plus = _share(weight, group, groups, 0), None if bias is None else _share(bias, group, groups, 0)
        top, bottom = _share(y, group, groups), _share(x, group, groups)
        turned = (_FILTERS @ filters.reshape(-1, 9).t()).view(16, outputs, channels)
        for part, (found, seen) in rooms.parts():
            _see(seen, bottom[part], tiles, pad)
            torch.bmm(turned, seen, out=found)
            here = top[part]
            kernels.run("winograd_top", here, found, plus, *here.shape, *tiles.grid, here.stride(0))


def _see(seen: torch.Tensor, x: torch.Tensor, tiles: _Tiles, pad: int) -> None:
    """Fill `seen` with the transformed tiles of a bottom, or of a group's share of it."""
    kernels.run("winograd_bottom", seen, x, *x.shape, *tiles.grid, pad, x.stride(0))


def _weight_gradients(dweight: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, pad: int, groups: int) -> None:
    """Fill dweight with the gradient of the filters: the transforms' transposes, in the other order."""
    tiles = _Tiles(*dy.shape[2:])
    outputs, channels = len(dweight) // groups, dweight.shape[1]
    rooms = _Rooms(x, tiles, outputs, channels)
    for group in range(groups):
        top, bottom = _share(dy, group, groups), _share(x, group, groups)
        total = x.new_zeros(16, outputs, channels)
        for part, (diff, seen) in rooms.parts():
            here = top[part]
            kernels.run("winograd_diff", diff, here, *here.shape, *tiles.grid, here.stride(0))
            _see(seen, bottom[part], tiles, pad)
            total.baddbmm_(diff, seen.transpose(1, 2))
        torch.mm(total.view(16, -1).t(), _FILTERS, out=_share(dweight, group, groups, 0).view(-1, 9))
