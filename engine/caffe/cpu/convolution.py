"""Convolution of images on a CPU: torch's, in the order of work that was measured to be the fastest one.

torch computes by oneDNN, which copies bottom, top and diffs into another order of values: for a whole batch as much
memory as the net's blobs take. So a large batch is convolved a part at a time. Filters of one value need no copies at
all, as products of matrices; those of 3x3 over many channels are winograd.py's; nor does oneDNN pay where a bottom has
one channel, of the 8 that it works on together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from caffe.cpu import kernels, winograd
from caffe.cpu.parts import COPIED, parts

POSITIONS = 64  # of a top, below which its matrices are too narrow to be faster than oneDNN


class Convolve(torch.autograd.Function):
    """The top (N, num_output, sizes) of a bottom (N, channels, H, W); `layer` is the Convolution layer that asks."""

    @staticmethod
    def forward(ctx, x, weight, bias, layer):
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        shape = (len(x), len(weight), *layer.sizes)
        if _pointwise(layer):
            y = layer.room(x, shape)
            torch.bmm(_expanded(weight.flatten(1), x), x.flatten(2), out=y.flatten(2))
            return y if bias is None else y.add_(bias[:, None, None])
        if winograd.serves(layer, x, weight):
            return winograd.convolve(layer, x, weight, bias)
        where = layer.stride, layer.pad, layer.dilation, layer.group
        pieces = _pieces(x)
        if len(pieces) == 1:
            return F.conv2d(x, weight, bias, *where)
        y = layer.room(x, shape)
        for part in pieces:
            y[part] = F.conv2d(x[part], weight, bias, *where)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        (x, weight), layer, wanted = ctx.saved_tensors, ctx.layer, ctx.needs_input_grad[:3]
        if _pointwise(layer):
            return *_pointwise_gradients(layer, dy, x, weight, wanted), None
        if winograd.serves(layer, x, weight) and kernels.usable(dy):
            return *winograd.gradients(layer, dy, x, weight, wanted), _bias_gradient(dy, wanted), None
        pieces = _pieces(x)
        dx = layer.room(x, x.shape) if wanted[0] and len(pieces) > 1 else None
        sums = [None, None]
        for part in pieces:
            down, *found = _gradients(layer, dy[part], x[part], weight, wanted)
            if dx is not None:
                dx[part] = down
            sums = [new if old is None else old.add_(new) for old, new in zip(sums, found, strict=True)]
        return down if dx is None else dx, *sums, None


def _pieces(x: torch.Tensor) -> list[slice]:
    return list(parts(x, COPIED)) if x.numel() > 2 * COPIED else [slice(None)]


def _pointwise(layer) -> bool:
    """Whether the filters have one value a channel, and a top's channel values enough to multiply matrices."""
    one = set(layer.kernel) == set(layer.stride) == {1} and set(layer.pad) == {0} and layer.group == 1
    return one and layer.sizes[0] * layer.sizes[1] >= POSITIONS


def _bias_gradient(dy: torch.Tensor, wanted) -> torch.Tensor | None:
    return dy.sum((0, 2, 3)) if wanted[2] else None


def _expanded(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return matrix.expand(len(x), -1, -1)


def _pointwise_gradients(layer, dy, x, weight, wanted):
    matrix, flat = weight.flatten(1), dy.flatten(2)
    dx = dweight = None
    if wanted[0]:
        dx = layer.room(x, x.shape)
        torch.bmm(_expanded(matrix.t(), x), flat, out=dx.flatten(2))
    if wanted[1]:
        dweight = _summed_products(flat, x.flatten(2).transpose(1, 2)).view_as(weight)
    return dx, dweight, _bias_gradient(dy, wanted)


def _summed_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The sum over the batch of the products of left (N, A, K) and right (N, K, B)."""
    total = left.new_zeros(left.shape[1], right.shape[2])
    for part in parts(left, COPIED * left.shape[1] * left.shape[2] // total.numel()):  # COPIED values of products
        total += torch.bmm(left[part], right[part]).sum(0)
    return total


def _gradients(layer, dy, x, weight, wanted):
    """The gradients of bottom, weight and bias, None for one that is not wanted."""
    dweight = dbias = None
    if wanted[1] and x.shape[1] == 1 and layer.group == 1 and set(layer.dilation) == {1}:
        dweight = _by_windows(layer, dy, x).view_as(weight)
        dbias = _bias_gradient(dy, wanted)
        wanted = wanted[0], False, False
    if not any(wanted):
        return None, dweight, dbias
    if x.shape[1] % 8 and len(weight) % 8:  # oneDNN would fill both up to a multiple of 8
        dy, x = (each.contiguous(memory_format=torch.channels_last) for each in (dy, x))
    where = layer.stride, layer.pad, layer.dilation, False, (0, 0), layer.group
    down, *found = torch.ops.aten.convolution_backward(dy, x, weight, weight.shape[:1], *where, wanted)
    return (down, *found) if dweight is None else (down, dweight, dbias)


def _by_windows(layer, dy, x) -> torch.Tensor:
    """The weight's gradient (num_output, kernel values) for a bottom of one channel."""
    (height, width), (vertical, horizontal) = layer.kernel, layer.pad
    taps, total = height * width, dy.new_zeros(dy.shape[1], height * width)
    for part in parts(dy, COPIED * dy.shape[1] // taps):  # COPIED values seen
        seen = F.pad(x[part, 0], (horizontal, horizontal, vertical, vertical))
        seen = seen.unfold(1, height, layer.stride[0]).unfold(2, width, layer.stride[1])  # (N, sizes, kernel)
        seen = seen.permute(0, 3, 4, 1, 2).reshape(len(seen), taps, -1)
        total += _summed_products(dy[part].flatten(2), seen.transpose(1, 2))
    return total
