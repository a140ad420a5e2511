"""Convolution with 5x5 filters by Winograd's F(4x4, 5x5): 64 products for 16 top values, where there were 400.

A tile of 8x8 bottom values and the filter are both transformed to 64 values, whose products, summed over the channels
(64 products of matrices), are transformed to 4x4 top values: y = A^T [(G w G^T) * (B^T x B)] A. A^T takes the products'
values at the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity for those of a polynomial, the two others follow.
Beside float64 the error of top and gradients is 1.4 to 10 times that of torch's direct convolution: less than 1e-5 of
the greatest value.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equations 5 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from caffe.cpu import kernels
from caffe.cpu.geometry import Geometry

# What was measured on a core (Zen 3): with fewer channels of bottom and top of a group, smaller maps or fewer tiles the
# transforms cost as much as the products that they save.
CHANNELS = 32
MAP = 64
TILES = 400
WIDEST = 256  # values in a row, its padding to complete tiles included, that the kernels have room for
WORKED = 2_000_000  # values of transformed tiles at a time: they stay near the cores
_POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)


def _filter_transform() -> torch.Tensor:
    """(64, 25): G (x) G, for a filter as a column."""
    rows = [[p**k / math.prod(p - q for q in _POINTS if q != p) for k in range(5)] for p in _POINTS]
    single = torch.tensor([*rows, [0, 0, 0, 0, 1]], dtype=torch.float64)
    return torch.kron(single, single).float()


_FILTERS = _filter_transform()


def is_applicable(geometry: Geometry, x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the convolution is one of these, and has channels enough to gain by it."""
    kernel, stride, pad, dilation, group, sizes = geometry
    plain = set(kernel) == {5} and set(stride) == set(dilation) == {1} and max(pad) <= 4 and pad[0] == pad[1]
    if not plain or min(weight.shape[1], len(weight) // group) < CHANNELS:
        return False
    height, width = sizes
    fits = height * width >= MAP and max(x.shape[3], width) + 8 <= WIDEST
    return fits and len(x) * math.prod(_grid(sizes)) >= TILES and kernels.usable(x, weight)


class _Workspace:
    """Buffers for the transformed tiles of two tensors, which all parts of a batch and all groups use in turn."""

    def __init__(self, top: torch.Tensor, *channels: int):
        self.grid = _grid(top.shape[2:])
        self.tiles, self.count = math.prod(self.grid), len(top)
        self.step = min(self.count, max(1, WORKED // (64 * self.tiles * sum(channels))))
        self.buffers = [top.new_empty(64 * (self.step * self.tiles | 1) * _filled(each)) for each in channels]
        self.channels = channels

    def parts(self) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """(images, a tensor (64, images * tiles, channels) for each of `channels`, its axes filled up as in C)."""
        for start in range(0, self.count, self.step):
            part = slice(start, min(self.count, start + self.step))
            shapes = [(64, (part.stop - start) * self.tiles | 1, _filled(each)) for each in self.channels]
            yield part, [each[: math.prod(shape)].view(shape) for each, shape in zip(self.buffers, shapes, strict=True)]


def _grid(sizes: Sequence[int]) -> tuple[int, int]:
    """The rows and columns of tiles, of 4x4 values, of a top of these sizes."""
    return (sizes[0] + 3) // 4, (sizes[1] + 3) // 4


def _filled(channels: int) -> int:
    """The channels of transformed tiles: a multiple of 8."""
    return -(-channels // 8) * 8


def convolve_into(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pad: int,
    groups: int,
    turned: bool = False,
) -> None:
    """Fill y with the convolution of x by the filters `weight` (outputs, channels / groups, 5, 5); `turned`: as
    winograd.convolve_into."""
    if turned:
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    outputs, channels = len(weight) // groups, weight.shape[1]
    workspace = _Workspace(y, outputs, channels)
    for group in range(groups):
        top, bottom, filters = y.chunk(groups, 1)[group], x.chunk(groups, 1)[group], weight.chunk(groups)[group]
        group_bias = None if bias is None else bias.chunk(groups)[group]
        filter_tiles = x.new_zeros(64, channels, _filled(outputs))
        transformed = (_FILTERS @ filters.reshape(-1, 25).t()).view(64, outputs, channels)
        filter_tiles[:, :, :outputs] = transformed.transpose(1, 2)
        for part, (top_tiles, bottom_tiles) in workspace.parts():
            _transform_bottom(bottom_tiles, bottom[part], workspace.grid, pad)
            _multiply(top_tiles, bottom_tiles[:, :, :channels], filter_tiles)
            images = top[part]
            kernels.run("winograd_5x5_top", images, top_tiles, group_bias, *images.shape, *workspace.grid,
                        images.stride(0))  # fmt: skip


def _transform_bottom(bottom_tiles: torch.Tensor, x: torch.Tensor, grid: tuple[int, int], pad: int) -> None:
    """Fill `bottom_tiles` with the transformed tiles of a bottom, or of a group's share of it."""
    kernels.run("winograd_5x5_bottom", bottom_tiles, x, *x.shape, *grid, pad, x.stride(0))


def weight_gradients(dweight: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, pad: int, groups: int) -> None:
    """Fill dweight with the gradient of the filters: the transforms' transposes, in the other order."""
    outputs, channels = len(dweight) // groups, dweight.shape[1]
    workspace = _Workspace(dy, outputs, channels)
    for group in range(groups):
        top, bottom = dy.chunk(groups, 1)[group], x.chunk(groups, 1)[group]
        total = x.new_zeros(64, outputs, _filled(channels))
        for part, (diff_tiles, bottom_tiles) in workspace.parts():
            diffs = top[part]
            kernels.run("winograd_5x5_diff", diff_tiles, diffs, *diffs.shape, *workspace.grid, diffs.stride(0))
            _transform_bottom(bottom_tiles, bottom[part], workspace.grid, pad)
            tiles = len(diffs) * workspace.tiles
            _multiply(total, diff_tiles[:, :tiles, :outputs].transpose(1, 2), bottom_tiles, added=True)
        transformed = total[:, :, :channels].reshape(64, -1)
        torch.mm(transformed.t(), _FILTERS, out=dweight.chunk(groups)[group].view(-1, 25))


def _multiply(product: torch.Tensor, left: torch.Tensor, right: torch.Tensor, added: bool = False) -> None:
    """product (64, A, C) = left (64, A, B) by the first B rows of right (64, >= B, C), plus what it held if `added`."""
    (_, height, deep), width = left.shape, right.shape[2]
    matrices, (a_row, a_column) = [each.stride(0) for each in (product, left, right)], left.stride()[1:]
    counts = height, width, deep, *matrices, a_row, a_column
    kernels.run("winograd_5x5_multiply", product, left, right, *counts, added)
