"""Records of an LMDB of labelled images: how they are made, written, and checked.

A record is a Datum: the image in `data` (raw pixels CHW, BGR; or an encoded jpg or png), the label vector in
`float_data`, and the index of the first label in `label` (-1 for none). Its key is `%08d_path`, the place in the list
and the path, as convert_imageset writes it.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import pictures
from atomic_writes import reserve
from lmdb_files import LmdbFileError, open_lmdb

from dhn.files import read_json
from dhn.progress import counter

BATCH_RECORDS, BATCH_BYTES = 1024, 32 << 20  # one transaction
SHOWN = 10  # bad records named
LOCK_BYTES = 8192  # of lock.mdb, as liblmdb makes it
KEY_BYTES = 511  # LMDB's limit; a longer path is cut, the number in front keeps the key unique


class LmdbError(RuntimeError):
    """An LMDB that cannot be written, or is not what it should be."""


def make_datum(pixels: np.ndarray, data: bytes | None, labels: np.ndarray, first: int, encode: str) -> bytes:
    """A serialised Datum of an image, BGR (H, W, 3) or grey (H, W, 1) uint8, and its label vector (C,).

    `encode`: raw, jpg or png; `data`: an image file's own bytes where they are stored as they are.
    """
    from caffe.proto import caffe_pb2

    datum = caffe_pb2.Datum(label=first)
    datum.height, datum.width, datum.channels = pixels.shape
    datum.float_data.extend(labels.tolist())
    if len(datum.float_data) != len(labels):  # protobuf 7 drops what it has no memory for
        raise MemoryError(f"not enough memory for the {len(labels):,} labels of an image")
    if encode == "raw":
        datum.data = pixels.transpose(2, 0, 1).tobytes()
    else:
        if data is None:
            import cv2

            data = cv2.imencode("." + encode, pixels)[1].tobytes()
        datum.encoded, datum.data = True, data
    return datum.SerializeToString()


def make_key(place: int, name: str) -> bytes:
    """The key of the record at a place of its list."""
    return f"{place:08d}_{name}".encode(errors="surrogateescape")[:KEY_BYTES]


@contextlib.contextmanager
def new_lmdb(folder: Path, out: str | os.PathLike, map_size: int) -> Iterator[lmdb.Environment]:
    """An LMDB in the empty folder that is to become `out`; it is on the disk at the end. Raises LmdbError, OSError."""
    reserve(folder / "lock.mdb", LOCK_BYTES, out)
    try:
        with lmdb.open(str(folder), map_size=map_size, sync=False) as environment:
            yield environment
            environment.sync(True)
    except lmdb.Error as error:
        unmapped = isinstance(error, lmdb.MemoryError)
        reason = "not enough memory to map it" if unmapped else f"{error}; is the disk full?"
        raise LmdbError(f"{out}: cannot write the LMDB: {reason}") from None


def write_records(environment: lmdb.Environment, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Append (key, value) records, keys ascending, in transactions; the map doubles whenever it is full.

    Returns how many were written.
    """
    batch: list[tuple[bytes, bytes]] = []
    size = written = 0

    def commit() -> None:
        while batch:
            try:
                with environment.begin(write=True) as transaction:
                    for key, value in batch:
                        if not transaction.put(key, value, append=True):
                            raise LmdbError(f"the key {key!r} stands twice")
                return
            except lmdb.MapFullError:
                environment.set_mapsize(environment.info()["map_size"] * 2)

    for record in records:
        batch.append(record)
        size += len(record[1])
        written += 1
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
            commit()
            batch.clear()
            size = 0
    commit()
    return written


def check(out: str | os.PathLike) -> dict:
    """Read an LMDB through: keys in order, each record a Datum, images decodable, label vectors of one length.

    Returns {"records", "shapes": {(C, H, W): count}, "labels": C}. Raises LmdbError naming the records that are wrong,
    a line each, or if the number of records is not the one it was built with.
    """
    out = Path(out)
    if not (out / "data.mdb").exists():
        raise LmdbError(f"{out}: expected an LMDB (a folder with data.mdb), found none")
    shapes: collections.Counter = collections.Counter()
    length, count, last, bad = None, 0, -1, []
    try:
        with open_lmdb(str(out)) as environment, environment.begin() as transaction, counter() as progress:
            entries = environment.stat()["entries"]
            task = progress.add_task(f"check {out.name}", total=entries)
            for key, value in transaction.cursor():
                count += 1
                progress.advance(task)
                try:
                    last = _check_key(out, key, last)
                    shape, labels = _check_datum(f"{out}: record {key.decode(errors='replace')}", value)
                    length = labels if length is None else length
                    if labels != length:
                        raise LmdbError(
                            f"{out}: record {key.decode(errors='replace')}: expected {length} labels as in "
                            f"the first record, found {labels}"
                        )
                    shapes[shape] += 1
                except LmdbError as error:
                    bad.append(str(error))
    except (lmdb.Error, LmdbFileError) as error:
        place = f" after {count} records" if count else ""
        bad.append(f"{out}: not a complete LMDB{place} ({error}); build it again")
        raise LmdbError(_listed(bad, count)) from None
    if bad:
        raise LmdbError(_listed(bad, count))
    expected = read_json(out / "source.json").get("records", entries)
    if count != expected or not expected:
        raise LmdbError(f"{out}: expected {expected or 'at least one'} records, found {count}; build it again")
    return {"records": count, "shapes": dict(shapes), "labels": length}


def _listed(bad: list[str], count: int) -> str:
    """What is wrong with an LMDB: one sentence a line, at most SHOWN."""
    total = [f"{len(bad)} of {count} records are bad"] if len(bad) > 1 else []
    return "\n".join(bad[:SHOWN] + total)


def _check_key(out: Path, key: bytes, last: int) -> int:
    digits, bar, _ = key.partition(b"_")
    if not bar or len(digits) < 8 or not digits.isdigit():
        raise LmdbError(f"{out}: expected keys such as 00000000_path, found {key!r}")
    if int(digits) <= last:
        raise LmdbError(f"{out}: key {key!r} follows number {last}: keys must ascend")
    return int(digits)


def _check_datum(name: str, value: bytes) -> tuple[tuple[int, int, int], int]:
    """The shape (C, H, W) and number of labels of a serialised Datum."""
    from caffe.proto import caffe_pb2

    datum = caffe_pb2.Datum()
    try:
        datum.ParseFromString(value)
    except Exception as error:  # protobuf's DecodeError lives in a different module from version to version
        raise LmdbError(f"{name}: not a Datum ({error})") from None
    shape = (datum.channels, datum.height, datum.width)
    if datum.encoded:
        turned = pictures.orientation(datum.data)
        if turned != 1:
            raise LmdbError(f"{name}: its image has the EXIF orientation {turned}, which Caffe's Data layer does not "
                            "apply; build the LMDB again")  # fmt: skip
        try:
            pixels = pictures.decode(datum.data, datum.channels == 1, name)
        except pictures.PictureError as error:
            raise LmdbError(str(error)) from None
        decoded = (pixels.shape[2], *pixels.shape[:2])
        if shape not in (decoded, (0, 0, 0)):
            raise LmdbError(f"{name}: its image is {decoded}, the Datum says {shape}")
        shape = decoded
    elif len(datum.data) != np.prod(shape) or not datum.data:
        raise LmdbError(f"{name}: expected {np.prod(shape)} bytes for an image of {shape}, found {len(datum.data)}")
    return shape, len(datum.float_data)
