"""Files that must be refused: prototxts of older forms, weights, HDF5, means, windows, lists of images, databases."""

from __future__ import annotations

import os

import numpy as np

from .refused_nets import LMDB, layer
from .refusing import Refusal, build, run
from .text import INPUT, ip, source

H5_LAYER = 'hdf5_data_param { source: "DATA/refused.txt" batch_size: 2 }'
WINDOW = 'window_data_param { source: "DATA/refused.txt" root_folder: "DATA/images/" batch_size: 4 }'
# HDF5's own code of a type of 8 bits: an older h5py has no name for it
BITS = b"\x03\x00\x14\x00\x00\x00\x01\x00\x00\x00\x00\x00\x08\x00"
ENTRY = "# 0\nlist_0.png\n3 12 10\n2\n3 0.9 %s\n5 0.1 0 0 3 3\n"


def v0(layers):
    """Layers of the oldest form, on an input "data"."""
    return 'input: "data" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4\n' + layers


def v0_layer(kind, bottoms, tops, fields=""):
    ends = "".join(' bottom: "%s"' % each for each in bottoms.split())
    ends += "".join(' top: "%s"' % each for each in tops.split())
    return 'layers { layer { name: "%s" type: "%s" %s }%s }\n' % (tops or kind, kind, fields, ends)


PAD = v0_layer("padding", "data", "padded", "pad: 1")
CONV = "num_output: 1 kernelsize: 1"
PADDED = v0_layer("conv", "padded", "c", CONV)

# what: (the net's text, words of the message)
NETS = {
    "v0_unknown_blob": (v0(v0_layer("conv", "nowhere", "c", CONV)), ("nowhere",)),
    "v0_unknown_type": (
        v0(v0_layer("nonsense", "data", "c")),
        (
            "Unknown layer",
            "nonsense",
        ),
    ),
    "v0_padding_for_others": (
        v0(PAD + v0_layer("relu", "padded", "r")),
        ("Padding layer input to non-convolutional / non-pooling layer type relu",),
    ),
    "v0_padded_bottoms": (
        v0(PAD + v0_layer("conv", "padded data", "c", CONV)),
        ("Conv Layer takes a single blob as input",),
    ),
    "v0_padding_bottoms": (
        v0(v0_layer("padding", "data data", "padded", "pad: 1") + PADDED),
        ("Padding Layer takes a single blob as input",),
    ),
    "v0_padding_tops": (
        v0(v0_layer("padding", "data", "padded q", "pad: 1") + PADDED),
        ("Padding Layer produces a single blob as output",),
    ),
    "layer_and_layers": (
        INPUT + 'layers { name: "r" type: RELU bottom: "data" top: "r" }',
        ("Refusing to upgrade inconsistent NetParameter input",),
    ),
    "leveldb_missing": (
        layer("Data", "", "x", (LMDB % ("nowhere", "")).replace("LMDB", "LEVELDB")),
        (
            "open leveldb",
            "nowhere",
        ),
    ),
    "infogain_text": (
        INPUT
        + source("label", 4)
        + layer("InfogainLoss", "data label", "x", 'infogain_loss_param { source: "DATA/no" }'),
        (),
    ),
    "color_and_gray": (
        layer("Data", "", "x", LMDB % ("lmdb_encoded", "force_color: true force_gray: true")),
        ("cannot set both force_color and force_gray",),
    ),
    "encoded_crop_height": (layer("Data", "", "x", LMDB % ("lmdb_encoded", "crop_size: 12")), ("crop_size",)),
    "image_list_empty": (layer("ImageData", "", "x y", 'image_data_param { source: "/dev/null" }'), ("File is empty",)),
    "image_rand_skip": (
        layer(
            "ImageData",
            "",
            "x y",
            'image_data_param { source: "DATA/list.txt" root_folder: "DATA/images/" rand_skip: 2000000000 }',
        ),
        ("Not enough points to skip",),
    ),
    "image_batch_0": (
        layer(
            "ImageData",
            "",
            "x y",
            'image_data_param { source: "DATA/list.txt" root_folder: "DATA/images/" batch_size: 0 }',
        ),
        ("Positive batch size required",),
    ),
    "hdf5_list_empty": (
        layer("HDF5Data", "", "data", 'hdf5_data_param { source: "/dev/null" batch_size: 2 }'),
        ("Must have at least 1 HDF5 filename listed in /dev/null",),
    ),
}


def listed(text, net, use=lambda net, folder: None):
    """An action that writes refused.txt and builds a net that reads it."""

    def action(folder):
        with open(os.path.join(folder, "refused.txt"), "w") as file:
            file.write(text.replace("DATA", folder))
        use(build(net)(folder), folder)

    return action


def forward(net, folder):
    net.forward()


def windows(text, transform="crop_size: 4"):
    return listed(text, layer("WindowData", "", "x y", WINDOW + " transform_param { %s }" % transform), forward)


def images(paths, batch):
    source_ = 'image_data_param { source: "DATA/refused.txt" root_folder: "DATA/images/" batch_size: %d }' % batch
    return listed("".join("%s 0\n" % path for path in paths), layer("ImageData", "", "x y", source_), three_times)


def three_times(net, folder):
    for _ in range(3):
        net.forward()


def hdf5_data(write):
    """An action that reads "data" and "label" from an HDF5 file that `write(file)` fills."""

    def action(folder):
        import h5py

        path = os.path.join(folder, "refused.h5")
        with h5py.File(path, "w") as file:
            write(file, h5py)
        listed(path + "\n", layer("HDF5Data", "", "data label", H5_LAYER), forward)(folder)

    return action


def typed(dtype):
    """hdf5_data of a "data" of another class than float and integer: dtype(h5py) gives its type."""

    def write(file, h5py):
        file.create_dataset("data", (2, 3), dtype=dtype(h5py))
        file["label"] = np.zeros(2, np.float32)

    return hdf5_data(write)


def low_level(kind):
    """The same of a type that numpy has none for: kind(h5py.h5t) gives HDF5's."""

    def write(file, h5py):
        space = h5py.h5s.create_simple((2, 3))
        h5py.h5d.create(file.id, b"data", kind(h5py.h5t), space)
        file["label"] = np.zeros(2, np.float32)

    return hdf5_data(write)


def scalar(file, h5py):
    file["data"] = np.float32(1)
    file["label"] = np.zeros(2, np.float32)


def unreadable(file, h5py):
    """Values that stand in another file, which is not there."""
    file.create_dataset("data", (2, 3), np.float32, external=[("/nowhere/values", 0, 24)])
    file["label"] = np.zeros(2, np.float32)


def lengths(file, h5py):
    file["data"] = np.zeros((4, 3), np.float32)
    file["label"] = np.zeros(3, np.float32)


def weights_h5(write):
    """An action that loads an HDF5 file of weights that `write(file)` fills."""

    def use(net, folder):
        import h5py

        path = os.path.join(folder, "refused_weights.h5")
        with h5py.File(path, "w") as file:
            write(file)
        net.load_hdf5(path)

    return run(INPUT + ip("a", "data"), use)


def one_more(file):
    group = file.create_group("data/a")
    for index, shape in enumerate(((3, 3), (3,), (3,))):
        group[str(index)] = np.zeros(shape, np.float32)


def one_less(file):
    file.create_group("data/a")["0"] = np.zeros((3, 3), np.float32)


def other_shape(file):
    group = file.create_group("data/a")
    group["0"], group["1"] = np.zeros((4, 3), np.float32), np.zeros(3, np.float32)


def no_group(file):
    file.create_group("data")["a"] = np.zeros(3, np.float32)


def weights_text(net, folder):
    path = os.path.join(folder, "text.caffemodel")
    with open(path, "w") as file:
        file.write("no weights")
    net.copy_from(path)


def weights_h5_text(net, folder):
    path = os.path.join(folder, "text.caffemodel.h5")
    with open(path, "w") as file:
        file.write("no weights")
    net.load_hdf5(path)


# what: (the action, words of the message)
ACTIONS = {
    "window_entry": (
        windows("x 0\n"),
        (
            "#",
            "x",
        ),
    ),
    "window_label_0": (windows((ENTRY % "1 2 7 6").replace("\n3 0.9", "\n0 0.9")), ()),
    "window_mean_values": (
        windows(ENTRY % "1 2 7 6", "crop_size: 4 mean_value: 1 mean_value: 2"),
        ("Specify either 1 mean_value or as many as channels: 3",),
    ),
    "window_without_foreground": (windows("# 0\nlist_0.png\n3 12 10\n1\n5 0.1 0 0 3 3\n"), ("fg_",)),
    "window_without_background": (windows("# 0\nlist_0.png\n3 12 10\n1\n3 0.9 0 0 3 3\n"), ("bg_",)),
    "window_without_crop": (windows(ENTRY % "1 2 7 6", ""), ()),
    "image_first_of_batch_unreadable": (
        images(["list_0.png", "no.png"], 1),
        (
            "Could not load",
            "no.png",
        ),
    ),
    "image_in_batch_unreadable": (
        images(["list_0.png", "no.png"], 2),
        (
            "Could not load",
            "no.png",
        ),
    ),
    "mean_text": (listed("no mean", layer("Data", "", "x", LMDB % ("lmdb", 'mean_file: "DATA/refused.txt"'))), ()),
    "mean_without_values": (
        listed("", layer("Data", "", "x", LMDB % ("lmdb", 'mean_file: "DATA/refused.txt"'))),
        (),
    ),
    "hdf5_unreadable": (hdf5_data(unreadable), ("data",)),
    "hdf5_scalar": (hdf5_data(scalar), ()),
    "hdf5_lengths": (hdf5_data(lengths), ()),
    "hdf5_time": (low_level(lambda h5t: h5t.UNIX_D32LE), ("Unsupported datatype class",)),
    "hdf5_string": (typed(lambda h5py: "S4"), ("Unsupported datatype class",)),
    "hdf5_bitfield": (low_level(lambda h5t: h5t.decode(BITS)), ("Unsupported datatype class",)),
    "hdf5_opaque": (typed(lambda h5py: "V4"), ("Unsupported datatype class",)),
    "hdf5_compound": (typed(lambda h5py: [("a", "f4")]), ("Unsupported datatype class",)),
    "hdf5_reference": (typed(lambda h5py: h5py.ref_dtype), ("Unsupported datatype class",)),
    "hdf5_vlen": (typed(lambda h5py: h5py.vlen_dtype(np.float32)), ("Unsupported datatype class",)),
    "hdf5_array": (typed(lambda h5py: np.dtype(("f4", (2,)))), ("Unsupported datatype class",)),
    "weights_text": (
        run(INPUT, weights_text),
        (
            "NetParameter",
            "text.caffemodel",
        ),
    ),
    "weights_h5_text": (run(INPUT, weights_h5_text), ("text.caffemodel.h5",)),
    "weights_h5_without_data": (weights_h5(lambda file: file.create_group("other")), ("Error reading weights",)),
    "weights_h5_no_group": (weights_h5(no_group), ("Error reading weights",)),
    "weights_h5_blob_more": (weights_h5(one_more), ("Incompatible number of blobs for layer a",)),
    "weights_h5_blob_less": (weights_h5(one_less), ("Incompatible number of blobs for layer a",)),
    "weights_h5_shape": (weights_h5(other_shape), ("shape mismatch",)),
    "save_hdf5_into_no_folder": (
        run(INPUT, lambda net, folder: net.save_hdf5(os.path.join(folder, "no", "x.h5"))),
        ("no/x.h5",),
    ),
    "save_hdf5_without_a_name": (
        run(
            INPUT + ip("", "data", "x"), lambda net, folder: net.save_hdf5(os.path.join(folder, "refused_nameless.h5"))
        ),
        ("Error saving weights to", "refused_nameless.h5"),
    ),
    "save_hdf5_two_layers_of_a_name": (
        run(
            INPUT + ip("a", "data", "x") + ip("a", "x", "y"),
            lambda net, folder: net.save_hdf5(os.path.join(folder, "refused_twice.h5")),
        ),
        (
            "Error saving weights to",
            "refused_twice.h5",
        ),
    ),
}

CASES = [Refusal("Refusal/" + what, words, build(net)) for what, (net, words) in NETS.items()]
CASES += [Refusal("Refusal/" + what, words, action) for what, (action, words) in ACTIONS.items()]
CASES.append(
    Refusal(
        "Refusal/hdf5_enum",
        (),
        typed(lambda h5py: h5py.enum_dtype({"A": 1}, "i4")),
        accepted="numpy's bool is an enum in HDF5, and its values are numbers",
    )
)
