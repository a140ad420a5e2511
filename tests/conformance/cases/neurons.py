"""Layers that act on each value, normalise, or join blobs by value: ReLU to Eltwise.

Power in place is asked for its forward only: BVLC's backward there multiplies the top diff by itself or reads the
overwritten bottom, so its gradient is wrong and the engine's, which is the derivative, rightly differs.
"""

from __future__ import annotations

import caffe

from .table import Case

TEST = caffe.TEST


def power(what, fields, kind="positive", **options):
    return Case("Power/" + what, "power_param { %s }" % fields, "2x3x4 " + kind, **options)


def batch_norm(what, fields="", bottoms="4x3x2x5", params="normal positive positive", **options):
    return Case(
        "BatchNorm/" + what, "batch_norm_param { %s }" % fields, bottoms, params=params, keep="params", **options
    )


def scale(what, fields="", bottoms="2x3x4x2", **options):
    return Case("Scale/" + what, "scale_param { %s }" % fields, bottoms, **options)


def eltwise(what, fields, bottoms="2x3x2x2, 2x3x2x2", **options):
    return Case("Eltwise/" + what, "eltwise_param { %s }" % fields, bottoms, **options)


def softmax(what, fields="", bottoms="2x5x3x2", **options):
    return Case("Softmax/" + what, "softmax_param { %s }" % fields, bottoms, **options)


CASES = [
    Case("ReLU/plain", "", "2x3x4"),
    Case("ReLU/negative_slope", "relu_param { negative_slope: 0.2 }", "2x3x4"),
    Case("ReLU/in_place", "", "2x3x4", tops="in place"),
    Case("ReLU/in_place_negative_slope", "relu_param { negative_slope: 0.1 }", "2x3x4", tops="in place"),
    Case("ReLU/zeros", "relu_param { negative_slope: 0.3 }", "3x4 zero"),
    Case("ReLU/scalar", "", "scalar positive"),
    Case("Sigmoid/plain", "", "2x3x4"),
    Case("Sigmoid/in_place", "", "2x3x4", tops="in place"),
    Case("Sigmoid/large", "", "2x3x4 large"),
    Case("TanH/plain", "", "2x3x4"),
    Case("TanH/in_place", "", "2x3x4", tops="in place"),
    Case("TanH/large", "", "2x3x4 large"),
    power("default", "", "normal"),
    power("square", "power: 2", "normal"),
    power("square_shifted", "power: 2 scale: 0.5 shift: -1", "normal"),
    power("linear", "scale: 3 shift: 2", "normal"),
    power("half", "power: 0.5 scale: 2 shift: 0.5"),
    power("inverse", "power: -1"),
    power("cube_in_place", "power: 3 scale: 0.5 shift: 1", tops="in place", backward=False),
    power("linear_in_place", "scale: -2 shift: 1", tops="in place", backward=False),
    power("zero_power", "power: 0 scale: 2 shift: 3", "normal"),
    power("zero_scale", "power: 2 scale: 0 shift: 3", "normal"),
    Case("Dropout/test_phase", "dropout_param { dropout_ratio: 0.4 }", "3x5", phase=TEST),
    Case("Dropout/test_phase_in_place", "", "3x5", tops="in place", phase=TEST),
    Case("Dropout/train_ratio_0", "dropout_param { dropout_ratio: 0 }", "3x5"),
    batch_norm("train", iterations=2),
    batch_norm("train_from_zero", params="zero zero zero", iterations=2),
    batch_norm("train_fraction_eps", "moving_average_fraction: 0.5 eps: 0.01", iterations=3),
    batch_norm("train_one_value", "eps: 0.1", "1x3x1x1"),
    batch_norm("train_vectors", "", "5x4"),
    batch_norm("train_in_place", "", tops="in place"),
    batch_norm("train_global", "use_global_stats: true"),
    batch_norm("test_local", "use_global_stats: false", phase=TEST),
    batch_norm("test", phase=TEST),
    batch_norm("test_in_place", tops="in place", phase=TEST),
    batch_norm("test_factor_zero", params="normal positive zero", phase=TEST),
    scale("channels"),
    scale("bias", "bias_term: true"),
    scale(
        "filled",
        "filler { type: 'constant' value: 3 } bias_term: true bias_filler { type: 'constant' value: -2 }",
        params="as filled",
    ),
    scale("default_fill", "bias_term: true", params="as filled"),
    scale("in_place", "bias_term: true", tops="in place"),
    scale("axis_0", "axis: 0 bias_term: true"),
    scale("axis_negative", "axis: -1"),
    scale("num_axes_2", "axis: 1 num_axes: 2 bias_term: true"),
    scale("num_axes_all", "axis: 0 num_axes: -1"),
    scale("num_axes_0", "num_axes: 0 bias_term: true"),
    scale("one_value", "", "1x1x1x1"),
    scale("one_channel", "bias_term: true", "3x1x2x2"),
    scale("two_bottoms", "axis: 1", "2x3x4x2, 3x4"),
    scale("two_bottoms_axis_0", "axis: 0", "2x3x4, 2"),
    scale("two_bottoms_bias", "axis: 0 bias_term: true", "2x3x4, 2x3"),
    scale("two_bottoms_all", "axis: 0", "2x3, 2x3"),
    scale("two_bottoms_scalar", "", "2x3, scalar"),
    scale("two_bottoms_in_place", "axis: 1", "2x3x4, 3x4", tops="in place"),
    eltwise("sum", "operation: SUM"),
    eltwise("default", ""),
    eltwise("sum_coeff", "operation: SUM coeff: 2 coeff: -0.5 coeff: 1", "2x3, 2x3, 2x3"),
    eltwise("prod", "operation: PROD"),
    eltwise("prod_three", "operation: PROD", "2x3, 2x3, 2x3"),
    eltwise("prod_unstable", "operation: PROD stable_prod_grad: false", "2x3, 2x3, 2x3"),
    eltwise("prod_zero_stable", "operation: PROD", "2x3, 2x3 zero, 2x3"),
    eltwise("max", "operation: MAX"),
    eltwise("max_three", "operation: MAX", "2x5, 2x5, 2x5"),
    eltwise("max_ties", "operation: MAX", "4x5 ties2, 4x5 ties2, 4x5 ties2"),
    softmax("default"),
    softmax("vectors", "", "4x6"),
    softmax("axis_2", "axis: 2"),
    softmax("axis_negative", "axis: -1"),
    softmax("axis_0", "axis: 0"),
    softmax("large", "", "4x6 large"),
    softmax("in_place", "", "4x6", tops="in place"),
]
