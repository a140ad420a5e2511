"""What a convolution of images is asked to compute, apart from its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

# new_output(like, shape): an uninitialized tensor of that shape, of the type and device of `like`
NewOutput = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


class Geometry(NamedTuple):
    """A convolution of images (N, channels, H, W). Pairs are (vertical, horizontal)."""

    kernel: Sequence[int]
    stride: Sequence[int]
    pad: Sequence[int]
    dilation: Sequence[int]
    group: int
    sizes: Sequence[int]  # of the top: height, width

    @property
    def options(self) -> tuple[Sequence[int], Sequence[int], Sequence[int], int]:
        """stride, padding, dilation and groups, in the order of torch's conv2d."""
        return self.stride, self.pad, self.dilation, self.group


class Wanted(NamedTuple):
    """Which gradients are wanted."""

    bottom: bool
    weight: bool
    bias: bool
