"""Records in their order, without end, and batches of them; each says where it stands, so that a resumed training goes
on there (a SourceState)."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from caffe import device, glog
from caffe.data import exif
from caffe.data.databases import Database, ListEntry, read_list
from caffe.data.decoding import channels_first, datum_image, decode, decode_flags, parse_datum
from caffe.data.transformer import DataTransformer, Source
from caffe.proto import byte_strings, caffe_pb2

_turned: set[str] = set()  # databases of which a turned picture has been reported
Label = int | list[int]  # of one image: a class, or a vector


class Reader:
    """Records in their order. `transformer` says how datums are decoded and what shape becomes of them."""

    def __init__(self, transformer: DataTransformer):
        self.transformer = transformer

    def peek(self) -> Source:
        """The image that comes next."""
        raise NotImplementedError

    def take(self) -> tuple[Source, Label]:
        """The next image and its label."""
        raise NotImplementedError

    def state(self) -> caffe_pb2.SourceState:
        """Where the reader stands."""
        raise NotImplementedError

    def restore(self, state: caffe_pb2.SourceState) -> None:
        """Go where a `state` says. Raises ValueError where the records are not those it speaks of."""
        raise NotImplementedError

    def first_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the next record, transformed."""
        return self.transformer.batch_shape(self.peek())


class DatumReader(Reader):
    """The Datums of a database: every `stride`-th record, starting at number `first`.

    Between takes the cursor is at a stride boundary, so any solver of the group can resume there.
    """

    def __init__(self, transformer: DataTransformer, database: Database, stride: int = 1, first: int = 0):
        super().__init__(transformer)
        self.database, self.stride, self.first = database, stride, first
        self._real_folder = os.path.realpath(database.folder)

    def peek(self) -> Source:
        return self._source(*self.database.peek())[0]

    def take(self) -> tuple[Source, int]:
        self._skip(self.first)
        source = self._source(*self.database.take())
        self._skip(self.stride - self.first - 1)
        return source

    def _skip(self, count: int) -> None:
        for _ in range(count):
            self.database.take()

    def state(self) -> caffe_pb2.SourceState:
        return caffe_pb2.SourceState(key=self.database.key)

    def restore(self, state: caffe_pb2.SourceState) -> None:
        self.database.seek(state.key)

    def datum(self, key: str, value: bytes) -> caffe_pb2.Datum:
        """The Datum of a record."""
        try:
            return parse_datum(value)
        except ValueError as error:
            raise ValueError(f"{self._name(key)}: {error}") from None

    def _source(self, key: str, value: bytes) -> tuple[Source, int]:
        datum = self.datum(key, value)
        if datum.encoded and self.transformer.color is None:
            self._warn_if_turned(key, datum.data)
        return (self._name(key), functools.partial(datum_image, datum, self.transformer.color)), datum.label

    def _warn_if_turned(self, key: str, picture: bytes) -> None:
        """Say once of a database that a picture in it is seen as it is stored, as BVLC's Data layer sees it."""
        if self._real_folder not in _turned and (found := exif.orientation(picture)) != 1:
            _turned.add(self._real_folder)
            glog.warning(
                "data_transformer.cpp:63",
                f"{self._name(key)}: the picture has the EXIF orientation {found}, which a Data layer does not apply, "
                "as in BVLC Caffe: the net sees it turned or mirrored. Build the LMDB with tools/create_lmdb.py, which "
                "stores such pictures upright, or set transform_param.force_color. Other records are not reported",
            )

    def _name(self, key: str) -> str:
        return f"record {key!r} of {self.database.folder}"


class ListReader(Reader):
    """The images of a list file, in its order or in a new one each epoch. `labels`: see `read_list`."""

    def __init__(self, transformer: DataTransformer, param: caffe_pb2.ImageDataParameter, labels: int | None):
        super().__init__(transformer)
        self.param = param
        self.entries: Sequence[ListEntry] = read_list(param.source, labels)
        self.random = np.random.RandomState(device.random_seed())
        self.at = int(self.random.randint(param.rand_skip)) if param.rand_skip else 0
        if param.shuffle:
            glog.info("image_data_layer.cpp:53", "Shuffling data")
        self._draw_order()
        glog.info("image_data_layer.cpp:63", f"A total of {len(self.entries)} images.")
        if param.rand_skip:
            glog.info("image_data_layer.cpp:70", f"Skipping first {self.at} data points.")
            if self.at >= len(self.entries):
                raise ValueError(f"Not enough points to skip: {self.at} of {len(self.entries)} in {param.source}")

    def _draw_order(self) -> None:
        self.stream = device.stream_state(self.random)
        self.order = np.arange(len(self.entries))
        if self.param.shuffle:
            self.random.shuffle(self.order)

    def peek(self) -> Source:
        return self._source(*self.entries[self.order[self.at]])[0]

    def take(self) -> tuple[Source, Label]:
        source = self._source(*self.entries[self.order[self.at]])
        self.at += 1
        if self.at == len(self.entries):
            self.at = 0
            self._draw_order()
        return source

    def state(self) -> caffe_pb2.SourceState:
        return caffe_pb2.SourceState(at=self.at, count=len(self.entries), order_stream=self.stream)

    def restore(self, state: caffe_pb2.SourceState) -> None:
        if state.count != len(self.entries):
            found = f"found {len(self.entries)} in {self.param.source}"
            raise ValueError(f"expected a list of {state.count} images, {found}")
        self.random = device.restored_stream(self.random, state.order_stream)
        self._draw_order()
        self.at = state.at

    def _source(self, path: str, label: Label, line: int) -> tuple[Source, Label]:
        load = functools.partial(read_image, self.param.root_folder + path, self.param.is_color, self._size)
        return (f"{self.param.source}:{line}", load), label

    @property
    def _size(self) -> tuple[int, int] | None:
        return (self.param.new_height, self.param.new_width) if self.param.new_height else None


def read_image(path: str, color: bool = True, resize: tuple[int, int] | None = None) -> np.ndarray:
    """An image file, uint8 (3, H, W) in BGR order or (1, H, W), upright, resized to `resize` (H, W).

    Raises:
        ValueError: there is no such file, or no image in it, or not a complete one.
    """
    try:
        with open(byte_strings.path(path), "rb") as file:
            image = decode(file.read(), decode_flags(color))
    except OSError as error:
        found = f"found none that can be read: {error.strerror} (seen from {os.getcwd()})"
        raise ValueError(f"Could not load {path}: expected an image file, {found}") from None
    except ValueError as error:
        raise ValueError(f"Could not load {path}: {error}") from None
    if resize is not None:
        import cv2

        image = cv2.resize(image, resize[::-1])
    return channels_first(image)


class BatchSource(Protocol):
    """What a PrefetchingLayer's thread makes batches with."""

    def make(self) -> Sequence[torch.Tensor]:
        """The next batch on the host: data (N, ...), labels and what else `finish` needs."""

    def finish(self, data: torch.Tensor, labels: torch.Tensor, *more: torch.Tensor) -> list[torch.Tensor]:
        """[data, labels], float32, of a `make` that was copied to where nets compute."""

    def state(self) -> caffe_pb2.SourceState:
        """Where the next batch begins."""

    def restore(self, state: caffe_pb2.SourceState) -> None:
        """Go on from a `state`. Raises ValueError where it is none of this source's."""


class Batches:
    """Batches of `count` records, transformed: a BatchSource.

    threads: whether loading a record is worth threads.
    """

    def __init__(self, reader: Reader, count: int, threads: bool):
        self.reader, self.count, self.threads = reader, count, threads

    def make(self) -> list[torch.Tensor]:
        """The next data (N, C, H, W), labels (N,) or (N, L), float32, and what else `DataTransformer.batch` gives."""
        sources, labels = zip(*(self.reader.take() for _ in range(self.count)), strict=True)
        data, *more = self.reader.transformer.batch(sources, self.threads)
        return [data, torch.tensor(labels, dtype=torch.float32), *more]

    def finish(self, data: torch.Tensor, labels: torch.Tensor, *more: torch.Tensor) -> list[torch.Tensor]:
        """[data, labels], float32, of a `make` that was copied to where nets compute."""
        return [self.reader.transformer.finish(data, *more), labels]

    def state(self) -> caffe_pb2.SourceState:
        """Where the next batch begins."""
        state = self.reader.state()
        state.transform_stream = device.stream_state(self.reader.transformer.random)
        return state

    def restore(self, state: caffe_pb2.SourceState) -> None:
        """Go on from a `state`. Raises ValueError where the records are not those it speaks of."""
        self.reader.restore(state)
        transformer = self.reader.transformer
        transformer.random = device.restored_stream(transformer.random, state.transform_stream)
