"""Layers that normalize an item by itself: LRN and MVN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from caffe.blob import Blob
from caffe.cpu import kernels
from caffe.cpu.parts import by_parts
from caffe.cuda import kernels as cuda_kernels
from caffe.layer import Layer, merged, register
from caffe.proto import caffe_pb2

WITHIN_CHANNEL = caffe_pb2.LRNParameter.NormRegion.Value("WITHIN_CHANNEL")


@register("LRN")
class LRN(Layer):
    """Local response normalization (Krizhevsky et al. 2012): x * s^-beta.

    ACROSS_CHANNELS: s = k + alpha / n * (the sum of x^2 over n = local_size neighbouring channels).
    WITHIN_CHANNEL: s = 1 + alpha * (the mean of x^2 over an n x n window, zeros beyond the edge); k is not used, as in
    BVLC. Bottom and top: (N, C, H, W).
    """

    reuses_output_buffers = True
    keeps_top = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        size = self.layer_param.lrn_param.local_size
        self.check(size % 2 == 1, f"LRN only supports odd values for local_size; found {size}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            bottom[0].num_axes == 4,
            "Input must have 4 axes, corresponding to (num, channels, height, width); "
            f"found {bottom[0].shape_string()}",
        )
        super().reshape(bottom, top)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.lrn_param
        if param.norm_region == WITHIN_CHANNEL:
            mean = F.avg_pool2d(x.square(), param.local_size, 1, param.local_size // 2)
            return x * (1 + param.alpha * mean).pow(-param.beta)
        return _AcrossChannels.apply(x, self, param.local_size, param.alpha, param.beta, param.k)


def _channel_sums(x: torch.Tensor, size: int, factor: float, plus: float = 0.0) -> torch.Tensor:
    """For each channel, plus + factor * the sum of the `size` channels around it: (N, C, H, W) -> (N, C, H, W)."""
    if x.is_cuda:  # one launch for the sums, whatever the size
        rows = merged(x, 2).unsqueeze(1)
        sums = F.avg_pool2d(rows, (size, 1), 1, (size // 2, 0), divisor_override=1)
        return sums.mul_(factor).add_(plus).view(x.shape)
    sums = torch.add(x.new_full((), plus), x, alpha=factor)
    for shift in range(1, min(size // 2, x.shape[1] - 1) + 1):
        sums[:, shift:].add_(x[:, :-shift], alpha=factor)
        sums[:, :-shift].add_(x[:, shift:], alpha=factor)
    return sums


def _scale(x: torch.Tensor, size: int, alpha: float, k: float) -> torch.Tensor:
    return _channel_sums(x.square(), size, alpha / size, k)


def _inverse_power(s: torch.Tensor, beta: float) -> torch.Tensor:
    """s^-beta; two roots where beta is 3/4, as everywhere, several times faster than a power."""
    if beta == 0.75:
        root = s.rsqrt()
        return root.sqrt().mul_(root)
    return s.pow(-beta)


def _compiled(x: torch.Tensor, beta: float) -> bool:
    """Whether kernels.c has this LRN: it knows beta 3/4, AlexNet's and GoogLeNet's."""
    return beta == 0.75 and x.shape[1] <= kernels.MOST_CHANNELS and kernels.usable(x)


def _lengths(x: torch.Tensor) -> tuple[int, int, int]:
    return (*x.shape[:2], x.shape[2:].numel())


class _AcrossChannels(torch.autograd.Function):
    """y = x s^-beta; dx = dy s^-beta - (2 alpha beta / n) x * (channel sums of dy y / s). Autograd's own is slower.

    backward computes s anew: that takes less time than the memory that keeps it is worth.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layer: Layer, size: int, alpha: float, beta: float, k: float
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.new_output, ctx.constants = layer.new_output, (size, alpha, beta, k)
        y = layer.new_output(x, x.shape)
        if _compiled(x, beta):
            kernels.run("lrn", y, x, *_lengths(x), size, alpha / size, k)
            return y
        if cuda_kernels.lrn("lrn", (y, x), size, alpha / size, k, beta):
            return y
        by_parts(lambda y, x: torch.mul(_inverse_power(_scale(x, size, alpha, k), beta), x, out=y), (y,), x)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        size, alpha, beta, k = ctx.constants

        def gradient(dx: torch.Tensor, x: torch.Tensor, dy: torch.Tensor) -> None:
            s = _scale(x, size, alpha, k)
            direct = _inverse_power(s, beta).mul_(dy)
            around = _channel_sums((direct * x).div_(s), size, -2 * alpha * beta / size)
            torch.addcmul(direct, around, x, out=dx)

        dx = ctx.new_output(x, x.shape)
        if _compiled(x, beta) and kernels.usable(dy):
            kernels.run("lrn_gradient", dx, x, dy, *_lengths(x), size, alpha / size, k)
            return dx, None, None, None, None, None
        if cuda_kernels.lrn("lrn_gradient", (dx, x, dy), size, alpha / size, k, beta):
            return dx, None, None, None, None, None
        by_parts(gradient, (dx,), x, dy)
        return dx, None, None, None, None, None


class _MeanVariance(torch.autograd.Function):
    """Rows (R, D) less their mean and, with `eps`, divided by their standard deviation plus eps.

    The gradient is BVLC's, which takes the deviation for the whole divisor: exact as eps goes to 0, and 0 / eps, not
    0 / 0, for constant rows.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float | None) -> torch.Tensor:
        y = x - x.mean(1, keepdim=True)
        divisor = None
        if eps is not None:
            divisor = y.square().mean(1, keepdim=True).sqrt_().add_(eps)
            y /= divisor
        ctx.save_for_backward(y, divisor)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        y, divisor = ctx.saved_tensors
        down = dy - dy.mean(1, keepdim=True)
        if divisor is not None:
            down = (down - y * (y * dy).mean(1, keepdim=True)) / divisor
        return down, None


@register("MVN")
class MVN(Layer):
    """Each channel of each item less its mean, over its standard deviation plus eps: mean 0, variance 1.

    across_channels: over the item's channels together. normalize_variance false: the mean only.
    Bottom: (N, C, H, W), or fewer axes, taken as (N, C, 1, 1). Top: (N, C, H, W).
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x = bottom[0]
        top[0].reshape(x.num, x.channels, x.height, x.width)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.mvn_param
        shape = (*x.shape, 1, 1, 1, 1)[:4]
        rows = merged(x.reshape(shape if param.across_channels else (shape[0] * shape[1], *shape[2:])), 1)
        return _MeanVariance.apply(rows, param.eps if param.normalize_variance else None).view(shape)
