"""Convolution of images on a CPU: torch's, in the order of work that was measured to be the fastest one.

torch computes by oneDNN, which copies bottom, top and diffs into another order of values: for a whole batch as much
memory as the net's blobs take. So a large batch is convolved a part at a time. Filters of one value are pointwise.py's,
as products of matrices; those of 3x3 and 5x5 over many channels are winograd.py's and winograd_5x5.py's; nor does
oneDNN pay where a bottom has one channel, of the 8 that it works on together.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from caffe.cpu import kernels, pointwise, winograd, winograd_5x5
from caffe.cpu.geometry import Geometry, NewOutput, Wanted
from caffe.cpu.parts import COPIED, parts

# of bottom, weight and bias
Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
TILED = winograd, winograd_5x5


class Convolve(torch.autograd.Function):
    """The top (N, num_output, sizes) of a bottom (N, channels, H, W): apply(x, weight, bias, geometry, new_output)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        new_output: NewOutput,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.new_output = geometry, new_output
        if pointwise.is_applicable(geometry):
            y = pointwise.convolve(geometry, new_output, x, weight)
            return y if bias is None else y.add_(bias[:, None, None])
        if (tiled := _tiled(geometry, x, weight)) is not None:
            return convolve_tiles(tiled, geometry, new_output, x, weight, bias)
        pieces = _pieces(x)
        if len(pieces) == 1:
            return F.conv2d(x, weight, bias, *geometry.options)
        y = new_output(x, (len(x), len(weight), *geometry.sizes))
        for part in pieces:
            y[part] = F.conv2d(x[part], weight, bias, *geometry.options)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), geometry, new_output = ctx.saved_tensors, ctx.geometry, ctx.new_output
        wanted = Wanted(*ctx.needs_input_grad[:3])
        if pointwise.is_applicable(geometry):
            dx, dweight = pointwise.gradients(geometry, new_output, dy, x, weight, wanted)
            return dx, dweight, _bias_gradient(dy, wanted), None, None
        if (tiled := _tiled(geometry, x, weight)) is not None and kernels.usable(dy):
            dx, dweight = tiled_gradients(tiled, geometry, new_output, dy, x, weight, wanted)
            return dx, dweight, _bias_gradient(dy, wanted), None, None
        pieces = _pieces(x)
        dx = new_output(x, x.shape) if wanted.bottom and len(pieces) > 1 else None
        sums: list[torch.Tensor | None] = [None, None]  # of weight and bias
        for part in pieces:
            part_dx, *part_sums = _gradients(geometry, dy[part], x[part], weight, wanted)
            if dx is not None:
                dx[part] = part_dx
            sums = [new if old is None or new is None else old.add_(new)
                    for old, new in zip(sums, part_sums, strict=True)]  # fmt: skip
        return part_dx if dx is None else dx, *sums, None, None


def _tiled(geometry: Geometry, x: torch.Tensor, weight: torch.Tensor) -> ModuleType | None:
    """The module that has Winograd's products for a convolution; None where they do not pay."""
    return next((each for each in TILED if each.is_applicable(geometry, x, weight)), None)


def convolve_tiles(
    tiled: ModuleType,
    geometry: Geometry,
    new_output: NewOutput,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """The top (N, num_output, H, W) of x (N, channels, H, W), by a module of TILED."""
    y = new_output(x, (len(x), len(weight), *geometry.sizes))
    tiled.convolve_into(y, x, weight, bias, geometry.pad[0], geometry.group)
    return y


def tiled_gradients(
    tiled: ModuleType,
    geometry: Geometry,
    new_output: NewOutput,
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    wanted: Wanted,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The gradients of bottom and weight by a module of TILED, None for one that is not wanted."""
    pad, group = geometry.pad[0], geometry.group
    dx = dweight = None
    if wanted.bottom:
        dx = new_output(x, x.shape)
        tiled.convolve_into(dx, dy, weight, None, geometry.kernel[0] - 1 - pad, group, turned=True)
    if wanted.weight:
        dweight = torch.empty_like(weight)
        tiled.weight_gradients(dweight, dy, x, pad, group)
    return dx, dweight


def _pieces(x: torch.Tensor) -> list[slice]:
    return list(parts(x, COPIED)) if x.numel() > 2 * COPIED else [slice(None)]


def _bias_gradient(dy: torch.Tensor, wanted: Wanted) -> torch.Tensor | None:
    return dy.sum((0, 2, 3)) if wanted.bias else None


def _gradients(
    geometry: Geometry, dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: Wanted
) -> Gradients:
    """The gradients of bottom, weight and bias, None for one that is not wanted."""
    dweight = dbias = None
    if wanted.weight and x.shape[1] == 1 and geometry.group == 1 and set(geometry.dilation) == {1}:
        dweight = _by_windows(geometry, dy, x).view_as(weight)
        dbias = _bias_gradient(dy, wanted)
        wanted = Wanted(wanted.bottom, weight=False, bias=False)
    if not any(wanted):
        return None, dweight, dbias
    if x.shape[1] % 8 and len(weight) % 8:  # oneDNN would fill both up to a multiple of 8
        dy, x = (each.contiguous(memory_format=torch.channels_last) for each in (dy, x))
    stride, pad, dilation, group = geometry.options
    options = stride, pad, dilation, False, (0, 0), group  # not transposed, no output padding
    dx, *sums = torch.ops.aten.convolution_backward(dy, x, weight, weight.shape[:1], *options, wanted)
    return (dx, *sums) if dweight is None else (dx, dweight, dbias)


def _by_windows(geometry: Geometry, dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The weight's gradient (num_output, kernel values) for a bottom of one channel."""
    (height, width), (vertical, horizontal) = geometry.kernel, geometry.pad
    taps, total = height * width, dy.new_zeros(dy.shape[1], height * width)
    for part in parts(dy, COPIED * dy.shape[1] // taps):  # COPIED values of windows
        padded = F.pad(x[part, 0], (horizontal, horizontal, vertical, vertical))
        windows = padded.unfold(1, height, geometry.stride[0]).unfold(2, width, geometry.stride[1])
        # (N, rows, columns, kernel height, kernel width) -> (N, kernel values, positions)
        windows = windows.permute(0, 3, 4, 1, 2).reshape(len(windows), taps, -1)
        total += pointwise.summed_products(dy[part].flatten(2), windows.transpose(1, 2))
    return total
