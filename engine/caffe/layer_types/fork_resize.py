"""Layers of the segmentation networks' forks: Interp (DeepLab, PSPNet) and Upsample (SegNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from caffe import value_checks
from caffe.blob import Blob
from caffe.layer import Layer, register


@register("Interp")
class Interp(Layer):
    """The image (N, C, H, W) made larger or smaller, bilinearly, corner pixels on corner pixels.

    Its size: `height` and `width`, or shrink_factor, zoom_factor, or the first and then the second. pad_beg and
    pad_end, 0 or below, first cut rows and columns off.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.interp_param
        self.check(
            param.pad_beg <= 0 and param.pad_end <= 0,
            f"Only supports non-pos padding (cropping) for now; found pad_beg {param.pad_beg}, pad_end {param.pad_end}",
        )
        for name in ("shrink_factor", "zoom_factor", "height", "width"):
            value = getattr(param, name)
            self.check(not param.HasField(name) or value >= 1, f"{name} must be positive; found {value}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.interp_param
        self.check(bottom[0].num_axes == 4, f"the bottom must have 4 axes; found {bottom[0].shape_string()}")
        sizes = [size + param.pad_beg + param.pad_end for size in bottom[0].shape[2:]]
        self.check(min(sizes) > 0, f"pad_beg and pad_end leave nothing of {bottom[0].shape_string()}")
        shrink, zoom = param.HasField("shrink_factor"), param.HasField("zoom_factor")
        exact = param.HasField("height") and param.HasField("width")
        self.check(
            shrink or zoom or exact, "expected shrink_factor, zoom_factor, or both height and width; found none of them"
        )
        if exact and shrink == zoom:
            sizes = [param.height, param.width]
        else:
            if shrink:
                sizes = [(size - 1) // param.shrink_factor + 1 for size in sizes]
            if zoom:
                sizes = [size + (size - 1) * (param.zoom_factor - 1) for size in sizes]
        self.size = sizes
        top[0].reshape(*bottom[0].shape[:2], *sizes)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.interp_param
        start, (height, width) = -param.pad_beg, x.shape[2:]
        x = x[:, :, start : height + param.pad_end, start : width + param.pad_end]
        return F.interpolate(x, size=self.size, mode="bilinear", align_corners=True)


@register("Upsample")
class Upsample(Layer):
    """Values put where a Pooling layer's mask says they came from, 0 elsewhere (SegNet, arXiv:1511.00561).

    bottom[0]: values (N, C, H, W). bottom[1]: the mask of that shape, places in the top's planes, receives 0. The top
    is (upsample_h, upsample_w), or scale (scale_h, scale_w) times the bottom, less pad_out_h and pad_out_w (true is 1).
    Where two values go to one place, the last one stays, and both receive its gradient, as in SegNet's fork.
    """

    bottom_count = (2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.upsample_param
        given = [param.HasField(name) for name in ("upsample_h", "upsample_w")]
        self.check(all(given) or not any(given), "give both upsample_h and upsample_w, or neither")
        both = [param.HasField(name) for name in ("scale_h", "scale_w")]
        self.check(all(both) or not any(both), "give both scale_h and scale_w, or neither")
        self.check(not (any(both) and param.HasField("scale")), "give scale, or scale_h and scale_w; not both")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.upsample_param, bottom[0].shape
        self.check(len(shape) == 4, f"the bottom must have 4 axes; found {bottom[0].shape_string()}")
        self.check(
            bottom[1].shape == shape,
            f"the mask must be of the values' shape {bottom[0].shape_string()}; found {bottom[1].shape_string()}",
        )
        if param.HasField("upsample_h"):
            size = (param.upsample_h, param.upsample_w)
        else:
            by_h = param.scale_h if param.HasField("scale_h") else param.scale
            by_w = param.scale_w if param.HasField("scale_w") else param.scale
            size = (shape[2] * by_h - param.pad_out_h, shape[3] * by_w - param.pad_out_w)
        self.check(min(size) > 0, f"the top would be {size[0]} x {size[1]}")
        top[0].reshape(*shape[:2], *size)
        self.size = size

    def compute(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count = self.size[0] * self.size[1]
        index = mask.detach().long().flatten(2)
        value_checks.check(self, (index < 0) | (index >= count), index, lambda _, value: (
            "upsample top index out of range - check scale settings match input pooling layer's downsample setup: "
            f"found {value:g}, expected 0 to {count - 1}"
        ))  # fmt: skip
        planes = _Placed.apply(x.flatten(2), index.clamp(0, count - 1), count)
        return planes.view(*x.shape[:2], *self.size)


class _Placed(torch.autograd.Function):
    """Values (N, C, P) at their places `index` (N, C, P) in planes of `count` values, 0 elsewhere: (N, C, count).

    Of several values for one place the last one stays. CUDA's scatter writes any of them, so each place takes its
    value: which one that is, the largest number among them, comes out alike in any order. All receive the gradient.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
        ctx.save_for_backward(index)
        numbers = torch.arange(values.shape[2], device=values.device).expand_as(index)
        last = index.new_full((*values.shape[:2], count), -1).scatter_reduce_(2, index, numbers, "amax")
        return values.gather(2, last.clamp(min=0)).masked_fill_(last < 0, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.gather(2, index), None, None
