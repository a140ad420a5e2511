"""What a call must be refused for: of a net, of its blobs, after a reshape, on the way back, with arrays."""

from __future__ import annotations

import os

import caffe
import numpy as np

from .refused_layers import STEPS, backward, learned
from .refused_nets import IMAGE, layer
from .refused_shapes import NO_SHAPE, dummy
from .refusing import Refusal, build, run
from .scenario import open_net
from .text import INPUT, LABEL, ip, source

FLOATS = {"dtype": np.float32}
INFOGAIN = INPUT + LABEL + source("h", 3, 3)
CHAIN = INPUT + ip("a", "data") + ip("b", "a")
MEMORY = layer("MemoryData", "", "x y", "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 }")
CONVOLUTION = layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 2 }")


def reshaped(net_text, *shape, blob="data"):
    """An action that gives an input another shape."""

    def use(net, folder):
        net.blobs[blob].reshape(*shape)
        net.reshape()

    return run(net_text, use)


def arrays(data, labels=(2, 1, 1, 1), transpose=False):
    """An action that hands arrays of these shapes to a MemoryData layer."""

    def use(net, folder):
        pixels = np.zeros(data, **FLOATS)
        net.set_input_arrays(pixels.T if transpose else pixels, np.zeros(labels, **FLOATS))

    return run(MEMORY, use)


def label_asked(kind, bottoms, which=1, before=INPUT + LABEL):
    """An action that asks a diff of a bottom that has none."""
    count = len(bottoms.split())
    asked = " ".join("propagate_down: %s" % str(i == which).lower() for i in range(count))
    return run("force_backward: true " + before + layer(kind, bottoms, "x", asked), backward)


def saved_as(name):
    return lambda net, folder: net.save(os.path.join(folder, name))


def shared_twice(net, folder):
    """Share with a net whose layer has fewer blobs."""
    fewer = ip("a", "data").replace("num_output: 3", "num_output: 3 bias_term: false")
    net.share_with(open_net(folder, "refused_other", INPUT + fewer))


def several_solvers(folder):
    """A net with a Python layer while two solvers are announced that share one process."""
    caffe.set_solver_count(2)
    try:
        build(PYTHON)(folder)
    finally:
        caffe.set_solver_count(1)


PYTHON = INPUT + layer("Python", more="python_param { module: 'layers_in_python' layer: 'Scaled' }")
LSTM = STEPS + layer("LSTM", "data cont", more="recurrent_param { num_output: 2 }")

# what: (the action, words of the message)
ACTIONS = {
    "forward_from_before_the_first": (run(CHAIN, lambda net, folder: net._forward(-1, 1)), ()),
    "forward_beyond_the_last": (run(CHAIN, lambda net, folder: net._forward(0, 3)), ()),
    "backward_before_the_first": (run(CHAIN, lambda net, folder: net._backward(2, -1)), ()),
    "backward_from_beyond_the_last": (run(CHAIN, lambda net, folder: net._backward(3, 0)), ()),
    "top_ids_negative": (run(CHAIN, lambda net, folder: net._top_ids(-1)), ("Invalid layer id",)),
    "top_ids_beyond": (run(CHAIN, lambda net, folder: net._top_ids(3)), ("Invalid layer id",)),
    "bottom_ids_negative": (run(CHAIN, lambda net, folder: net._bottom_ids(-1)), ("Invalid layer id",)),
    "bottom_ids_beyond": (run(CHAIN, lambda net, folder: net._bottom_ids(3)), ("Invalid layer id",)),
    "share_with_blob_count": (
        run(INPUT + ip("a", "data"), shared_twice),
        ("Incompatible number of blobs for layer a",),
    ),
    "save_into_no_folder": (run(CHAIN, saved_as("no/x.caffemodel")), ()),
    "blob_axes": (run(INPUT, lambda net, folder: net.blobs["data"].reshape(*[1] * 33)), ()),
    "blob_negative": (run(INPUT, lambda net, folder: net.blobs["data"].reshape(2, -1)), ()),
    "blob_reshape_keywords": (run(INPUT, lambda net, folder: net.blobs["data"].reshape(num=2)), ("Blob.reshape",)),
    "blob_legacy_axes": (
        run(source("data", 1, 1, 1, 1, 1), lambda net, folder: net.blobs["data"].num),
        ("Cannot use legacy accessors",),
    ),
    "add_blob_keywords": (
        run(INPUT + ip("a", "data"), lambda net, folder: net.params["a"].add_blob(num=2)),
        ("BlobVec.add_blob",),
    ),
    "no_shape_forward": (lambda folder: build(NO_SHAPE + layer("ReLU"))(folder).forward(), ()),
    "arrays_contiguous": (arrays((2, 1, 1, 2), transpose=True), ("data array must be C contiguous",)),
    "arrays_axes": (arrays((2, 1, 2)), ("data array must be 4-d",)),
    "arrays_channels": (arrays((2, 2, 1, 2)), ("data array has wrong number of channels",)),
    "arrays_height": (arrays((2, 1, 2, 2)), ("data array has wrong height",)),
    "arrays_labels": (arrays((2, 1, 1, 2), (4, 1, 1, 1)), ("data and labels must have the same first dimension",)),
    "python_among_solvers": (several_solvers, ("Python",)),
    "inner_product_reshaped": (
        reshaped(INPUT + ip("a", "data"), 4, 5),
        ("Input size incompatible with inner product parameters",),
    ),
    "convolution_reshaped_axes": (reshaped(IMAGE + CONVOLUTION, 2, 3, 5), ("bottom num_axes may not change",)),
    "convolution_reshaped_channels": (
        reshaped(IMAGE + CONVOLUTION, 2, 4, 5, 5),
        ("Input size incompatible with convolution kernel",),
    ),
    "batch_norm_reshaped": (reshaped(IMAGE + layer("BatchNorm"), 2, 4, 5, 5), ("channels",)),
    "spp_reshaped": (
        reshaped(IMAGE + layer("SPP", more="spp_param { pyramid_height: 2 }"), 2, 3, 5),
        ("Input must have 4 axes, corresponding to (num, channels, height, width)",),
    ),
    "prelu_reshaped": (reshaped(INPUT + layer("PReLU"), 4), ("Number of axes of bottom blob must be >=2",)),
    "lstm_reshaped_axes": (reshaped(LSTM, 3), ("bottom[0] must have at least 2 axes -- (#timesteps, #streams, ...)",)),
    "lstm_reshaped_steps": (reshaped(LSTM, 2, 2, 4), ("timesteps",)),
    "lstm_reshaped_cont_axes": (
        reshaped(LSTM, 3, 2, 1, blob="cont"),
        ("bottom[1] must have exactly 2 axes -- (#timesteps, #streams)",),
    ),
    "lstm_reshaped_cont_steps": (reshaped(LSTM, 2, 2, blob="cont"), ("bottom[1]",)),
    "lstm_reshaped_cont_streams": (reshaped(LSTM, 3, 3, blob="cont"), ("bottom[1]",)),
    "hinge_label_backward": (label_asked("HingeLoss", "data label"), ("cannot backpropagate to label inputs",)),
    "multinomial_label_backward": (
        label_asked("MultinomialLogisticLoss", "data label"),
        ("cannot backpropagate to label inputs",),
    ),
    "infogain_label_backward": (
        label_asked("InfogainLoss", "data label h", before=INFOGAIN),
        ("cannot backpropagate to label inputs",),
    ),
    "infogain_matrix_backward": (label_asked("InfogainLoss", "data label h", 2, INFOGAIN), ("backpropagate to",)),
    "sigmoid_target_backward": (
        label_asked("SigmoidCrossEntropyLoss", "data other", before=INPUT + source("other", 4, 3)),
        ("cannot backpropagate to label inputs",),
    ),
    "filter_selector_backward": (
        run(
            learned("data", 4, 3) + learned("selector", 4) + layer("Filter", "data selector", more="loss_weight: 1"),
            backward,
        ),
        ("backpropagate to",),
    ),
    "lstm_cont_backward": (
        run(
            learned("data", 3, 2, 4)
            + learned("cont", 3, 2)
            + layer("LSTM", "data cont", more="loss_weight: 1 recurrent_param { num_output: 2 }"),
            backward,
        ),
        ("backpropagate to",),
    ),
    "lstm_unit_cont_backward": (
        run(
            learned("c", 1, 2, 3)
            + learned("x", 1, 2, 12)
            + learned("cont", 1, 2)
            + layer("LSTMUnit", "c x cont", "p q", "loss_weight: 1 loss_weight: 1"),
            backward,
        ),
        ("backpropagate to",),
    ),
    "filler_gaussian_no_axes": (
        run(dummy('shape { } data_filler { type: "gaussian" sparse: 1 }', "x"), lambda net, folder: net.forward()),
        (),
    ),
    "dropout_ratio_over_1": (
        run(INPUT + layer("Dropout", more="dropout_param { dropout_ratio: 1.5 }"), lambda net, folder: net.forward()),
        (),
    ),
    "dropout_ratio_negative": (
        run(INPUT + layer("Dropout", more="dropout_param { dropout_ratio: -1 }"), lambda net, folder: net.forward()),
        (),
    ),
}

STOCHASTIC = IMAGE + layer("Pooling", more="pooling_param { pool: STOCHASTIC kernel_size: 2 }")
UNSHAPED = "a blob without a shape holds one value, which may be read before it is given a shape"
BY_GPU_ONLY = "BVLC computes STOCHASTIC on a GPU only, the engine on either device"

# what: (the action, why the engine does it)
ACCEPTED = {
    "no_shape_data": (lambda folder: build(NO_SHAPE)(folder).blobs["data"].data, UNSHAPED),
    "no_shape_diff": (lambda folder: build(NO_SHAPE)(folder).blobs["data"].diff, UNSHAPED),
    "pooling_stochastic": (run(STOCHASTIC, lambda net, folder: net.forward()), BY_GPU_ONLY),
    "pooling_stochastic_backward": (
        run("force_backward: true " + STOCHASTIC, lambda net, folder: net.backward()),
        BY_GPU_ONLY,
    ),
}

CASES = [Refusal("Refusal/" + what, words, action) for what, (action, words) in ACTIONS.items()]
CASES += [Refusal("Refusal/" + what, (), action, accepted=why) for what, (action, why) in ACCEPTED.items()]
