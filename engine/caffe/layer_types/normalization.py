"""Layers that shift and rescale: LRN, BatchNorm, MVN, Scale, Bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from caffe import fillers, glog
from caffe.blob import Blob
from caffe.cpu import kernels
from caffe.cpu.parts import by_parts
from caffe.cuda import kernels as cuda_kernels
from caffe.layer import Layer, register
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
        rows = x.reshape(x.shape[0], 1, x.shape[1], -1)
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


@register("BatchNorm")
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps), channel by channel (Ioffe and Szegedy 2015); Scale does the affine part.

    Bottom and top: (N, C, ...). The statistics are the batch's, or the ones kept, with
    use_global_stats (default: in TEST). Blobs: the kept mean (C,), the kept variance (C,) and their weight (1,): they
    are sums decaying by moving_average_fraction, to be divided by the third. No solver touches them.
    """

    keeps_top = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.batch_norm_param
        has_flag = param.HasField("use_global_stats")
        self.use_global_stats = param.use_global_stats if has_flag else self.phase == caffe_pb2.TEST
        self.channels = bottom[0].shape[bottom[0].axis(1)]
        if self.blobs:
            glog.info("batch_norm_layer.cpp:23", "Skipping parameter initialization")
        else:
            for shape in (self.channels, self.channels, 1):
                self.blobs.add_blob(shape)
        self.check(len(self.blobs) == 3 and [blob.count for blob in self.blobs] == [self.channels, self.channels, 1],
                   f"expected blobs of shapes ({self.channels},), ({self.channels},), (1,); found "
                   f"{', '.join(blob.shape_string() for blob in self.blobs)}")  # fmt: skip
        specs = self.layer_param.param
        for index in range(len(self.blobs)):
            if index == len(specs):
                specs.add().lr_mult = 0
            self.check(
                specs[index].lr_mult == 0,
                "Cannot configure batch normalization statistics as layer parameters: "
                f"expected lr_mult 0 in param {index}, found {specs[index].lr_mult:g}; remove the param or write 0.",
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        count = bottom[0].shape[bottom[0].axis(1)]
        self.check(count == self.channels, f"expected {self.channels} channels, found {bottom[0].shape_string()}")
        super().reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().forward(bottom, top)
        if self.use_global_stats:
            return
        fraction = self.layer_param.batch_norm_param.moving_average_fraction
        for blob, value in zip(self.blobs, (*self._statistics, 1.0), strict=True):
            blob.set_data(blob.data_tensor * fraction + value)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        eps = self.layer_param.batch_norm_param.eps
        if self.use_global_stats:
            total_mean, total_variance, weight = (blob.data_tensor.detach().to(x.dtype) for blob in self.blobs)
            factor = torch.where(weight == 0, 0, 1 / weight)
            mean, variance = total_mean.view(-1) * factor, total_variance.view(-1) * factor
            return F.batch_norm(x, mean, variance, eps=eps)
        mean, variance = x.new_zeros(self.channels), x.new_zeros(self.channels)
        if x.numel() == self.channels:  # one value is its own mean
            self._statistics = x.detach().reshape(-1), variance
            return x - x
        # With momentum 1, torch leaves the batch's mean and unbiased variance in the two.
        y = torch.batch_norm(x, None, None, mean, variance, True, 1.0, eps, True)
        self._statistics = mean, variance
        return y


def covered(
    layer: Layer, param: caffe_pb2.ScaleParameter | caffe_pb2.BiasParameter, bottom: Blob, num_axes: int
) -> tuple[int, ...]:
    """The shape of the `num_axes` axes of `bottom` (-1: all) from the ScaleParameter's or BiasParameter's axis on."""
    axis = 0 if num_axes == 0 else bottom.axis(param.axis)
    layer.check(
        num_axes >= -1, f"num_axes must be non-negative, or -1 to extend to the end of bottom[0]; found {num_axes}"
    )
    layer.check(
        axis + num_axes <= bottom.num_axes,
        f"{layer.type.lower()} blob's shape extends past bottom[0]'s shape when applied starting with "
        f"bottom[0] axis = {axis}: {num_axes} axes, bottom shape {bottom.shape_string()}",
    )
    return bottom.shape[axis:] if num_axes == -1 else bottom.shape[axis : axis + num_axes]


def broadcast_view(
    layer: Layer, param: caffe_pb2.ScaleParameter | caffe_pb2.BiasParameter, bottom: Blob, term: Blob
) -> tuple[int, ...]:
    """The shape in which `term`, a scale or a bias, is broadcast over `bottom`."""
    expected = covered(layer, param, bottom, term.num_axes)
    layer.check(
        term.shape == expected,
        f"dimension mismatch between bottom[0] and {layer.type.lower()}: "
        f"expected {expected}, found {term.shape_string()}",
    )
    axis = bottom.axis(param.axis) if expected else 0
    return (*expected, *(1,) * (bottom.num_axes - axis - len(expected)))


@register("Scale")
class Scale(Layer):
    """The bottom times a scale, broadcast, plus a bias with bias_term.

    Bottoms: x, and optionally the scale, whose axes are x's from `axis` on. With one bottom the scale is a learned
    blob over `num_axes` axes from `axis` on (-1: all the rest), filled with 1 by default.
    Blobs: the scale (one bottom only), then the bias, of the scale's shape.
    """

    bottom_count = (1, 2)
    keeps_top = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.scale_param
        count = (len(bottom) == 1) + param.bias_term
        if len(bottom) == 1 and self.blobs:
            glog.info("scale_layer.cpp:16", "Skipping parameter initialization")
        elif len(bottom) == 1:
            self.blobs.add_blob(*covered(self, param, bottom[0], param.num_axes))
            default = caffe_pb2.FillerParameter(type="constant", value=1)
            fillers.fill(self.blobs[0], param.filler if param.HasField("filler") else default)
        if param.bias_term:  # BVLC makes an inner Bias layer of the same name
            glog.info("layer_factory.hpp:77", f"Creating layer {self.layer_param.name}")
        if param.bias_term and len(self.blobs) < count:
            self.blobs.add_blob(*covered(self, param, bottom[0], self._scale(bottom).num_axes))
            fillers.fill(self.blobs[-1], param.bias_filler)
        self.check(len(self.blobs) == count, f"expected {count} blob(s), found {len(self.blobs)}")

    def _scale(self, bottom: Sequence[Blob]) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.view = broadcast_view(self, self.layer_param.scale_param, bottom[0], self._scale(bottom))
        super().reshape(bottom, top)

    def compute(self, x: torch.Tensor, *scale: torch.Tensor) -> torch.Tensor:
        factors = [*scale, *self.params]
        scaled = x * factors[0].view(self.view)
        return scaled + factors[1].view(self.view) if len(factors) > 1 else scaled


@register("Bias")
class Bias(Layer):
    """The bottom plus a bias, broadcast.

    Bottoms: x, and optionally the bias, whose axes are x's from `axis` on. With one bottom the bias is a learned blob
    over `num_axes` axes from `axis` on (-1: all the rest), filled with 0 by default.
    """

    bottom_count = (1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.bias_param
        if len(bottom) == 1 and self.blobs:
            glog.info("bias_layer.cpp:13", "Skipping parameter initialization")
        elif len(bottom) == 1:
            self.blobs.add_blob(*covered(self, param, bottom[0], param.num_axes))
            fillers.fill(self.blobs[0], param.filler)
        self.check(len(self.blobs) == (len(bottom) == 1), f"expected {int(len(bottom) == 1)} blob(s), "
                                                          f"found {len(self.blobs)}")  # fmt: skip

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        bias = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self.view = broadcast_view(self, self.layer_param.bias_param, bottom[0], bias)
        super().reshape(bottom, top)

    def compute(self, x: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        return x + [*bias, *self.params][0].view(self.view)


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
        rows = x.reshape(shape[0] if param.across_channels else shape[0] * shape[1], -1)
        return _MeanVariance.apply(rows, param.eps if param.normalize_variance else None).view(shape)
