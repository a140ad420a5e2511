"""`convert_cifar_data INPUT_FOLDER OUTPUT_FOLDER BACKEND`: CIFAR-10's binary files into what a Data layer reads.

Reads data_batch_1.bin to data_batch_5.bin and test_batch.bin, writes cifar10_train_BACKEND and cifar10_test_BACKEND: a
Datum (3, 32, 32) for each image, under the keys `%05d`.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np

from caffe import glog
from caffe.cli import database
from caffe.cli.flags import Flags, run
from caffe.proto import caffe_pb2

FLAGS = Flags(
    "convert_cifar_data",
    """This script converts the CIFAR dataset to the leveldb format used
by caffe to perform classification.
Usage:
    convert_cifar_data input_folder output_folder db_type
Where the input folder should contain the binary batch files
(data_batch_1.bin and so on, unpacked from cifar-10-binary.tar.gz).
""",
)
SHAPE = (3, 32, 32)
BATCH_IMAGES = 10000
TRAIN, TEST = [f"data_batch_{number}.bin" for number in range(1, 6)], "test_batch.bin"


def read_batch(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(labels uint8 (N,), pixels uint8 (N, 3072)) of a batch file.

    Raises:
        OSError: no such file.
        ValueError: a file of another size.
    """
    content = np.fromfile(path, np.uint8)
    expected = BATCH_IMAGES * (1 + int(np.prod(SHAPE)))
    if content.size != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes, {BATCH_IMAGES} images with a label each, found {content.size}: the "
            "file is cut off or of another kind (CIFAR-10's binary version is needed)"
        )
    rows = content.reshape(BATCH_IMAGES, -1)
    return rows[:, 0], rows[:, 1:]


def _put(writer: database.Writer, path: str) -> None:
    channels, height, width = SHAPE
    labels, images = read_batch(path)
    for label, pixels in zip(labels.tolist(), images, strict=True):
        datum = caffe_pb2.Datum(channels=channels, height=height, width=width, data=pixels.tobytes(), label=label)
        writer.put(f"{writer.count:05d}", datum.SerializeToString())


def convert(words: list[str], values: SimpleNamespace) -> int:
    """Do what the command line says; returns the exit status."""
    if len(words) != 3:
        print(FLAGS.usage)
        return 0
    source, target, kind = words
    for name in (*TRAIN, TEST):  # before the minutes that writing takes
        if not os.path.isfile(os.path.join(source, name)):
            raise FileNotFoundError(f"Unable to open {os.path.join(source, name)}: unpack cifar-10-binary.tar.gz there")
    with database.new(os.path.join(target, f"cifar10_train_{kind}"), kind) as writer:
        glog.info("convert_cifar_data.cpp:52", "Writing Training data")
        for number, name in enumerate(TRAIN, 1):
            glog.info("convert_cifar_data.cpp:55", f"Training Batch {number}")
            _put(writer, os.path.join(source, name))
    glog.info("convert_cifar_data.cpp:73", "Writing Testing data")
    with database.new(os.path.join(target, f"cifar10_test_{kind}"), kind) as writer:
        _put(writer, os.path.join(source, TEST))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(FLAGS, convert, arguments, "convert_cifar_data.cpp:60")


if __name__ == "__main__":
    sys.exit(main())
