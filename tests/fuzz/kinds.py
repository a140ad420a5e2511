"""What the fuzzer damages: for each kind of input, a good file and the command that reads it."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import caffe
import create_lmdb
import cv2
import h5py
import numpy as np
import score_map
from caffe.cli.main import main as caffe_main
from caffe.proto import caffe_pb2
from dhn.datasets import archives, lmdb_build
from dhn.datasets.labelled_images import from_list


class Kind(NamedTuple):
    """file: the one that is damaged. command: reads it and returns an exit status, in a folder with all files."""

    file: str
    command: Callable[[], int]


NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = (
    'net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 2 snapshot: 1 snapshot_prefix: "s"'
)
READERS = {
    "lmdb.prototxt": 'type: "Data" data_param { source: "lmdb" batch_size: 2 backend: LMDB }',
    "mean.prototxt": 'type: "Data" data_param { source: "lmdb" batch_size: 2 backend: LMDB } '
    'transform_param { mean_file: "mean.binaryproto" }',
    "list.prototxt": 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 2 }',
    "hdf5.prototxt": 'type: "HDF5Data" hdf5_data_param { source: "hdf5.txt" batch_size: 2 }',
    "python.prototxt": 'type: "Python" python_param { module: "multilabel_data" layer: "MultiLabelDataLayer" '
    'param_str: \'{"source": "lmdb", "batch_size": 2}\' }',
}


def make(folder: Path) -> None:
    """Write the good files into the working directory, which is `folder`."""
    (folder / "net.prototxt").write_text(NET)
    for form in ("HDF5", "BINARYPROTO"):
        (folder / "solver.prototxt").write_text(f"{SOLVER} solver_mode: CPU snapshot_format: {form}")
        caffe.get_solver("solver.prototxt").solve()
    for name, layer in READERS.items():
        (folder / name).write_text(f'layer {{ name: "in" top: "data" top: "label" {layer} }}')
    rng = np.random.RandomState(0)
    for i in range(6):
        cv2.imwrite(f"{i}.png" if i else "0.jpg", rng.randint(0, 256, (8, 8, 3), np.uint8))
    (folder / "list.txt").write_text("0.jpg 1\n" + "".join(f"{i}.png {i % 3}\n" for i in range(1, 6)))
    lmdb_build.build(from_list("list.txt", root=".", classes=3), "lmdb")
    mean = caffe_pb2.BlobProto(num=1, channels=3, height=8, width=8, data=[1.0] * 192)
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    with h5py.File("data.h5", "w") as file:
        file["data"], file["label"] = rng.rand(5, 3).astype(np.float32), np.arange(5, dtype=np.float32)
    (folder / "hdf5.txt").write_text("data.h5\n")
    for name, count in (("query.npz", 5), ("database.npz", 30)):
        codes = rng.randn(count, 8).astype(np.float32)
        np.savez(folder / name, codes=codes, labels=np.eye(3, dtype=np.uint8)[np.arange(count) % 3])
    with tarfile.open("archive.tar.gz", "w:gz") as archive:
        archive.add("0.jpg")
        archive.add("list.txt")


def run_caffe(*words: str) -> Callable[[], int]:
    """A command of `caffe`."""
    return lambda: caffe_main([*words])


def time_net(path: str) -> Callable[[], int]:
    return run_caffe("time", "-model", path, "-iterations", "1")


def unpack() -> int:
    try:
        archives.unpack("archive.tar.gz", "unpacked", lambda name: name, 1 << 20)
    except (archives.ArchiveError, OSError) as error:
        print(error)
        return 1
    return 0


def resume(state: str) -> Callable[[], int]:
    return run_caffe("train", "-solver", "solver.prototxt", "-snapshot", state)


def weights(path: str) -> Callable[[], int]:
    return run_caffe("test", "-model", "net.prototxt", "-weights", path, "-iterations", "1")


KINDS = {
    "net prototxt": Kind("net.prototxt", time_net("net.prototxt")),
    "solver prototxt": Kind("solver.prototxt", run_caffe("train", "-solver", "solver.prototxt")),
    "caffemodel": Kind("s_iter_1.caffemodel", weights("s_iter_1.caffemodel")),
    "HDF5 caffemodel": Kind("s_iter_1.caffemodel.h5", weights("s_iter_1.caffemodel.h5")),
    "solverstate": Kind("s_iter_1.solverstate", resume("s_iter_1.solverstate")),
    "HDF5 solverstate": Kind("s_iter_1.solverstate.h5", resume("s_iter_1.solverstate.h5")),
    "LMDB in Data": Kind("lmdb/data.mdb", time_net("lmdb.prototxt")),
    "LMDB in MultiLabelData": Kind("lmdb/data.mdb", time_net("python.prototxt")),
    "LMDB checked": Kind("lmdb/data.mdb", lambda: create_lmdb.main(["lmdb", "--check"])),
    "mean file": Kind("mean.binaryproto", time_net("mean.prototxt")),
    "image list": Kind("list.txt", time_net("list.prototxt")),
    "list of create_lmdb": Kind("list.txt", lambda: create_lmdb.main(["list.txt", "out", "--classes", "3"])),
    "image": Kind("0.jpg", time_net("list.prototxt")),
    "HDF5 data": Kind("data.h5", time_net("hdf5.prototxt")),
    "codes": Kind("query.npz", lambda: score_map.main(["--query", "query.npz", "--database", "database.npz"])),
    "archive": Kind("archive.tar.gz", unpack),
}
