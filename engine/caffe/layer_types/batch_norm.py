"""Layers that shift and rescale channel by channel: BatchNorm, Scale, Bias."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe import fillers, glog
from caffe.blob import Blob
from caffe.cpu import kernels
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2

SHORTEST = 8  # values of a channel in an image, from which on kernels.c is faster than torch


def _has_kernels(x: torch.Tensor) -> bool:
    """Whether batch_norm.h is for x (N, C, ...)."""
    return x.ndim > 2 and x.shape[2:].numel() >= SHORTEST and kernels.usable(x)


def _sizes(x: torch.Tensor) -> tuple[int, int, int]:
    return (*x.shape[:2], x.shape[2:].numel())


def _is_like(dy: torch.Tensor, kept: torch.Tensor) -> bool:
    """Whether nobody has reshaped the net, or changed its device, since the forward that `kept` is from."""
    return kernels.usable(dy) and dy.shape == kept.shape


def _output(layer: Layer, x: torch.Tensor, bottom: Blob, top: Blob, keep: bool) -> torch.Tensor:
    """A tensor for the top to be computed in from `x`, the bottom's data, which shall stay where `keep` says so.

    It is x itself of a layer in place where the net allows it, and the memory that the top held before elsewhere.
    """
    if top is bottom:
        memory = bottom.data_memory
        seen = memory.exposed or memory.tensor.numel() != bottom.count  # its values are copied, not taken over
        return x if layer.may_overwrite and not keep and not seen else layer.new_output(x, x.shape)
    memories = [] if top.data_memory is bottom.data_memory else [top.data_memory]
    layer._buffers.take(memories, True)
    return layer.new_output(x, x.shape)


@register("BatchNorm")
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps), channel by channel (Ioffe and Szegedy 2015); Scale does the affine part.

    Bottom and top: (N, C, ...). The statistics are the batch's, or the ones kept, with
    use_global_stats (default: in TEST). Blobs: the kept mean (C,), the kept variance (C,) and their weight (1,): they
    are sums decaying by moving_average_fraction, to be divided by the third. No solver touches them.

    On a CPU backward needs the top and not the bottom, which a layer in place writes over where the net allows it.
    """

    _kept: tuple[torch.Tensor, torch.Tensor] | None = None  # of the last forward, for backward: top, 1 / deviation

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.batch_norm_param
        has_flag = param.HasField("use_global_stats")
        self.use_global_stats = param.use_global_stats if has_flag else self.phase == caffe_pb2.TEST
        self.keeps_top = not self.use_global_stats
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
        x = bottom[0].data_tensor.detach()
        if _has_kernels(x) and x.numel() > self.channels:
            self._normalize(x, bottom[0], top[0])
        else:
            super().forward(bottom, top)
        if self.use_global_stats:
            return
        fraction = self.layer_param.batch_norm_param.moving_average_fraction
        for blob, value in zip(self.blobs, (*self._statistics, 1.0), strict=True):
            blob.set_data(blob.data_tensor * fraction + value)

    def _normalize(self, x: torch.Tensor, bottom: Blob, top: Blob) -> None:
        """forward by kernels.c."""
        self.forget_forward()
        eps = self.layer_param.batch_norm_param.eps
        y = _output(self, x, bottom, top, keep=False)
        if self.use_global_stats:
            mean, variance = self._global_statistics(x.dtype)
            inverse = (variance + eps).rsqrt_()
            kernels.run("scale_channels", y, x, inverse, -mean * inverse, *_sizes(x))
        else:
            mean, variance, inverse = (x.new_empty(self.channels) for _ in range(3))
            kernels.run("batch_norm", y, x, mean, variance, inverse, *_sizes(x), eps)
            self._statistics = mean, variance
        top.set_data(y)
        if any(self.propagate_down):
            self._kept = y, inverse

    def forget_forward(self) -> None:
        super().forget_forward()
        self._kept = None

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        dy = top[0].diff_tensor.detach()
        if self._kept is None or not _is_like(dy, self._kept[0]):
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            y, inverse = self._kept
            dx = dy if top[0] is bottom[0] else bottom[0].diff_to_overwrite()
            if self.use_global_stats:
                kernels.run("scale_channels", dx, dy, inverse, None, *_sizes(dy))
            else:
                sums = dy.new_empty(2, self.channels)
                kernels.run("channel_gradient", dx, sums[0], sums[1], dy, y, inverse, *_sizes(dy), True)
            bottom[0].diff_memory.written()

    def _global_statistics(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The kept mean and variance, (C,) each."""
        mean, variance, weight = (blob.data_tensor.detach().to(dtype).view(-1) for blob in self.blobs)
        factor = torch.where(weight == 0, 0, 1 / weight)
        return mean * factor, variance * factor

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        eps = self.layer_param.batch_norm_param.eps
        if self.use_global_stats:
            return F.batch_norm(x, *self._global_statistics(x.dtype), eps=eps)
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

    _kept: torch.Tensor | None = None  # of the last forward, for backward: the bottom
    _in_place = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._in_place = top[0] is bottom[0]
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

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x = bottom[0].data_tensor.detach()
        if len(bottom) > 1 or self.view != (x.shape[1], *(1,) * (x.ndim - 2)) or not _has_kernels(x):
            super().forward(bottom, top)
            return
        self.forget_forward()
        learning = any(self.propagate_down) or any(self.param_propagate_down)
        memory = bottom[0].data_memory
        if learning and self._in_place and (memory.exposed or memory.tensor.numel() != x.numel()):
            x = x.clone()  # the top will be written over this bottom, which backward still needs
        y = _output(self, x, bottom[0], top[0], keep=learning)
        factor, *bias = (blob.data_tensor.detach() for blob in self.blobs)
        kernels.run("scale_channels", y, x, factor, bias[0] if bias else None, *_sizes(x))
        self._buffers.clear()
        top[0].set_data(y)
        self._kept = x if learning else None

    def forget_forward(self) -> None:
        super().forget_forward()
        if self._kept is not None and self._in_place:
            self._buffers.offer(self._kept)  # BatchNorm, whose top this may be, forgets it too
        self._kept = None

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        dy = top[0].diff_tensor.detach()
        if self._kept is None or not _is_like(dy, self._kept):
            super().backward(top, propagate_down, bottom)
            return
        dx = None
        if propagate_down[0]:
            dx = dy if self._in_place else bottom[0].diff_to_overwrite()
        gradients = [dy.new_empty(dy.shape[1]) for _ in range(2)]
        kernels.run("channel_gradient", dx, *gradients, dy, self._kept, self.blobs[0].data_tensor, *_sizes(dy), False)
        if dx is not None:
            bottom[0].diff_memory.written()
        wanted = [*self.param_propagate_down, True, True]
        for blob, gradient, want in zip(self.blobs, gradients, wanted, strict=False):
            if want:
                blob.add_diff(gradient)

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
