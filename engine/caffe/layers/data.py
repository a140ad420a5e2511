"""Layers that read data and have no bottoms: Data, ImageData, MemoryData, DummyData, Input."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from google.protobuf.message import DecodeError

from caffe import device, fillers, glog, parallel
from caffe.blob import Blob
from caffe.datasource import Database, Prefetcher, read_list
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2
from caffe.transformer import DataTransformer, Source, channels_first, datum_image, size

Label = int | list[int]  # of one image: a class, or a vector


class SourceLayer(Layer):
    """A layer without bottoms: nothing to compute from, nothing to propagate to."""

    bottom_count = (0, 0)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        pass

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        pass


class PrefetchingLayer(SourceLayer):
    """A layer whose batches a background thread makes ready, `data_param.prefetch` of them ahead.

    Tops: data (N, C, H, W); label (N, *label_shape), where there is a second top. The first image of a batch gives the
    batch its shape; images of other sizes need crop_size. Errors in the thread come out of `forward`.
    """

    label_shape: tuple[int, ...] = ()  # of one image's label; `open` may set it

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param
        transformer = self._checked(DataTransformer, param.transform_param, self.phase)
        batch_size, reader, threads = self.open(transformer)
        self.check(batch_size > 0, f"Positive batch size required; found batch_size {batch_size}")
        self.check(param.data_param.prefetch > 0, "expected data_param.prefetch of 1 or more, found 0")
        shape = self._checked(reader.first_shape)
        top[0].reshape(batch_size, *shape)
        where = "data_layer.cpp:45" if self.type == "Data" else "image_data_layer.cpp:90"
        glog.info(where, "output data size: " + ",".join(map(str, top[0].shape)))
        if len(top) > 1:
            top[1].reshape(batch_size, *self.label_shape)
        pinned = device.current().type == "cuda"
        produce = functools.partial(_make_batch, reader.take, transformer, batch_size, threads, pinned)
        self._prefetcher = Prefetcher(produce, param.data_param.prefetch)

    def open(self, transformer: DataTransformer) -> tuple[int, _Reader, bool]:
        """(batch size, what reads the records, whether loading them is worth threads)."""
        raise NotImplementedError

    def _checked(self, call: Callable, *arguments):
        """call(*arguments), its errors naming this layer."""
        try:
            return call(*arguments)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise type(error)(f"layer {self.layer_param.name!r} ({self.type}): {error}") from None

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data, labels = self._checked(self._prefetcher.next)
        where = device.current()
        top[0].reshape(*data.shape)
        top[0].set_data(data.to(where, non_blocking=True))
        if len(top) > 1:
            top[1].reshape(*labels.shape)
            top[1].set_data(labels.to(where))


class _Reader:
    """Records in their order, without end. `transformer` says how datums are decoded and what shape becomes of them."""

    def __init__(self, transformer: DataTransformer):
        self.transformer = transformer

    def peek(self) -> Source:
        """The image that `take` gives next."""
        raise NotImplementedError

    def take(self) -> tuple[Source, Label]:
        """The next image and its label."""
        raise NotImplementedError

    def first_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the next record, transformed."""
        return self.transformer.batch_shape(self.peek())


def _make_batch(
    take: Callable[[], tuple[Source, Label]], transformer: DataTransformer, count: int, threads: bool, pinned: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next `count` records as data (N, C, H, W) and labels (N,) or (N, L), float32 on the host."""
    sources, labels = zip(*(take() for _ in range(count)), strict=True)
    return transformer.batch(sources, threads, pinned), torch.tensor(labels, dtype=torch.float32)


class _DatumReader(_Reader):
    """The Datums of a database: of each `stride` of them the one number `first`."""

    def __init__(self, transformer: DataTransformer, database: Database, stride: int = 1, first: int = 0):
        super().__init__(transformer)
        self.database = database
        self.stride = stride
        self.skip = first

    def peek(self) -> Source:
        return self._source(*self.database.peek())[0]

    def take(self) -> tuple[Source, int]:
        for _ in range(self.skip):
            self.database.take()
        self.skip = self.stride - 1
        return self._source(*self.database.take())

    def datum(self, key: str, value: bytes) -> caffe_pb2.Datum:
        """The Datum of a record."""
        try:
            return caffe_pb2.Datum.FromString(value)
        except DecodeError:
            found = f"found {len(value)} bytes that do not decode as one"
            raise ValueError(f"{self._name(key)}: expected a Datum, {found}") from None

    def _source(self, key: str, value: bytes) -> tuple[Source, int]:
        datum = self.datum(key, value)
        return (self._name(key), functools.partial(datum_image, datum, self.transformer.color)), datum.label

    def _name(self, key: str) -> str:
        return f"record {key!r} of {self.database.folder}"


@register("Data")
class DataLayer(PrefetchingLayer):
    """The Datums of an LMDB or LevelDB, in key order, from the first again after the last.

    A Datum's image is its `data` (encoded, or raw uint8), or its `float_data` where `data` is empty; its label is
    `label`. A net that goes from one forward to the next goes on where it was. Solvers that train side by side share
    the records out (see caffe.parallel).
    """

    top_count = (1, 2)

    def __init__(self, layer_param: caffe_pb2.LayerParameter):
        super().__init__(layer_param)
        param = layer_param.data_param
        self._database = self._checked(Database, param.source, param.backend)

    def open(self, transformer: DataTransformer) -> tuple[int, _Reader, bool]:
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
        reader = _DatumReader(transformer, self._database, stride, first)
        encoded = self._checked(reader.datum, *self._database.peek()).encoded
        if transformer.color is not None and not encoded:
            glog.error("data_transformer.cpp:152", "force_color and force_gray only for encoded datum")
        return param.batch_size, reader, encoded


class _ListReader(_Reader):
    """The images of a list file, in its order or in a new one each epoch. `labels`: see `read_list`."""

    def __init__(self, transformer: DataTransformer, param: caffe_pb2.ImageDataParameter, labels: int | None):
        super().__init__(transformer)
        self.param = param
        self.entries = read_list(param.source, labels)
        self.random = np.random.RandomState(device.random_seed())
        self.at = 0
        if param.shuffle:
            glog.info("image_data_layer.cpp:53", "Shuffling data")
        self.shuffle()
        glog.info("image_data_layer.cpp:63", f"A total of {len(self.entries)} images.")
        if param.rand_skip:
            skip = int(self.random.randint(param.rand_skip))
            glog.info("image_data_layer.cpp:70", f"Skipping first {skip} data points.")
            if skip >= len(self.entries):
                raise ValueError(f"Not enough points to skip: {skip} of {len(self.entries)} in {param.source}")
            self.at = skip

    def shuffle(self) -> None:
        if self.param.shuffle:
            self.random.shuffle(self.entries)

    def peek(self) -> Source:
        return self._source(*self.entries[self.at])[0]

    def take(self) -> tuple[Source, Label]:
        source = self._source(*self.entries[self.at])
        self.at += 1
        if self.at == len(self.entries):
            self.at = 0
            self.shuffle()
        return source

    def _source(self, path: str, label: Label, line: int) -> tuple[Source, Label]:
        load = functools.partial(read_image, self.param.root_folder + path, self.param.is_color, self._size)
        return (f"{self.param.source}:{line}", load), label

    @property
    def _size(self) -> tuple[int, int] | None:
        return (self.param.new_height, self.param.new_width) if self.param.new_height else None


def read_image(path: str, color: bool = True, resize: tuple[int, int] | None = None) -> np.ndarray:
    """An image file as OpenCV decodes it, uint8 (3, H, W) in BGR order or (1, H, W), resized to `resize` (H, W).

    Raises:
        ValueError: there is no such file, or no image in it.
    """
    if not os.path.isfile(path):
        raise ValueError(f"Could not load {path}: expected an image, found no file (seen from {os.getcwd()})")
    image = cv2.imread(path, cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"Could not load {path}: expected an image, found a file that OpenCV cannot decode")
    if resize is not None:
        image = cv2.resize(image, resize[::-1])
    return channels_first(image)


@register("ImageData")
class ImageDataLayer(PrefetchingLayer):
    """The images of a list file with lines of `path label`, optionally resized, optionally shuffled each epoch.

    With `label_dim: L` (a field that BVLC Caffe has not), the lines are `path label_1 ... label_L` and the label top is
    (N, L).
    """

    top_count = (2, 2)

    def open(self, transformer: DataTransformer) -> tuple[int, _Reader, bool]:
        param = self.layer_param.image_data_param
        if param.HasField("label_dim"):
            return self.open_list(transformer, param, "label_dim")
        return self.open_list(transformer, param)

    def open_list(self, transformer: DataTransformer, param, field: str | None = None) -> tuple[int, _Reader, bool]:
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
        glog.info("image_data_layer.cpp:38", f"Opening file {param.source}")
        return param.batch_size, self._checked(_ListReader, transformer, param, labels), True


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
        self._data: np.ndarray | None = None
        self._labels: np.ndarray | None = None
        self._at = 0

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
        self._data, self._labels, self._at = data, labels.reshape(-1), 0

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            self._data is not None,
            "MemoryDataLayer needs to be initialized by calling Reset: net.set_input_arrays(data, labels)",
        )
        part = slice(self._at, self._at + self.batch_size)
        top[0].reshape(*self.shape)
        top[0].set_data(torch.tensor(self._data[part]))
        top[1].reshape(self.batch_size, 1, 1, 1)  # (N,) until the first forward, as in BVLC
        top[1].set_data(torch.tensor(self._labels[part]))
        self._at = part.stop % len(self._data)


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


def _nth(values: Sequence, index: int):
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
        pass
