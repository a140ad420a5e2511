"""Layers that hand out their blobs: Parameter and Embed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe import fillers, glog, value_checks
from caffe.blob import Blob
from caffe.layer import Layer, register


@register("Parameter")
class Parameter(Layer):
    """A learned blob of shape `shape`, zeros at first, as a top: their data and diff are the same memory.

    As in BVLC the layers above write the blob's diff, not add to it, so that iter_size above 1 uses the last batch.
    """

    bottom_count = (0, 0)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self.blobs:
            glog.info("parameter_layer.hpp:18", "Skipping parameter initialization")
        else:
            self.blobs.add_blob(*self.layer_param.parameter_param.shape.dim)
        top[0].reshape(*self.layer_param.parameter_param.shape.dim)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """The shape is the prototxt's."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].share_data(self.blobs[0])
        top[0].share_diff(self.blobs[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """The top's diff is the blob's already."""


@register("Embed")
class Embed(Layer):
    """For each index the row of a learned table, plus a bias: InnerProduct of one-hot vectors, without making them.

    Bottom: indices, any shape, 0 to input_dim - 1. Top: that shape with num_output values each.
    Blobs: the table (input_dim, num_output) and, with bias_term, the bias (num_output,).
    """

    no_gradient = (0,)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.embed_param
        self.check(param.num_output > 0, f"EmbedLayer num_output must be positive; found {param.num_output}.")
        self.check(param.input_dim > 0, f"EmbedLayer input_dim must be positive; found {param.input_dim}.")
        shapes = [(param.input_dim, param.num_output), (param.num_output,)][: 1 + param.bias_term]
        if self.blobs:
            glog.info("embed_layer.cpp:19", "Skipping parameter initialization")
        else:
            for shape, filler in zip(shapes, (param.weight_filler, param.bias_filler), strict=False):
                self.blobs.add_blob(*shape)
                fillers.fill(self.blobs[-1], filler)
        found = [blob.shape for blob in self.blobs]
        self.check(found == shapes, f"expected blobs of shapes {shapes}, found {found}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape(*bottom[0].shape, self.layer_param.embed_param.num_output)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        index, rows = x.detach().long(), self.layer_param.embed_param.input_dim
        wrong = (index < 0) | (index >= rows)
        value_checks.check(self, wrong, x, lambda place, value: (
            f"value {place} of the bottom is no row of the table: expected 0 to {rows - 1} (input_dim {rows}), "
            f"found {value:g}"))  # fmt: skip
        table, *bias = self.params
        found = F.embedding(index.clamp(0, rows - 1), table)
        return found + bias[0] if bias else found
