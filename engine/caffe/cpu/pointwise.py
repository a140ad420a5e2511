"""Convolution by filters of one value, as products of matrices: the weight's by each position's channels.

A stride leaves positions out, before the product is taken. Where maps have few positions and many channels, those of
several images are put next to each other: for each narrow matrix the product would arrange the whole weight again.
"""

from __future__ import annotations

import torch

from caffe.cpu.geometry import Geometry, NewOutput, Wanted
from caffe.cpu.parts import COPIED, parts

POSITIONS = 64  # of a map, below which an image's matrix is narrow
CHANNELS = 128  # of bottom and top, from which on putting images next to each other pays
PRODUCT = 200_000  # values, from which on a sum of products is made in place, one by one


def is_applicable(geometry: Geometry) -> bool:
    """Whether the filters have one value a channel."""
    return set(geometry.kernel) == {1} and set(geometry.pad) == {0} and geometry.group == 1


def convolve(geometry: Geometry, new_output: NewOutput, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The top (N, num_output, sizes) of the bottom x (N, channels, H, W), without a bias."""
    y, matrix, seen = new_output(x, (len(x), len(weight), *geometry.sizes)), weight.flatten(1), _seen(geometry, x)
    _multiply(matrix, seen, y)
    return y


def gradients(
    geometry: Geometry, new_output: NewOutput, dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The gradients of bottom and weight for the top's dy, None for one that is not wanted."""
    dx = dweight = None
    if wanted.bottom:
        dx = new_output(x, x.shape)
        if _is_strided(geometry):
            dx.zero_()
        _multiply(weight.flatten(1).t(), dy, _seen(geometry, dx))
    if wanted.weight:
        dweight = summed_products(dy.flatten(2), _seen(geometry, x).flatten(2).transpose(1, 2)).view_as(weight)
    return dx, dweight


def summed_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The sum over the batch of the products of left (N, A, K) and right (N, K, B)."""
    total = left.new_zeros(left.shape[1], right.shape[2])
    if total.numel() >= PRODUCT:
        for one, other in zip(left, right, strict=True):
            total.addmm_(one, other)
        return total
    for part in parts(left, COPIED * left.shape[1] * left.shape[2] // total.numel()):  # COPIED values of products
        total += torch.bmm(left[part], right[part]).sum(0)
    return total


def _is_strided(geometry: Geometry) -> bool:
    return set(geometry.stride) != {1}


def _seen(geometry: Geometry, maps: torch.Tensor) -> torch.Tensor:
    """The values (N, channels, sizes) of a bottom's maps that the filters see: a view."""
    return maps[:, :, :: geometry.stride[0], :: geometry.stride[1]] if _is_strided(geometry) else maps


def _multiply(matrix: torch.Tensor, maps: torch.Tensor, out: torch.Tensor) -> None:
    """Write the products of matrix (A, B) and the columns of maps (N, B, H, W) to out (N, A, H, W)."""
    if maps.shape[2] * maps.shape[3] < POSITIONS and min(matrix.shape) >= CHANNELS:
        for part in parts(maps, COPIED):
            product = torch.mm(matrix, maps[part].transpose(0, 1).flatten(1))  # (A, positions of the part's images)
            out[part] = product.view(len(matrix), -1, *out.shape[2:]).transpose(0, 1)
        return
    matrices = matrix.expand(len(maps), -1, -1)
    if out.is_contiguous():
        torch.bmm(matrices, maps.flatten(2), out=out.flatten(2))
        return
    for part in parts(maps, COPIED):
        out[part] = torch.bmm(matrices[part], maps[part].flatten(2)).view_as(out[part])
