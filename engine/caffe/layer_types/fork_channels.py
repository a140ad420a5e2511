"""Layers of small nets' forks: DepthwiseConvolution (MobileNet) and ShuffleChannel (ShuffleNet)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer import Layer, register
from caffe.layer_types.convolution import Convolution


@register("DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """A Convolution of each channel for itself: `group` is the number of channels (MobileNet, arXiv:1704.04861)."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().setup(bottom, top)
        self.check(
            self.group == self.channels,
            f"group must be the number of the bottom's channels, {self.channels}; found {self.group}",
        )


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """Channel c of group g becomes channel c * group + g (ShuffleNet, arXiv:1707.01083)."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        group = self.layer_param.shuffle_channel_param.group
        self.check(group > 0, "group must be above 0")
        channels = bottom[0].shape[1] if bottom[0].num_axes > 1 else 0
        self.check(
            channels > 0 and channels % group == 0,
            f"Wrong group size: group {group} does not divide the channels of {bottom[0].shape_string()}",
        )

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        group = self.layer_param.shuffle_channel_param.group
        shape = x.shape
        return x.reshape(shape[0], group, shape[1] // group, *shape[2:]).transpose(1, 2).reshape(shape)
