"""`convert_mnist_data` and `convert_mnist_siamese_data IMAGES LABELS DATABASE`: MNIST's files into a database.

The first writes a Datum for each image, (1, H, W), under the keys `%08d`. The second writes pairs of images drawn at
random, (2, H, W), labelled 1 where both have one label, otherwise 0.
"""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from caffe import glog
from caffe.cli import database
from caffe.cli.flags import Flags, run
from caffe.proto import caffe_pb2

MNIST = Flags(
    "convert_mnist_data",
    """convert_mnist_data: This script converts the MNIST dataset to
the lmdb/leveldb format used by Caffe to load data.
Usage:
    convert_mnist_data [FLAGS] input_image_file input_label_file output_db_file
""",
    {"backend": (str, "lmdb", "The backend for storing the result")},
)
SIAMESE = Flags(
    "convert_mnist_siamese_data",
    """This script converts the MNIST dataset to the leveldb format used
by caffe to train a siamese network.
Usage:
    convert_mnist_siamese_data input_image_file input_label_file output_db_file
""",
)


class _Kind(NamedTuple):
    """A kind of IDX file: its header is the magic number, then the sizes, each a big-endian 32-bit number."""

    name: str
    magic: int
    sizes: int


LARGEST = (1 << 31) - 1  # a Datum's sizes are int32
_IMAGES, _LABELS = _Kind("image", 2051, 3), _Kind("label", 2049, 1)


def _read_idx(path: str, kind: _Kind) -> np.ndarray:
    """The bytes of an IDX file, uint8 (N, H, W) or (N,). Raises ValueError for another file or one that is cut off."""
    with open(path, "rb") as file:
        content = file.read()
    header = np.frombuffer(content[: 4 * (1 + kind.sizes)], ">u4") if len(content) >= 4 * (1 + kind.sizes) else [0]
    if header[0] != kind.magic:
        remedy = "; it is a gzip file: gunzip it first" if content.startswith(b"\x1f\x8b") else ""
        raise ValueError(
            f"{path}: Incorrect {kind.name} file magic: expected {kind.magic} in the first four bytes, "
            f"found {int.from_bytes(content[:4], 'big')}{remedy}"
        )
    shape = tuple(int(size) for size in header[1:])
    if max(shape) > LARGEST:
        raise ValueError(f"{path}: expected sizes up to {LARGEST}, found {'x'.join(map(str, shape))}: it is damaged")
    data, count = np.frombuffer(content, np.uint8, offset=4 * len(header)), math.prod(shape)
    if data.size < count:
        raise ValueError(
            f"{path}: expected {count} bytes after the header, for {'x'.join(map(str, shape))}, found {data.size}: the "
            "file is cut off; get it again"
        )
    return data[:count].reshape(shape)


def read(image_file: str, label_file: str) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (N, H, W), labels (N,)). A label is a signed byte, as BVLC's tools take it.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file of another kind, one that is cut off, or not a label for each image.
    """
    images, labels = _read_idx(image_file, _IMAGES), _read_idx(label_file, _LABELS).view(np.int8)
    if len(images) != len(labels):
        raise ValueError(
            f"{label_file}: expected a label for each image of {image_file}, found {len(images)} images and "
            f"{len(labels)} labels"
        )
    return images, labels


def _datum(planes: np.ndarray, label: int) -> caffe_pb2.Datum:
    channels, height, width = planes.shape
    return caffe_pb2.Datum(channels=channels, height=height, width=width, data=planes.tobytes(), label=label)


def convert(words: list[str], values: SimpleNamespace) -> int:
    """Do what convert_mnist_data's command line says; returns the exit status."""
    if len(words) != 3:
        print(MNIST.help_text())
        return 0
    images, labels = read(*words[:2])
    with database.new(words[2], values.backend) as writer:
        _log_sizes("convert_mnist_data.cpp:88", "convert_mnist_data.cpp:89", images)
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            writer.put(f"{index:08d}", _datum(image[None], label).SerializeToString())
    glog.info("convert_mnist_data.cpp:108", f"Processed {writer.count} files.")
    return 0


def convert_siamese(words: list[str], values: SimpleNamespace) -> int:
    """Do what convert_mnist_siamese_data's command line says; returns the exit status."""
    if len(words) != 3:
        print(SIAMESE.usage)
        return 0
    images, labels = read(*words[:2])
    count = len(images)
    pairs = np.random.default_rng().integers(count, size=(count, 2)) if count else np.empty((0, 2), int)
    with database.new(words[2], "leveldb") as writer:
        _log_sizes("convert_mnist_siamese_data.cpp:86", "convert_mnist_siamese_data.cpp:87", images)
        for index, pair in enumerate(pairs):
            datum = _datum(images[pair], int(labels[pair[0]] == labels[pair[1]]))
            writer.put(f"{index:08d}", datum.SerializeToString())
    return 0


def _log_sizes(first: str, second: str, images: np.ndarray) -> None:
    count, rows, columns = images.shape
    glog.info(first, f"A total of {count} items.")
    glog.info(second, f"Rows: {rows} Cols: {columns}")


def main(arguments: list[str] | None = None) -> int:
    """Run convert_mnist_data; returns the exit status."""
    return run(MNIST, convert, arguments, "convert_mnist_data.cpp:48")


def siamese(arguments: list[str] | None = None) -> int:
    """Run convert_mnist_siamese_data; returns the exit status."""
    return run(SIAMESE, convert_siamese, arguments, "convert_mnist_siamese_data.cpp:41")


if __name__ == "__main__":
    sys.exit(main())
