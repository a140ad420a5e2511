"""`compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]`: the mean image of a database, as a binaryproto."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np

from caffe import glog
from caffe.atomic_files import check_folder, write_atomic
from caffe.cli import database
from caffe.cli.flags import Flags, run
from caffe.data.databases import Database
from caffe.data.decoding import datum_image, parse_datum, size
from caffe.proto import caffe_pb2

FLAGS = Flags(
    "compute_image_mean",
    """compute_image_mean: Compute the mean_image of a set of images given by a leveldb/lmdb
Usage:
    compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]
""",
    {"backend": (str, "lmdb", "The backend {leveldb, lmdb} containing the images")},
)
_EVERY = 10000  # records between two lines of the log


def mean_image(folder: str, backend: int) -> np.ndarray:
    """The mean of all images, float64 (C, H, W), summed without rounding.

    Raises:
        ValueError: a record that is no image, or of another size than the first.
    """
    total = np.zeros(())
    count = 0
    for key, value in Database(folder, backend):
        try:
            datum = parse_datum(value)
            image = datum_image(datum)
        except ValueError as error:
            raise ValueError(f"{folder}, record {key}: {error}") from None
        if count == 0:
            if datum.encoded:
                glog.info("compute_image_mean.cpp:57", "Decoding Datum")
            glog.info("compute_image_mean.cpp:70", "Starting iteration")
            total = np.zeros(image.shape)
        if image.shape != total.shape:
            raise ValueError(
                f"{folder}, record {key}: Incorrect data field size {size(image.shape)}, expected the first record's "
                f"{size(total.shape)}; build the database with -resize_height and -resize_width"
            )
        total += image
        count += 1
        if count % _EVERY == 0:
            glog.info("compute_image_mean.cpp:97", f"Processed {count} files.")
    if count % _EVERY:
        glog.info("compute_image_mean.cpp:101", f"Processed {count} files.")
    return total / count


def compute(words: list[str], values: SimpleNamespace) -> int:
    """Do what the command line says; returns the exit status."""
    if len(words) not in (1, 2):
        print(FLAGS.help_text())
        return 1
    if len(words) == 2:
        check_folder(words[1])
    mean = mean_image(words[0], database.backend(values.backend))
    if len(words) == 2:
        channels, height, width = mean.shape
        blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel())
        glog.info("compute_image_mean.cpp:108", f"Write to {words[1]}")
        write_atomic(words[1], blob.SerializeToString())
    glog.info("compute_image_mean.cpp:114", f"Number of channels: {len(mean)}")
    for channel, value in enumerate(mean.mean((1, 2))):
        glog.info("compute_image_mean.cpp:119", f"mean_value channel [{channel}]: {value:g}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(FLAGS, compute, arguments, "compute_image_mean.cpp:79")


if __name__ == "__main__":
    sys.exit(main())
