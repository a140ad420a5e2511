"""Convolution and its kin: filters over any number of spatial axes, and Im2col, what they see."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from caffe import device, fillers, glog, precision
from caffe.blob import Blob
from caffe.cpu.convolution import Convolve
from caffe.cpu.geometry import Geometry
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2


def _taps(
    kernel: Sequence[int], sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[Any, Any]]:
    """(index into the weight's kernel axes, index of the values a tap meets at all of `sizes` positions)."""
    for tap in itertools.product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        steps = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, sizes, stride, strict=True)]
        yield (..., *tap), (..., *steps)


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    group: int,
) -> torch.Tensor:
    """torch's convNd over any number of axes, as a loop over the taps of the filter."""
    x = F.pad(x, [side for each in reversed(pad) for side in (each, each)])
    kernel = weight.shape[2:]
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    x, weight = x.unflatten(1, (group, -1)), weight.unflatten(0, (group, -1))
    taps = _taps(kernel, sizes, stride, dilation)
    products = (torch.einsum("ngc...,goc->ngo...", x[values], weight[tap]) for tap, values in taps)
    y = sum(products, start=x.new_zeros(())).flatten(1, 2)
    return y if bias is None else y + bias.view(-1, *(1,) * len(kernel))


def deconvolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    pad: Sequence[int],
    _: int,
    group: int,
    dilation: Sequence[int],
) -> torch.Tensor:
    """torch's conv_transposeNd over any number of axes, as a loop over the taps of the filter."""
    kernel, sizes = weight.shape[2:], x.shape[2:]
    extents = [s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)]
    y = x.new_zeros(len(x), group, weight.shape[1], *extents)
    x, weight = x.unflatten(1, (group, -1)), weight.unflatten(0, (group, -1))
    for tap, values in _taps(kernel, sizes, stride, dilation):
        y[values] += torch.einsum("ngc...,gco->ngo...", x, weight[tap])
    unpadded: tuple[Any, ...] = (..., *(slice(p, n - p) for p, n in zip(pad, extents, strict=True)))
    y = y.flatten(1, 2)[unpadded]
    return y if bias is None else y + bias.view(-1, *(1,) * len(kernel))


CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def per_axis(
    layer: Layer, param: caffe_pb2.ConvolutionParameter, name: str, axes: int, default: int | None
) -> list[int]:
    """One value a spatial axis of the ConvolutionParameter field `name`: given once, once an axis, or as NAME_h and
    NAME_w. Raises ValueError, in BVLC's words, for anything else; `default` None: it must be given."""
    field = "kernel_size" if name == "kernel" else name
    values = list(getattr(param, field))
    if name != "dilation" and (param.HasField(f"{name}_h") or param.HasField(f"{name}_w")):
        layer.check(axes == 2, f"{name}_h & {name}_w can only be used for 2D convolution; found {axes} spatial axes.")
        layer.check(not values, f"Either {field} or {name}_h/w should be specified; not both.")
        return [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
    layer.check(
        len(values) in ((1, axes) if default is None else (0, 1, axes)),
        f"{field} must be specified once, or once per spatial dimension "
        f"({field} specified {len(values)} times; {axes} spatial dims).",
    )
    if not values:
        return [] if default is None else [default] * axes
    return values * axes if len(values) == 1 else values


@register("Convolution")
class Convolution(Layer):
    """Each top is its bottom convolved with the same filters, plus a bias.

    Bottoms: (..., channels, spatial axes), `axis` saying where the channels are; all of one shape.
    Tops: (..., num_output, spatial axes), (size + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1 each, rounded down.
    Blobs: the weight (num_output, channels / group, kernel axes) and, with bias_term, the bias (num_output,).
    """

    bottom_count = (1, None)
    top_count = (1, None)
    same_count = True
    keeps_top = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.convolution_param
        self.axis = bottom[0].axis(param.axis)
        self.spatial = bottom[0].num_axes - self.axis - 1
        self.kernel = per_axis(self, param, "kernel", self.spatial, None)
        self.stride = per_axis(self, param, "stride", self.spatial, 1)
        self.pad = per_axis(self, param, "pad", self.spatial, 0)
        self.dilation = per_axis(self, param, "dilation", self.spatial, 1)
        self.check(min(self.kernel, default=1) > 0, f"Filter dimensions must be nonzero; found {self.kernel}.")
        self.check(min(self.stride, default=1) > 0, f"Stride dimensions must be nonzero; found {self.stride}.")
        self.check(min(self.dilation, default=1) > 0, f"Dilation must be nonzero; found {self.dilation}.")
        self.channels = bottom[0].shape[self.axis]
        self.group, outputs = param.group, param.num_output
        self.check(outputs > 0, f"num_output must be above 0; found {outputs}")
        self.check(
            self.group > 0 and self.channels % self.group == 0,
            f"Number of channels should be multiples of group; found {self.channels} channels, group {self.group}.",
        )
        self.check(
            outputs % self.group == 0,
            f"Number of output should be multiples of group; found num_output {outputs}, group {self.group}.",
        )
        self._make_blobs(param, self._weight_shape())

    def _weight_shape(self) -> tuple[int, ...]:
        outputs = self.layer_param.convolution_param.num_output
        return (outputs, self.channels // self.group, *self.kernel)

    def _make_blobs(self, param: caffe_pb2.ConvolutionParameter, weight_shape: tuple[int, ...]) -> None:
        shapes = [("weight", weight_shape), ("bias", (param.num_output,))][: 1 + param.bias_term]
        if not self.blobs:
            for (_, shape), filler in zip(shapes, (param.weight_filler, param.bias_filler), strict=False):
                self.blobs.add_blob(*shape)
                fillers.fill(self.blobs[-1], filler)
            return
        self.check(
            len(self.blobs) == len(shapes),
            f"Incorrect number of weight blobs: expected {len(shapes)}, found {len(self.blobs)}.",
        )
        for (name, shape), blob in zip(shapes, self.blobs, strict=True):
            self.check(
                blob.shape == shape,
                f"Incorrect {name} shape: expected shape {Blob(shape).shape_string()}; "
                f"instead, shape was {blob.shape_string()}",
            )
        glog.info("base_conv_layer.cpp:157", "Skipping parameter initialization")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        first = bottom[0]
        expected = self.axis + 1 + self.spatial
        self.check(first.num_axes == expected, f"bottom num_axes may not change: expected {expected}, "
                                               f"found shape {first.shape_string()}")  # fmt: skip
        self.check(first.shape[self.axis] == self.channels,
                   f"Input size incompatible with convolution kernel: expected {self.channels} channels, "
                   f"found shape {first.shape_string()}")  # fmt: skip
        for index, blob in enumerate(bottom):
            self.check(blob.shape == first.shape, f"shape mismatch - bottom[0]: {first.shape_string()} vs. "
                                                  f"bottom[{index}]: {blob.shape_string()}")  # fmt: skip
        self.sizes = self._sizes(first)
        for blob in top:
            blob.reshape(*first.shape[: self.axis], self.layer_param.convolution_param.num_output, *self.sizes)
        self.reuses_output_buffers = self._of_images()

    def _of_images(self) -> bool:
        """Whether this is a convolution of images in float32 on a CPU, which has an order of work of its own."""
        plain = self.axis == 1 and self.spatial == 2 and precision.current() == "float32"
        return plain and device.current().type == "cpu"

    def _sizes(self, first: Blob) -> list[int]:
        """The tops' spatial sizes."""
        sizes = []
        for size, kernel, stride, pad, dilation in zip(
            first.shape[self.axis + 1 :], self.kernel, self.stride, self.pad, self.dilation, strict=True
        ):
            room = size + 2 * pad - (dilation * (kernel - 1) + 1)
            self.check(room >= 0, f"the filter does not fit into its input: expected at least "
                                  f"{dilation * (kernel - 1) + 1} values along each axis with the padding, "
                                  f"found {size + 2 * pad} (bottom shape {first.shape_string()})")  # fmt: skip
            sizes.append(room // stride + 1)
        return sizes

    def compute(self, *bottoms: torch.Tensor) -> list[torch.Tensor]:
        return [self._convolve(x, *self.params) for x in bottoms]

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        lead = x.shape[: self.axis]
        if self.reuses_output_buffers:
            geometry = Geometry(self.kernel, self.stride, self.pad, self.dilation, self.group, self.sizes)
            return Convolve.apply(x, weight, bias, geometry, self.new_output)
        if self.axis == 1 and self.spatial:
            return CONVOLUTIONS.get(self.spatial, convolve)(
                x, weight, bias, self.stride, self.pad, self.dilation, self.group
            )
        if self.spatial == 0:  # one position
            one = F.conv1d(x.reshape(math.prod(lead), self.channels, 1), weight.unsqueeze(-1), bias, groups=self.group)
            return one.reshape(*lead, one.shape[1])
        x = x.reshape(math.prod(lead), *x.shape[self.axis :])
        y = CONVOLUTIONS.get(self.spatial, convolve)(x, weight, bias, self.stride, self.pad, self.dilation, self.group)
        return y.reshape(*lead, *y.shape[1:])


@register("Deconvolution")
class Deconvolution(Convolution):
    """Convolution the other way: each bottom value spreads a filter over its top (Convolution's backward).

    Tops: (..., num_output, spatial axes), stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad each.
    Blobs: the weight (channels, num_output / group, kernel axes) and, with bias_term, the bias (num_output,).
    """

    def _of_images(self) -> bool:
        return False

    def _weight_shape(self) -> tuple[int, ...]:
        outputs = self.layer_param.convolution_param.num_output
        return (self.channels, outputs // self.group, *self.kernel)

    def _sizes(self, first: Blob) -> list[int]:
        sizes = []
        for size, kernel, stride, pad, dilation in zip(
            first.shape[self.axis + 1 :], self.kernel, self.stride, self.pad, self.dilation, strict=True
        ):
            sizes.append(stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad)
            self.check(sizes[-1] > 0, f"the padding {self.pad} leaves no value of the top of bottom "
                                      f"{first.shape_string()}: expected sizes above 0, found {sizes[-1]}")  # fmt: skip
        return sizes

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        lead = x.shape[: self.axis]
        x = x.reshape(math.prod(lead), *x.shape[self.axis :])
        if self.spatial == 0:  # one position
            one = F.conv_transpose1d(x.unsqueeze(-1), weight.unsqueeze(-1), bias, groups=self.group)
            return one.reshape(*lead, one.shape[1])
        y = TRANSPOSED.get(self.spatial, deconvolve)(
            x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation
        )
        return y.reshape(*lead, *y.shape[1:])


@register("Im2col")
class Im2col(Layer):
    """The values that each position of a convolution's filter sees, as channels: what Convolution multiplies.

    Bottom: (..., channels, 1 or more spatial axes), `axis` (of convolution_param, as all fields) saying where the
    channels are. Top: (..., channels * kernel values, spatial axes), of Convolution's sizes.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.convolution_param
        self.axis = bottom[0].axis(param.axis)
        axes = bottom[0].num_axes - self.axis - 1
        self.check(axes >= 1, f"expected 1 spatial axis or more after axis {self.axis}; "
                              f"found bottom shape {bottom[0].shape_string()}")  # fmt: skip
        self.kernel = per_axis(self, param, "kernel", axes, None)
        self.stride = per_axis(self, param, "stride", axes, 1)
        self.pad = per_axis(self, param, "pad", axes, 0)
        self.dilation = per_axis(self, param, "dilation", axes, 1)
        for name, values in (("Filter", self.kernel), ("Stride", self.stride), ("Dilation", self.dilation)):
            self.check(min(values) > 0, f"{name} dimensions must be nonzero; found {values}.")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        self.check(len(shape) == self.axis + 1 + len(self.kernel),
                   f"bottom num_axes may not change; found shape {bottom[0].shape_string()}")  # fmt: skip
        self.extent = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        spatial = shape[self.axis + 1 :]
        self.sizes = [
            (size + 2 * pad - extent) // stride + 1
            for size, pad, extent, stride in zip(spatial, self.pad, self.extent, self.stride, strict=True)
        ]
        self.check(min(self.sizes) > 0, f"the filter does not fit into its input: it spans {self.extent}, "
                                   f"found bottom shape {bottom[0].shape_string()} and pad {self.pad}")  # fmt: skip
        top[0].reshape(*shape[: self.axis], shape[self.axis] * math.prod(self.kernel), *self.sizes)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        first, axes = self.axis + 1, len(self.kernel)
        if axes == 2:
            maps = x.reshape(-1, *x.shape[self.axis :])
            window = (tuple(each) for each in (self.kernel, self.dilation, self.pad, self.stride))
            columns = F.unfold(maps, *window)
            return columns.view(*x.shape[: self.axis], columns.shape[1], *self.sizes)
        windows = F.pad(x, [side for pad in reversed(self.pad) for side in (pad, pad)])
        for axis, (extent, stride, dilation) in enumerate(zip(self.extent, self.stride, self.dilation, strict=True)):
            windows = windows.unfold(first + axis, extent, stride)[..., ::dilation]
        # (..., channels, positions, taps) to (..., channels, taps, positions)
        taps, positions = range(first + axes, first + 2 * axes), range(first, first + axes)
        windows = windows.permute(*range(first), *taps, *positions)
        return windows.reshape(*x.shape[: self.axis], -1, *windows.shape[first + axes :])
