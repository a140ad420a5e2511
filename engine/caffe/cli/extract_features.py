"""`extract_features WEIGHTS NET BLOBS DATABASES BATCHES BACKEND [CPU|GPU] [DEVICE_ID]`: blobs into databases of Datums.

The record of image i has the key `%010d` and a Datum with the blob's values in `float_data`.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

import caffe
from caffe import glog
from caffe.cli import database
from caffe.cli.flags import Flags, run
from caffe.imports import import_module
from caffe.proto import caffe_pb2, wire

if TYPE_CHECKING:
    from caffe.blob import Blob

FLAGS = Flags(
    "extract_features",
    """This program takes in a trained network and an input data layer, and then extract features of the input data \
produced by the net.
Usage: extract_features  pretrained_net_param  feature_extraction_proto_file  \
extract_feature_blob_name1[,name2,...]  save_feature_dataset_name1[,name2,...]  num_mini_batches  db_type  \
[CPU/GPU] [DEVICE_ID=0]
Note: you can extract multiple features in one pass by specifying multiple feature blob names and dataset names \
separated by ','. The names cannot contain white space characters and the number of blobs and datasets must be \
equal.""",
)


def extract(words: list[str], values: SimpleNamespace) -> int:
    """Do what the command line says; returns the exit status."""
    if len(words) < 6:
        glog.error("extract_features.cpp:35", FLAGS.usage)
        return 1
    weights, net_file, blobs, databases, batches, kind = words[:6]
    _use(words[6:])
    names, folders = blobs.split(","), databases.split(",")
    if len(names) != len(folders):
        raise ValueError(
            f"the number of blob names and dataset names must be equal; found {len(names)} and {len(folders)}"
        )
    if not batches.isdecimal() or not 1 <= int(batches) < 1 << 31:
        raise ValueError(f"num_mini_batches: expected a whole number from 1 to 2147483647, found {batches[:20]!r}")
    fillers = import_module("caffe.fillers")  # here: it imports torch, which help needs not
    with fillers.only_unwritten():  # BVLC's command has no seed either
        net = caffe.Net(net_file, caffe_pb2.TEST)
        net.copy_from(weights)
    for name in names:
        if name not in net.blobs:
            raise ValueError(
                f"Unknown feature blob name {name} in the network {net_file}; it has {', '.join(net.blobs)}"
            )
    with ExitStack() as stack:
        writers = [stack.enter_context(database.new(folder, kind)) for folder in folders]
        glog.error("extract_features.cpp:133", "Extracting Features")
        for _ in range(int(batches)):
            net._forward_loss(0, len(net.layers) - 1)
            for name, writer in zip(names, writers, strict=True):
                _put(net.blobs[name], name, writer)
        for name, writer in zip(names, writers, strict=True):
            glog.error("extract_features.cpp:176", _progress(writer.count, name))
    glog.error("extract_features.cpp:181", "Successfully extracted the features!")
    return 0


def _use(words: list[str]) -> None:
    """The device that the last words name."""
    if not words or words[0] != "GPU":
        glog.error("extract_features.cpp:62", "Using CPU")
        caffe.set_mode_cpu()
        return
    glog.error("extract_features.cpp:52", "Using GPU")
    number = words[1].removeprefix("DEVICE_ID=") if len(words) > 1 else "0"
    if not number.isdecimal():
        raise ValueError(f"DEVICE_ID: expected a whole number from 0 on, found {number!r}")
    glog.error("extract_features.cpp:58", f"Using Device_id={number}")
    import torch  # here, as help needs it not

    found = torch.cuda.device_count()
    if int(number) >= found:
        raise ValueError(
            f"Cannot use GPU {number}: torch {torch.__version__} finds {found} CUDA devices; "
            "write CPU instead to compute on the CPU"
        )
    caffe.set_device(int(number))
    caffe.set_mode_gpu()


def _put(blob: Blob, name: str, writer: database.Writer) -> None:
    """Write a record for each item of the blob, whose axes after the fourth count with the third."""
    shape = (*blob.shape, 1, 1, 1, 1)[:4]
    start = caffe_pb2.Datum(channels=shape[1], height=shape[2], width=shape[3]).SerializeToString()
    for values in _float_data(blob.data.reshape(blob.shape[0], -1)):
        writer.put(f"{writer.count:010d}", start + values.tobytes())
        if writer.count % database.BATCH == 0:
            glog.error("extract_features.cpp:164", _progress(writer.count, name))


def _float_data(values: np.ndarray) -> np.ndarray:
    """Rows of values (N, K) as a Datum's field float_data in wire form, (N, K) records: a tag before each value."""
    number = caffe_pb2.Datum.DESCRIPTOR.fields_by_name["float_data"].number
    fields = np.empty(values.shape, [("tag", np.uint8), ("value", "<f4")])
    fields["tag"] = number << 3 | wire.FIXED32
    fields["value"] = values
    return fields


def _progress(count: int, name: str) -> str:
    return f"Extracted features of {count} query images for feature blob {name}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(FLAGS, extract, arguments, "extract_features.cpp:114")


if __name__ == "__main__":
    sys.exit(main())
