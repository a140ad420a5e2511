"""Layers that read data and have no bottoms: Data, ImageData, MemoryData, DummyData, Input."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from caffe import fillers, glog, memory_limit, parallel
from caffe.blob import INT_MAX, Blob
from caffe.data import upload
from caffe.data.databases import Database
from caffe.data.decoding import size
from caffe.data.prefetch import Prefetcher
from caffe.data.readers import Batches, BatchSource, DatumReader, ListReader, Reader
from caffe.data.transformer import DataTransformer
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2

T = TypeVar("T")

# Values of a raw image from which on threads pay: cropping, converting and subtracting take some 3 ns a value, handing
# images to a thread some 50 us.
_WORTH_THREADS = 1 << 14


class SourceLayer(Layer):
    """A layer without bottoms: nothing to compute from, nothing to propagate to."""

    bottom_count = (0, 0)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        pass

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        pass


class PrefetchingLayer(SourceLayer):
    """A layer whose batches a background thread makes ready, `data_param.prefetch` of them ahead.

    Tops: data (N, ...) and, where there is a second top, labels. Errors in the thread come out of `forward`. The
    layer's state is that of its last batch, however far the thread is ahead.
    """

    def start(self, batches: BatchSource) -> None:
        """Read from `batches` from now on."""
        ahead = self.layer_param.data_param.prefetch
        self.check(ahead > 0, "expected data_param.prefetch of 1 or more, found 0")
        self._batches, self._state = batches, batches.state()
        self._prefetcher = Prefetcher(functools.partial(_produce, batches), ahead)

    def _checked(self, call: Callable[..., T], *arguments: Any) -> T:
        """call(*arguments), its errors naming this layer."""
        try:
            return call(*arguments)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise type(error)(f"layer {self.layer_param.name!r} ({self.type}): {error}") from None

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._prefetcher.orphaned:  # in a forked child: read on after the last batch that was handed out
            self.restore_state(self.snapshot_state())
        sent, self._state = self._checked(self._prefetcher.next)
        for blob, values in zip(top, sent.take(), strict=False):  # the labels' top may be left out
            blob.reshape(*values.shape)
            blob.set_data(values)

    def snapshot_state(self) -> bytes:
        return self._state.SerializeToString()

    def restore_state(self, state: bytes) -> None:
        self._prefetcher.stop()
        try:
            self._batches.restore(caffe_pb2.SourceState.FromString(state))
        finally:
            self._state = self._batches.state()


def _produce(batches: BatchSource) -> tuple[upload.Sent, caffe_pb2.SourceState]:
    """The next batch, on its way to where nets compute, and the state after it."""
    return upload.send(batches.make(), batches.finish), batches.state()


class RecordLayer(PrefetchingLayer):
    """A layer of transformed records: data (N, C, H, W) and labels (N, *label_shape).

    The first image of a batch gives the batch its shape; images of other sizes need crop_size.
    """

    label_shape: tuple[int, ...] = ()  # of one image's label; `open` may set it

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        transformer = self._checked(DataTransformer, self.layer_param.transform_param, self.phase)
        batch_size, reader, threads = self.open(transformer)
        self.check(batch_size > 0, f"Positive batch size required; found batch_size {batch_size}")
        shape = self._checked(reader.first_shape)
        top[0].reshape(batch_size, *shape)
        batches = self.layer_param.data_param.prefetch + 2  # and that in the making, and that of the net
        self.check(
            memory_limit.fits(4 * batches * top[0].count),
            f"{batches} batches of shape {top[0].shape} take {4 * batches * top[0].count} bytes, more than there are; "
            "make batch_size or prefetch smaller",
        )
        where = "data_layer.cpp:45" if self.type == "Data" else "image_data_layer.cpp:90"
        glog.info(where, "output data size: " + ",".join(map(str, top[0].shape)))
        if len(top) > 1:
            top[1].reshape(batch_size, *self.label_shape)
        self.start(Batches(reader, batch_size, threads or math.prod(shape) >= _WORTH_THREADS))

    def open(self, transformer: DataTransformer) -> tuple[int, Reader, bool]:
        """(batch size, what reads the records, whether they are decoded, which is worth threads at any size)."""
        raise NotImplementedError


@register("Data")
class DataLayer(RecordLayer):
    """The Datums of an LMDB or LevelDB, in key order, from the first again after the last.

    A Datum's image is its `data` (encoded, or raw uint8), or its `float_data` where `data` is empty; its label is
    `label`. A net that goes from one forward to the next goes on where it was. Solvers that train side by side share
    the records out (see caffe.parallel).

    An encoded image is seen as it is stored, as in BVLC: alpha is a fourth channel, and EXIF's orientation is not
    applied, which is warned of. transform_param's force_color and force_gray decode it as ImageData does a file.
    """

    top_count = (1, 2)

    def __init__(self, layer_param: caffe_pb2.LayerParameter):
        super().__init__(layer_param)
        param = layer_param.data_param
        self._database = self._checked(Database, param.source, param.backend)

    def open(self, transformer: DataTransformer) -> tuple[int, Reader, bool]:
        param = self.layer_param.data_param
        for field in ("rand_skip", "force_encoded_color"):
            if getattr(param, field):
                glog.warning(
                    "data_layer.cpp:30",
                    f"layer {self.layer_param.name!r}: data_param.{field} has no effect, as in BVLC Caffe 1.0"
                    + ("; transform_param.force_color decodes to 3 channels" if field != "rand_skip" else ""),
                )
        alone = self.phase == caffe_pb2.TEST
        stride, first = (1, 0) if alone else (parallel.solver_count(), parallel.solver_rank())
        self.check(first < stride, f"expected a solver_rank below solver_count {stride}, found {first}")
        reader = DatumReader(transformer, self._database, stride, first)
        encoded = self._checked(reader.datum, *self._database.peek()).encoded
        if transformer.color is not None and not encoded:
            glog.error("data_transformer.cpp:152", "force_color and force_gray only for encoded datum")
        return param.batch_size, reader, encoded


@register("ImageData")
class ImageDataLayer(RecordLayer):
    """The images of a list file with lines of `path label`, optionally resized, optionally shuffled each epoch.

    They are 8 bits a channel, BGR or grey, without alpha, and upright as EXIF says. One that is cut short is refused.

    With `label_dim: L` (a field that BVLC Caffe has not), the lines are `path label_1 ... label_L` and the label top is
    (N, L).
    """

    top_count = (2, 2)

    def open(self, transformer: DataTransformer) -> tuple[int, Reader, bool]:
        param = self.layer_param.image_data_param
        if param.HasField("label_dim"):
            return self.open_list(transformer, param, "label_dim")
        return self.open_list(transformer, param)

    def open_list(
        self, transformer: DataTransformer, param: caffe_pb2.ImageDataParameter, field: str | None = None
    ) -> tuple[int, Reader, bool]:
        """`open` for the list that `param` describes, an ImageDataParameter or a message with its fields.

        field: the one that says how many labels a line has; None: one, and no axis for it.
        """
        labels = getattr(param, field) if field else None
        self.check(labels is None or labels > 0, f"expected {field} of 1 or more, found {labels}")
        self.label_shape = () if labels is None else (labels,)
        self.check(
            (param.new_height > 0) == (param.new_width > 0),
            "Current implementation requires new_height and new_width to be set at the same time; "
            f"found {param.new_height} and {param.new_width}",
        )
        largest = max(param.new_height, param.new_width)
        self.check(largest <= INT_MAX, f"new_height and new_width: expected at most {INT_MAX}, found {largest}")
        glog.info("image_data_layer.cpp:38", f"Opening file {param.source}")
        return param.batch_size, self._checked(ListReader, transformer, param, labels), True


@register("MemoryData")
class MemoryDataLayer(SourceLayer):
    """Arrays given from Python by `reset` (pycaffe's net.set_input_arrays), a batch a forward, over and over."""

    top_count = (2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.memory_data_param
        self.shape = (param.batch_size, param.channels, param.height, param.width)
        self.check(
            min(self.shape) > 0,
            "batch_size, channels, height, and width must be specified and positive in memory_data_param; "
            f"found {size(self.shape)}",
        )
        top[0].reshape(*self.shape)
        top[1].reshape(self.shape[0])
        self._arrays: tuple[np.ndarray, np.ndarray] | None = None  # data and labels
        self._at = 0
        self._resumed: caffe_pb2.SourceState | None = None  # a state that came before the arrays

    @property
    def batch_size(self) -> int:
        return self.shape[0]

    def reset(self, data: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Read from these arrays from now on. They are not copied: what is written to them later is read too.

        data: float32 (n, channels, height, width), n a multiple of batch_size. labels: float32, n values; None: zeros.
        No transformation is applied.

        Raises:
            ValueError: arrays of another type or shape.
        """
        if labels is None:
            labels = np.zeros(len(data), np.float32)
        for name, array in (("data array", data), ("labels array", labels)):
            self.check(array.flags.c_contiguous, f"{name} must be C contiguous")
            self.check(array.dtype == np.float32, f"{name} must be float32, found {array.dtype}")
        self.check(data.ndim == 4, f"data array must be 4-d, found {data.ndim}-d")
        for axis, name in enumerate(("number of channels", "height", "width"), 1):
            self.check(
                data.shape[axis] == self.shape[axis],
                f"data array has wrong {name}: expected {self.shape[axis]}, found {data.shape[axis]}",
            )
        self.check(
            labels.size == len(labels) == len(data),
            "data and labels must have the same first dimension and one label an item; "
            f"found {size(data.shape)} and {size(labels.shape)}",
        )
        self.check(
            len(data) > 0 and len(data) % self.batch_size == 0,
            "first dimensions of input arrays must be a multiple of batch size; "
            f"found {len(data)} for batch_size {self.batch_size}",
        )
        if self.layer_param.HasField("transform_param"):
            glog.warning("memory_data_layer.cpp:81", f"{self.type} does not transform array data on Reset()")
        self._arrays, self._at = (data, labels.reshape(-1)), 0
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not self._resume_at(resumed, len(data)):
            glog.warning(
                "memory_data_layer.cpp:81",
                f"layer {self.layer_param.name!r}: the restored state is of {resumed.count} items, not of "
                f"{len(data)}: starting with the first",
            )

    def snapshot_state(self) -> bytes | None:
        if self._arrays is None:
            return None if self._resumed is None else self._resumed.SerializeToString()
        return caffe_pb2.SourceState(at=self._at, count=len(self._arrays[0])).SerializeToString()

    def restore_state(self, state: bytes) -> None:
        """Go on in the arrays given, or else in the next ones, where they have as many items as the state's had."""
        resumed = caffe_pb2.SourceState.FromString(state)
        if self._arrays is None:
            self._resumed = resumed
        elif not self._resume_at(resumed, len(self._arrays[0])):
            raise ValueError(
                f"expected {resumed.count} items, and batch_size to divide {resumed.at}; "
                f"found {len(self._arrays[0])} items and batch_size {self.batch_size}"
            )

    def _resume_at(self, state: caffe_pb2.SourceState, count: int) -> bool:
        fits = state.count == count and state.at % self.batch_size == 0
        if fits:
            self._at = state.at
        return fits

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._arrays is None:
            self.check(
                False, "MemoryDataLayer needs to be initialized by calling Reset: net.set_input_arrays(data, labels)"
            )
        data, labels = self._arrays
        part = slice(self._at, self._at + self.batch_size)
        batch = upload.send([torch.tensor(data[part]), torch.tensor(labels[part])]).take()
        shapes = self.shape, (self.batch_size, 1, 1, 1)  # of the labels (N,) until the first forward, as in BVLC
        for blob, shape, values in zip(top, shapes, batch, strict=True):
            blob.reshape(*shape)
            blob.set_data(values)
        self._at = part.stop % len(data)


@register("DummyData")
class DummyDataLayer(SourceLayer):
    """Tops filled by fillers: constant ones once, at set-up; all others anew at each forward."""

    top_count = (1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.dummy_data_param
        count = len(top)
        self.check(
            len(param.data_filler) in (0, 1, count),
            f"Number of data fillers must be 0, 1 or equal to the number of tops: {count}; "
            f"you specified {len(param.data_filler)} data fillers.",
        )
        legacy = ("num", "channels", "height", "width")
        if any(len(getattr(param, name)) for name in legacy):
            self.check(not len(param.shape), "Both shape and legacy fields were specified")
            for name in legacy:
                self._check_once_or_each(name, len(getattr(param, name)), count)
            shapes = [tuple(_nth(getattr(param, name), index) for name in legacy) for index in range(count)]
        else:
            self._check_once_or_each("shape", len(param.shape), count)
            shapes = [tuple(_nth(param.shape, index).dim) for index in range(count)]
        given = param.data_filler or [caffe_pb2.FillerParameter(type="constant")]
        self._fillers = [_nth(given, index) for index in range(count)]
        for blob, shape, filler in zip(top, shapes, self._fillers, strict=True):
            blob.reshape(*shape)
            if filler.type == "constant":
                fillers.fill(blob, filler)

    def _check_once_or_each(self, name: str, found: int, count: int) -> None:
        self.check(
            found in (1, count),
            f"Must specify '{name}' once, or once per top blob ({count}); specified {found}.",
        )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob, filler in zip(top, self._fillers, strict=True):
            if filler.type != "constant":
                fillers.fill(blob, filler)


def _nth(values: Sequence[T], index: int) -> T:
    """The value for top `index` of a field given once or once per top."""
    return values[index if len(values) > 1 else 0]


@register("Input")
class InputLayer(SourceLayer):
    """Tops that the user fills."""

    top_count = (1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shapes = self.layer_param.input_param.shape
        self.check(
            len(shapes) in (0, 1, len(top)),
            f"Must specify 'shape' once, once per top blob, or not at all: {len(top)} tops, {len(shapes)} shapes.",
        )
        if shapes:
            for index, blob in enumerate(top):
                blob.reshape(*_nth(shapes, index).dim)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            len(self.layer_param.input_param.shape) > 0 or all(blob.num_axes for blob in top),
            "the input has no shape: write input_param { shape { dim: ... } }, or reshape its blob before the net runs",
        )
