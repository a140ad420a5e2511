"""What must be refused when a net or a solver is used, and the words of BVLC's message that the engine's keeps."""

from __future__ import annotations

import os

import caffe
import numpy as np

from .refused_nets import NETS, layer
from .refusing import Refusal, build, run, weights_of
from .scenario import open_net
from .table import write_net
from .text import INPUT, LABEL, ip, softmax_loss


def solver(text, use=lambda solver, folder: None):
    net = INPUT + LABEL + ip("a", "data") + softmax_loss("a")

    def action(folder):
        path = write_net(folder, "refused", net)
        return use(caffe.get_solver(write_net(folder, "refused_solver", text.replace("NET", path))), folder)

    return action


def restored(first, second):
    """An action that snapshots under the solver text `first` and restores under `second`."""

    def action(folder):
        prefix = 'snapshot_prefix: "%s"' % os.path.join(folder, "refused")

        def snapshot(each, _):
            each.step(1)
            each.snapshot()

        solver(GOOD + prefix + first, snapshot)(folder)
        path = os.path.join(folder, "refused_iter_1.solverstate")
        solver(GOOD + prefix + second, lambda each, _: each.restore(path))(folder)

    return action


MEMORY = layer("MemoryData", "", "x y", "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 }")
GOOD = 'net: "NET" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 '
FLOATS = {"dtype": np.float32}

# what: (the action, words of the message)
ACTIONS = {
    "model_missing": (lambda folder: caffe.Net("nowhere.prototxt", caffe.TEST), ("nowhere.prototxt",)),
    "weights_missing": (run(INPUT, lambda net, folder: net.copy_from("nowhere.caffemodel")), ("nowhere.caffemodel",)),
    "weights_missing_in_constructor": (
        lambda folder: caffe.Net(write_net(folder, "refused", INPUT), "nowhere.caffemodel", caffe.TEST),
        ("nowhere.caffemodel",),
    ),
    "weights_shape": (
        weights_of(INPUT + ip("a", "data", outputs=4), lambda net, path: net.copy_from(path)),
        ("Cannot copy param 0 weights from layer 'a'", "shape mismatch"),
    ),
    "weights_blob_count": (
        weights_of(
            INPUT + ip("a", "data").replace("num_output: 3", "num_output: 3 bias_term: false"),
            lambda net, path: net.copy_from(path),
        ),
        ("Incompatible number of blobs for layer a",),
    ),
    "share_with_shape": (
        lambda folder: open_net(folder, "refused", INPUT + ip("a", "data")).share_with(
            open_net(folder, "refused_other", INPUT + ip("a", "data", outputs=4))
        ),
        ("Cannot share param 0 weights from layer 'a'", "shape mismatch"),
    ),
    "memory_without_arrays": (run(MEMORY, lambda net, folder: net.forward()), ("MemoryData",)),
    "memory_batch": (
        run(MEMORY, lambda net, folder: net.set_input_arrays(np.zeros((3, 1, 1, 2), **FLOATS), np.zeros(3, **FLOATS))),
        ("batch",),
    ),
    "memory_shape": (
        run(MEMORY, lambda net, folder: net.set_input_arrays(np.zeros((2, 1, 1, 3), **FLOATS), np.zeros(2, **FLOATS))),
        ("width",),
    ),
    "memory_dtype": (
        run(MEMORY, lambda net, folder: net.set_input_arrays(np.zeros((2, 1, 1, 2)), np.zeros(2, **FLOATS))),
        ("float32",),
    ),
    "memory_layer": (
        run(INPUT, lambda net, folder: net.set_input_arrays(np.zeros((2, 1, 1, 2), **FLOATS), np.zeros(2, **FLOATS))),
        ("MemoryDataLayer",),
    ),
    "forward_other_input": (
        run(INPUT + ip("a", "data"), lambda net, folder: net.forward(other=np.zeros((4, 3)))),
        ("input",),
    ),
    "forward_batch": (
        run(INPUT + ip("a", "data"), lambda net, folder: net.forward(data=np.zeros((5, 3)))),
        ("batch size",),
    ),
    "assign_shape": (
        run(INPUT, lambda net, folder: net.blobs["data"].data.__setitem__(Ellipsis, np.zeros((4, 4)))),
        ("broadcast",),
    ),
    "accuracy_backward": (
        run(
            "force_backward: true " + INPUT + LABEL + layer("Accuracy", "data label"),
            lambda net, folder: net.backward(),
        ),
        (),
    ),
    "label_backward": (
        run(
            "force_backward: true " + INPUT + LABEL + softmax_loss("data", "propagate_down: true propagate_down: true"),
            lambda net, folder: net.backward(),
        ),
        ("SoftmaxWithLoss", "label"),
    ),
    "solver_missing": (lambda folder: caffe.get_solver("nowhere.prototxt"), ("nowhere.prototxt",)),
    "solver_without_net": (solver('base_lr: 0.1 lr_policy: "fixed"'), ("train net",)),
    "solver_two_nets": (solver(GOOD + 'train_net: "NET"'), ("train_net", "net")),
    "solver_type": (solver(GOOD + 'type: "Sgd"'), ("Unknown solver type", "Sgd")),
    "solver_policy": (
        solver(GOOD.replace('"fixed"', '"steps"'), lambda each, folder: each.step(1)),
        ("Unknown learning rate policy", "steps"),
    ),
    "solver_without_test_interval": (solver(GOOD + "test_iter: 1"), ("test_interval",)),
    "solver_adagrad_momentum": (solver(GOOD + 'type: "AdaGrad" momentum: 0.9'), ("Momentum", "AdaGrad")),
    "solver_regularization": (
        solver(GOOD + 'weight_decay: 0.1 regularization_type: "L3"', lambda each, folder: each.step(1)),
        ("Unknown regularization type", "L3"),
    ),
    "solver_unknown_field": (solver(GOOD + "learning_rate: 1"), ("learning_rate",)),
    "restore_missing": (
        solver(GOOD, lambda each, folder: each.restore("nowhere.solverstate")),
        ("nowhere.solverstate",),
    ),
    "restore_other_type": (
        restored('type: "Adam" momentum: 0.9', 'type: "SGD" momentum: 0.9'),
        ("Incorrect length of history blobs",),
    ),
}

CASES = [Refusal("Refusal/" + what, words, build(text)) for what, (text, words) in NETS.items()]
CASES += [Refusal("Refusal/" + what, words, action) for what, (action, words) in ACTIONS.items()]
