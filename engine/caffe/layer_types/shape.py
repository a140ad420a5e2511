"""Layers that join, cut, repeat or rename values: Concat, Slice, Split, Flatten, Reshape, Eltwise, Silence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2

PROD, SUM, MAX = (caffe_pb2.EltwiseParameter.EltwiseOp.Value(name) for name in ("PROD", "SUM", "MAX"))


def _axis(layer: Layer, bottom: Blob, param: caffe_pb2.ConcatParameter | caffe_pb2.SliceParameter, old: str) -> int:
    """The axis that `param.axis`, or its old name, says."""
    layer.check(
        not (param.HasField("axis") and param.HasField(old)), f"Either axis or {old} should be specified; not both."
    )
    if not param.HasField(old):
        return bottom.axis(param.axis)
    axis = getattr(param, old)
    layer.check(axis < bottom.num_axes, f"{old} out of range: found {axis}, bottom shape {bottom.shape_string()}")
    return axis


class SharingLayer(Layer):
    """A layer whose one top is its bottom under another shape: data and diff are the same memory."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(top[0] is not bottom[0], f"{self.type} Layer does not allow in-place computation.")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].share_data(bottom[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        bottom[0].share_diff(top[0])


@register("Flatten")
class Flatten(SharingLayer):
    """The bottom with the axes from `axis` to `end_axis`, both included, made one."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.flatten_param, bottom[0].shape
        start, end = bottom[0].axis(param.axis), bottom[0].axis(param.end_axis)
        self.check(
            start <= end + 1, f"axis {start} must not come after end_axis {end} (bottom {bottom[0].shape_string()})"
        )
        top[0].reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])


@register("Reshape")
class Reshape(SharingLayer):
    """The bottom with `num_axes` axes from `axis` on replaced by `shape`: a dim 0 is copied from the bottom's axis at
    its place, one dim -1 is what is left."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().setup(bottom, top)
        dims = self.layer_param.reshape_param.shape.dim
        self.check(
            list(dims).count(-1) <= 1,
            f"new shape contains multiple -1 dims; at most a single (1) value of -1 may be specified; found {dims}",
        )
        self.check(min(dims, default=0) >= -1, f"dims must be -1, 0 or above; found {dims}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.reshape_param, bottom[0].shape
        found = f"(bottom shape {bottom[0].shape_string()})"
        start = param.axis if param.axis >= 0 else len(shape) + param.axis + 1
        self.check(0 <= start <= len(shape), f"axis {param.axis} out of range for {len(shape)}-D input blob {found}")
        self.check(param.num_axes >= -1, f"num_axes must be >= 0, or -1 for all; found {param.num_axes}")
        end = len(shape) if param.num_axes == -1 else start + param.num_axes
        self.check(end <= len(shape), f"end_axis = axis + num_axes is out of range: found {end} {found}")
        dims = list(param.shape.dim)
        for index, dim in enumerate(dims):
            if dim == 0:
                self.check(
                    start + index < len(shape),
                    f"new shape contains a 0, but there was no corresponding bottom axis to copy: dim {index} {found}",
                )
                dims[index] = shape[start + index]
        result = [*shape[:start], *dims, *shape[end:]]
        if -1 in result:
            product = -math.prod(result)
            self.check(
                product != 0 and bottom[0].count % product == 0,
                f"bottom count ({bottom[0].count}) must be divisible by the product of the specified dimensions "
                f"({product})",
            )
            result[result.index(-1)] = bottom[0].count // product
        self.check(
            math.prod(result) == bottom[0].count,
            f"output count must match input count: expected {bottom[0].count}, found shape {tuple(result)} {found}",
        )
        top[0].reshape(*result)
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])


@register("Split")
class Split(Layer):
    """Each top is the bottom, in the same memory; the bottom's diff is the sum of the tops'."""

    top_count = (1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(all(blob is not bottom[0] for blob in top), "Split Layer does not allow in-place computation.")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob in top:
            blob.reshape_like(bottom[0])
            blob.share_data(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob in top:
            blob.share_data(bottom[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            if len(top) == 1:
                bottom[0].set_diff(top[0].diff_tensor, keep=False)
                return
            first, second, *others = (blob.diff_tensor.detach() for blob in top)
            total = torch.add(first, second, out=bottom[0].diff_to_overwrite())
            for diff in others:
                total.add_(diff)
            bottom[0].diff_memory.written()


@register("Concat")
class Concat(Layer):
    """The bottoms one after another along `axis` (old name: concat_dim); elsewhere their shapes agree."""

    bottom_count = (1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        first = bottom[0]
        self.axis = _axis(self, first, self.layer_param.concat_param, "concat_dim")
        total = 0
        for index, blob in enumerate(bottom):
            both = f"; found bottom[0] {first.shape_string()} and bottom[{index}] {blob.shape_string()}"
            self.check(blob.num_axes == first.num_axes, f"All inputs must have the same #axes{both}")
            self.check(
                all(a == b or axis == self.axis for axis, (a, b) in enumerate(zip(first.shape, blob.shape))),  # noqa: B905
                f"All inputs must have the same shape, except at concat_axis {self.axis}{both}",
            )
            total += blob.shape[self.axis]
        top[0].reshape(*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])

    def compute(self, *bottoms: torch.Tensor) -> torch.Tensor:
        return torch.cat(bottoms, self.axis)


@register("Slice")
class Slice(Layer):
    """The bottom cut along `axis` (old name: slice_dim), before each of the slice_points, or into equal parts."""

    top_count = (1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, shape = self.layer_param.slice_param, bottom[0].shape
        self.check(all(blob is not bottom[0] for blob in top), "Slice Layer does not allow in-place computation.")
        self.axis = _axis(self, bottom[0], param, "slice_dim")
        size, points = shape[self.axis], list(param.slice_point)
        if points:
            self.check(
                len(points) == len(top) - 1,
                f"expected one slice_point fewer than tops, {len(top) - 1}; found {len(points)}",
            )
            self.check(
                len(top) <= size,
                f"expected at most {size} tops, the axis's size; found {len(top)} (bottom {bottom[0].shape_string()})",
            )
        else:
            self.check(
                size % len(top) == 0,
                f"Number of top blobs ({len(top)}) should evenly divide input slice axis ({size})",
            )
            points = [size // len(top) * index for index in range(1, len(top))]
        edges = [0, *points, size]
        self.sizes = [after - before for before, after in itertools.pairwise(edges)]
        self.check(
            min(self.sizes) > 0 or not param.slice_point,
            f"slice_points must rise from above 0 to below the axis's size {size}; found {points}",
        )
        for blob, part in zip(top, self.sizes, strict=True):
            blob.reshape(*shape[: self.axis], part, *shape[self.axis + 1 :])

    def compute(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        return x.split(self.sizes, self.axis)


@register("Eltwise")
class Eltwise(Layer):
    """The bottoms' product, sum (each times its coeff) or maximum, value by value.

    MAX sends its gradient to one bottom, on a tie to the one BVLC chooses: the later of the first two, the earlier
    of the others. PROD's gradient is the product of the other bottoms with either stable_prod_grad: BVLC's quicker
    formula for false divides by the bottom and differs only where that is 0, by a NaN.
    """

    bottom_count = (2, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.eltwise_param
        self.check(
            len(param.coeff) in (0, len(bottom)),
            f"Eltwise Layer takes one coefficient per bottom blob; found {len(param.coeff)} for {len(bottom)}.",
        )
        self.check(param.operation != PROD or not param.coeff, "Eltwise layer only takes coefficients for summation.")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for index, blob in enumerate(bottom):
            self.check(
                blob.shape == bottom[0].shape,
                f"expected bottoms of one shape; bottom[0]: {bottom[0].shape_string()}, "
                f"bottom[{index}]: {blob.shape_string()}",
            )
        super().reshape(bottom, top)

    def compute(self, *bottoms: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.eltwise_param
        if param.operation == PROD:
            return math.prod(bottoms[1:], start=bottoms[0])
        if param.operation == SUM:
            coeffs = param.coeff or [1.0] * len(bottoms)
            terms = [x if coeff == 1 else x * coeff for x, coeff in zip(bottoms, coeffs, strict=True)]
            return sum(terms[1:], start=terms[0])
        greatest = torch.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])
        for x in bottoms[2:]:
            greatest = torch.where(x > greatest, x, greatest)
        return greatest


@register("Silence")
class Silence(Layer):
    """Takes bottoms so that they are nobody's output; gives nothing, and a gradient of 0."""

    bottom_count = (1, None)
    top_count = (0, 0)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """There is no top."""

    def compute(self, *bottoms: torch.Tensor) -> Sequence[torch.Tensor]:
        return ()
