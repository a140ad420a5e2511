"""What must be refused, and the words of BVLC's message that the engine's keeps.

BVLC aborts the process where the engine raises, so in the reference each case runs in a forked child. A case's answer is
which of its words were found in the message; the message itself is answered as a note, which is not compared.
"""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass
from typing import Callable

import caffe
import numpy as np

from .nets import INPUT, LABEL, ip, softmax_loss
from .scenario import open_net
from .table import Answer, write_net

ABORTS = str(getattr(getattr(caffe, "_caffe", None), "__file__", "")).endswith(".so")


def message_of(action: Callable[[str], object], folder: str) -> str:
    """What an action was refused with. AssertionError when it was not."""
    if not ABORTS:
        try:
            action(folder)
        except Exception as error:
            return str(error)
        raise AssertionError("not refused")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(writing, 2)
        status = 1
        try:
            action(folder)
        except Exception as error:
            os.write(2, ("F raised] %s" % error).encode())
            status = 3
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 3:
        raise AssertionError("not refused")
    fatal = re.search(r"^F[^\]\n]*\] (.*?)(?:\*\*\* Check failure|\Z)", text, re.S | re.M)
    parser = re.findall(r"^\[libprotobuf ERROR [^\]]*\] (.*)$", text, re.M)
    return " ".join([*parser, fatal.group(1).strip() if fatal else text.strip()])


@dataclass
class Refusal:
    """name: "Refusal/what". words: parts of BVLC's message that a person searches for; asked of the engine's too."""

    name: str
    words: tuple
    action: Callable[[str], object]

    def run(self, folder: str) -> Answer:
        message = message_of(self.action, folder)
        kept = [word for word in self.words if word.lower() in message.lower()]
        if ABORTS and len(kept) < len(self.words):
            raise AssertionError("the reference's message does not have all of %s: %s" % (self.words, message))
        return {"words": np.array(kept, dtype=str), "note": np.array(message.replace(folder, "DATA"))}


def layer(kind, bottoms="data", tops="top", more=""):
    names = "".join(' bottom: "%s"' % name for name in bottoms.split())
    names += "".join(' top: "%s"' % name for name in tops.split())
    return 'layer { name: "it" type: "%s"%s %s }\n' % (kind, names, more)


def source(name, *dims):
    shape = " ".join("dim: %d" % n for n in dims)
    return 'layer { name: "%s" type: "Input" top: "%s" input_param { shape { %s } } }\n' % (name, name, shape)


IMAGE, OTHER = source("data", 2, 3, 5, 5), source("other", 2, 4)
LMDB = 'data_param { source: "DATA/%s" batch_size: 2 backend: LMDB } transform_param { %s }'
PYTHON = "python_param { module: '%s' layer: '%s' }"

# what: (the net's text, words of the message)
NETS = {
    "unknown_type": (layer("Nonsense", ""), ("Unknown layer type", "Nonsense")),
    "unknown_bottom": (layer("ReLU", "nowhere"), ("Unknown bottom blob", "nowhere", "it")),
    "top_twice": (INPUT + ip("a", "data", "t") + ip("b", "data", "t"), ("t", "multiple sources")),
    "broken_text": ('layer { name: "a" tpye: "ReLU" }', ("tpye",)),
    "broken_enum": (INPUT + layer("Pooling", more="pooling_param { pool: MIN }"), ("MIN",)),
    "too_few_bottoms": (layer("InnerProduct", "", more="inner_product_param { num_output: 1 }"), ("InnerProduct", "1 bottom")),
    "too_many_bottoms": (INPUT + OTHER + layer("ReLU", "data other"), ("ReLU", "1 bottom")),
    "too_many_tops": (INPUT + layer("ReLU", "data", "x y"), ("ReLU", "1 top")),
    "too_few_tops": (INPUT + layer("ReLU", "data", ""), ("ReLU", "1 top")),
    "loss_bottoms": (INPUT + layer("SoftmaxWithLoss", "data"), ("SoftmaxWithLoss", "2 bottom")),
    "loss_weights_count": (INPUT + layer("ReLU", more="loss_weight: 1 loss_weight: 2"), ("loss_weight",)),
    "propagate_down_count": (INPUT + layer("ReLU", more="propagate_down: true propagate_down: true"), ("propagate_down",)),
    "params_count": (INPUT + ip("a", "data", more="param { } param { } param { }"), ("Too many params", "a")),
    "include_and_exclude": (
        INPUT + layer("ReLU", more="include { phase: TRAIN } exclude { phase: TEST }"), ("include", "exclude")
    ),
    "shared_shape": (
        INPUT + ip("a", "data", more='param { name: "w" }') + ip("b", "a", outputs=4, more='param { name: "w" }'),
        ("Cannot share param 'w'", "shape mismatch"),
    ),
    "shared_count": (
        INPUT + ip("a", "data", more='param { name: "w" }')
        + ip("b", "a", outputs=4, more='param { name: "w" share_mode: PERMISSIVE }'),
        ("Cannot share param 'w'", "count mismatch"),
    ),
    "shared_lr_mult": (
        INPUT + ip("a", "data", more='param { name: "w" lr_mult: 1 }') + ip("b", "a", more='param { name: "w" lr_mult: 2 }'),
        ("Shared param 'w'", "lr_mult"),
    ),
    "shared_decay_mult": (
        INPUT + ip("a", "data", more='param { name: "w" decay_mult: 1 }')
        + ip("b", "a", more='param { name: "w" decay_mult: 2 }'),
        ("Shared param 'w'", "decay_mult"),
    ),
    "convolution_without_kernel": (IMAGE + layer("Convolution", more="convolution_param { num_output: 2 }"), ("kernel",)),
    "convolution_two_kernels": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 3 kernel_h: 2 kernel_w: 2 }"),
        ("kernel_size", "kernel_h"),
    ),
    "convolution_without_num_output": (IMAGE + layer("Convolution", more="convolution_param { kernel_size: 3 }"), ("num_output",)),
    "convolution_group": (IMAGE + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 3 group: 2 }"), ("group",)),
    "convolution_group_outputs": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 4 kernel_size: 3 group: 3 }"), ("group",)
    ),
    "convolution_kernel_count": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 1 kernel_size: 1 kernel_size: 1 }"),
        ("kernel_size", "3"),
    ),
    "convolution_other_shapes": (
        IMAGE + source("other", 2, 3, 4, 4)
        + layer("Convolution", "data other", "x y", "convolution_param { num_output: 2 kernel_size: 3 }"),
        ("shape",),
    ),
    "pooling_without_kernel": (IMAGE + layer("Pooling"), ("kernel_size",)),
    "pooling_two_kernels": (
        IMAGE + layer("Pooling", more="pooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 }"), ("kernel_size",)
    ),
    "pooling_global_kernel": (
        IMAGE + layer("Pooling", more="pooling_param { global_pooling: true kernel_size: 2 }"), ("global_pooling",)
    ),
    "pooling_pad": (IMAGE + layer("Pooling", more="pooling_param { kernel_size: 2 pad: 2 }"), ("pad",)),
    "pooling_two_axes": (INPUT + layer("Pooling", more="pooling_param { kernel_size: 2 }"), ("4",)),
    "lrn_even": (IMAGE + layer("LRN", more="lrn_param { local_size: 4 }"), ("odd", "local_size")),
    "inner_product_axis": (INPUT + ip("a", "data").replace("num_output: 3", "num_output: 3 axis: 2"), ("axis", "2")),
    "batch_norm_lr": (IMAGE + layer("BatchNorm", more="param { lr_mult: 1 }"), ("batch normalization statistics",)),
    "batch_norm_one_axis": (source("data", 6) + layer("BatchNorm"), ("axis",)),
    "scale_shape": (INPUT + OTHER + layer("Scale", "data other", more="scale_param { axis: 0 }"), ("4", "2")),
    "scale_axes": (INPUT + layer("Scale", more="scale_param { axis: 1 num_axes: 2 }"), ("axis",)),
    "eltwise_shapes": (INPUT + OTHER + layer("Eltwise", "data other"), ("4", "3")),
    "eltwise_coeff_count": (INPUT + layer("Eltwise", "data data", more="eltwise_param { coeff: 1 }"), ("coeff",)),
    "eltwise_coeff_prod": (
        INPUT + layer("Eltwise", "data data", more="eltwise_param { operation: PROD coeff: 1 coeff: 2 }"), ("coeff",)
    ),
    "reshape_count": (INPUT + layer("Reshape", more="reshape_param { shape { dim: 5 } }"), ("count", "12", "5")),
    "reshape_two_inferred": (INPUT + layer("Reshape", more="reshape_param { shape { dim: -1 dim: -1 } }"), ("-1",)),
    "reshape_not_divisible": (INPUT + layer("Reshape", more="reshape_param { shape { dim: 5 dim: -1 } }"), ("12", "5")),
    "reshape_copy_beyond": (INPUT + layer("Reshape", more="reshape_param { shape { dim: 0 dim: 0 dim: 0 } }"), ("0",)),
    "flatten_axes": (IMAGE + layer("Flatten", more="flatten_param { axis: 2 end_axis: 5 }"), ("axis", "5")),
    "slice_uneven": (INPUT + layer("Slice", tops="x y"), ("3", "2")),
    "slice_points_count": (INPUT + layer("Slice", tops="x y", more="slice_param { slice_point: 1 slice_point: 2 }"), ()),
    "slice_points_order": (INPUT + layer("Slice", tops="x y z", more="slice_param { slice_point: 2 slice_point: 1 }"), ()),
    "slice_axis_and_dim": (INPUT + layer("Slice", tops="x y", more="slice_param { axis: 0 slice_dim: 0 }"), ("slice_dim", "axis")),
    "concat_shapes": (INPUT + source("other", 5, 3) + layer("Concat", "data other"), ("same shape",)),
    "concat_axes": (INPUT + source("other", 4, 3, 1) + layer("Concat", "data other"), ("axes",)),
    "softmax_loss_labels": (
        INPUT + source("label", 4, 2) + softmax_loss("data"), ("Number of labels must match number of predictions",)
    ),
    "loss_batch": (INPUT + source("label", 3) + softmax_loss("data"), ("same first dimension",)),
    "euclidean_shapes": (INPUT + source("other", 4, 5) + layer("EuclideanLoss", "data other"), ("same dimension",)),
    "euclidean_batch": (INPUT + source("other", 3, 3) + layer("EuclideanLoss", "data other"), ("same",)),
    "sigmoid_loss_count": (INPUT + source("other", 4, 5) + layer("SigmoidCrossEntropyLoss", "data other"), ("same count",)),
    "accuracy_top_k": (INPUT + LABEL + layer("Accuracy", "data label", more="accuracy_param { top_k: 4 }"), ("top_k",)),
    "accuracy_labels": (
        INPUT + source("label", 3) + layer("Accuracy", "data label"), ("Number of labels must match number of predictions",)
    ),
    "dummy_shapes": (layer("DummyData", "", "x y z", "dummy_data_param { shape { dim: 1 } shape { dim: 2 } }"), ("shape",)),
    "dummy_fillers": (
        layer("DummyData", "", "x", "dummy_data_param { shape { dim: 1 } data_filler { } data_filler { } }"), ("filler",)
    ),
    "input_shapes": (layer("Input", "", "x", "input_param { shape { dim: 1 } shape { dim: 2 } }"), ("shape",)),
    "unknown_filler": (
        INPUT + ip("a", "data").replace("num_output: 3", 'num_output: 3 weight_filler { type: "zero" }'),
        ("Unknown filler name", "zero"),
    ),
    "lmdb_missing": (layer("Data", "", "x", LMDB % ("nowhere", "")), ("No such file or directory",)),
    "crop_over_image": (layer("Data", "", "x", LMDB % ("lmdb", "crop_size: 12")), ("12",)),
    "mean_file_and_value": (
        layer("Data", "", "x", LMDB % ("lmdb", 'mean_value: 1 mean_file: "DATA/mean.binaryproto"')), ("mean_file", "mean_value")
    ),
    "mean_file_missing": (layer("Data", "", "x", LMDB % ("lmdb", 'mean_file: "DATA/no.binaryproto"')), ("no.binaryproto",)),
    "image_list_missing": (
        layer("ImageData", "", "x y", 'image_data_param { source: "DATA/no.txt" batch_size: 1 }'), ()
    ),
    "image_new_height_only": (
        layer("ImageData", "", "x y", 'image_data_param { source: "DATA/list.txt" batch_size: 1 new_height: 4 }'), ("new_height",)
    ),
    "image_unreadable": (
        layer("ImageData", "", "x y", 'image_data_param { source: "DATA/list.txt" batch_size: 1 root_folder: "DATA/no/" }'),
        ("Could not load", "list_0.png"),
    ),
    "memory_sizes": (layer("MemoryData", "", "x y", "memory_data_param { batch_size: 1 channels: 2 height: 3 }"), ("0",)),
    "python_module": (INPUT + layer("Python", more=PYTHON % ("no_such_module", "X")), ()),
    "python_class": (INPUT + layer("Python", more=PYTHON % ("layers_in_python", "NoSuchLayer")), ()),
    "python_raises_in_setup": (
        INPUT + OTHER + layer("Python", "data other", more=PYTHON % ("layers_in_python", "Scaled")), ("Scaled takes one bottom",)
    ),
    "python_raises_in_reshape": (
        INPUT + OTHER + layer("Python", "data other", more=PYTHON % ("layers_in_python", "HalfSquaredError")),
        ("HalfSquaredError needs bottoms of one size",),
    ),
}


def build(text):
    return lambda folder: caffe.Net(write_net(folder, "refused", text.replace("DATA", folder)), caffe.TRAIN)


def run(text, use):
    """An action that builds a net and uses it."""
    return lambda folder: use(open_net(folder, "refused", text), folder)


def weights_of(text, use):
    """An action that saves a net's weights and hands another net (INPUT and an inner product "a" of 3 outputs) the file."""

    def action(folder):
        path = os.path.join(folder, "refused.caffemodel")
        open_net(folder, "refused_saved", text).save(path)
        return use(open_net(folder, "refused", INPUT + ip("a", "data")), path)

    return action


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
        lambda folder: caffe.Net(write_net(folder, "refused", INPUT), "nowhere.caffemodel", caffe.TEST), ("nowhere.caffemodel",)
    ),
    "weights_shape": (
        weights_of(INPUT + ip("a", "data", outputs=4), lambda net, path: net.copy_from(path)),
        ("Cannot copy param 0 weights from layer 'a'", "shape mismatch"),
    ),
    "weights_blob_count": (
        weights_of(INPUT + ip("a", "data").replace("num_output: 3", "num_output: 3 bias_term: false"),
                   lambda net, path: net.copy_from(path)),
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
        run(MEMORY, lambda net, folder: net.set_input_arrays(np.zeros((3, 1, 1, 2), **FLOATS), np.zeros(3, **FLOATS))), ("batch",)
    ),
    "memory_shape": (
        run(MEMORY, lambda net, folder: net.set_input_arrays(np.zeros((2, 1, 1, 3), **FLOATS), np.zeros(2, **FLOATS))), ("width",)
    ),
    "memory_dtype": (
        run(MEMORY, lambda net, folder: net.set_input_arrays(np.zeros((2, 1, 1, 2)), np.zeros(2, **FLOATS))), ("float32",)
    ),
    "memory_layer": (
        run(INPUT, lambda net, folder: net.set_input_arrays(np.zeros((2, 1, 1, 2), **FLOATS), np.zeros(2, **FLOATS))),
        ("MemoryDataLayer",),
    ),
    "forward_other_input": (run(INPUT + ip("a", "data"), lambda net, folder: net.forward(other=np.zeros((4, 3)))), ("input",)),
    "forward_batch": (run(INPUT + ip("a", "data"), lambda net, folder: net.forward(data=np.zeros((5, 3)))), ("batch size",)),
    "assign_shape": (
        run(INPUT, lambda net, folder: net.blobs["data"].data.__setitem__(Ellipsis, np.zeros((4, 4)))), ("broadcast",)
    ),
    "accuracy_backward": (
        run("force_backward: true " + INPUT + LABEL + layer("Accuracy", "data label"), lambda net, folder: net.backward()), ()
    ),
    "label_backward": (
        run("force_backward: true " + INPUT + LABEL + softmax_loss("data", "propagate_down: true propagate_down: true"),
            lambda net, folder: net.backward()),
        ("SoftmaxWithLoss", "label"),
    ),
    "solver_missing": (lambda folder: caffe.get_solver("nowhere.prototxt"), ("nowhere.prototxt",)),
    "solver_without_net": (solver('base_lr: 0.1 lr_policy: "fixed"'), ("train net",)),
    "solver_two_nets": (solver(GOOD + 'train_net: "NET"'), ("train_net", "net")),
    "solver_type": (solver(GOOD + 'type: "Sgd"'), ("Unknown solver type", "Sgd")),
    "solver_policy": (
        solver(GOOD.replace('"fixed"', '"steps"'), lambda each, folder: each.step(1)), ("Unknown learning rate policy", "steps")
    ),
    "solver_without_test_interval": (solver(GOOD + "test_iter: 1"), ("test_interval",)),
    "solver_adagrad_momentum": (solver(GOOD + 'type: "AdaGrad" momentum: 0.9'), ("Momentum", "AdaGrad")),
    "solver_regularization": (
        solver(GOOD + 'weight_decay: 0.1 regularization_type: "L3"', lambda each, folder: each.step(1)),
        ("Unknown regularization type", "L3"),
    ),
    "solver_unknown_field": (solver(GOOD + "learning_rate: 1"), ("learning_rate",)),
    "restore_missing": (solver(GOOD, lambda each, folder: each.restore("nowhere.solverstate")), ("nowhere.solverstate",)),
    "restore_other_type": (
        restored('type: "Adam" momentum: 0.9', 'type: "SGD" momentum: 0.9'), ("Incorrect length of history blobs",)
    ),
}

CASES = [Refusal("Refusal/" + what, words, build(text)) for what, (text, words) in NETS.items()]
CASES += [Refusal("Refusal/" + what, words, action) for what, (action, words) in ACTIONS.items()]
