"""Nets: how layers are named, filtered, wired, shared and differentiated together."""

from __future__ import annotations

import caffe
import numpy as np

from .scenario import collector, open_net, structure, values

CASES, scenario = collector()

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }\n'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }\n'


def ip(name, bottom, top=None, outputs=3, more=""):
    return (
        'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" %s inner_product_param { num_output: %d } }\n'
        % (name, bottom, top or name, more, outputs)
    )


def softmax_loss(bottom, more=""):
    return 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" %s }\n' % (
        bottom,
        more,
    )


def euclidean(name, first, second, more=""):
    return 'layer { name: "%s" type: "EuclideanLoss" bottom: "%s" bottom: "%s" top: "%s" %s }\n' % (
        name,
        first,
        second,
        name,
        more,
    )


# name: (text, phase, options of caffe.Net); each is built, run forward and backward, and all of it is answered
NETS = {
    "plain": (INPUT + LABEL + ip("ip", "data") + softmax_loss("ip"), caffe.TRAIN, {}),
    "test_phase": (INPUT + LABEL + ip("ip", "data") + softmax_loss("ip"), caffe.TEST, {}),
    "force_backward": (
        "force_backward: true\n" + INPUT + LABEL + ip("ip", "data") + softmax_loss("ip"),
        caffe.TRAIN,
        {},
    ),
    "in_place": (
        INPUT
        + LABEL
        + ip("ip1", "data", outputs=5)
        + 'layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }\n'
        + 'layer { name: "sigmoid" type: "Sigmoid" bottom: "ip1" top: "ip1" }
'
        + 'layer { name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }\n'
        + ip("ip2", "ip1")
        + softmax_loss("ip2"),
        caffe.TRAIN,
        {},
    ),
    "split_by_itself": (
        INPUT
        + LABEL
        + ip("a", "data")
        + ip("b", "data")
        + ip("c", "a")
        + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" bottom: "a" top: "sum" }\n'
        + softmax_loss("sum"),
        caffe.TRAIN,
        {},
    ),
    "split_of_a_loss": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a", "loss_weight: 2")
        + 'layer { name: "twice" type: "Power" bottom: "loss" top: "twice" power_param { scale: 3 } loss_weight: 0.5 }\n'
        + 'layer { name: "again" type: "Power" bottom: "loss" top: "again" power_param { power: 2 } loss_weight: 1 }\n',
        caffe.TRAIN,
        {},
    ),
    "loss_weight_on_any_layer": (
        INPUT
        + ip("a", "data")
        + 'layer { name: "p" type: "Power" bottom: "a" top: "p" power_param { power: 2 } loss_weight: 0.25 }\n',
        caffe.TRAIN,
        {},
    ),
    "two_losses": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a", "loss_weight: 0.5")
        + ip("b", "a")
        + euclidean("e", "b", "data", "loss_weight: 2"),
        caffe.TRAIN,
        {},
    ),
    "zero_loss_weight": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a")
        + ip("b", "data")
        + euclidean("e", "b", "data", "loss_weight: 0"),
        caffe.TRAIN,
        {},
    ),
    "no_loss": (INPUT + ip("a", "data") + ip("b", "a"), caffe.TRAIN, {}),
    "branch_without_loss": (INPUT + LABEL + ip("a", "data") + ip("b", "a") + softmax_loss("a"), caffe.TRAIN, {}),
    "frozen": (
        INPUT
        + LABEL
        + ip("a", "data", more="param { lr_mult: 0 } param { lr_mult: 0 }")
        + ip("b", "a")
        + softmax_loss("b"),
        caffe.TRAIN,
        {},
    ),
    "frozen_in_the_middle": (
        INPUT
        + LABEL
        + ip("a", "data")
        + ip("b", "a", more="param { lr_mult: 0 } param { lr_mult: 0 }")
        + softmax_loss("b"),
        caffe.TRAIN,
        {},
    ),
    "propagate_down_false": (
        INPUT + LABEL + ip("a", "data") + ip("b", "a", more="propagate_down: false") + softmax_loss("b"),
        caffe.TRAIN,
        {},
    ),
    "propagate_down_true": (
        INPUT + LABEL + ip("a", "data", more="propagate_down: true") + softmax_loss("a"),
        caffe.TRAIN,
        {},
    ),
    "propagate_down_of_one_branch": (
        INPUT
        + LABEL
        + ip("a", "data")
        + ip("b", "a", more="propagate_down: false")
        + ip("c", "a")
        + 'layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "c" top: "sum" }\n'
        + softmax_loss("sum"),
        caffe.TRAIN,
        {},
    ),
    "shared_params": (
        INPUT
        + LABEL
        + ip("a", "data", more='param { name: "w" } param { name: "b" }')
        + ip("b", "a", more='param { name: "w" } param { name: "b" }')
        + softmax_loss("b"),
        caffe.TRAIN,
        {},
    ),
    "shared_one_param": (
        INPUT
        + LABEL
        + ip("a", "data", more='param { name: "w" lr_mult: 2 }')
        + ip("b", "a", more='param { name: "w" }')
        + softmax_loss("b"),
        caffe.TRAIN,
        {},
    ),
    "shared_permissive": (
        INPUT
        + LABEL
        + ip("a", "data", more='param { name: "w" } param { name: "b" }')
        + 'layer { name: "r" type: "Reshape" bottom: "a" top: "r" reshape_param { shape { dim: 4 dim: 1 dim: 3 } } }\n'
        + ip("b", "r", more='param { name: "w" share_mode: PERMISSIVE } param { name: "b" }')
        + softmax_loss("b"),
        caffe.TRAIN,
        {},
    ),
    "accuracy_beside_loss": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a")
        + 'layer { name: "accuracy" type: "Accuracy" bottom: "a" bottom: "label" top: "accuracy" }\n',
        caffe.TRAIN,
        {},
    ),
    "silence": (
        INPUT
        + LABEL
        + ip("a", "data")
        + softmax_loss("a")
        + ip("b", "a")
        + 'layer { name: "quiet" type: "Silence" bottom: "b" }\n',
        caffe.TRAIN,
        {},
    ),
    "slice_concat": (
        'force_backward: true layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 6 } } }\n'
        + LABEL
        + 'layer { name: "cut" type: "Slice" bottom: "data" top: "l" top: "r" slice_param { slice_point: 2 } }\n'
        + 'layer { name: "join" type: "Concat" bottom: "r" bottom: "l" bottom: "r" top: "join" }\n'
        + ip("a", "join")
        + softmax_loss("a"),
        caffe.TRAIN,
        {},
    ),
    "share_data_chain": (
        "force_backward: true\n"
        + INPUT
        + LABEL
        + 'layer { name: "f" type: "Flatten" bottom: "data" top: "f" }\n'
        + 'layer { name: "r" type: "Reshape" bottom: "f" top: "r" reshape_param { shape { dim: 4 dim: 3 dim: 1 } } }\n'
        + ip("a", "r")
        + 'layer { name: "s" type: "Split" bottom: "a" top: "s1" top: "s2" }\n'
        + 'layer { name: "e" type: "Eltwise" bottom: "s1" bottom: "s2" top: "e" eltwise_param { operation: PROD } }\n'
        + softmax_loss("e"),
        caffe.TRAIN,
        {},
    ),
    "convnet": (
        'name: "convnet" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 2 dim: 9 dim: 9 } } }\n'
        'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 3 } } }\n'
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 bias_term: false } }\n'
        'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" batch_norm_param { use_global_stats: false } }\n'
        'layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }\n'
        'layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" }\n'
        'layer { name: "pool" type: "Pooling" bottom: "bn" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }\n'
        'layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" lrn_param { local_size: 3 alpha: 0.1 } }\n'
        + ip("ip", "norm")
        + softmax_loss("ip"),
        caffe.TRAIN,
        {},
    ),
    "inputs_of_old_style": (
        'name: "old" input: "data" input_shape { dim: 4 dim: 3 } input: "label" input_shape { dim: 4 }\n'
        + ip("ip", "data")
        + softmax_loss("ip"),
        caffe.TRAIN,
        {},
    ),
    "input_dims": (
        'input: "data" input_dim: 4 input_dim: 3 input_dim: 1 input_dim: 1\n'
        + LABEL
        + ip("ip", "data")
        + softmax_loss("ip"),
        caffe.TEST,
        {},
    ),
    "version_1": (
        'input: "data" input_dim: 4 input_dim: 3 input_dim: 5 input_dim: 5 input: "label" input_dim: 4 input_dim: 1 input_dim: 1'
        " input_dim: 1\n"
        'layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0'
        ' param: "w" param: "b" convolution_param { num_output: 3 kernel_size: 2 } }\n'
        'layers { name: "relu" type: RELU bottom: "conv" top: "conv" }\n'
        'layers { name: "ip" type: INNER_PRODUCT bottom: "conv" top: "ip" inner_product_param { num_output: 3 } }\n'
        'layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }\n',
        caffe.TRAIN,
        {},
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
        'layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }\n',
        caffe.TEST,
        {},
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
layer { name: "train_a_not_b" type: "Power" bottom: "data" top: "train_a_not_b" include { phase: TRAIN stage: "a" not_stage: "b" } }
"""
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
NETS.update({"filter_" + state: (FILTERED, phase, options) for state, (phase, options) in STATES.items()})


def answer_of(name, text, phase, options):
    def ask(folder):
        net = open_net(folder, "Net/" + name, text, phase, **options)
        net.forward()
        net.backward()
        return {**structure(net), **values(net)}

    return ask


for _name, _net in NETS.items():
    scenario("Net/" + _name)(answer_of(_name, *_net))
