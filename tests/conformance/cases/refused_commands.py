"""Command lines that must be refused with an exit status other than 0. DATA stands for the folder of the fixtures."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess

import caffe
import numpy as np
from caffe.proto import caffe_pb2

import fixtures

from .refusals import GOOD
from .refusing import ABORTS, Refusal, Told
from .table import write_net
from .text import INPUT, LABEL, ip, softmax_loss

NET = INPUT + LABEL + ip("a", "data") + softmax_loss("a")
FEATURES = "extract_features DATA/refused.caffemodel DATA/refused.prototxt "


def status_of(words):
    """(exit status, stderr where it is not shown already) of a command."""
    if ABORTS:
        return subprocess.run(words, env=dict(os.environ, GLOG_logtostderr="1"), check=False).returncode, ""
    from caffe.cli.commands import COMMANDS

    module, function = COMMANDS[words[0]][0].split(":")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        return getattr(importlib.import_module(module), function)(words[1:]), said.getvalue()


def command(line, before=lambda folder: None):
    """An action that runs a command line; what it says on stderr is its message."""

    def action(folder):
        path = write_net(folder, "refused", NET)
        write_net(folder, "refused_solver", GOOD.replace("NET", path) + 'snapshot_prefix: "%s/x"' % folder)
        caffe.Net(path, caffe.TEST).save(os.path.join(folder, "refused.caffemodel"))
        before(folder)
        status, said = status_of(line.replace("DATA", folder).split())
        if status:
            raise Told(said)

    return action


def images_of_two_sizes(folder):
    with open(os.path.join(folder, "refused.txt"), "w") as file:
        file.write("list_sizes_0.png 0\nlist_sizes_1.png 1\n")


def records(*datums):
    def write(folder):
        fixtures.write_lmdb(os.path.join(folder, "refused_mean"), datums)

    return write


MEAN_OF_TWO_SIZES = records(*(fixtures.datum(np.ones((3, size, 4), np.uint8), 0) for size in (4, 5)))
MEAN_OF_DATA_AND_FLOATS = records(
    caffe_pb2.Datum(channels=3, height=2, width=2, data=b"two", float_data=[1.0] * 12).SerializeToString()
)


def large_net(folder):
    layer = 'layer { name: "%s" type: "Input" top: "t%d" }\n'
    write_net(folder, "large", "".join(layer % ("n" * 99, i) for i in range(999)))


# what: (the command line, what is done before, words of the message)
LINES = {
    "unknown_action": ("caffe nonsense", None, ("Unknown action: nonsense",)),
    "train_without_solver": ("caffe train", None, ("Need a solver definition to train",)),
    "train_snapshot_and_weights": (
        "caffe train -solver x -snapshot y -weights z",
        None,
        ("Give a snapshot to resume training or weights to finetune but not both",),
    ),
    "train_solver_missing": ("caffe train -solver nowhere.prototxt", None, ("nowhere.prototxt",)),
    "signal_effect": (
        "caffe train -solver DATA/refused_solver.prototxt -sigint_effect explode",
        None,
        ('Invalid signal effect "explode" was specified',),
    ),
    "test_without_model": ("caffe test", None, ("Need a model definition to score",)),
    "test_without_weights": ("caffe test -model DATA/refused.prototxt", None, ("Need model weights to score",)),
    "test_weights_missing": (
        "caffe test -model DATA/refused.prototxt -weights nowhere.caffemodel",
        None,
        ("nowhere.caffemodel",),
    ),
    "time_without_model": ("caffe time", None, ("Need a model definition to time",)),
    "time_phase": (
        "caffe time -model DATA/refused.prototxt -phase VALIDATE",
        None,
        ('phase must be "TRAIN" or "TEST"',),
    ),
    "convert_imageset_backend": (
        "convert_imageset -backend rocksdb DATA/images/ DATA/list.txt DATA/refused_new",
        None,
        ("Unknown database backend",),
    ),
    "convert_imageset_exists": ("convert_imageset DATA/images/ DATA/list.txt DATA/lmdb", None, ("lmdb",)),
    "convert_imageset_sizes": (
        "convert_imageset -check_size DATA/images/ DATA/refused.txt DATA/refused_sizes",
        images_of_two_sizes,
        ("Incorrect data field size 189",),
    ),
    "mean_sizes": (
        "compute_image_mean DATA/refused_mean",
        MEAN_OF_TWO_SIZES,
        ("Incorrect data field size",),
    ),
    "mean_data_and_floats": ("compute_image_mean DATA/refused_mean", MEAN_OF_DATA_AND_FLOATS, ()),
    "upgrade_into_no_folder": ("upgrade_net_proto_text DATA/large.prototxt DATA/no/x.prototxt", large_net, ()),
    "features_names": (
        FEATURES + "a,loss DATA/f 1 lmdb",
        None,
        ("the number of blob names and dataset names must be equal",),
    ),
    "features_unknown_blob": (
        FEATURES + "nonsense DATA/f 1 lmdb",
        None,
        ("Unknown feature blob name nonsense in the network",),
    ),
    "features_device": (FEATURES + "a DATA/f 1 lmdb GPU -1", None, ()),
}

CASES = [
    Refusal("Refusal/command_" + what, words, command(line, before or (lambda folder: None)))
    for what, (line, before, words) in LINES.items()
]
