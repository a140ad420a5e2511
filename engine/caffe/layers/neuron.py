"""Layers that act on each value alone: one bottom, one top of the same shape, in place if asked."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import caffe.device
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2


@register("ReLU")
class ReLU(Layer):
    """max(0, x) + negative_slope * min(0, x)."""

    def compute(self, x):
        slope = self.layer_param.relu_param.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)


@register("Sigmoid")
class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    def compute(self, x):
        return torch.sigmoid(x)


@register("TanH")
class TanH(Layer):
    """tanh(x)."""

    def compute(self, x):
        return torch.tanh(x)


@register("Power")
class Power(Layer):
    """(shift + scale * x) ^ power.

    The gradient is the derivative everywhere; BVLC divides by the base, which gives NaN where the base is 0.
    """

    def compute(self, x):
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

    def setup(self, bottom, top):
        ratio = self.layer_param.dropout_param.dropout_ratio
        self.check(0 <= ratio < 1, f"dropout_ratio must be at least 0 and below 1; found {ratio:g}")

    def compute(self, x):
        if self.phase != caffe_pb2.TRAIN:
            return x
        keep = 1 - self.layer_param.dropout_param.dropout_ratio
        mask = torch.empty_like(x, requires_grad=False).bernoulli_(keep, generator=caffe.device.generator(x.device))
        return x * mask.div_(keep)
