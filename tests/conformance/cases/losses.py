"""Losses and Accuracy."""

from __future__ import annotations

from .table import Case


def softmax_loss(what, fields="", bottoms="4x5, 4 labels5", **options):
    return Case("SoftmaxWithLoss/" + what, fields, bottoms, loss=True, **options)


def sigmoid_loss(what, fields="", bottoms="4x5, 4x5 binary", **options):
    return Case("SigmoidCrossEntropyLoss/" + what, fields, bottoms, loss=True, **options)


def accuracy(what, fields="", bottoms="6x5, 6 labels5", **options):
    return Case("Accuracy/" + what, "accuracy_param { %s }" % fields, bottoms, backward=False, **options)


MAP = "2x4x3x2, 2x1x3x2 labels4"

CASES = [
    softmax_loss("plain"),
    softmax_loss("label_column", bottoms="4x5, 4x1 labels5"),
    softmax_loss("large", bottoms="4x5 large, 4 labels5"),
    softmax_loss("loss_weight", "loss_weight: 2.5"),
    softmax_loss("map", bottoms=MAP),
    softmax_loss("map_axis_2", "softmax_param { axis: 2 }", "2x3x4x2, 2x3x2 labels4"),
    softmax_loss("map_axis_negative", "softmax_param { axis: -1 }", "2x3x4, 2x3 labels4"),
    softmax_loss("ignore", "loss_param { ignore_label: 1 }", "9x3, 9 labels3"),
    softmax_loss("ignore_all", "loss_param { ignore_label: 0 }", "4x3, 4 zero"),
    softmax_loss("full", "loss_param { normalization: FULL ignore_label: 1 }", MAP),
    softmax_loss("valid", "loss_param { normalization: VALID ignore_label: 1 }", MAP),
    softmax_loss("batch_size", "loss_param { normalization: BATCH_SIZE ignore_label: 1 }", MAP),
    softmax_loss("none", "loss_param { normalization: NONE ignore_label: 1 }", MAP),
    softmax_loss("normalize_false", "loss_param { normalize: false ignore_label: 1 }", MAP),
    softmax_loss("normalize_true", "loss_param { normalize: true ignore_label: 1 }", MAP),
    sigmoid_loss("plain"),
    sigmoid_loss("soft_targets", bottoms="4x5, 4x5 probability"),
    sigmoid_loss("large", bottoms="4x5 large, 4x5 binary"),
    sigmoid_loss("loss_weight", "loss_weight: 0.25"),
    sigmoid_loss("map", bottoms="2x3x2x2, 2x3x2x2 binary"),
    sigmoid_loss("ignore", "loss_param { ignore_label: 2 }", "4x5, 4x5 labels3"),
    sigmoid_loss("full", "loss_param { normalization: FULL ignore_label: 2 }", "4x5, 4x5 labels3"),
    sigmoid_loss("valid", "loss_param { normalization: VALID ignore_label: 2 }", "4x5, 4x5 labels3"),
    sigmoid_loss("batch_size", "loss_param { normalization: BATCH_SIZE }", "4x5, 4x5 labels2"),
    sigmoid_loss("none", "loss_param { normalization: NONE }", "4x5, 4x5 labels2"),
    sigmoid_loss("normalize_true", "loss_param { normalize: true }", "4x5, 4x5 labels2"),
    sigmoid_loss("normalize_false", "loss_param { normalize: false }", "4x5, 4x5 labels2"),
    Case("EuclideanLoss/plain", "", "4x5, 4x5", loss=True),
    Case("EuclideanLoss/map", "", "2x3x2x2, 2x3x2x2", loss=True),
    Case("EuclideanLoss/loss_weight", "loss_weight: 3", "4x5, 4x5", loss=True),
    Case("EuclideanLoss/one", "", "1x4, 1x4", loss=True),
    accuracy("plain"),
    accuracy("label_column", bottoms="6x5, 6x1 labels5"),
    accuracy("top_2", "top_k: 2"),
    accuracy("top_all", "top_k: 5"),
    accuracy("ties", "", "12x4 ties2, 12 labels4"),
    accuracy("ties_top_2", "top_k: 2", "12x4 ties2, 12 labels4"),
    accuracy("ignore", "ignore_label: 1", "12x3, 12 labels3"),
    accuracy("ignore_all", "ignore_label: 0", "4x3, 4 zero"),
    accuracy("per_class", "", "12x3, 12 labels3", tops=2),
    accuracy("per_class_missing", "", "5x4, 5 labels2", tops=2),
    accuracy("per_class_ignore_top_2", "top_k: 2 ignore_label: 1", "12x4, 12 labels4", tops=2),
    accuracy("map", "", MAP),
    accuracy("axis_2", "axis: 2", "2x3x4x2, 2x3x2 labels4"),
    accuracy("axis_negative", "axis: -1", "2x3x4, 2x3 labels4"),
]
