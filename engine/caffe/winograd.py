"""Convolution with 3x3 filters by Winograd's F(2x2, 3x3): 16 products for 4 top values, where there were 36.

A tile of 4x4 bottom values and the filter are both transformed to 16 values, whose products, summed over the channels
(16 products of matrices), are transformed to 2x2 top values: y = A^T [(G w G^T) * (B^T x B)] A. The transforms add,
subtract and halve, so float32 keeps its precision: beside float64 the top's error is a third of that of torch's direct
convolution, the weight's gradient's a quarter, the bottom's gradient's 1.4 times (README, "How fast").

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equations 5 to 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from caffe import kernels

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
        for group in range(layer.group):
            _weight_gradient(_share(dweight, group, layer.group, 0), _share(dy, group, layer.group),
                             _share(x, group, layer.group), layer.pad[0])  # fmt: skip
    return dx, dweight


def _share(tensor: torch.Tensor, group: int, groups: int, axis: int = 1) -> torch.Tensor:
    return tensor.chunk(groups, axis)[group]


def _parts(x: torch.Tensor, tiles: int, channels: int) -> Iterator[slice]:
    step = max(1, WORKED // (16 * tiles * channels))
    for start in range(0, len(x), step):
        yield slice(start, min(len(x), start + step))


def _into(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, pad: int, groups: int):
    """Fill y with the convolution of x by the filters `weight` (outputs, channels / groups, 3, 3)."""
    for group in range(groups):
        filters, plus = _share(weight, group, groups, 0), None if bias is None else _share(bias, group, groups, 0)
        top, bottom = _share(y, group, groups), _share(x, group, groups)
        outputs, channels = filters.shape[:2]
        tiles = _Tiles(*y.shape[2:])
        turned = (_FILTERS @ filters.reshape(-1, 9).t()).view(16, outputs, channels)
        for part in _parts(x, tiles.count, outputs + channels):
            seen = _bottom(bottom[part], tiles, pad)
            found, here = torch.bmm(turned, seen), top[part]
            kernels.run("winograd_top", here, found, plus, len(here), *here.shape[1:], *tiles.grid, here.stride(0))


def _bottom(x: torch.Tensor, tiles: _Tiles, pad: int) -> torch.Tensor:
    """The transformed tiles (16, channels, images * tiles) of a bottom, or of a group's share of it."""
    seen = x.new_empty(16, x.shape[1], len(x) * tiles.count)
    kernels.run("winograd_bottom", seen, x, *x.shape, *tiles.grid, pad, x.stride(0))
    return seen


def _weight_gradient(dweight: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, pad: int) -> None:
    """Fill dweight with the gradient of the filters: the transforms' transposes, in the other order."""
    tiles = _Tiles(*dy.shape[2:])
    total = x.new_zeros(16, *dweight.shape[:2])
    for part in _parts(x, tiles.count, dy.shape[1] + x.shape[1]):
        diff, here = x.new_empty(16, dy.shape[1], len(x[part]) * tiles.count), dy[part]
        kernels.run("winograd_diff", diff, here, *here.shape, *tiles.grid, here.stride(0))
        total.baddbmm_(diff, _bottom(x[part], tiles, pad).transpose(1, 2))
    torch.mm(total.view(16, -1).t(), _FILTERS, out=dweight.view(-1, 9))
