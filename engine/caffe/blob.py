"""Blob: an N-d float32 array with a shape, data and diff, seen from numpy and from torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from caffe import device, memory_limit
from caffe.blob_proto import append_floats, floats, proto_shape, shape_string
from caffe.errors import SizeError
from caffe.synced_memory import Memory

if TYPE_CHECKING:
    from caffe.proto import caffe_pb2

MAX_AXES = 32
INT_MAX = 2**31 - 1  # values of a blob, at most


class AxisError(ValueError):
    """An axis that a blob does not have."""


class Blob:
    """Caffe's blob. `data` and `diff` are live numpy views, `data_tensor` and `diff_tensor` what layers compute on.

    Axes may be given from the end. Raises ValueError for a shape with a negative dimension or over 32 axes.
    """

    __slots__ = ("__weakref__", "_data", "_diff", "_shape")

    def __init__(self, shape: Sequence[int] = ()):
        self._shape: tuple[int, ...] = ()
        self._data: Memory | None = None
        self._diff: Memory | None = None
        self.reshape(*shape)

    # -- shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def count(self) -> int:
        return math.prod(self._shape)

    @property
    def num_axes(self) -> int:
        return len(self._shape)

    @property
    def num(self) -> int:
        return self._legacy_dim(0)

    @property
    def channels(self) -> int:
        return self._legacy_dim(1)

    @property
    def height(self) -> int:
        return self._legacy_dim(2)

    @property
    def width(self) -> int:
        return self._legacy_dim(3)

    def _legacy_dim(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise ValueError(
                "Cannot use legacy accessors (num, channels, height, width) on Blobs with > 4 axes: "
                f"this blob has shape {self.shape_string()}; use shape"
            )
        return self._shape[axis] if axis < len(self._shape) else 1

    def axis(self, index: int) -> int:
        """`index` as a non-negative axis. Raises AxisError where the blob has no such axis."""
        if not -self.num_axes <= index < self.num_axes:
            raise AxisError(f"axis {index} out of range for {self.num_axes}-D Blob with shape {self.shape_string()}")
        return index % self.num_axes

    def shape_string(self) -> str:
        """The shape as BVLC's logs print it: `64 3 227 227 (9893376)`."""
        return "".join(f"{dim} " for dim in self._shape) + f"({self.count})"

    @overload
    def reshape(self, *shape: int) -> None: ...

    @overload
    def reshape(self, shape: Iterable[int], /) -> None: ...

    def reshape(self, *shape: Any) -> None:
        """Change the shape; memory is kept and only grows, so values at the front stay."""
        if len(shape) == 1 and not np.isscalar(shape[0]):
            shape = tuple(shape[0])
        dims = tuple(int(dim) for dim in shape)
        if len(dims) > MAX_AXES or any(dim < 0 for dim in dims):
            raise SizeError(f"a blob has at most {MAX_AXES} axes of size 0 or more, found shape {dims}")
        count = math.prod(dims)
        if count > INT_MAX:
            raise SizeError(f"blob size exceeds INT_MAX: expected at most {INT_MAX} values, found shape {dims}")
        memories = [memory for memory in (self._data, self._diff) if memory is not None]
        if all(memory.count < count for memory in memories) and not memory_limit.fits(4 * count):
            limit = memory_limit.limit()
            raise SizeError(f"a blob of shape {dims} takes {4 * count} bytes, more than the {limit} that there are")
        self._shape = dims
        for memory in memories:
            memory.grow(self.count)

    def reshape_like(self, other: Blob) -> None:
        """Take `other`'s shape."""
        self.reshape(*other.shape)

    def share_data(self, other: Blob) -> None:
        """Use `other`'s data buffer. Raises ValueError where the counts differ."""
        self._check_count(other)
        self._data = other.data_memory

    def share_diff(self, other: Blob) -> None:
        """Use `other`'s diff buffer. Raises ValueError where the counts differ."""
        self._check_count(other)
        self._diff = other.diff_memory

    def _check_count(self, other: Blob) -> None:
        if other.count != self.count:
            raise ValueError(
                f"a blob shares a buffer of its own count only: expected {self.count} values, "
                f"found {other.count} in a blob of shape {other.shape_string()}"
            )

    # -- memory

    @property
    def data_memory(self) -> Memory:
        if self._data is None:
            self._data = Memory(self.count, device.current())
        return self._data

    @property
    def diff_memory(self) -> Memory:
        if self._diff is None:
            self._diff = Memory(self.count, device.current())
        return self._diff

    @property
    def data(self) -> np.ndarray:
        """The values, a live float32 numpy view of shape `shape`; writes reach the net."""
        return self.data_memory.to_host()[: self.count].reshape(self._shape)

    @property
    def diff(self) -> np.ndarray:
        """The gradient, a live float32 numpy view of shape `shape`; writes reach the net."""
        return self.diff_memory.to_host()[: self.count].reshape(self._shape)

    @property
    def data_tensor(self) -> torch.Tensor:
        """The values on the device of the moment. Whoever changes them calls `set_data`."""
        return self._tensor(self.data_memory)

    @property
    def diff_tensor(self) -> torch.Tensor:
        """The gradient on the device of the moment. Whoever changes it calls `set_diff`."""
        return self._tensor(self.diff_memory)

    def _tensor(self, memory: Memory) -> torch.Tensor:
        memory.move(device.current())
        return memory.to_device()[: self.count].view(self._shape)

    def data_on_host(self) -> torch.Tensor:
        """The values in host memory, for reading alone. Waits for a GPU only where they are not on the host already."""
        memory = self.data_memory
        if memory.shared or memory.host is None or memory.head == "device":
            return self.data_tensor.cpu()
        return torch.from_numpy(memory.host)[: self.count].view(self._shape)

    def set_data(self, values: torch.Tensor, keep: bool = True) -> None:
        """Put `values` (of the blob's count) into data. With `keep` the blob may take the tensor itself as its
        buffer, without a copy: the caller does not use it otherwise."""
        self._set(self.data_memory, values, keep)

    def set_diff(self, values: torch.Tensor, keep: bool = True) -> None:
        """Put `values` (of the blob's count) into diff, as `set_data` does."""
        self._set(self.diff_memory, values, keep)

    def _set(self, memory: Memory, values: torch.Tensor, keep: bool) -> None:
        values = values.detach()
        memory.move(device.current())
        same = not memory.is_zero and values.data_ptr() == memory.tensor.data_ptr() and values.is_contiguous()
        if not same and not (keep and _may_be_kept(values, memory) and memory.adopt(values)):
            self._to_overwrite(memory).copy_(values.reshape(self._shape))
        memory.written()

    def _to_overwrite(self, memory: Memory) -> torch.Tensor:
        target = memory.to_overwrite() if memory.count == self.count else memory.writable
        return target[: self.count].view(self._shape)

    def diff_to_overwrite(self) -> torch.Tensor:
        """The gradient's tensor for writing every value into; `diff_memory.written()` ends it."""
        self.diff_memory.move(device.current())
        return self._to_overwrite(self.diff_memory)

    def add_diff(self, values: torch.Tensor, keep: bool = True) -> None:
        """Add `values` to diff, as layers do for their parameters. `keep`: see `set_data`."""
        memory = self.diff_memory
        if memory.is_zero:
            self._set(memory, values, keep)
            return
        self._tensor(memory)
        memory.writable[: self.count].view(self._shape).add_(values.detach().reshape(self._shape))
        memory.written()

    def add_diff_product(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Add the matrix product left @ right, (M, K) times (K, N), M * N values in all, to diff, without a buffer
        for the product."""
        memory = self.diff_memory
        memory.move(device.current())
        shape = len(left), right.shape[1]
        if memory.is_zero and memory.count == self.count:
            torch.mm(left, right, out=memory.to_overwrite().view(shape))
        else:
            self._tensor(memory)
            memory.writable[: self.count].view(shape).addmm_(left, right)
        memory.written()

    def fill(self, data: float | None = None, diff: float | None = None) -> None:
        """Set every value of data, of diff, or of both."""
        if data is not None:
            self._fill(self.data_memory, data)
        if diff is not None:
            self._fill(self.diff_memory, diff)

    def _fill(self, memory: Memory, value: float) -> None:
        if value == 0 and memory.count == self.count:
            memory.clear()
            return
        self._tensor(memory)
        memory.writable[: self.count] = value
        memory.written()

    # -- messages

    def to_proto(self, proto: caffe_pb2.BlobProto, write_diff: bool = False) -> None:
        """Write shape and data (and diff) into the BlobProto `proto`."""
        proto.Clear()
        proto.shape.dim.extend(self._shape)
        append_floats(proto, "data", self.data)
        if write_diff:
            append_floats(proto, "diff", self.diff)

    def from_proto(self, proto: caffe_pb2.BlobProto, reshape: bool = True) -> None:
        """Read the BlobProto `proto`; with `reshape` False its shape must fit (legacy 4-D shapes do, by BVLC's rule).

        Raises:
            ValueError: the shape does not fit, or the number of values is not the shape's product.
        """
        if reshape:
            self.reshape(*proto_shape(proto))
        elif not self.shape_equals(proto):
            raise ValueError(f"shape mismatch: expected {self.shape_string()}, found {shape_string(proto)}")
        data, diff = floats(proto, "data"), floats(proto, "diff")
        if data.size != self.count:
            raise ValueError(
                f"expected {self.count} values for shape {self.shape_string()}, found {data.size}: "
                "the file is damaged or was written with another shape"
            )
        if diff.size not in (0, self.count):
            raise ValueError(f"expected {self.count} diffs for shape {self.shape_string()}, or none, found {diff.size}")
        self.set_data(torch.from_numpy(np.require(data, requirements="W")))  # a blob may take it over, without a copy
        if diff.size:
            self.diff[...] = diff.reshape(self._shape)

    def shape_equals(self, proto: caffe_pb2.BlobProto) -> bool:
        """BVLC's Blob::ShapeEquals: a legacy 4-D proto fits a blob of fewer axes whose leading ones are 1."""
        if any(proto.HasField(name) for name in ("num", "channels", "height", "width")):
            return self.num_axes <= 4 and (1,) * (4 - self.num_axes) + self._shape == (
                proto.num, proto.channels, proto.height, proto.width)  # fmt: skip
        return tuple(proto.shape.dim) == self._shape

    def __repr__(self) -> str:
        return f"<caffe.Blob {self.shape_string()}>"


class BlobVec(list[Blob]):
    """A list of blobs, with pycaffe's `add_blob`."""

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros of the given shape."""
        self.append(Blob(shape))


def _may_be_kept(values: torch.Tensor, memory: Memory) -> bool:
    """Whether a blob may take over `values` as its buffer: it owns all of its storage, on the right device."""
    return (
        values.dtype == torch.float32
        and values.device == memory.where
        and values.is_contiguous()
        and values._base is None
        and values.untyped_storage().nbytes() == 4 * values.numel()
    )
