"""BVLC's tutorials in miniature: the converters of MNIST and CIFAR-10, classification, and examples/mnist as a whole.

The records' digests are those of the databases that BVLC's converters wrote from the same files.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path

import caffe
import cv2
import lmdb
import numpy as np
import pytest
import reference
from caffe.cli import classification, convert_cifar_data, convert_mnist_data, log_tables, shim
from caffe.proto import caffe_pb2

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
TRAIN_LOG = HERE.parent / "conformance" / "recorded" / "logs" / "train.txt"


def write_idx(folder: Path, name: str, images: np.ndarray, labels: list[int]) -> str:
    """MNIST's files of images uint8 (N, H, W) and labels; returns the command line's words for them."""
    (folder / f"{name}-images").write_bytes(struct.pack(">4I", 2051, *images.shape) + images.tobytes())
    (folder / f"{name}-labels").write_bytes(struct.pack(">2I", 2049, len(labels)) + bytes(labels))
    return f"{name}-images {name}-labels"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with three images of 5x4, labelled 0, 127 and 200."""
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path, "three", np.arange(60, dtype=np.uint8).reshape(3, 5, 4), [0, 127, 200])
    return tmp_path


def records(database: str) -> list[tuple[str, caffe_pb2.Datum]]:
    with lmdb.open(database, readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key).decode(), caffe_pb2.Datum.FromString(value)) for key, value in transaction.cursor()]


def digest(database: str) -> str:
    """Of all keys and values, in order."""
    sha = hashlib.sha256()
    with lmdb.open(database, readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            sha.update(bytes(key) + bytes(value))
    return sha.hexdigest()[:16]


def run(capfd, command, words: str) -> tuple[int, str]:
    capfd.readouterr()
    status = command(words.split())
    captured = capfd.readouterr()
    return status, captured.out + captured.err


def test_mnists_records_are_bvlcs(folder, capfd):
    status, log = run(capfd, convert_mnist_data.main, "three-images three-labels mnist")
    assert status == 0
    assert [line.split("] ")[1] for line in log.splitlines()] == [
        "Opened lmdb mnist", "A total of 3 items.", "Rows: 5 Cols: 4", "Processed 3 files."
    ]  # fmt: skip
    assert digest("mnist") == "eab39c5954266b69"
    keys, datums = zip(*records("mnist"), strict=True)
    assert keys == ("00000000", "00000001", "00000002")
    assert [datum.label for datum in datums] == [0, 127, -56]  # a signed byte
    assert datums[1].data == bytes(range(20, 40))


MNIST_REFUSED = {
    "three-images three-labels taken": "taken: it exists already",
    "--backend=foo three-images three-labels x": "Unknown database backend 'foo'",
    "three-images two-labels x": "two-labels: expected a label for each image of three-images, found 3 ",
    "three-labels three-labels x": "three-labels: Incorrect image file magic: expected 2051 in the first four bytes",
    "three-images packed x": "in the first four bytes, found 529205256; it is a gzip file: gunzip it first",
    "empty three-labels x": "empty: Incorrect image file magic",
    "nowhere three-labels x": "nowhere",
    "cut three-labels x": "cut: expected 60 bytes after the header, for 3x5x4, found 24: the file is cut off",
    "wide three-labels x": "wide: expected sizes up to 2147483647, found 3x0x4294901847: it is damaged",
}


@pytest.mark.parametrize("words", MNIST_REFUSED)
def test_mnist_refuses_and_leaves_nothing(folder, capfd, words):
    Path("taken").mkdir()
    Path("two-labels").write_bytes(struct.pack(">2I", 2049, 2) + b"\0\1")
    Path("packed").write_bytes(b"\x1f\x8b\x08\x08" + bytes(20))
    Path("empty").write_bytes(b"")
    Path("wide").write_bytes(struct.pack(">4I", 2051, 3, 0, 4294901847))
    Path("cut").write_bytes(Path("three-images").read_bytes()[:40])
    before = sorted(folder.iterdir())
    status, log = run(capfd, convert_mnist_data.main, words)
    assert status == 1 and MNIST_REFUSED[words] in log
    assert sorted(folder.iterdir()) == before


def test_usages(folder, capfd):
    """Of a command line with other words than three, BVLC's converters show the usage, and end with status 0."""
    for command in (convert_mnist_data.main, convert_mnist_data.siamese, convert_cifar_data.main):
        status, out = run(capfd, command, "a b")
        assert status == 0 and "This script converts the" in out and "Usage:" in out
    status, out = run(capfd, classification.main, "a b c d")
    assert (status, out) == (1, classification.FLAGS.usage + "\n")


def test_siamese_pairs(folder, capfd):
    """Two planes each, drawn at random; label 1 where both images have the same."""
    plyvel = pytest.importorskip("plyvel")
    images = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    words = write_idx(folder, "many", images, [index % 2 for index in range(40)])
    assert run(capfd, convert_mnist_data.siamese, f"{words} pairs")[0] == 0
    database = plyvel.DB("pairs")
    datums = {key.decode(): caffe_pb2.Datum.FromString(value) for key, value in database}
    database.close()
    assert list(datums) == [f"{index:08d}" for index in range(40)]
    pairs = [tuple(datum.data[::4]) for datum in datums.values()]
    assert [datum.label for datum in datums.values()] == [int(a % 2 == b % 2) for a, b in pairs]
    assert {(d.channels, d.height, d.width, len(d.data)) for d in datums.values()} == {(2, 2, 2, 8)}
    assert len(set(pairs)) > 30 and max(map(max, pairs)) < 40


def write_cifar(folder: Path, images: int) -> None:
    """CIFAR-10's binary files; image n of file i has label n % 10 and one grey, (7 i + n) % 256."""
    folder.mkdir()
    for number, name in enumerate([convert_cifar_data.TEST, *convert_cifar_data.TRAIN]):
        rows = (bytes([n % 10]) + bytes([(number * 7 + n) % 256]) * 3072 for n in range(images))
        (folder / name).write_bytes(b"".join(rows))


def test_cifars_records_are_bvlcs(folder, capfd, monkeypatch):
    monkeypatch.setattr(convert_cifar_data, "BATCH_IMAGES", 3)
    write_cifar(folder / "bin", 3)
    Path("out").mkdir()
    status, log = run(capfd, convert_cifar_data.main, "bin out lmdb")
    assert status == 0
    assert [line.split("] ")[1] for line in log.splitlines()] == [
        "Opened lmdb out/cifar10_train_lmdb", "Writing Training data",
        *(f"Training Batch {number}" for number in range(1, 6)),
        "Writing Testing data", "Opened lmdb out/cifar10_test_lmdb",
    ]  # fmt: skip
    train, test = records("out/cifar10_train_lmdb"), records("out/cifar10_test_lmdb")
    assert [key for key, _ in train] == [f"{index:05d}" for index in range(15)] and len(test) == 3
    assert [datum.label for _, datum in train] == [0, 1, 2] * 5
    assert [datum.data[0] for _, datum in test] == [0, 1, 2] and train[14][1].data == bytes([37]) * 3072
    datum = train[0][1]
    assert (datum.channels, datum.height, datum.width, datum.HasField("encoded")) == (3, 32, 32, False)


def test_cifar_refuses(folder, capfd, monkeypatch):
    monkeypatch.setattr(convert_cifar_data, "BATCH_IMAGES", 3)
    write_cifar(folder / "bin", 3)
    (folder / "bin" / "data_batch_2.bin").write_bytes(b"\0" * 9218)
    for words, message in {
        "bin . lmdb": "data_batch_2.bin: expected 9219 bytes, 3 images with a label each, found 9218",
        "bin . foo": "Unknown database backend 'foo'",
        "bin nowhere lmdb": "there is no folder",
        ". . lmdb": "data_batch_1.bin: unpack cifar-10-binary.tar.gz there",
    }.items():
        status, log = run(capfd, convert_cifar_data.main, words)
        assert status == 1 and message in log
    assert not list(folder.glob("*cifar10*"))


NET = """
input: "data" input_shape { dim: 2 dim: CHANNELS dim: 4 dim: 6 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 7 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def write_net(folder: Path, channels: int) -> str:
    """A net with fixed weights, its mean and its labels; returns the command line's first words."""
    (folder / "net.prototxt").write_text(NET.replace("CHANNELS", str(channels)))
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    random = np.random.RandomState(3)
    net.params["ip"][0].data[...] = random.normal(0, 0.002, net.params["ip"][0].data.shape)
    net.save(str(folder / "net.caffemodel"))
    mean = random.uniform(90, 130, (1, channels, 8, 8))
    (folder / "mean.binaryproto").write_bytes(caffe.io.array_to_blobproto(mean).SerializeToString())
    (folder / "labels.txt").write_text("".join(f"n{index} a label\n" for index in range(7)))
    return "net.prototxt net.caffemodel mean.binaryproto labels.txt"


def write_pictures() -> None:
    random = np.random.RandomState(4)
    for name, shape in {"color": (9, 8, 3), "grey": (9, 8), "alpha": (9, 8, 4), "fits": (4, 6, 3)}.items():
        cv2.imwrite(f"{name}.png", random.randint(0, 256, shape, dtype=np.uint8))


# (channels of the net, picture): BVLC's classification's labels and their values, in its order
CLASSIFIED = {
    (1, "color"): {2: 0.2388, 0: 0.227, 4: 0.1431, 3: 0.1364, 5: 0.1113},
    (1, "grey"): {0: 0.2298, 2: 0.2149, 5: 0.1702, 3: 0.1481, 6: 0.1373},
    (1, "alpha"): {6: 0.2176, 4: 0.1705, 5: 0.1683, 3: 0.1261, 1: 0.1136},
    (1, "fits"): {4: 0.2179, 6: 0.1948, 3: 0.1729, 1: 0.1713, 2: 0.1329},
    (3, "color"): {5: 0.2625, 0: 0.1951, 2: 0.1794, 3: 0.1721, 6: 0.1056},
    (3, "grey"): {2: 0.6195, 5: 0.0886, 3: 0.0763, 1: 0.061, 4: 0.0531},
    (3, "alpha"): {3: 0.2879, 2: 0.2505, 1: 0.1394, 4: 0.0957, 0: 0.087},
    (3, "fits"): {6: 0.7315, 0: 0.0779, 4: 0.0623, 2: 0.0423, 3: 0.0378},
}


@pytest.mark.parametrize("channels, picture", CLASSIFIED)
def test_classification_says_what_bvlcs_says(folder, capfd, channels, picture):
    words = write_net(folder, channels)
    write_pictures()
    status, out = run(capfd, classification.main, f"{words} {picture}.png -logtostderr -minloglevel=2")
    assert status == 0
    first, *lines = out.splitlines()
    assert first == f"---------- Prediction for {picture}.png ----------"
    assert lines == [f'{value:.4f} - "n{index} a label"' for index, value in CLASSIFIED[channels, picture].items()]


def test_classification_refuses(folder, capfd):
    words = write_net(folder, 3)
    write_pictures()
    Path("few.txt").write_text("a\nb\n")
    Path("broken.png").write_bytes(Path("color.png").read_bytes()[:50])
    grey = caffe.io.array_to_blobproto(np.ones((1, 1, 2, 2)))
    Path("grey.binaryproto").write_bytes(grey.SerializeToString())
    for old, new, message in [
        ("labels.txt", "few.txt", "Number of labels, 2, is different from the output layer dimension, 7"),
        ("mean.binaryproto", "grey.binaryproto", "Number of channels of mean file, 1, doesn't match the input's 3"),
        ("mean.binaryproto", "nowhere", "at nowhere, found no file"),
        ("color.png", "broken.png", "Unable to decode image broken.png"),
    ]:
        status, out = run(capfd, classification.main, f"{words} color.png".replace(old, new))
        assert status == 1 and message in out


@pytest.mark.skipif(reference.missing() is not None, reason="the reference is not installed (make reference)")
def test_bvlcs_own_tools_agree(folder, capfd):
    """Live: the converter's records, and what classification prints."""
    words = write_net(folder, 3)
    write_pictures()
    assert run(capfd, convert_mnist_data.main, "three-images three-labels ours")[0] == 0
    script = f"convert_mnist_data three-images three-labels theirs && classification {words} color.png"
    done = reference.run(
        ["sh", "-c", script], cwd=folder, env={"GLOG_minloglevel": "2"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert digest("ours") == digest("theirs")
    assert run(capfd, classification.main, f"{words} color.png -minloglevel=2")[1] == done.stdout


# -- logs


# what BVLC's parse_log.sh made of BVLC's log
TABLES = {
    "test": """#Iters Seconds TestAccuracy TestLoss
0   0.000031  0      1.09861
10  0.001983  0.375  1.07356
20  0.004695  0.375  1.02652
""",
    "train": """#Iters Seconds TrainingLoss LearningRate
0   0.000399  1.09861   0.05
5   0.001064  1.09034   0.05
10  0.002347  1.06281   0.025
15  0.003804  0.997388  0.025
20  0.004676  1.042
""",
}


def test_the_tables_of_parse_log_sh(folder, capsys):
    assert log_tables.parse_log([str(TRAIN_LOG)]) == 0
    assert {kind: Path(f"train.txt.{kind}").read_text() for kind in TABLES} == TABLES
    assert log_tables.extract_seconds([str(TRAIN_LOG), "seconds"]) == 0
    seconds = Path("seconds").read_text().splitlines()
    assert len(seconds) == sum("Iteration" in line for line in TRAIN_LOG.read_text().splitlines())
    assert seconds[0] == "0.000031" and "0.004676" in seconds
    assert log_tables.parse_log([]) == 0 and log_tables.extract_seconds(["x"]) == 1
    capsys.readouterr()
    assert log_tables.parse_log(["nowhere.log"]) == 1
    assert "parse_log.sh: Cannot read the log nowhere.log" in capsys.readouterr().err


# -- examples/mnist

CREATE = """#!/usr/bin/env sh
set -e
EXAMPLE=examples/mnist
DATA=data/mnist
BUILD=build/examples/mnist
BACKEND="lmdb"
rm -rf $EXAMPLE/mnist_train_${BACKEND}
rm -rf $EXAMPLE/mnist_test_${BACKEND}
$BUILD/convert_mnist_data.bin $DATA/train-images $DATA/train-labels $EXAMPLE/mnist_train_${BACKEND} --backend=${BACKEND}
$BUILD/convert_mnist_data.bin $DATA/test-images $DATA/test-labels $EXAMPLE/mnist_test_${BACKEND} --backend=${BACKEND}
"""
TRAIN = """#!/usr/bin/env sh
set -e
./build/tools/caffe train --solver=examples/mnist/lenet_solver.prototxt "$@"
"""
LENET = """
name: "LeNet"
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "examples/mnist/mnist_train_lmdb" batch_size: 8 backend: LMDB } }
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "examples/mnist/mnist_test_lmdb" batch_size: 5 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 5 weight_filler { type: "xavier" } bias_filler { type: "constant" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip2" type: "InnerProduct" bottom: "pool1" top: "ip2"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } bias_filler { type: "constant" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "examples/mnist/lenet_train_test.prototxt"
test_iter: 4 test_interval: 10 base_lr: 0.02 momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv"
gamma: 0.0001 power: 0.75 display: 10 max_iter: 20 snapshot: 20 snapshot_prefix: "examples/mnist/lenet" solver_mode: CPU
random_seed: 1
"""


def test_the_mnist_tutorial_command_by_command(tmp_path):
    """create_mnist.sh and train_lenet.sh in a folder that `caffe shim` made; bright images are 1, dark ones 0."""
    shim.write(tmp_path)
    data, example = tmp_path / "data" / "mnist", tmp_path / "examples" / "mnist"
    data.mkdir(parents=True)
    example.mkdir(parents=True)
    random = np.random.RandomState(0)
    for name, count in (("train", 32), ("test", 20)):
        labels = random.randint(0, 2, count)
        images = random.randint(0, 100, (count, 12, 12)) + 150 * labels[:, None, None]
        write_idx(data, name, images.astype(np.uint8), labels.tolist())
    for name, text in {
        "create_mnist.sh": CREATE,
        "train_lenet.sh": TRAIN,
        "lenet_train_test.prototxt": LENET,
        "lenet_solver.prototxt": SOLVER,
    }.items():
        (example / name).write_text(text)
    script = "sh examples/mnist/create_mnist.sh && sh examples/mnist/train_lenet.sh"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "engine"), "GLOG_log_dir": str(data)}
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Iteration 20, Testing net (#0)" in done.stderr and "Test net output #0: accuracy = 1\n" in done.stderr
    assert done.stderr.rstrip().endswith("Optimization Done.")
    assert (example / "lenet_iter_20.caffemodel").is_file()
    assert (data / "convert_mnist_data.bin.INFO").is_symlink()
    assert "Optimization Done." in (data / "caffe.INFO").read_text()
