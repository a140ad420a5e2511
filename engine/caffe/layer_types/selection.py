"""Layers that choose, repeat or sum up values: Crop, Tile, BatchReindex, Filter, ArgMax, Reduction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe import value_checks
from caffe.blob import Blob
from caffe.layer import Layer, merged, register
from caffe.proto import caffe_pb2

SUM, ASUM, SUMSQ, MEAN = (
    caffe_pb2.ReductionParameter.ReductionOp.Value(name) for name in ("SUM", "ASUM", "SUMSQ", "MEAN")
)


@register("Crop")
class Crop(Layer):
    """The part of the first bottom that has the second's size, from `axis` on, starting at `offset`.

    offset: none (0), one for all axes from `axis` on, or one for each. The second bottom lends its shape only: its
    gradient is 0.
    """

    bottom_count = (2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.crop_param
        axes = bottom[0].num_axes
        start = bottom[0].axis(param.axis)
        self.check(
            len(param.offset) <= 1 or start + len(param.offset) == axes,
            "number of offset values specified must be equal to the number of dimensions following axis: "
            f"expected {axes - start}, found {len(param.offset)}.",
        )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.crop_param, bottom[0].shape
        start = bottom[0].axis(param.axis)
        self.check(
            bottom[1].num_axes >= len(shape),
            f"expected a second bottom with the axes of the first, {bottom[0].shape_string()}; "
            f"found {bottom[1].shape_string()}",
        )
        offsets = list(param.offset) if len(param.offset) > 1 else [*param.offset, 0][:1] * (len(shape) - start)
        self.windows = []
        for axis, offset in enumerate(offsets, start):
            size = bottom[1].shape[axis]
            self.check(
                shape[axis] - offset >= size,
                f"the crop for dimension {axis} is out-of-bounds with size {size} and offset {offset}: "
                f"the bottom has {bottom[0].shape_string()}",
            )
            self.windows.append((axis, offset, size))
        top[0].reshape(*shape[:start], *(size for _, _, size in self.windows))

    def compute(self, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        for window in self.windows:
            x = x.narrow(*window)
        return x


@register("Tile")
class Tile(Layer):
    """The bottom `tiles` times, one after another along `axis`."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.tile_param, bottom[0].shape
        self.check(param.HasField("tiles"), "Number of tiles must be specified: tile_param { tiles: N }")
        self.check(param.tiles > 0, f"Number of tiles must be positive; found {param.tiles}.")
        self.axis = bottom[0].axis(param.axis)
        top[0].reshape(*shape[: self.axis], shape[self.axis] * param.tiles, *shape[self.axis + 1 :])

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x] * self.layer_param.tile_param.tiles, self.axis)


@register("BatchReindex")
class BatchReindex(Layer):
    """The items of the first bottom that the second names, in its order: each any number of times, or never.

    Bottoms: x (N, ...) and the indices (M,), 0 to N - 1. Top: (M, ...).
    """

    bottom_count = (2, 2)
    no_gradient = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(bottom[1].num_axes == 1, f"expected indices of one axis; found {bottom[1].shape_string()}")
        bottom[0].axis(0)
        top[0].reshape(*bottom[1].shape, *bottom[0].shape[1:])

    def compute(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        last = x.shape[0] - 1
        index = indices.detach().long()
        if index.numel():
            value_checks.check(self, (index < 0) | (index > last), index, lambda _, value: (
                "Index specified for reindex layer was "
                + ("negative" if value < 0 else "greater than batch size")
                + f": expected 0 to {last}, found {value:g}."
            ))  # fmt: skip
        return x.index_select(0, index.clamp(0, last))


@register("Filter")
class Filter(Layer):
    """Of each bottom but the last, the items whose place in the last, the selector, is not 0.

    Bottoms: any number of (N, ...), and the selector (N, 1 ...). Tops: (selected, ...), one for each but the selector.
    Until the first forward they have N items, as in BVLC.
    """

    bottom_count = (2, None)
    top_count = (1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            len(top) == len(bottom) - 1,
            f"expected one top for each bottom but the selector, {len(bottom) - 1}; found {len(top)}",
        )
        self.no_gradient = (len(bottom) - 1,)
        self.reshaped = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        *values, selector = bottom
        self.check(
            all(size == 1 for size in selector.shape[1:]),
            f"Selector blob dimensions must be singletons (1), except the first; found {selector.shape_string()}",
        )
        for index, blob in enumerate(values):
            self.check(
                blob.shape[blob.axis(0)] == selector.shape[selector.axis(0)],
                "Each bottom should have the same 0th dimension as the selector blob: expected "
                f"{selector.shape[0]}, found bottom[{index}] {blob.shape_string()}",
            )
        self.selected = selector.data_tensor.view(-1).nonzero().view(-1)
        count = len(self.selected) if self.reshaped else selector.shape[0]
        self.reshaped = True
        for blob, value in zip(top, values, strict=True):
            blob.reshape(count, *value.shape[1:])

    def compute(self, *bottoms: torch.Tensor) -> list[torch.Tensor]:
        return [x.index_select(0, self.selected) for x in bottoms[:-1]]


@register("ArgMax")
class ArgMax(Layer):
    """The indices of the top_k largest values, largest first; of equal ones the one with the larger index.

    With `axis`: along it, in a top like the bottom with top_k values there: the indices, or the values with
    out_max_val. Without: over all of an item's values, in a top (N, 1, top_k), (N, 2, top_k) with out_max_val, that
    holds the indices and then the values; for bottoms of more than 3 axes with 1s to follow. Without gradient.
    """

    no_gradient = (0,)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top_k = self.layer_param.argmax_param.top_k
        self.check(top_k >= 1, f"top k must not be less than 1; found {top_k}.")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.argmax_param, bottom[0].shape
        along_axis = param.HasField("axis")
        size = shape[bottom[0].axis(param.axis)] if along_axis else math.prod(shape[1:])
        which = "the axis" if along_axis else "the flattened bottom blob per instance"
        self.check(
            param.top_k <= size,
            f"top_k must be less than or equal to the dimension of {which}, {size}; found {param.top_k}.",
        )
        if along_axis:
            axis = bottom[0].axis(param.axis)
            top[0].reshape(*shape[:axis], param.top_k, *shape[axis + 1 :])
        else:
            top[0].reshape(shape[0], 1 + param.out_max_val, param.top_k, *(1,) * (len(shape) - 3))

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.argmax_param
        along_axis = param.HasField("axis")
        x = x.detach() if along_axis else merged(x.detach(), 1)
        axis = param.axis % x.ndim if along_axis else 1
        order = _ordered(x, axis)
        best = order.amax(axis, keepdim=True) if param.top_k == 1 else order.topk(param.top_k, axis).values
        places = best & 0xFFFFFFFF
        if not param.out_max_val:
            return places.to(x.dtype)
        values = x.gather(axis, places)
        return values if along_axis else torch.stack([places.to(x.dtype), values], 1)


def _ordered(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Integers in the order of float32 values and, of equal ones, of their places along `axis`: the value's bits, made
    to rise with it, above the place's 32 bits."""
    bits = (x + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    places = torch.arange(x.shape[axis], device=x.device).view(-1, *(1,) * (x.ndim - 1 - axis))
    return (rising.long() << 32) | places


@register("Reduction")
class Reduction(Layer):
    """coeff times the sum (SUM), mean (MEAN), sum of magnitudes (ASUM) or sum of squares (SUMSQ) of the axes from
    `axis` on, which the top does not have."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.axis = bottom[0].axis(self.layer_param.reduction_param.axis)
        top[0].reshape(*bottom[0].shape[: self.axis])

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.reduction_param
        rows = merged(x, self.axis)
        reduced = {
            SUM: lambda: rows.sum(-1),
            MEAN: lambda: rows.mean(-1),
            ASUM: lambda: rows.abs().sum(-1),
            SUMSQ: lambda: rows.square().sum(-1),
        }[param.operation]()
        return reduced * param.coeff if param.coeff != 1 else reduced
