"""Nets: how layers are named, filtered, wired, shared and differentiated together.

Left out, for BVLC's gradient is wrong there and the engine's is the derivative: a layer in place after one whose
backward reads the blob it overwrites (Sigmoid then TanH), and Reshape followed by Flatten (Flatten's backward parts
the diff that Reshape shares with its bottom, which is left at zero).
"""

from __future__ import annotations

import caffe

from .scenario import collector, open_net, structure, values
from .text import INPUT, LABEL, euclidean, ip, layer, softmax_loss, source

CASES, scenario = collector()

# name: text. Each net is built, run forward and backward, and all of it is answered
NETS = {
    "plain": (INPUT + LABEL + ip("ip", "data") + softmax_loss("ip")),
    "test_phase": (INPUT + LABEL + ip("ip", "data") + softmax_loss("ip")),
    "force_backward": ("force_backward: true\n" + INPUT + LABEL + ip("ip", "data") + softmax_loss("ip")),
    "in_place": (
        INPUT
        + LABEL
        + ip("ip1", "data", outputs=5)
        + layer("scale", "Scale", "ip1", "ip1", "scale_param { bias_term: true }")
        + layer("tanh", "TanH", "ip1", "ip1")
        + layer("relu", "ReLU", "ip1", "ip1")
        + layer("dropout", "Dropout", "ip1", "ip1", "dropout_param { dropout_ratio: 0 }")
        + ip("ip2", "ip1")
        + softmax_loss("ip2")
    ),
    "split_by_itself": (
        INPUT
        + LABEL
        + ip("a", "data")
        + ip("b", "data")
        + ip("c", "a")
        + layer("sum", "Eltwise", "a b c a", "sum")
        + softmax_loss("sum")
    ),
    "split_of_a_loss": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a", "loss_weight: 2")
        + layer("twice", "Power", "loss", "twice", "power_param { scale: 3 } loss_weight: 0.5")
        + layer("again", "Power", "loss", "again", "power_param { power: 2 } loss_weight: 1")
    ),
    "loss_weight_on_any_layer": (
        INPUT + ip("a", "data") + layer("p", "Power", "a", "p", "power_param { power: 2 } loss_weight: 0.25")
    ),
    "two_losses": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a", "loss_weight: 0.5")
        + ip("b", "a")
        + euclidean("e", "b", "data", "loss_weight: 2")
    ),
    "zero_loss_weight": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a")
        + ip("b", "data")
        + euclidean("e", "b", "data", "loss_weight: 0")
    ),
    "no_loss": (INPUT + ip("a", "data") + ip("b", "a")),
    "branch_without_loss": (INPUT + LABEL + ip("a", "data") + ip("b", "a") + softmax_loss("a")),
    "frozen": (
        INPUT
        + LABEL
        + ip("a", "data", more="param { lr_mult: 0 } param { lr_mult: 0 }")
        + ip("b", "a")
        + softmax_loss("b")
    ),
    "frozen_in_the_middle": (
        INPUT
        + LABEL
        + ip("a", "data")
        + ip("b", "a", more="param { lr_mult: 0 } param { lr_mult: 0 }")
        + softmax_loss("b")
    ),
    "propagate_down_false": (
        INPUT + LABEL + ip("a", "data") + ip("b", "a", more="propagate_down: false") + softmax_loss("b")
    ),
    "propagate_down_true": (INPUT + LABEL + ip("a", "data", more="propagate_down: true") + softmax_loss("a")),
    "propagate_down_of_one_branch": (
        INPUT
        + LABEL
        + ip("a", "data")
        + ip("b", "a", more="propagate_down: false")
        + ip("c", "a")
        + layer("sum", "Eltwise", "b c", "sum")
        + softmax_loss("sum")
    ),
    "shared_params": (
        INPUT
        + LABEL
        + ip("a", "data", more='param { name: "w" } param { name: "b" }')
        + ip("b", "a", more='param { name: "w" } param { name: "b" }')
        + softmax_loss("b")
    ),
    "shared_one_param": (
        INPUT
        + LABEL
        + ip("a", "data", more='param { name: "w" lr_mult: 2 }')
        + ip("b", "a", more='param { name: "w" }')
        + softmax_loss("b")
    ),
    "shared_permissive": (
        INPUT
        + LABEL
        + ip("a", "data", more='param { name: "w" } param { name: "b" }')
        + layer("r", "Reshape", "a", "r", "reshape_param { shape { dim: 4 dim: 1 dim: 3 } }")
        + ip("b", "r", more='param { name: "w" share_mode: PERMISSIVE } param { name: "b" }')
        + softmax_loss("b")
    ),
    "accuracy_beside_loss": (
        INPUT + LABEL + ip("a", "data") + softmax_loss("a") + layer("accuracy", "Accuracy", "a label", "accuracy")
    ),
    "silence": (INPUT + LABEL + ip("a", "data") + softmax_loss("a") + ip("b", "a") + layer("quiet", "Silence", "b")),
    "slice_concat": (
        "force_backward: true\n"
        + source("data", 4, 6)
        + LABEL
        + layer("cut", "Slice", "data", "l r", "slice_param { slice_point: 2 }")
        + layer("join", "Concat", "r l r", "join")
        + ip("a", "join")
        + softmax_loss("a")
    ),
    "share_data_chain": (
        "force_backward: true\n"
        + INPUT
        + LABEL
        + layer("f", "Flatten", "data", "f")
        + layer("r", "Reshape", "f", "r", "reshape_param { shape { dim: 4 dim: 3 dim: 1 } }")
        + ip("a", "r")
        + layer("s", "Split", "a", "s1 s2")
        + layer("e", "Eltwise", "s1 s2", "e", "eltwise_param { operation: PROD }")
        + softmax_loss("e")
    ),
    "convnet": (
        'name: "convnet"\n'
        + source("data", 3, 2, 9, 9)
        + source("label", 3)
        + layer(
            "conv", "Convolution", "data", "conv", "convolution_param { num_output: 4 kernel_size: 3 bias_term: false }"
        )
        + layer("bn", "BatchNorm", "conv", "bn", "batch_norm_param { use_global_stats: false }")
        + layer("scale", "Scale", "bn", "bn", "scale_param { bias_term: true }")
        + layer("relu", "ReLU", "bn", "bn")
        + layer("pool", "Pooling", "bn", "pool", "pooling_param { kernel_size: 3 stride: 2 }")
        + layer("norm", "LRN", "pool", "norm", "lrn_param { local_size: 3 alpha: 0.1 }")
        + ip("ip", "norm")
        + softmax_loss("ip")
    ),
    "inputs_of_old_style": (
        'name: "old" input: "data" input_shape { dim: 4 dim: 3 } input: "label" input_shape { dim: 4 }\n'
        + ip("ip", "data")
        + softmax_loss("ip")
    ),
    "input_dims": (
        'input: "data" input_dim: 4 input_dim: 3 input_dim: 1 input_dim: 1\n'
        + LABEL
        + ip("ip", "data")
        + softmax_loss("ip")
    ),
    "version_1": (
        'input: "data" input_dim: 4 input_dim: 3 input_dim: 5 input_dim: 5\n'
        'input: "label" input_dim: 4 input_dim: 1 input_dim: 1'
        " input_dim: 1\n"
        'layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2'
        " weight_decay: 1 weight_decay: 0"
        ' param: "w" param: "b" convolution_param { num_output: 3 kernel_size: 2 } }\n'
        'layers { name: "relu" type: RELU bottom: "conv" top: "conv" }\n'
        'layers { name: "ip" type: INNER_PRODUCT bottom: "conv" top: "ip" inner_product_param { num_output: 3 } }\n'
        'layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }\n'
    ),
    "version_0": (
        'input: "data" input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 6\n'
        'layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "pad" }\n'
        'layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1 biasterm: true'
        ' weight_filler { type: "gaussian" std: 0.01 } blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. }'
        ' bottom: "pad" top: "conv" }\n'
        'layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }\n'
        'layers { layer { name: "pool" type: "pool" pool: MAX kernelsize: 2 stride: 2 } bottom: "conv" top: "pool" }\n'
        'layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.75 } bottom: "pool" top: "norm" }\n'
        'layers { layer { name: "ip" type: "innerproduct" num_output: 2 } bottom: "norm" top: "ip" }\n'
        'layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }\n'
    ),
}

FILTERED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "train" type: "Power" bottom: "data" top: "train" include { phase: TRAIN } }
layer { name: "test" type: "Power" bottom: "data" top: "test" include { phase: TEST } }
layer { name: "not_test" type: "Power" bottom: "data" top: "not_test" exclude { phase: TEST } }
layer { name: "level_1_up" type: "Power" bottom: "data" top: "level_1_up" include { min_level: 1 } }
layer { name: "level_to_1" type: "Power" bottom: "data" top: "level_to_1" include { max_level: 1 } }
layer { name: "level_1" type: "Power" bottom: "data" top: "level_1" include { min_level: 1 max_level: 1 } }
layer { name: "a" type: "Power" bottom: "data" top: "a" include { stage: "a" } }
layer { name: "a_and_b" type: "Power" bottom: "data" top: "a_and_b" include { stage: "a" stage: "b" } }
layer { name: "a_or_b" type: "Power" bottom: "data" top: "a_or_b" include { stage: "a" } include { stage: "b" } }
layer { name: "not_a" type: "Power" bottom: "data" top: "not_a" include { not_stage: "a" } }
layer { name: "excluded_a" type: "Power" bottom: "data" top: "excluded_a" exclude { stage: "a" phase: TRAIN } }
layer { name: "train_a_not_b" type: "Power" bottom: "data" top: "train_a_not_b"
  include { phase: TRAIN stage: "a" not_stage: "b" } }
"""
# state: (phase, options of caffe.Net) for the net above
STATES = {
    "train": (caffe.TRAIN, {}),
    "test": (caffe.TEST, {}),
    "level_1": (caffe.TRAIN, {"level": 1}),
    "level_2": (caffe.TEST, {"level": 2}),
    "stage_a": (caffe.TRAIN, {"stages": ["a"]}),
    "stage_a_test": (caffe.TEST, {"stages": ["a"]}),
    "stages_a_b": (caffe.TRAIN, {"stages": ["a", "b"]}),
    "stage_c_level_1": (caffe.TRAIN, {"stages": ["c"], "level": 1}),
}


def answer_of(name, text, phase, options):
    def ask(folder):
        net = open_net(folder, "Net/" + name, text, phase, **options)
        net.forward()
        net.backward()
        return {**structure(net), **values(net)}

    return ask


IN_TEST = ("test_phase", "input_dims", "version_0")
for _name, _text in NETS.items():
    scenario("Net/" + _name)(answer_of(_name, _text, caffe.TEST if _name in IN_TEST else caffe.TRAIN, {}))
for _name, (_phase, _options) in STATES.items():
    scenario("Net/filter_" + _name)(answer_of("filter_" + _name, FILTERED, _phase, _options))
