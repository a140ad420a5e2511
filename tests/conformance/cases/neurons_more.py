"""Further layers that act on each value, reduce, or normalise: AbsVal to Threshold.

Clip in place is asked for its forward only: BVLC's backward there reads the clipped values and lets every diff pass.
"""

from __future__ import annotations

import caffe

from .table import Case


def one(kind, what, fields="", bottoms="2x3x4", **options):
    """A case of a type whose parameters are in <type in small letters>_param."""
    body = "%s_param { %s }" % (kind.lower(), fields) if fields else ""
    return Case(kind + "/" + what, body, bottoms, **options)


def reduction(what, fields="", bottoms="2x3x4", **options):
    return one("Reduction", what, fields, bottoms, **options)


def infogain(what, fields="", bottoms="4x3, 4 labels3", axis=1):
    body = 'infogain_loss_param { source: "DATA/infogain.binaryproto" axis: %d } %s' % (axis, fields)
    return Case("InfogainLoss/" + what, body, bottoms, loss=True)


CASES = [
    one("AbsVal", "plain"),
    one("AbsVal", "zeros", bottoms="2x3 zero"),
    one("BNLL", "plain"),
    one("BNLL", "large", bottoms="2x3x4 large"),
    one("Clip", "plain", "min: -0.5 max: 0.4"),
    one("Clip", "in_place", "min: -0.5 max: 0.4", tops="in place", backward=False),
    one("Clip", "at_the_ends", "min: 0 max: 1", "4x5 ties2"),
    one("ELU", "default"),
    one("ELU", "alpha", "alpha: 0.3"),
    one("ELU", "in_place", "alpha: 0.7", tops="in place"),
    one("Exp", "default"),
    one("Exp", "base", "base: 2 scale: 0.5 shift: 1"),
    one("Exp", "natural_shifted", "scale: -0.5 shift: 2"),
    one("Log", "default", bottoms="2x3x4 positive"),
    one("Log", "base", "base: 10 scale: 2 shift: 1", "2x3x4 positive"),
    one("Log", "natural_shifted", "scale: 3 shift: 0.5", "2x3x4 positive"),
    one("PReLU", "channels", bottoms="2x3x4x2"),
    one("PReLU", "shared", "channel_shared: true", "2x3x4x2"),
    one("PReLU", "filled", "filler { type: 'constant' value: 0.1 }", "2x3x4", params="as filled"),
    one("PReLU", "default_fill", bottoms="2x3x4", params="as filled"),
    one("PReLU", "in_place", bottoms="2x3x4", tops="in place"),
    one("PReLU", "vectors", bottoms="4x3", iterations=2),
    one("Swish", "default"),
    one("Swish", "beta", "beta: 1.7"),
    one("Swish", "in_place", "beta: 0.5", tops="in place"),
    one("Threshold", "default", backward=False),
    one("Threshold", "given", "threshold: 0.3", backward=False),
    one("Threshold", "at_it", "threshold: 1", "3x4 ties3", backward=False),
    one("Bias", "channels", bottoms="2x3x4x2"),
    one("Bias", "axis_0", "axis: 0", "3x4"),
    one("Bias", "num_axes", "axis: 1 num_axes: 2", "2x3x4x2"),
    one("Bias", "num_axes_all", "axis: 1 num_axes: -1", "2x3x4"),
    one("Bias", "num_axes_0", "num_axes: 0", "2x3x4"),
    one("Bias", "in_place", bottoms="2x3x4", tops="in place"),
    one("Bias", "two_bottoms", "axis: 0", "2x3x4, 2x3"),
    one("MVN", "default", bottoms="2x3x4x5"),
    one("MVN", "mean_only", "normalize_variance: false", "2x3x4x5"),
    one("MVN", "across_channels", "across_channels: true", "2x3x4x5"),
    one("MVN", "across_channels_mean_only", "across_channels: true normalize_variance: false", "2x3x4x5"),
    one("MVN", "eps", "eps: 0.5", "2x3x2x2"),
    reduction("sum"),
    reduction("sum_axis_coeff", "operation: SUM axis: 1 coeff: 2.5"),
    reduction("mean", "operation: MEAN axis: 1"),
    reduction("absolute", "operation: ASUM axis: -1 coeff: -1"),
    reduction("squares", "operation: SUMSQ axis: 1 coeff: 0.5"),
    reduction("squares_all", "operation: SUMSQ"),
    reduction("mean_vectors", "operation: MEAN axis: 0", "7"),
    one("ArgMax", "default", bottoms="3x5", backward=False),
    one("ArgMax", "top_k", "top_k: 3", "3x5", backward=False),
    one("ArgMax", "values", "out_max_val: true top_k: 2", "3x5", backward=False),
    one("ArgMax", "axis", "axis: 1", "2x4x3x2", backward=False),
    one("ArgMax", "axis_values", "axis: 1 out_max_val: true top_k: 2", "2x4x3", backward=False),
    one("ArgMax", "axis_negative", "axis: -1", "2x4x3", backward=False),
    one("ArgMax", "map", "", "2x4x3x2", backward=False),
    one("ArgMax", "ties", "top_k: 2", "6x4 ties2", backward=False),
    Case("HingeLoss/default", "", "4x5, 4 labels5", loss=True),
    Case("HingeLoss/squared", "hinge_loss_param { norm: L2 }", "4x5, 4 labels5", loss=True),
    Case("HingeLoss/loss_weight", "loss_weight: 0.5", "4x5, 4 labels5", loss=True),
    Case("MultinomialLogisticLoss/plain", "", "4x5 probability, 4 labels5", loss=True),
    Case("MultinomialLogisticLoss/loss_weight", "loss_weight: 3", "4x5 probability, 4 labels5", loss=True),
    Case("MultinomialLogisticLoss/tiny", "", "4x5 zero, 4 labels5", loss=True),
    Case("ContrastiveLoss/default", "", "6x4, 6x4, 6 binary", loss=True),
    Case("ContrastiveLoss/margin", "contrastive_loss_param { margin: 3 }", "6x4, 6x4, 6 binary", loss=True),
    Case(
        "ContrastiveLoss/legacy",
        "contrastive_loss_param { margin: 9 legacy_version: true } loss_weight: 2",
        "6x4, 6x4, 6 binary",
        loss=True,
    ),
    Case("InfogainLoss/three_bottoms", "", "4x3, 4 labels3, 1x1x3x3 probability", backward=False),
    infogain("plain"),
    infogain("map", bottoms="2x3x2x2, 2x1x2x2 labels3"),
    infogain("axis", "", "2x2x3, 2x2 labels3", axis=2),
    infogain("axis_softmax_axis", "softmax_param { axis: 2 }", "2x2x3, 2x2 labels3", axis=2),
    infogain("ignore", "loss_param { ignore_label: 1 } loss_weight: 0.5", "9x3, 9 labels3"),
    infogain("none", "loss_param { ignore_label: 1 normalization: NONE }", "9x3, 9 labels3"),
    Case("Dropout/test_phase_ratio_0", "dropout_param { dropout_ratio: 0 }", "3x5", phase=caffe.TEST),
]
