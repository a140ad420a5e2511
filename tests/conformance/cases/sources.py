"""Layers without bottoms: Data, ImageData, MemoryData, HDF5Data, DummyData, Input; and Python layers."""

from __future__ import annotations

import os

import caffe
import h5py
import numpy as np

from .scenario import Scenario, collector, open_net, structure, values
from .table import Case, copied, draw
from .text import layer, source

SCENARIOS, scenario = collector()


def data(what, transform="", fields="", folder="lmdb", tops=2, batch=5, **options):
    body = 'data_param { source: "DATA/%s" batch_size: %d backend: LMDB %s } transform_param { %s }'
    options = {"iterations": 3, "phase": caffe.TEST, **options}
    return Case("Data/" + what, body % (folder, batch, fields, transform), tops=tops, backward=False, **options)


def images(what, fields="", transform="", listed="list.txt", batch=4, **options):
    body = 'image_data_param { source: "DATA/%s" root_folder: "DATA/images/" batch_size: %d %s } transform_param { %s }'
    options = {"iterations": 3, "phase": caffe.TEST, "tops": 2, **options}
    return Case("ImageData/" + what, body % (listed, batch, fields, transform), backward=False, **options)


def dummy(what, fields, **options):
    return Case("DummyData/" + what, "dummy_data_param { %s }" % fields, backward=False, **options)


def hdf5(what, batch):
    """Its tops are found in the files by their names, so the net is a scenario's."""

    def ask(folder):
        text = 'layer { name: "data" type: "HDF5Data" top: "label" top: "data"'
        text += ' hdf5_data_param { source: "DATA/hdf5.txt" batch_size: %d } }' % batch
        net = open_net(folder, "HDF5Data/" + what, text, caffe.TEST)
        answer = {}
        for step in range(5):
            net.forward()
            answer.update({"%s@%d" % (name, step): copied(blob.data) for name, blob in net.blobs.items()})
        return answer

    return Scenario("HDF5Data/" + what, ask)


@scenario("HDF5Output/plain")
def hdf5_output(folder):
    """What the layer writes in its one forward (in BVLC a second one, to the same names, fails)."""
    path = os.path.join(folder, "output.h5")
    text = source("data", 3, 2) + source("label", 3)
    text += layer("out", "HDF5Output", "data label", "", 'hdf5_output_param { file_name: "%s" }' % path)
    net = open_net(folder, "HDF5Output/plain", text)
    net.forward()
    del net  # closes the file
    with h5py.File(path, "r") as file:
        return {name: np.array(file[name]) for name in sorted(file)}


TABLE = [
    data("plain"),
    data("no_label", tops=1),
    data("train_phase", phase=caffe.TRAIN),
    data("batch_over_records", batch=14, iterations=2),
    data("scale", "scale: 0.0078125"),
    data("mean_value", "mean_value: 100"),
    data("mean_values_scale", "mean_value: 100 mean_value: 110 mean_value: 120 scale: 0.5"),
    data("mean_file", 'mean_file: "DATA/mean.binaryproto"'),
    data("crop", "crop_size: 7"),
    data("crop_even", "crop_size: 6 scale: 2"),
    data("crop_mean_file", 'crop_size: 7 mean_file: "DATA/mean.binaryproto" scale: 0.25'),
    data("crop_whole_height", "crop_size: 9 mean_value: 128"),
    data("encoded", folder="lmdb_encoded"),
    data("encoded_crop_mean", "crop_size: 8 mean_value: 1 mean_value: 2 mean_value: 3", folder="lmdb_encoded"),
    data("encoded_force_color", "force_color: true", folder="lmdb_encoded"),
    data("encoded_force_gray", "force_gray: true", folder="lmdb_encoded"),
    data("floats", folder="lmdb_float", batch=4),
    data("floats_scale_crop", "scale: 3 crop_size: 3", folder="lmdb_float", batch=4),
    data("prefetch", fields="prefetch: 2"),
    images("plain"),
    images("train_phase", phase=caffe.TRAIN),
    images("mean_scale", "", "mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.125"),
    images("crop", "", "crop_size: 7"),
    images("gray", "is_color: false"),
    images("resize_up", "new_height: 20 new_width: 15"),
    images("resize_down", "new_height: 5 new_width: 6"),
    images("resize_crop", "new_height: 16 new_width: 16", "crop_size: 9"),
    images("many_sizes", listed="list_sizes.txt", batch=1, iterations=5),
    images("many_sizes_resized", "new_height: 8 new_width: 8", listed="list_sizes.txt", batch=3),
    images("one_top_of_batch_over_list", batch=8, iterations=2),
    hdf5("plain", 4),
    hdf5("small_batches", 3),
    hdf5("over_a_file", 6),
    dummy("shape", "shape { dim: 2 dim: 3 } data_filler { type: 'constant' value: 2.5 }"),
    dummy("default_filler", "shape { dim: 2 dim: 3 dim: 1 }"),
    dummy("legacy", "num: 2 channels: 3 height: 1 width: 2 data_filler { value: -1 }"),
    dummy(
        "two_tops", "shape { dim: 2 } shape { dim: 3 dim: 1 } data_filler { value: 1 } data_filler { value: 2 }", tops=2
    ),
    dummy("two_tops_one_filler", "shape { dim: 2 } shape { dim: 4 } data_filler { value: 3 }", tops=2),
    dummy("two_tops_one_shape", "shape { dim: 2 dim: 2 } data_filler { value: 1 } data_filler { value: 2 }", tops=2),
    dummy("legacy_two_tops", "num: 2 channels: 1 height: 2 width: 2 num: 3 channels: 1 height: 1 width: 1", tops=2),
    Case("Input/one", "input_param { shape { dim: 2 dim: 3 } }", backward=False),
    Case("Input/two", "input_param { shape { dim: 2 dim: 3 } shape { dim: 4 } }", tops=2, backward=False),
    Case("Input/two_tops_one_shape", "input_param { shape { dim: 2 dim: 3 } }", tops=2, backward=False),
    Case(
        "Python/layer",
        "python_param { module: 'layers_in_python' layer: 'Scaled' param_str: '{\"factor\": 3}' }",
        "2x3",
    ),
    Case("Python/no_param_str", "python_param { module: 'layers_in_python' layer: 'Scaled' }", "2x3", iterations=2),
    Case(
        "Python/loss",
        "loss_weight: 2 python_param { module: 'layers_in_python' layer: 'HalfSquaredError' }",
        "4x3, 4x3",
        loss=True,
    ),
    Case(
        "Python/loss_without_weight",
        "python_param { module: 'layers_in_python' layer: 'HalfSquaredError' }",
        "4x3, 4x3",
        loss=True,
    ),
    Case(
        "Python/propagate_down",
        "loss_weight: 1 propagate_down: true propagate_down: false"
        " python_param { module: 'layers_in_python' layer: 'HalfSquaredError' }",
        "4x3, 4x3",
        loss=True,
    ),
    Case(
        "Python/source",
        "python_param { module: 'layers_in_python' layer: 'Counting' }",
        tops=2,
        iterations=3,
        phase=caffe.TEST,
        backward=False,
    ),
]

MEMORY = """
layer { name: "memory" type: "MemoryData" top: "data" top: "label" transform_param { %s }
  memory_data_param { batch_size: 2 channels: 3 height: %d width: %d } }
layer { name: "double" type: "Power" bottom: "data" top: "double" power_param { scale: 2 } }
"""


@scenario("MemoryData/arrays")
def memory_arrays(folder):
    net = open_net(folder, "MemoryData/arrays", MEMORY % ("", 2, 4), caffe.TEST)
    random = np.random.RandomState(1)
    pixels, labels = draw("normal", (6, 3, 2, 4), random), draw("labels3", (6, 1, 1, 1), random)
    net.set_input_arrays(pixels, labels)
    answer = structure(net)
    for step in range(4):  # the fourth starts again from the first
        net.forward()
        answer.update({"%s@%d" % (k, step): v for k, v in values(net, diffs=False).items()})
    return answer


@scenario("MemoryData/other_arrays")
def memory_other_arrays(folder):
    net = open_net(folder, "MemoryData/other_arrays", MEMORY % ("", 2, 4), caffe.TEST)
    answer = {}
    for step, count in enumerate((4, 2)):
        random = np.random.RandomState(step)
        net.set_input_arrays(draw("normal", (count, 3, 2, 4), random), draw("labels3", (count,), random))
        net.forward()
        answer.update({"%s@%d" % (k, step): copied(b.data) for k, b in net.blobs.items()})
    return answer


CASES = TABLE + SCENARIOS
