"""`convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME`: images into the LMDB or LevelDB that a Data layer reads.

A line of the list is `path label`. The record of line i (from 0, after shuffling) has the key `%08d_path`. A file that
cannot be read, or is cut short, is left out and named in the log.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from types import SimpleNamespace

import cv2
import numpy as np

from caffe import glog
from caffe.cli import database
from caffe.cli.flags import Flags, run
from caffe.data import exif
from caffe.data.databases import read_list
from caffe.data.decoding import channels_first, decode, decode_flags, encode
from caffe.data.prefetch import workers
from caffe.proto import caffe_pb2

FLAGS = Flags(
    "convert_imageset",
    """convert_imageset: Convert a set of images to the leveldb/lmdb
format used as input for Caffe.
Usage:
    convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME
""",
    {
        "gray": (bool, False, "When this option is on, treat images as grayscale ones"),
        "shuffle": (bool, False, "Randomly shuffle the order of images and their labels"),
        "backend": (str, "lmdb", "The backend {lmdb, leveldb} for storing the result"),
        "resize_width": (int, 0, "Width images are resized to"),
        "resize_height": (int, 0, "Height images are resized to"),
        "check_size": (bool, False, "When this option is on, check that all the datum have the same size"),
        "encoded": (bool, False, "When this option is on, the encoded image will be save in datum"),
        "encode_type": (str, "", "Optional: What type should we encode the image as ('png','jpg',...)."),
    },
)

_CHUNK = 256


class UnreadableError(ValueError):
    """An image file that is left out."""


def image_datum(path: str, label: int, size: tuple[int, int] | None, color: bool, encoding: str) -> caffe_pb2.Datum:
    """The Datum of an image file (BVLC's ReadImageToDatum).

    size: (height, width) to resize to. encoding: raw pixels where empty, otherwise the file type to store; a file of
    that type that needs no change is stored as it is.

    Raises:
        UnreadableError: there is no such file, or no complete image in it.
        ValueError: OpenCV cannot write files of type `encoding`.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        image = decode(content, decode_flags(color))
    except OSError:
        raise UnreadableError(f"Could not open or find file {path}") from None
    except ValueError as error:
        raise UnreadableError(f"Could not open or find file {path}: {error}") from None
    if size is not None:
        image = cv2.resize(image, (size[1], size[0]))
    if not encoding:
        planes = channels_first(image)
        channels, height, width = planes.shape
        return caffe_pb2.Datum(
            channels=channels, height=height, width=width, data=planes.tobytes(), label=label, encoded=False
        )
    if size is None and _extension(path).replace("jpeg", "jpg") == encoding.lower().replace("jpeg", "jpg"):
        return caffe_pb2.Datum(data=content, label=label, encoded=True)
    made = encode(image, f".{encoding}")
    if made is None:
        raise ValueError(f"{path}: OpenCV cannot encode images of type {encoding!r}; give -encode_type png or jpg")
    return caffe_pb2.Datum(data=made, label=label, encoded=True)


def _extension(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[1].lower() if "." in name else ""


def _encoding(name: str, values: SimpleNamespace) -> str:
    if values.encode_type or not values.encoded:
        return values.encode_type
    if not _extension(name):
        raise ValueError(f"Failed to guess the encoding of {name!r}: it has no extension; give -encode_type png or jpg")
    return _extension(name)


def _datums(
    root: str, entries: list[tuple[str, int, int]], values: SimpleNamespace
) -> Iterator[caffe_pb2.Datum | UnreadableError]:
    """The Datums of the list's entries, in order, made by the worker threads; an error where a file is left out."""
    size = None
    if values.resize_height > 0 and values.resize_width > 0:
        size = (values.resize_height, values.resize_width)

    def make(entry: tuple[str, int, int]) -> caffe_pb2.Datum | UnreadableError:
        name, label, _ = entry
        try:
            return image_datum(root + name, label, size, not values.gray, _encoding(name, values))
        except UnreadableError as error:
            return error

    rest = iter(entries)
    chunks = iter(lambda: list(islice(rest, _CHUNK)), [])  # so that only a chunk of images is in memory
    return chain.from_iterable(workers().map(make, chunk) for chunk in chunks)


def convert(words: list[str], values: SimpleNamespace) -> int:
    """Do what the command line says; returns the exit status."""
    if len(words) != 3:
        print(FLAGS.help_text())
        return 1
    root, listfile, name = words
    entries = read_list(listfile)
    if values.shuffle:
        glog.info("convert_imageset.cpp:86", "Shuffling data")
        np.random.default_rng().shuffle(entries)
    glog.info("convert_imageset.cpp:89", f"A total of {len(entries)} images.")
    if values.encode_type and not values.encoded:
        glog.info("convert_imageset.cpp:92", "encode_type specified, assuming encoded=true.")
    first, turned = None, False
    with database.new(name, values.backend) as writer:
        for index, ((path, _, line), datum) in enumerate(zip(entries, _datums(root, entries, values), strict=True)):
            if isinstance(datum, UnreadableError):
                glog.error("io.cpp:83", str(datum))
                continue
            if datum.encoded and not turned and exif.orientation(datum.data) != 1:
                turned = True
                glog.warning(
                    "io.cpp:91",
                    f"{root}{path}: stored as the file is; its EXIF orientation is not applied by a Data layer, "
                    "as in BVLC Caffe: nets see the picture turned. Without -encoded, or with -resize_height and "
                    "-resize_width, pictures are stored upright. Other files are not reported",
                )
            first = len(datum.data) if first is None else first
            if values.check_size and len(datum.data) != first:
                raise ValueError(
                    f"{root}{path}: Incorrect data field size {len(datum.data)}, expected the first image's {first}"
                )
            number = index if values.shuffle else line - 1  # BVLC's counts empty lines
            writer.put(f"{number:08d}_{path}", datum.SerializeToString())
            if writer.count % database.BATCH == 0:
                glog.info("convert_imageset.cpp:147", f"Processed {writer.count} files.")
        if writer.count % database.BATCH:
            glog.info("convert_imageset.cpp:153", f"Processed {writer.count} files.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(FLAGS, convert, arguments, "convert_imageset.cpp:73")


if __name__ == "__main__":
    sys.exit(main())
