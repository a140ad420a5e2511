"""Wider cases of the layers in neurons_more and shaping_more: more axes, further options, several bottoms, in place.

BNLL, Log, MVN and Threshold in place are asked for their forward only: BVLC's backward there reads the bottom that was
written over. So is LSTM with fractions in cont, by which BVLC forgets to multiply the forget gate's gradient.
"""

from __future__ import annotations

from .neurons_more import one, reduction
from .shaping_more import crop, deconvolution, first, im2col, recurrent
from .table import Case

CLIPS = "4x2 ties2"
PAIRS = "6x4, 6x4, 6 binary"


def infogain(what, fields="", bottoms="2x3x2x2, 2x1x2x2 labels3", **options):
    body = 'infogain_loss_param { source: "DATA/infogain.binaryproto" } %s' % fields
    return Case("InfogainLoss/" + what, body, bottoms, loss=True, **options)


def loss(kind, what, bottoms, fields=""):
    return Case("%s/%s" % (kind, what), fields, bottoms, loss=True)


CASES = [
    deconvolution("kernel_1", "kernel_size: 1"),
    deconvolution("dimensions_3", "kernel_size: 2 stride: 2 pad: 1", "1x2x3x2x3"),
    deconvolution("dimensions_3_dilated", "kernel_size: 2 dilation: 1 dilation: 2 dilation: 1 group: 2", "1x4x2x3x2"),
    deconvolution("dimensions_4", "kernel_size: 2 stride: 2 group: 2", "1x2x2x1x2x2"),
    Case(
        "Convolution/dimensions_4",
        "convolution_param { num_output: 4 kernel_size: 2 stride: 2 pad: 1 group: 2 }",
        "1x2x3x2x3x2",
    ),
    deconvolution("dimensions_0", "", "3x4"),
    deconvolution("axis_2", "kernel_size: 2 axis: 2", "2x2x3x3x2"),
    deconvolution("axis_negative", "kernel_size: 2 axis: -3 stride: 2", "2x2x3x3x2"),
    deconvolution(
        "repeated", "kernel_size: 2 kernel_size: 3 stride: 1 stride: 2 pad: 1 pad: 0 dilation: 2 dilation: 1"
    ),
    deconvolution("depthwise", "kernel_size: 3 group: 4 stride: 2 pad: 1", "2x4x3x3"),
    deconvolution("force_nd", "kernel_size: 3 pad: 1 stride: 2 force_nd_im2col: true"),
    deconvolution("two_bottoms", "kernel_size: 3", "2x3x4x4, 2x3x4x4", tops=2),
    deconvolution("accumulates", "kernel_size: 3", iterations=2),
    im2col("height_width", "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2"),
    im2col("dilation_repeated", "kernel_size: 2 kernel_size: 3 dilation: 3 dilation: 2 stride: 2 pad: 1"),
    im2col("stride_leaves_rest", "kernel_size: 3 stride: 3", "2x3x7x8"),
    im2col("dimensions_3", "kernel_size: 2 stride: 2 pad: 1", "1x2x3x4x3"),
    im2col("axis_2", "kernel_size: 2 axis: 2", "2x2x3x4x3"),
    im2col("force_nd", "kernel_size: 3 pad: 1 force_nd_im2col: true"),
    one("AbsVal", "map", bottoms="2x3x2x2 large"),
    one("BNLL", "in_place", tops="in place", backward=False),
    one("BNLL", "scalar", bottoms="scalar"),
    one("ELU", "large", "alpha: 2", "2x3x4 large"),
    one("ELU", "zeros", "alpha: 0.3", "2x3 zero"),
    one("Exp", "in_place", "base: 3 scale: -1 shift: 0.5", tops="in place"),
    one("Exp", "base_1", "base: 1"),
    one("Log", "in_place", "base: 2", "2x3x4 positive", tops="in place", backward=False),
    one("Log", "base_below_1", "base: 0.5 scale: 2", "2x3x4 positive"),
    one("PReLU", "shared_in_place", "channel_shared: true", "2x3x4", tops="in place"),
    one("PReLU", "zeros", bottoms="2x3x4 zero"),
    one("Swish", "large", "beta: -0.5", "2x3x4 large"),
    one("Threshold", "in_place", "threshold: -0.2", tops="in place", backward=False),
    one("Bias", "filled", "filler { type: 'constant' value: -2 }", "2x3x4", params="as filled"),
    one("Bias", "default_fill", "", "2x3x4", params="as filled"),
    one("Bias", "axis_negative", "axis: -1", "2x3x4"),
    one("Bias", "two_bottoms_all", "axis: 0", "2x3, 2x3"),
    one("Bias", "two_bottoms_scalar", "", "2x3, scalar"),
    one("Bias", "two_bottoms_in_place", "axis: 1", "2x3x4, 3", tops="in place"),
    one("Bias", "accumulates", "", "2x3x4", iterations=2),
    one("MVN", "vectors", "", "3x4"),
    one("MVN", "vectors_across", "across_channels: true", "3x4"),
    one("MVN", "lines", "", "2x3x5"),
    one("MVN", "constant", "eps: 0.1", "2x2x2x2 one"),
    one("MVN", "in_place", "", "2x3x2x4", tops="in place", backward=False),
    reduction("sum_map", "", "2x3x2x2"),
    reduction("last_axis", "axis: 3 operation: MEAN coeff: -3", "2x3x2x2"),
    reduction("absolute_zeros", "operation: ASUM axis: 1", "2x3 zero"),
    reduction("accumulates_not", "operation: SUMSQ axis: 2", iterations=2),
    one("ArgMax", "axis_0", "axis: 0 top_k: 2", "4x3", backward=False),
    one("ArgMax", "axis_ties", "axis: 1 top_k: 3", "3x5x2 ties2", backward=False),
    one("ArgMax", "five_axes", "out_max_val: true top_k: 3", "2x2x2x2x2", backward=False),
    one("ArgMax", "one_axis", "", "4", backward=False),
    loss("HingeLoss", "map", "3x2x2, 3 labels4"),
    loss("HingeLoss", "label_map", "4x5, 4x1x1x1 labels5", "hinge_loss_param { norm: L2 } loss_weight: 2"),
    loss("MultinomialLogisticLoss", "map", "3x2x2 probability, 3x1x1x1 labels4"),
    loss("ContrastiveLoss", "maps", "6x4x1x1, 6x4x1x1, 6x1x1x1 binary", "contrastive_loss_param { margin: 4 }"),
    loss("ContrastiveLoss", "labels_above_1", "6x4, 6x4, 6 labels3", "contrastive_loss_param { margin: 4 }"),
    loss("ContrastiveLoss", "no_distance", "4x3 one, 4x3 one, 4 binary"),
    loss(
        "ContrastiveLoss",
        "legacy_no_distance",
        "4x3 one, 4x3 one, 4 zero",
        "contrastive_loss_param { legacy_version: true }",
    ),
    loss("ContrastiveLoss", "loss_weight", PAIRS, "loss_weight: 0.5 contrastive_loss_param { margin: 3 }"),
    infogain("full", "loss_param { normalization: FULL ignore_label: 1 }"),
    infogain("valid", "loss_param { normalization: VALID ignore_label: 1 }"),
    infogain("batch_size", "loss_param { normalization: BATCH_SIZE ignore_label: 1 }"),
    infogain("ignore_all", "loss_param { ignore_label: 0 }", "4x3, 4 zero"),
    infogain("large", "", "4x3 large, 4 labels3"),
    infogain("probabilities", "loss_weight: 1 loss_weight: 0", "4x3, 4 labels3", tops=2),
    first("InfogainLoss/three_bottoms_backward", "", "4x3, 4 labels3, 1x1x3x3 probability", loss=True),
    first("InfogainLoss/matrix_alone", "", "4x3, 4 labels3, 9 probability", loss=True, iterations=2),
    crop("axis_0", "axis: 0 offset: 1", "3x4, 2x3"),
    crop("whole", "axis: 1", "2x3x2, 1x3x2"),
    Case("Tile/map", "tile_param { axis: 2 tiles: 2 }", "2x2x3x2"),
    first("BatchReindex/once_each", "", "4x3, 4 ties4", iterations=2),
    first("Filter/column", "", "5x3, 5x1 binary"),
    first("Filter/none", "", "4x3, 4 zero"),
    first("Filter/all", "", "4x3, 4 one"),
    first("Filter/changing", "", "5x3x2, 5 binary", iterations=3),
    Case(
        "Filter/two_backward",
        "propagate_down: true propagate_down: true propagate_down: false loss_weight: 1 loss_weight: 1",
        "5x3, 5x2x2, 5 binary",
        tops=2,
        force=False,
    ),
    Case(
        "Embed/filled",
        "loss_weight: 1"
        " embed_param { num_output: 3 input_dim: 4 weight_filler { value: 2 } bias_filler { value: -1 } }",
        "2x3x2 labels4",
        force=False,
        params="as filled",
    ),
    Case("Parameter/backward", "parameter_param { shape { dim: 2 dim: 3 } }", ""),
    Case("Parameter/as_made", "parameter_param { shape { dim: 4 } }", "", params="as filled", backward=False),
    Case("SPP/three_levels_uneven", "spp_param { pyramid_height: 3 pool: MAX }", "1x2x7x9"),
    Case("SPP/two_levels_ave", "spp_param { pyramid_height: 2 pool: AVE }", "2x1x5x7"),
    Case("SPP/one_level_ave", "spp_param { pyramid_height: 1 pool: AVE }", "2x3x4x5"),
    Case("SPP/ties", "spp_param { pyramid_height: 2 }", "2x2x5x5 ties2"),
    recurrent("RNN", "two_runs", "", "4x2x5, " + CLIPS, iterations=2),
    recurrent("RNN", "never_reset", "", "3x2x4, 3x2 one", iterations=3),
    recurrent("RNN", "soft_cont", "", "4x2x5, 4x2 probability"),
    recurrent("RNN", "maps", "", "3x2x2x2, 3x2 ties2"),
    recurrent("RNN", "static_exposed", "expose_hidden: true", "4x2x5, " + CLIPS + ", 2x3, 1x2x3", tops=2),
    recurrent("LSTM", "never_reset", "", "3x2x4, 3x2 one", iterations=3),
    recurrent("LSTM", "soft_cont", "", "4x2x5, 4x2 probability", backward=False),
    recurrent("LSTM", "one_step", "", "1x3x4, 1x3 one"),
    recurrent("LSTM", "maps", "", "3x2x2x2, 3x2 ties2"),
    recurrent("LSTM", "static_maps", "", "4x2x5, " + CLIPS + ", 2x3x2"),
    recurrent("LSTM", "static_exposed", "expose_hidden: true", "4x2x5, " + CLIPS + ", 2x3, 1x2x3, 1x2x3", tops=3),
    recurrent("LSTM", "large", "", "4x2x5 large, " + CLIPS),
    Case("LSTMUnit/goes_on", "", "1x3x2, 1x3x8, 1x3 one", tops=2),
    Case("LSTMUnit/begins", "", "1x3x2, 1x3x8, 1x3 zero", tops=2),
    Case("LSTMUnit/large", "", "1x2x3 large, 1x2x12 large, 1x2 binary", tops=2),
]
