"""The good files that the fuzzer damages, in folders by subject; each command runs in one of them."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import asked_server
import build_index
import caffe
import command_lines
import cv2
import extract_codes
import get_data
import good_nets
import h5py
import miniatures
import numpy as np
import scipy.io
import score_run
from caffe.cli.compute_image_mean import main as compute_image_mean
from caffe.proto import caffe_pb2
from caffe.proto.text import read_net
from dhn.datasets import lmdb_build
from dhn.datasets.labelled_images import from_list
from dhn.files import sha256

TRAINED = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 regularization_type: "L2"
lr_policy: "step" gamma: 0.1 stepsize: 1
max_iter: 2 display: 1 average_loss: 2 iter_size: 1 clip_gradients: 10 random_seed: 3 snapshot: 1
snapshot_prefix: "s" solver_mode: CPU test_iter: 1 test_interval: 1 test_initialization: true debug_info: false
"""
OTHER_SOLVER = """train_net: "net.prototxt" test_net: "net.prototxt" type: "Adam" base_lr: 0.01 momentum: 0.9
momentum2: 0.999 delta: 1e-8 lr_policy: "multistep" stepvalue: 1 stepvalue: 2 gamma: 0.5 power: 0.75 max_iter: 3
test_iter: 2 test_interval: 2 test_initialization: false test_compute_loss: true test_state { stage: "a" level: 1 }
train_state { stage: "b" } iter_size: 2 display: 2 average_loss: 1 snapshot: 3 snapshot_prefix: "o" snapshot_diff: true
snapshot_after_train: false layer_wise_reduce: false device_id: 0 solver_mode: CPU weights: "s_iter_1.caffemodel"
"""
INLINE_SOLVER = f"""train_net_param {{ {TRAINED} }} test_net_param {{ {TRAINED} }} solver_type: RMSPROP rms_decay: 0.98
delta: 1e-8 base_lr: 0.01 lr_policy: "inv" gamma: 0.1 power: 0.75 max_iter: 2 test_iter: 1 test_interval: 1
snapshot_after_train: false solver_mode: CPU random_seed: 1
"""
HASH_LAYER = """layer { name: "hash_layer" type: "InnerProduct" bottom: "data" top: "hash_layer"
  inner_product_param { num_output: 8 weight_filler { type: "gaussian" std: 0.01 } } }
"""
DEPLOY = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }\n'
    + HASH_LAYER
)
PICTURES = ("0.jpg", "1.png", "2.bmp", "3.tiff", "4.webp", "5.ppm", "6.pgm", "7.gif", "8.png", "9.jpg")
LOG = """I1124 02:06:28.123456  42 solver.cpp:288] Solving net
I1124 02:06:29.100000  42 solver.cpp:239] Iteration 0 (0 iter/s, 0s/1 iters), loss = 0.69
I1124 02:06:29.200000  42 solver.cpp:258]     Train net output #0: loss = 0.69 (* 1 = 0.69 loss)
I1124 02:06:29.300000  42 sgd_solver.cpp:112] Iteration 0, lr = 0.01
I1124 02:06:30.100000  42 solver.cpp:347] Iteration 1, Testing net (#0)
I1124 02:06:30.200000  42 solver.cpp:414]     Test net output #0: loss = 0.5 (* 1 = 0.5 loss)
"""


def make(folder: Path) -> None:
    """Write all of them below `folder`."""
    for part in (nets, training, images, codes, codes_of_images, data_sets, runs):
        (folder / part.__name__).mkdir()
        with inside(folder / part.__name__):
            part()
            for name, line in command_lines.LINES.items():
                if line.folder == part.__name__:
                    Path(f"{name}.words").write_text(line.words)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The working directory is `folder` within."""
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def nets() -> None:
    """Net prototxts."""
    for name, text in good_nets.NETS.items():
        Path(f"{name}.prototxt").write_text(text)
    Path("deploy.prototxt").write_text(DEPLOY)
    caffe.Net("deploy.prototxt", caffe.TEST).save("w.caffemodel")
    infogain = caffe_pb2.BlobProto(num=1, channels=1, height=4, width=4, data=np.eye(4).ravel().tolist())
    Path("infogain.binaryproto").write_bytes(infogain.SerializeToString())


def training() -> None:
    """A net, its solver and their snapshots."""
    Path("net.prototxt").write_text(TRAINED)
    for form in ("HDF5", "BINARYPROTO"):
        Path("solver.prototxt").write_text(f"{SOLVER}snapshot_format: {form}\n")
        caffe.get_solver("solver.prototxt").solve()
    Path("other.prototxt").write_text(OTHER_SOLVER)
    Path("inline.prototxt").write_text(INLINE_SOLVER)
    Path("net.binary").write_bytes(read_net("net.prototxt").SerializeToString())
    Path("fork.proto").write_text(
        'syntax = "proto2"; package caffe;\nmessage LayerParameter { optional MineParameter mine_param = 9147; }\n'
        "message MineParameter { optional uint32 size = 1 [default = 3]; repeated float values = 2; }\n"
    )
    Path("train.log").write_text(LOG)


def _pictures() -> None:
    rng = np.random.RandomState(0)
    for name in PICTURES:
        shape = (8, 8) if name.endswith("pgm") else (8, 8, 3)
        cv2.imwrite(name, rng.randint(0, 256, shape, np.uint8))


def images() -> None:
    """Pictures, lists of them, an LMDB, HDF5 data, means, and nets that read them."""
    _pictures()
    Path("list.txt").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(PICTURES)))
    Path("labels.txt").write_text("".join(f"{name} {i % 2} 1 0\n" for i, name in enumerate(PICTURES)))
    Path("paths.txt").write_text("".join(f"{name}\n" for name in PICTURES))
    Path("windows.txt").write_text(
        "".join(f"# {i}\n{name}\n3\n8\n8\n2\n1 0.8 1 1 6 6\n0 0.1 0 0 5 7\n" for i, name in enumerate(PICTURES[:3]))
    )
    lmdb_build.build(from_list("list.txt", root=".", classes=3), "lmdb")
    compute_image_mean(["lmdb", "mean.binaryproto"])
    np.save("mean.npy", np.ones((3, 6, 6), np.float32))
    rng = np.random.RandomState(1)
    with h5py.File("data.h5", "w") as file:
        file["data"], file["label"] = rng.rand(5, 3).astype(np.float32), np.arange(5, dtype=np.float32)
        file.create_dataset("packed", data=np.zeros((64, 8)), chunks=(8, 8), compression="gzip", shuffle=True)
    Path("hdf5.txt").write_text("data.h5\n")
    for name in good_nets.READERS:
        Path(f"{name}.prototxt").write_text(good_nets.reader(name))
    Path("names.txt").write_text("".join(f"n{number} thing\n" for number in range(8)))
    np.save("pictures.npy", rng.rand(2, 7, 7, 3).astype(np.float32))
    Path("crops.csv").write_text("filename,ymin,xmin,ymax,xmax\n0.jpg,0,0,6,6\n1.png,1,1,7,7\n")
    Path("deploy.prototxt").write_text(DEPLOY)
    caffe.Net("deploy.prototxt", caffe.TEST).save("w.caffemodel")
    Path("datum").write_bytes(
        caffe_pb2.Datum(channels=3, height=8, width=8, data=bytes(192), label=1).SerializeToString()
    )
    Path("datum_encoded").write_bytes(
        caffe_pb2.Datum(encoded=True, data=Path("1.png").read_bytes(), float_data=[0, 1, 0]).SerializeToString()
    )
    for name, array in (("images", rng.randint(0, 256, (4, 6, 6), np.uint8)), ("labels", np.arange(4, dtype=np.uint8))):
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        Path(f"{name}.idx").write_bytes(head + array.tobytes())


def codes() -> None:
    """Codes and labels in every form that they are read from, and an index of some."""
    rng = np.random.RandomState(0)
    for name, count in (("query", 5), ("database", 30)):
        values = rng.randn(count, 8).astype(np.float32)
        labels = np.eye(3, dtype=np.uint8)[np.arange(count) % 3]
        np.savez(f"{name}.npz", codes=values, labels=labels)
    np.savez_compressed("packed.npz", codes=values, labels=labels)
    np.save("codes.npy", values)
    np.savetxt("codes.txt", values)
    np.savetxt("codes.csv", values, delimiter=",")
    np.savetxt("labels.txt", labels, fmt="%d")
    scipy.io.savemat("codes.mat", {"codes": values, "labels": labels}, do_compression=True)
    scipy.io.savemat("plain.mat", {"codes": values, "labels": labels})
    with h5py.File("codes.h5", "w") as file:
        file["codes"], file["labels"] = values, labels
    assert build_index.main(["--codes", "database.npz", "--out", "index"]) == 0


def codes_of_images() -> None:
    """A net's codes in parts, an index of them with pictures, and what made them."""
    _pictures()
    Path("paths.txt").write_text("".join(f"{name}\n" for name in PICTURES))
    Path("deploy.prototxt").write_text(DEPLOY)
    caffe.Net("deploy.prototxt", caffe.TEST).save("w.caffemodel")
    for number in "01":
        words = f"--model deploy.prototxt --weights w.caffemodel --source paths.txt --out parts --shard {number}/2"
        assert extract_codes.main([*words.split(), "--resize", "6", "6"]) == 0
    Path("part.json").write_text(str(np.load("parts/part-1-of-2.npz")["part"]))


def data_sets() -> None:
    """Recipes with what they name, and archives."""
    numbers = {"query": {"per_label": 1}, "train": {"per_label": 2}, "database": "rest", "R": 10}
    names = miniatures.photos(Path("photos"), ("crow", "tit"), 5)
    Path("list.txt").write_text("".join(f"photos/{name} {i // 5}\n" for i, name in enumerate(names)))
    for name, source in (
        ("folder", {"kind": "folder", "path": "photos"}),
        ("list", {"kind": "list", "path": "list.txt", "root": ".", "labels": ["crow", "tit"]}),
    ):
        splits = {"mine": {**numbers, "note": "of ours", "labels": 2}, "other": {**numbers, "R": "all"}}
        Path(f"{name}.json").write_text(json.dumps({"name": name, "source": source, "splits": splits}, indent=1))
    with tarfile.open("a.tar", "w") as archive:
        archive.add("list.txt")
        archive.add("photos")
    for kind in ("gz", "bz2", "xz"):
        with tarfile.open(f"a.tar.{kind}", f"w:{kind}") as archive:
            archive.add("list.txt")
            archive.add("photos/crow")
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(f"{name}.zip", "w", method) as archive:
            for path in ("list.txt", f"photos/{names[0]}"):
                archive.write(path)
    random = np.random.RandomState(0)
    Path("batch").write_bytes(miniatures.python_batch(random.randint(0, 256, (4, 3, 32, 32), np.uint8), [0, 1, 2, 3]))
    assert get_data.main(["folder.json", "--root", "built"]) == 0


def runs() -> None:
    """A scored run in a folder of its own, its data set, and its index."""
    miniatures.photos(Path("photos"), ("crow", "tit"), 5)
    numbers = {"query": {"per_label": 1}, "train": {"per_label": 2}, "database": "rest", "R": 10}
    recipe = {"source": {"kind": "folder", "path": "photos"}, "splits": {"mine": numbers}}
    Path("birds.json").write_text(json.dumps(recipe))
    assert get_data.main(["birds.json", "--root", "data"]) == 0
    run = Path("runs/mine")
    run.mkdir(parents=True)
    params = json.dumps({"source": "../../data/birds/train_lmdb", "batch_size": 2, "resize": 6})
    (run / "train_val.prototxt").write_text(
        'layer { name: "in" type: "Python" top: "data" top: "label" python_param { module: "multilabel_data"\n'
        f"  layer: \"MultiLabelDataLayer\" param_str: '{params}' }} }}\n{HASH_LAYER}"
    )
    (run / "deploy.prototxt").write_text(DEPLOY)
    (run / "solver.prototxt").write_text(SOLVER)
    (run / "train.log").write_text(LOG)
    caffe.Net(str(run / "deploy.prototxt"), caffe.TEST).save(str(run / "s_iter_2.caffemodel"))
    names = ("train_val.prototxt", "solver.prototxt", "deploy.prototxt")
    (run / "written.json").write_text(json.dumps({name: sha256(run / name) for name in names}))
    (run / "training.json").write_text(json.dumps({"iterations": 2, "seconds_per_step": 0.5, "resumed_at": [1]}))
    for side in ("query", "database"):
        words = f"--model {run}/deploy.prototxt --weights {run}/s_iter_2.caffemodel --source data/birds/{side}_lmdb"
        assert extract_codes.main([*words.split(), "--out", f"{run}/{side}.npz"]) == 0
    assert score_run.main(["--run", "runs/mine"]) == 0
    assert build_index.main(["runs/mine"]) == 0
    asked_server.write("photos/tit/1.jpg")
