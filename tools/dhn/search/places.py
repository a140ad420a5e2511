"""The pictures of an index, where they lie: an LMDB, or files in a folder.

A place is an entry of index.json's `pictures`: kind (lmdb, files), path, relative (the path from the index's folder,
which is tried first: an index that moves with its data finds them), prefix (what stands in front of an LMDB's key in
the index's).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from lmdb_files import LmdbFileError, naming, open_lmdb

from dhn.search.items import SearchError

if TYPE_CHECKING:
    import lmdb

MEDIA_TYPES = {
    b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"GIF8": "image/gif", b"BM": "image/bmp",
    b"II*\0": "image/tiff", b"MM\0*": "image/tiff",
}  # fmt: skip


def place(kind: str, path: str | os.PathLike, folder: str | os.PathLike, prefix: str = "") -> dict:
    """An entry of `pictures` for pictures at a path; folder: that of the index."""
    return {**located(path, folder), "kind": kind, "prefix": prefix}


def located(path: str | os.PathLike, folder: str | os.PathLike) -> dict:
    """A path as index.json has it: absolute, and relative to the index's folder."""
    return {"path": os.path.abspath(path), "relative": os.path.relpath(path, folder)}


def find(folder: Path, entry: dict) -> Path:
    """Where something that index.json names is now: from the index's folder, else where it was."""
    # without "..", which needs the index's folder to be there: it may be replaced while its pictures are read
    near = Path(os.path.normpath(os.path.join(os.path.realpath(folder), entry["relative"])))
    return near if near.exists() else Path(entry["path"])


def read(folder: Path, entry: dict, key: str, path: str) -> tuple[bytes, str]:
    """A picture as (encoded bytes, media type). Raises SearchError where it is not there."""
    where = find(folder, entry)
    if entry["kind"] == "lmdb":
        return _read_record(where, key.removeprefix(entry["prefix"]))
    file = os.path.join(where, path)
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except (OSError, ValueError) as error:
        raise SearchError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return data, media_type(data)


def media_type(data: bytes) -> str:
    """The media type of an encoded picture by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    found = (kind for start, kind in MEDIA_TYPES.items() if data.startswith(start))
    return next(found, "application/octet-stream")


def _read_record(path: Path, key: str) -> tuple[bytes, str]:
    if not (path / "data.mdb").exists():
        raise SearchError(f"{path}: expected the LMDB of the index's pictures, found none; build it again")
    facts = os.stat(path / "data.mdb")
    try:
        with naming(str(path)), _environment(str(path.resolve()), facts.st_ino).begin() as transaction:
            record = transaction.get(key.encode(errors="surrogateescape"))
    except LmdbFileError as error:
        raise SearchError(str(error)) from None
    if record is None:
        raise SearchError(f"{path}: expected a record {key}, found none; is it the LMDB that the index was built from?")
    return encoded(bytes(record), f"{path}: {key}")


def encoded(record: bytes, name: str) -> tuple[bytes, str]:
    """The picture of a serialised Datum as (encoded bytes, media type): as it is stored, or a PNG of raw pixels.

    Raises SearchError, with its name, where it holds none.
    """
    from caffe.proto import caffe_pb2
    from google.protobuf.message import DecodeError

    try:
        datum = caffe_pb2.Datum.FromString(record)
    except DecodeError:
        raise SearchError(f"{name}: is not a Datum; build the LMDB again") from None
    if datum.encoded:
        return datum.data, media_type(datum.data)
    shape = datum.channels, datum.height, datum.width
    if datum.channels not in (1, 3) or len(datum.data) != np.prod(shape) or not datum.data:
        raise SearchError(f"{name}: expected a grey or BGR image of 8 bits a channel, found {shape}")
    pixels = np.frombuffer(datum.data, np.uint8).reshape(shape).transpose(1, 2, 0)
    return cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes(), "image/png"


@lru_cache(8)
def _environment(path: str, inode: int) -> lmdb.Environment:
    """An LMDB, open as long as the process lives. inode: another file of that path is opened again."""
    return open_lmdb(path, readahead=False)
