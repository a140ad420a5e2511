"""Pooling: the maximum, the mean or a random value of each window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

import caffe.device
from caffe.blob import Blob
from caffe.cpu import kernels
from caffe.cpu.parts import by_parts, parts
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2

MAX, AVE, STOCHASTIC = (caffe_pb2.PoolingParameter.PoolMethod.Value(name) for name in ("MAX", "AVE", "STOCHASTIC"))
FLOOR = caffe_pb2.PoolingParameter.RoundMode.Value("FLOOR")


class _MaxPool(torch.autograd.Function):
    """torch's max_pool2d with indices. On a CPU they are int32, not int64, and it is several times faster: torch's own
    works on many values at once only where the channels are innermost, so they are put there, a part of the batch at a
    time. On a GPU torch writes values and indices where they are wanted."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        layer: Layer,
        pooled: Sequence[int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pad: tuple[int, ...],
        ceil: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def pool(values: torch.Tensor, index: torch.Tensor, x: torch.Tensor) -> None:
            x = x.contiguous(memory_format=torch.channels_last)
            maxima, where = F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, return_indices=True)
            values.copy_(maxima)
            index.copy_(where.int())

        shape = (*x.shape[:2], *pooled)
        values = layer.new_output(x, shape)
        index = x.new_empty(shape, dtype=torch.int64 if x.is_cuda else torch.int32)
        if x.is_cuda:
            torch.ops.aten.max_pool2d_with_indices.out(x, kernel, stride, pad, (1, 1), ceil, out=values, indices=index)
        elif _fits(x, pad, kernel, stride):
            sizes = (*x.shape[2:], *pooled, *kernel, *stride, *pad)
            kernels.run("max_pool", values, index, x, x.shape[:2].numel(), *sizes)
        else:
            by_parts(pool, (values, index), x)
        ctx.save_for_backward(x, index)
        ctx.new_output, ctx.window = layer.new_output, (kernel, stride, pad, (1, 1), ceil)
        ctx.mark_non_differentiable(index)
        return values, index

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, index = ctx.saved_tensors

        dx = ctx.new_output(x, x.shape)
        if kernels.usable(x, dy):
            kernels.run(
                "max_pool_gradient", dx, dy, index, x.shape[:2].numel(), x.shape[2:].numel(), dy.shape[2:].numel()
            )
            return dx, None, None, None, None, None, None
        if x.is_cuda and caffe.device.deterministic():
            _add_by_offset(dx, dy, index, *ctx.window[:3])
            return dx, None, None, None, None, None, None
        for part in parts(x):
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                dy[part], x[part], *ctx.window, index[part].long(), grad_input=dx[part]
            )
        return dx, None, None, None, None, None, None


def _fits(x: torch.Tensor, pad: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the kernels are made for the windows of x."""
    return kernels.usable(x) and x.shape[3] + pad[1] + kernel[1] + stride[1] <= kernels.WIDEST


def _add_by_offset(
    dx: torch.Tensor,
    dy: torch.Tensor,
    index: torch.Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
) -> None:
    """Max pooling's gradient in an order that is always the same: one place of the windows after the other.

    Windows overlap, so that a value may be the maximum of several, and CUDA's kernel may add their gradients in any
    order. The values at one place of all windows, the top left ones, say, are all different. dx: (N, C, H, W), to be
    overwritten; dy, index: (N, C, pooled H, pooled W), the index y * W + x of each maximum.
    """
    height, width = dx.shape[2:]
    rows, columns = index.div(width, rounding_mode="floor"), index % width
    lengths = [(count - 1) * step + size for count, step, size in zip(dy.shape[2:], stride, kernel, strict=True)]
    windows = dx.new_zeros(*dx.shape[:2], *lengths)  # dx, the padding before it and what windows reach beyond it
    y, x = (torch.arange(count, device=dx.device) * step - before
            for count, step, before in zip(dy.shape[2:], stride, pad, strict=True))  # fmt: skip
    for i, j in itertools.product(*map(range, kernel)):
        source = (rows == (y + i)[:, None]) & (columns == x + j)
        windows[
            :, :, i : i + lengths[0] - kernel[0] + 1 : stride[0], j : j + lengths[1] - kernel[1] + 1 : stride[1]
        ] += dy.where(source, 0)
    covered = windows[:, :, pad[0] : pad[0] + height, pad[1] : pad[1] + width]
    dx.zero_()
    dx[:, :, : covered.shape[2], : covered.shape[3]] = covered


@register("Pooling")
class Pooling(Layer):
    """Each top value is one of, or the mean of, a window of the bottom.

    Bottom: (N, C, H, W). Top: (N, C, pooled H, pooled W), (size + 2 pad - kernel) / stride + 1 each, rounded up
    (round_mode CEIL) or down; with padding, a last window that starts outside the image is left out.
    Second top, MAX only: the index y * W + x of each maximum, as float; -1 for a window that holds no value.
    AVE divides by the window's size with the padding it covers. STOCHASTIC (Zeiler and Fergus 2013) draws a value
    in proportion to itself in TRAIN and takes the expectation in TEST.

    A window wholly outside the image (stride above kernel) gives -FLT_MAX for MAX and 0, or 0 / 0, for AVE, as in BVLC.
    STOCHASTIC is BVLC's GPU code; its CPU code has none.
    """

    top_count = (1, 2)
    reuses_output_buffers = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.pooling_param
        has = param.HasField
        sides = has("kernel_h") and has("kernel_w")
        if param.global_pooling:
            self.check(
                not (has("kernel_size") or has("kernel_h") or has("kernel_w")),
                "With Global_pooling: true Filter size cannot specified",
            )
        else:
            fields = ", ".join(name for name in ("kernel_size", "kernel_h", "kernel_w") if has(name)) or "none"
            self.check(
                has("kernel_size") != sides,
                "Filter size is kernel_size OR kernel_h and kernel_w; not both. "
                f"For non-square filters both kernel_h and kernel_w are required; found {fields}.",
            )
        for name in ("pad", "stride"):
            one, either = has(name), has(f"{name}_h") or has(f"{name}_w")
            both = has(f"{name}_h") and has(f"{name}_w")
            self.check(not either or (both and not one), f"{name} is {name} OR {name}_h and {name}_w are required.")
        self.kernel: tuple[int, ...] = (
            (param.kernel_h, param.kernel_w) if sides else (param.kernel_size, param.kernel_size)
        )
        self.pad = (param.pad_h, param.pad_w) if has("pad_h") else (param.pad, param.pad)
        self.stride = (param.stride_h, param.stride_w) if has("stride_h") else (param.stride, param.stride)
        self.check(min(self.stride) > 0, f"Stride dimensions cannot be zero; found {self.stride}.")
        self.check(
            max(*self.kernel, *self.stride, *self.pad) < 1 << 31,
            f"kernel, stride and pad must be below 2^31; found {self.kernel}, {self.stride} and {self.pad}",
        )
        if param.global_pooling:
            self.check(self.pad == (0, 0) and self.stride == (1, 1),
                       "With Global_pooling: true; only pad = 0 and stride = 1; "
                       f"found pad {self.pad} and stride {self.stride}")  # fmt: skip
        else:
            self.check(min(self.kernel) > 0, f"Filter dimensions cannot be zero; found {self.kernel}.")
        if self.pad != (0, 0):
            self.check(param.pool in (MAX, AVE), "Padding implemented only for average and max pooling.")
            self.check(
                all(pad < kernel for pad, kernel in zip(self.pad, self.kernel, strict=True)),
                f"the padding must be smaller than the kernel; found pad {self.pad} and kernel {self.kernel}",
            )
        self.check(
            param.pool == MAX or len(top) == 1,
            f"Pooling Layer produces at most 1 top blob(s) as output, or 2 with pool: MAX; found {len(top)}.",
        )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.pooling_param, bottom[0].shape_string()
        self.check(
            bottom[0].num_axes == 4,
            f"Input must have 4 axes, corresponding to (num, channels, height, width); found {shape}",
        )
        sizes = bottom[0].shape[2:]
        if param.global_pooling:
            self.kernel = sizes
        pooled = []
        for size, kernel, stride, pad in zip(sizes, self.kernel, self.stride, self.pad, strict=True):
            room = size + 2 * pad - kernel
            count = (room // stride if param.round_mode == FLOOR else -(-room // stride)) + 1
            if self.pad != (0, 0) and (count - 1) * stride >= size + pad:
                count -= 1
            self.check(count > 0, f"the kernel {self.kernel} with padding {self.pad} does not fit into {shape}")
            pooled.append(count)
        # How far the last window reaches past the bottom and the padding before it.
        self.beyond = [
            max(0, (count - 1) * stride + kernel - pad - size)
            for count, stride, kernel, pad, size in zip(pooled, self.stride, self.kernel, self.pad, sizes, strict=True)
        ]
        # torch's own rules give the same windows unless one starts outside, or the padding passes half a kernel.
        self.plain = all(
            (count - 1) * stride < size + pad and 2 * pad <= kernel
            for count, stride, size, pad, kernel in zip(pooled, self.stride, sizes, self.pad, self.kernel, strict=True)
        )
        self.pooled = pooled
        self.with_mask = len(top) > 1
        for blob in top:
            blob.reshape(*bottom[0].shape[:2], *pooled)

    def compute(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        pool = self.layer_param.pooling_param.pool
        if pool == MAX:
            return self._max(x)
        return self._average(x) if pool == AVE else self._stochastic(x)

    def _padded(self, x: torch.Tensor, value: float) -> torch.Tensor:
        (top, left), (bottom, right) = self.pad, self.beyond
        return F.pad(x, (left, right, top, bottom), value=value)

    def _max(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        with_mask = self.with_mask
        if self.plain:
            if not (with_mask or x.requires_grad) and _fits(x, self.pad, self.kernel, self.stride):
                values = self.new_output(x, (*x.shape[:2], *self.pooled))
                sizes = (*x.shape[2:], *self.pooled, *self.kernel, *self.stride, *self.pad)
                kernels.run("max_pool_values", values, x, x.shape[:2].numel(), *sizes)
                return values
            ceil = self.layer_param.pooling_param.round_mode != FLOOR
            values, index = _MaxPool.apply(x, self, self.pooled, self.kernel, self.stride, self.pad, ceil)
            return [values, index.to(x.dtype)] if with_mask else values
        padded = self._padded(x, -math.inf)
        if padded.is_cuda:
            values, index = _MaxPool.apply(padded, self, self.pooled, self.kernel, self.stride, (0, 0), False)
        else:
            values, index = F.max_pool2d(padded, self.kernel, self.stride, return_indices=True)
        y = index.div(padded.shape[3], rounding_mode="floor") - self.pad[0]
        mask = y * x.shape[3] + index % padded.shape[3] - self.pad[1]
        empty = values == -math.inf
        values = values.masked_fill(empty, torch.finfo(torch.float32).min)
        return [values, mask.masked_fill(empty, -1).to(x.dtype)] if with_mask else values

    def _average(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain:
            ceil = self.layer_param.pooling_param.round_mode != FLOOR
            return F.avg_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=ceil)
        sums = F.avg_pool2d(self._padded(x, 0.0), self.kernel, self.stride, divisor_override=1)
        lengths = []
        for size, count, kernel, stride, pad in zip(
            x.shape[2:], sums.shape[2:], self.kernel, self.stride, self.pad, strict=True
        ):
            start = torch.arange(count, device=x.device) * stride - pad
            lengths.append((start + kernel).clamp(max=size + pad) - start)
        return sums / (lengths[0][:, None] * lengths[1]).to(x.dtype)

    def _stochastic(self, x: torch.Tensor) -> torch.Tensor:
        shape = [(size - kernel) // stride + 1 for size, kernel, stride in zip(
            self._padded(x, 0.0).shape[2:], self.kernel, self.stride, strict=True)]  # fmt: skip
        windows = F.unfold(self._padded(x, 0.0), self.kernel, stride=self.stride)
        windows = windows.view(*x.shape[:2], math.prod(self.kernel), *shape)
        if self.phase != caffe_pb2.TRAIN:
            return windows.square().sum(2) / (windows.sum(2) + torch.finfo(torch.float32).tiny)
        reached = windows.detach().cumsum(2)
        draw = torch.empty_like(reached[:, :, :1]).uniform_(generator=caffe.device.generator(x.device))
        chosen = (reached >= draw * reached[:, :, -1:]).to(torch.uint8).argmax(2, keepdim=True)
        return windows.gather(2, chosen).squeeze(2)
