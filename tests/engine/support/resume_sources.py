"""One net on each kind of data source, for the tests of resuming: random crops, mirrors, orders, dropout and pooling.

`write(folder)` makes the sources, `net_text(name, folder)` is the net on one of SOURCES, `fill(solver)` gives its nets
the arrays that are in no file.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
from caffe.proto import caffe_pb2

COUNT = 7  # records of each source: no multiple of a batch
TRAIN, TEST = 3, 2  # batch sizes
CLASSES = np.arange(COUNT) % 4
VECTORS = np.eye(4, dtype=int)[CLASSES] | np.eye(4, dtype=int)[0]
PIXELS = np.random.RandomState(0).randint(0, 256, (COUNT, 1, 6, 6)).astype(np.uint8)

NET = """
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
  pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1"
  inner_product_param { num_output: 16 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.5 } } }
"""
SOFTMAX = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }'
SIGMOID = 'layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "ip2" bottom: "label" top: "loss" }'
GROWING = """layer { name: "tanh" type: "ScaleTanH" bottom: "ip2" top: "ip2"
  scale_tanh_param { step_size: 2 gamma: 1 power: 0.5 } }
"""
PYTHON = """
import caffe
import numpy

class Numbers(caffe.Layer):
    def setup(self, bottom, top):
        self.at = 0
    def reshape(self, bottom, top):
        top[0].reshape(int(self.param_str), 1, 4, 4)
        top[1].reshape(int(self.param_str))
    def forward(self, bottom, top):
        top[0].data[...] = numpy.random.RandomState(self.at).rand(*top[0].data.shape)
        top[1].data[...] = self.at % 4
        self.at += 1
    def backward(self, top, propagate_down, bottom):
        pass

class Resumed(Numbers):
    def snapshot_state(self):
        return b"%d" % self.at
    def restore_state(self, state):
        self.at = int(state)

class Wrong(Resumed):
    def snapshot_state(self):
        return self.at
"""

TRANSFORM = "transform_param { crop_size: 5 mirror: true scale: 0.00390625 }"
LIST = "batch_size: BATCH is_color: false shuffle: true"
CROPPED = "transform_param { crop_size: 5 mirror: true }"
WINDOWS = "fg_threshold: 0.5 bg_threshold: 0.5 fg_fraction: 0.5 scale: 0.004"
UNIFORM = "data_filler { type: 'uniform' min: 0 max: 1 }"
MULTILABEL = {"source": "FOLDER/other_lmdb", "batch_size": "BATCH", "crop": 5, "mirror": True, "scale": 0.004}


def python(module: str, cls: str, param: str) -> str:
    return f"python_param {{ module: '{module}' layer: '{cls}' param_str: '{param}' }}"


# name: (type of the data layer, its fields, the rest of the net)
SOURCES = {
    "lmdb": ("Data", f"data_param {{ source: 'FOLDER/lmdb' backend: LMDB batch_size: BATCH }} {TRANSFORM}", SOFTMAX),
    "leveldb": ("Data", f"data_param {{ source: 'FOLDER/leveldb_PHASE' batch_size: BATCH }} {TRANSFORM}", SOFTMAX),
    "images": ("ImageData", f"image_data_param {{ source: 'FOLDER/list.txt' {LIST} }} {TRANSFORM}", SOFTMAX),
    "images_skipped": (
        "ImageData",
        f"image_data_param {{ source: 'FOLDER/list.txt' rand_skip: 5 {LIST} }} {TRANSFORM}",
        SOFTMAX,
    ),
    "image_labels": (
        "ImageData",
        f"image_data_param {{ source: 'FOLDER/vectors.txt' label_dim: 4 {LIST} }} {TRANSFORM}",
        SIGMOID,
    ),
    "fork": (
        "MultiLabelData",
        f"multi_label_data_param {{ source: 'FOLDER/vectors.txt' label_num: 4 {LIST} }} {TRANSFORM}",
        GROWING + SIGMOID,
    ),
    "hdf5": ("HDF5Data", "hdf5_data_param { source: 'FOLDER/hdf5.txt' batch_size: BATCH shuffle: true }", SOFTMAX),
    "hdf5_one": (
        "HDF5Data",
        "hdf5_data_param { source: 'FOLDER/one_hdf5.txt' batch_size: BATCH shuffle: true }",
        SOFTMAX,
    ),
    "windows": (
        "WindowData",
        f"window_data_param {{ source: 'FOLDER/windows.txt' batch_size: BATCH {WINDOWS} }} {CROPPED}",
        SOFTMAX,
    ),
    "memory": ("MemoryData", "memory_data_param { batch_size: BATCH channels: 1 height: 6 width: 6 }", SOFTMAX),
    "dummy": (
        "DummyData",
        "dummy_data_param { shape { dim: BATCH dim: 1 dim: 4 dim: 4 } shape { dim: BATCH dim: 4 } "
        f"{UNIFORM} {UNIFORM} }}",
        SIGMOID,
    ),
    "python": ("Python", python("resume_numbers", "Resumed", "BATCH"), SOFTMAX),
    "multilabel": (
        "Python",
        python("multilabel_data", "MultiLabelDataLayer", json.dumps(MULTILABEL).replace('"BATCH"', "BATCH")),
        SIGMOID,
    ),
}


def net_text(source: str, folder: Path) -> str:
    """A net with the layer "source" of its own in each phase."""
    kind, fields, rest = SOURCES[source]
    layers = [
        f'layer {{ name: "source" type: "{kind}" top: "data" top: "label" include {{ phase: {phase} }} '
        + fields.replace("FOLDER", str(folder)).replace("BATCH", str(batch)).replace("PHASE", phase)
        + " }\n"
        for phase, batch in (("TRAIN", TRAIN), ("TEST", TEST))
    ]
    return "".join(layers) + NET + rest


def fill(solver) -> None:
    """Give the nets that read arrays some: 9 items in training, 8 in testing."""
    for net, count in ((solver.net, 3 * TRAIN), (solver.test_nets[0], 4 * TEST)):
        if net.layers[0].type == "MemoryData":
            random = np.random.RandomState(5)
            data, labels = random.rand(count, 1, 6, 6), random.randint(0, 4, count)
            net.set_input_arrays(data.astype(np.float32), labels.astype(np.float32))


def write(folder: Path) -> None:
    """The files of every source, with the same pictures. `fewer_*` lack the last, `other_lmdb` has other keys."""
    datums = [
        caffe_pb2.Datum(channels=1, height=6, width=6, data=pixels.tobytes(), label=label, float_data=vector)
        for pixels, label, vector in zip(PIXELS, CLASSES, VECTORS, strict=True)
    ]
    records = [(b"%03d" % index, datum.SerializeToString()) for index, datum in enumerate(datums)]
    others = [(b"x" + key, value) for key, value in records]
    for name, some in (("lmdb", records), ("fewer_lmdb", records[:-1]), ("other_lmdb", others)):
        with lmdb.open(str(folder / name), map_size=1 << 22) as made, made.begin(write=True) as transaction:
            for key, value in some:
                transaction.put(key, value)
    if importlib.util.find_spec("plyvel"):
        import plyvel

        for phase in ("TRAIN", "TEST"):
            database = plyvel.DB(str(folder / f"leveldb_{phase}"), create_if_missing=True)
            for key, value in records:
                database.put(key, value)
            database.close()
    lists: dict[str, list[str]] = {"list": [], "vectors": [], "windows": []}
    for i, pixels in enumerate(PIXELS):
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), pixels[0])
        lists["list"].append(f"{path} {CLASSES[i]}\n")
        lists["vectors"].append(f"{path} {' '.join(map(str, VECTORS[i]))}\n")
        lists["windows"].append(f"# {i}\n{path}\n3 6 6\n2\n{1 + i % 3} 0.9 0 0 {2 + i % 3} 4\n1 0 1 1 5 5\n")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(lines))
        (folder / f"fewer_{name}.txt").write_text("".join(lines[:-1]))
    for name, cut in (("hdf5", 7), ("fewer_hdf5", 6)):
        for index, part in enumerate((slice(0, 3), slice(3, cut))):
            with h5py.File(folder / f"{name}_{index}.h5", "w") as file:
                file["data"], file["label"] = PIXELS[part, :, :4, :4] / 255, CLASSES[part]
        (folder / f"{name}.txt").write_text(f"{folder}/{name}_0.h5\n{folder}/{name}_1.h5\n")
        (folder / f"one_{name}.txt").write_text(f"{folder}/{name}_1.h5\n")
    (folder / "resume_numbers.py").write_text(PYTHON)
