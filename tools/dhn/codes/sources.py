"""The images that codes are extracted of: an LMDB, a list, pictures, or a folder of them; and a mean to subtract.

A list whose lines are paths alone, pictures and a folder have no labels: their rows of labels are -1 throughout.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import cv2
import image_lists
import numpy as np
import pictures
from google.protobuf.message import DecodeError
from image_records import ListSource, LmdbSource, _Source
from labels import class_numbers, vectors

from dhn.datasets.image_files import LeftOut, images_below, is_image
from dhn.files import load_array
from dhn.progress import console

if TYPE_CHECKING:  # extract_codes.py sets how much Caffe logs before it imports Caffe
    from caffe.proto import caffe_pb2


class StoredLmdb(LmdbSource):
    """An LMDB as Caffe's Data layer sees it without force_color and force_gray: its pictures not turned upright."""

    def _parse(self, index: int) -> caffe_pb2.Datum:
        datum = super()._parse(index)
        if datum.encoded and pictures.orientation(datum.data) != 1 and pictures.damage(datum.data) is None:
            flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), flags)
            if image is not None:  # else the decoder says what is wrong with it
                image = image.reshape(*image.shape[:2], -1)
                datum.height, datum.width, datum.channels = image.shape
                datum.data, datum.encoded = image.transpose(2, 0, 1).tobytes(), False
        return datum


class PictureSource(_Source):
    """N pictures without labels. `names`: each one as it was given; `labels`: C, the columns of -1.

    paths: their files. where: the place that lists each one, for messages.
    """

    def __init__(
        self,
        names: Sequence[str],
        paths: Sequence[str],
        where: Sequence[str],
        labels: int | None,
        gray: bool | None,
        resize: tuple | None,
    ) -> None:
        super().__init__(bool(gray), resize)
        self.names, self.labels = list(names), labels or 1
        self._paths, self._where = paths, where

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self._where[index]

    def key(self, index: int) -> str:
        return self.names[index]

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            with open(self._paths[index], "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"{self.name(index)}: cannot read {self._paths[index]} ({error.strerror})") from None
        return pictures.decode(data, self.gray, self.name(index)), np.full(self.labels, -1, np.float32)


ImageSource: TypeAlias = LmdbSource | ListSource | PictureSource


def open_source(
    paths: Sequence[str],
    root: str,
    labels: int | None,
    gray: bool | None,
    resize: tuple | None,
    upright: bool = True,
) -> ImageSource:
    """The images of an LMDB, a list, one or several pictures, or a folder of pictures.

    root: folder that a list's paths are relative to. labels: C, where images have class numbers or no labels. gray:
    True 1 channel, False 3, None as stored. resize: (height, width). upright False: an LMDB as Caffe's Data layer sees
    it, see StoredLmdb. Raises ValueError, naming what is not as expected.
    """
    path = paths[0]
    if len(paths) > 1 or (os.path.isfile(path) and is_image(path)):
        for each in paths:
            if os.path.isdir(each):
                raise ValueError(f"{each}: expected pictures where several are given, found a folder; give it alone")
        return PictureSource(paths, paths, paths, labels, gray, resize)
    if os.path.exists(os.path.join(path, "data.mdb")):
        try:
            return (LmdbSource if upright else StoredLmdb)(path, labels, gray, resize, optional=True)
        except ValueError as error:
            raise ValueError(str(error).replace("the key 'labels'", "--labels C")) from None
    if os.path.isdir(path):
        return _folder(path, labels, gray, resize)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: expected an LMDB folder, a list, a picture or a folder of pictures, found nothing")
    names, rows, lines = image_lists.read(path, labels="optional")
    if not rows[0]:
        where = [f"{path}:{line}: {name}" for name, line in zip(names, lines, strict=True)]
        return PictureSource(names, [image_lists.locate(root, name) for name in names], where, labels, gray, resize)
    if len(rows[0]) == 1 and labels is None:
        _, labels = class_numbers(rows, where=lambda row: path if row is None else f"{path}:{lines[row]}")
        console.print(f"{path}: one number a line is a class number; the largest makes {labels} classes (--labels C)")
    return ListSource(path, root, labels, gray, resize)


def _folder(path: str, labels: int | None, gray: bool | None, resize: tuple | None) -> PictureSource:
    """The pictures below a folder, in the order of their names; what is left out is said."""
    left_out = LeftOut()
    names = list(images_below(path, left_out))
    for sentence in left_out.sentences(path):
        console.print(sentence)
    if not names:
        raise ValueError(f"{path}: expected an LMDB (data.mdb) or pictures in the folder, found none")
    places = [os.path.join(path, name) for name in names]
    return PictureSource(names, places, places, labels, gray, resize)


def label_rows(rows: np.ndarray, source: ImageSource, first: int = 0) -> np.ndarray:
    """Label vectors (N, C) int8 of a source's images from `first` on, from what its `read` gave.

    Raises labels.LabelError, naming the image, for a row that is neither 0 and 1 nor -1 throughout.
    """
    return vectors(rows, "vectors", where=lambda row: source.name(first + (row or 0)))[0]


def read_mean(path: str) -> np.ndarray:
    """A mean image (channels, height, width), or (channels, 1, 1), of a .binaryproto or .npy file.

    An .npy may hold (channels,), (height, width) or (channels, height, width). Raises ValueError for any other file.
    """
    try:
        mean = _mean_array(path) if path.endswith(".npy") else _mean_blob(path)
    except (ValueError, EOFError, zipfile.BadZipFile, DecodeError, MemoryError, OverflowError, SyntaxError, TypeError):
        mean = np.empty(0)
    mean = np.asarray(mean, np.float32)
    if mean.ndim not in (1, 2, 3) or not mean.size or (mean.ndim == 1 and mean.size > 4):
        raise ValueError(
            f"{path}: expected a mean image, .binaryproto or .npy (channels, height, width), found a file that is none "
            f"or damaged; make it again (compute_image_mean)"
        )
    if not np.isfinite(mean).all():
        raise ValueError(f"{path}: expected a mean image of finite values, found {mean[~np.isfinite(mean)][0]}")
    return mean.reshape(-1, 1, 1) if mean.ndim == 1 else mean.reshape(-1, *mean.shape[-2:])


def _mean_array(path: str) -> np.ndarray:
    mean = load_array(path)
    if not isinstance(mean, np.ndarray) or mean.dtype.kind not in "fiu":
        raise ValueError("an .npz, or no numbers")
    return mean[0] if mean.ndim == 4 and len(mean) == 1 else mean


def _mean_blob(path: str) -> np.ndarray:
    from caffe.proto import caffe_pb2

    blob = caffe_pb2.BlobProto()
    with open(path, "rb") as file:
        blob.ParseFromString(file.read())
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    values = np.array(blob.data or blob.double_data, np.float32)
    return values.reshape(shape[-3:])
