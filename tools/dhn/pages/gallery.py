"""Queries with their nearest database images, as a page shows them: the images inside the page, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import labels as label_rule
import lmdb
import numpy as np
import pictures
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError
from lmdb_files import LmdbFileError, open_lmdb

SMALL = 64  # pixels: an image up to this side is kept as it is, every pixel to be seen
THUMBNAIL = 120  # pixels of a larger image's shorter side


class GalleryError(RuntimeError):
    """Images that cannot be shown; says why."""


@dataclass(frozen=True)
class Picture:
    """An image: its data URI, whether its pixels are to be shown as squares, its label vector (C,), -1 if unknown."""

    uri: str
    small: bool
    labels: np.ndarray


@dataclass(frozen=True)
class Neighbour:
    """A database image at its rank: `hit` if it shares a label with the query, Hamming distance in bits."""

    picture: Picture
    hit: bool
    distance: int


@dataclass(frozen=True)
class Row:
    """A query and its nearest neighbours, nearest first.

    within: how many database images have no greater Hamming distance than the last of them; above the number of
    neighbours, ties chose among these.
    """

    query: Picture
    neighbours: list[Neighbour]
    within: int


def choose(labels: np.ndarray, count: int) -> list[int]:
    """`count` queries (fewer if there are fewer), chosen by their labels (Q, C) alone: of each class in turn.

    The first query of each class, then the second of each, and so on, listed by class; a query belongs to the class
    of its first label, those without a label or with unknown ones (-1) to one more.
    """
    first = np.where((labels > 0).any(1), labels.argmax(1), labels.shape[1])
    place = np.zeros(len(first), int)
    for label in np.unique(first):
        rows = np.flatnonzero(first == label)
        place[rows] = np.arange(len(rows))
    chosen = np.lexsort((first, place))[:count]
    return chosen[np.lexsort((place[chosen], first[chosen]))].tolist()


def nearest(
    query: np.ndarray, database: np.ndarray, count: int, real: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest database items of each query: indices (Q, count), Hamming distances (Q, count), items within (Q,).

    Within: not farther, in bits, than the last of the nearest.

    query (Q, K) and database (N, K): real-valued codes; a code of 0 has the sign +1. Ranked by Hamming distance, or
    with `real` by the dot product of the codes themselves; ties in database order.
    """
    signs = [np.where(codes >= 0, np.float32(1), np.float32(-1)) for codes in (query, database)]
    distances = np.rint((query.shape[1] - signs[0] @ signs[1].T) / 2).astype(np.int64)
    order = np.argsort(-(query @ database.T) if real else distances, axis=1, kind="stable")[:, :count]
    of_nearest = np.take_along_axis(distances, order, axis=1)
    return order, of_nearest, (distances <= of_nearest[:, -1:]).sum(1)


def read_pictures(path: Path, records: int, wanted: Sequence[int], columns: int) -> dict[int, Picture]:
    """The images at the places `wanted` of an LMDB that ought to have as many records as there are codes.

    columns: C, of the codes' labels.

    Raises GalleryError where the LMDB is missing, is another one, or holds no image there.
    """
    if not (path / "data.mdb").exists():
        raise GalleryError(f"{path.name} is missing")
    try:
        with open_lmdb(str(path)) as environment, environment.begin() as transaction:
            entries = environment.stat()["entries"]
            if entries != records:
                raise GalleryError(f"{path.name} holds {entries:,} images and there are {records:,} codes: not of it")
            places, pictures_at = set(wanted), {}
            for place, key in enumerate(transaction.cursor().iternext(keys=True, values=False)):
                if place in places and (record := transaction.get(key)) is not None:
                    name = f"{path.name}: {key.decode(errors='replace')}"
                    pictures_at[place] = picture(name, record, columns)
            return pictures_at
    except (lmdb.Error, LmdbFileError) as error:
        raise GalleryError(f"{path.name} cannot be read ({error})") from None


def picture(name: str, record: bytes, columns: int) -> Picture:
    """The image of a serialised Datum, and its labels as a vector (columns,).

    Raises GalleryError, with its name, if it holds no image, or a class number that is no column.
    """
    datum = caffe_pb2.Datum()
    try:
        datum.ParseFromString(record)
        if datum.encoded:
            pixels = pictures.decode(datum.data, datum.channels == 1 or None, name)
        else:
            shape = datum.channels, datum.height, datum.width
            whole = datum.channels in (1, 3) and len(datum.data) == np.prod(shape)
            pixels = np.frombuffer(datum.data, np.uint8).reshape(shape).transpose(1, 2, 0) if whole else np.empty(0)
        if len(datum.float_data):
            labels = np.array(datum.float_data)
        else:
            labels = label_rule.one_hot(datum.label if datum.HasField("label") else -1, columns, name)
    except DecodeError as error:
        raise GalleryError(f"{name}: not a Datum ({error})") from None
    except (pictures.PictureError, label_rule.LabelError) as error:
        raise GalleryError(str(error)) from None
    if not pixels.size:
        raise GalleryError(f"{name}: holds no grey or BGR image")
    uri, small = data_uri(pixels)
    return Picture(uri, small, labels)


def data_uri(pixels: np.ndarray) -> tuple[str, bool]:
    """An image, BGR (H, W, 3) or grey (H, W, 1) or (H, W), as a data URI; and whether it was kept at its small size.

    A small one is a PNG of the very pixels, a larger one a JPEG of the square in its middle, made small.
    """
    height, width = pixels.shape[:2]
    small = max(height, width) <= SMALL
    if not small:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
        if side > THUMBNAIL:
            pixels = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    kind, options = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 82])
    raw = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels), options)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}", small


def shares_label(labels: np.ndarray, others: np.ndarray) -> bool:
    """True if two label vectors (C,) have a label in common."""
    return bool(((labels > 0) & (others > 0)).any())


def gallery(
    query: tuple[np.ndarray, np.ndarray],
    database: tuple[np.ndarray, np.ndarray],
    folders: tuple[Path, Path],
    queries: int = 20,
    neighbours: int = 10,
    real: bool = False,
) -> list[Row]:
    """Rows of a gallery. query and database: codes (N, K) and labels (N, C), in the order of the LMDB `folders`.

    Raises GalleryError where the images cannot be read or carry other labels than the codes: they are not of these
    images.
    """
    chosen = choose(query[1], queries)
    order, distances, within = nearest(query[0][chosen], database[0], neighbours, real)
    query_pictures = read_pictures(folders[0], len(query[0]), chosen, query[1].shape[1])
    database_pictures = read_pictures(folders[1], len(database[0]), order.ravel().tolist(), database[1].shape[1])
    for shown, (_, labels), folder in ((query_pictures, query, folders[0]), (database_pictures, database, folders[1])):
        for place, each in shown.items():
            if not np.array_equal(each.labels, labels[place]):
                raise GalleryError(f"{folder.name}: image {place} carries other labels than its codes: not of it")
    return [
        Row(
            query_pictures[place],
            [
                Neighbour(database_pictures[item], shares_label(query[1][place], database[1][item]), int(distance))
                for item, distance in zip(items.tolist(), row, strict=True)
            ],
            int(tied),
        )
        for place, items, row, tied in zip(chosen, order, distances, within, strict=True)
    ]
