"""Layers that act on each value alone: one bottom, one top of the same shape, in place if asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

import caffe.device
from caffe import fillers, glog
from caffe.blob import Blob
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2


@register("ReLU")
class ReLU(Layer):
    """max(0, x) + negative_slope * min(0, x).

    Without a slope backward needs the top alone, so a layer in place writes over its bottom where the net allows it.
    """

    _output: torch.Tensor | None = None  # of the last forward, for backward

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        slope = self.layer_param.relu_param.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self.layer_param.relu_param.negative_slope:
            super().forward(bottom, top)
            return
        self.forget_forward()
        x = bottom[0].data_tensor.data
        y = torch.relu_(x) if self.may_overwrite else F.relu(x)
        top[0].set_data(y)
        self._output = y if any(self.propagate_down) else None

    def forget_forward(self) -> None:
        super().forget_forward()
        self._output = None

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self.layer_param.relu_param.negative_slope:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            output = F.relu(bottom[0].data_tensor.detach()) if self._output is None else self._output
            diff = top[0].diff_tensor.data
            down = diff if top[0] is bottom[0] else bottom[0].diff_to_overwrite()
            torch.ops.aten.threshold_backward.grad_input(diff, output, 0, grad_input=down)
            bottom[0].diff_memory.written()


@register("Sigmoid")
class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)


@register("TanH")
class TanH(Layer):
    """tanh(x)."""

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)


@register("Power")
class Power(Layer):
    """(shift + scale * x) ^ power.

    The gradient is the derivative everywhere; BVLC divides by the base, which gives NaN where the base is 0.
    """

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.power_param
        if param.power == 0 or param.scale == 0:  # a constant, whatever x is
            return torch.full_like(x, param.shift).pow(param.power)
        base = x * param.scale if param.scale != 1 else x
        base = base + param.shift if param.shift != 0 else base
        return base.pow(param.power) if param.power != 1 else base


@register("Dropout")
class Dropout(Layer):
    """TRAIN: each value is dropped with probability dropout_ratio, the others are divided by 1 - dropout_ratio.
    TEST: the values pass."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        ratio = self.layer_param.dropout_param.dropout_ratio
        self.check(0 <= ratio < 1, f"dropout_ratio must be at least 0 and below 1; found {ratio:g}")

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        if self.phase != caffe_pb2.TRAIN:
            return x
        keep = 1 - self.layer_param.dropout_param.dropout_ratio
        mask = torch.empty_like(x, requires_grad=False).bernoulli_(keep, generator=caffe.device.generator(x.device))
        return x * mask.div_(keep)


@register("AbsVal")
class AbsVal(Layer):
    """|x|. Not in place."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(top[0] is not bottom[0], "AbsVal Layer does not allow in-place computation.")

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


@register("BNLL")
class BNLL(Layer):
    """log(1 + exp(x)), for large x too (binomial normal log likelihood)."""

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return F.softplus(x)


@register("Clip")
class Clip(Layer):
    """x, but at least `min` and at most `max`; the bounds themselves pass a gradient."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for name in ("min", "max"):
            given = self.layer_param.clip_param.HasField(name)
            self.check(given, f"missing required field clip_param.{name}: Clip needs both bounds")

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(self.layer_param.clip_param.min, self.layer_param.clip_param.max)


@register("ELU")
class ELU(Layer):
    """x where it is above 0, alpha * (exp(x) - 1) elsewhere (Clevert et al. 2015)."""

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x, self.layer_param.elu_param.alpha)


@register("Swish")
class Swish(Layer):
    """x * sigmoid(beta * x) (Ramachandran et al. 2017)."""

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.layer_param.swish_param.beta * x)


def _log_base(layer: Layer, base: float) -> float:
    """The natural logarithm of a `base` field, in which -1 stands for e."""
    layer.check(base == -1 or base > 0, f"base must be strictly positive, or -1 for e; found {base:g}.")
    layer.check(math.isfinite(base), f"Inf result: log(base); expected a base below infinity, found {base:g}.")
    return 1.0 if base == -1 else math.log(base)


@register("Exp")
class Exp(Layer):
    """base ^ (shift + scale * x); base -1, the default, is e."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.log_base = _log_base(self, self.layer_param.exp_param.base)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.exp_param
        scale, shift = param.scale * self.log_base, param.shift * self.log_base
        x = x * scale if scale != 1 else x
        return (x + shift if shift != 0 else x).exp()


@register("Log")
class Log(Layer):
    """The logarithm of shift + scale * x to the base `base`; -1, the default, is e."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.log_base = _log_base(self, self.layer_param.log_param.base)
        self.check(self.log_base != 0, "inf result: 1/log(base); expected a base other than 1")

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.log_param
        x = x * param.scale if param.scale != 1 else x
        x = x + param.shift if param.shift != 0 else x
        return x.log() / self.log_base if self.log_base != 1 else x.log()


@register("PReLU")
class PReLU(Layer):
    """x where it is above 0, elsewhere x times a learned slope (He et al. 2015).

    Bottom: (N, C, ...). Blob: the slopes (C,), or one for all, of no axes, with channel_shared; filled with 0.25
    by default.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._check_axes(bottom)
        param = self.layer_param.prelu_param
        shape = () if param.channel_shared else bottom[0].shape[1:2]
        if self.blobs:
            glog.info("prelu_layer.cpp:20", "Skipping parameter initialization")
        else:
            self.blobs.add_blob(*shape)
            default = caffe_pb2.FillerParameter(type="constant", value=0.25)
            fillers.fill(self.blobs[0], param.filler if param.HasField("filler") else default)
        self.check(
            self.blobs[0].count == math.prod(shape),
            f"Negative slope size is inconsistent with prototxt config: expected {math.prod(shape)} values, "
            f"found {self.blobs[0].shape_string()}",
        )

    def _check_axes(self, bottom: Sequence[Blob]) -> None:
        self.check(
            bottom[0].num_axes >= 2, f"Number of axes of bottom blob must be >=2; found {bottom[0].shape_string()}."
        )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._check_axes(bottom)
        self.check(
            self.blobs[0].count in (1, bottom[0].shape[1]),
            f"expected {self.blobs[0].count} channels, one for each slope; found shape {bottom[0].shape_string()}",
        )
        super().reshape(bottom, top)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        slope = self.params[0].reshape(-1, *(1,) * (x.ndim - 2))
        return torch.where(x > 0, x, x * slope)


@register("Threshold")
class Threshold(Layer):
    """1 where x is above `threshold`, 0 elsewhere. Without gradient."""

    no_gradient = (0,)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return (x > self.layer_param.threshold_param.threshold).to(x.dtype)
