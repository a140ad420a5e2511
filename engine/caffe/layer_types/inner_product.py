"""InnerProduct: the fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe import fillers, glog, precision
from caffe.blob import Blob
from caffe.layer import Layer, register


@register("InnerProduct")
class InnerProduct(Layer):
    """Y = X W^T + b, the axes from `axis` on taken together as one of length K.

    Bottom: (leading axes, K values in all). Top: (leading axes, num_output).
    Blobs: the weight (num_output, K), or (K, num_output) with `transpose`, and, with bias_term, the bias (num_output,).
    """

    keeps_top = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.inner_product_param
        self.axis = bottom[0].axis(param.axis)
        self.outputs = param.num_output
        self.inputs = math.prod(bottom[0].shape[self.axis :])
        self.check(self.outputs > 0, f"num_output must be above 0; found {self.outputs}")
        weight = (self.inputs, self.outputs) if param.transpose else (self.outputs, self.inputs)
        shapes = [weight, (self.outputs,)][: 1 + param.bias_term]
        if self.blobs:
            glog.info("inner_product_layer.cpp:24", "Skipping parameter initialization")
        else:
            for shape, filler in zip(shapes, (param.weight_filler, param.bias_filler), strict=False):
                self.blobs.add_blob(*shape)
                fillers.fill(self.blobs[-1], filler)
        self.check(len(self.blobs) == len(shapes), f"expected {len(shapes)} blobs, found {len(self.blobs)}")
        for shape, blob in zip(shapes, self.blobs, strict=True):
            self.check(blob.count == math.prod(shape), f"expected a blob of shape {shape}, found {blob.shape_string()}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        found = math.prod(bottom[0].shape[self.axis :])
        self.check(
            found == self.inputs,
            f"Input size incompatible with inner product parameters: expected {self.inputs} values from axis "
            f"{self.axis} on, found {found} (bottom shape {bottom[0].shape_string()})",
        )
        top[0].reshape(*bottom[0].shape[: self.axis], self.outputs)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        weight, *bias = self.params
        if self.layer_param.inner_product_param.transpose:
            weight = weight.view(self.inputs, self.outputs).t()
        else:
            weight = weight.view(self.outputs, self.inputs)
        return F.linear(x.reshape(*x.shape[: self.axis], self.inputs), weight, bias[0].view(-1) if bias else None)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Autograd's gradient; but that of the weight, most of AlexNet's memory, is added to its diff directly."""
        if precision.current() == "bf16":
            super().backward(top, propagate_down, bottom)
            return
        x, dy = bottom[0].data_tensor.view(-1, self.inputs), top[0].diff_tensor.view(-1, self.outputs)
        transpose = self.layer_param.inner_product_param.transpose
        wanted = [*self.param_propagate_down, True, True]
        if wanted[0]:
            self.blobs[0].add_diff_product(*((x.t(), dy) if transpose else (dy.t(), x)))
        if len(self.blobs) > 1 and wanted[1]:
            self.blobs[1].add_diff(dy.sum(0))
        if propagate_down[0]:
            weight = self.blobs[0].data_tensor.view(*((self.inputs, -1) if transpose else (-1, self.inputs)))
            torch.mm(dy, weight.t() if transpose else weight, out=bottom[0].diff_to_overwrite().view(x.shape))
            bottom[0].diff_memory.written()
