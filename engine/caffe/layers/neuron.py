"""Layers that act on each value alone: one bottom, one top of the same shape, in place if asked."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from caffe.layer import Layer, register


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
