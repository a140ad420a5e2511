"""Softmax, the losses and Accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from caffe import glog, value_checks
from caffe.blob import Blob
from caffe.layer import Layer, LossLayer, register
from caffe.proto import caffe_pb2

FULL, VALID, BATCH_SIZE, NONE = (
    caffe_pb2.LossParameter.NormalizationMode.Value(name) for name in ("FULL", "VALID", "BATCH_SIZE", "NONE")
)
SMALLEST = torch.finfo(torch.float32).tiny  # FLT_MIN: no probability counts as less in a loss


def normalization_mode(param: caffe_pb2.LossParameter, default: int) -> int:
    """The LossParameter's normalization: its own, the old flag `normalize`'s, or `default`."""
    if param.HasField("normalization"):
        return param.normalization
    if param.HasField("normalize"):
        return VALID if param.normalize else BATCH_SIZE
    return default


def normalizer(mode: int, outer: int, inner: int, valid: torch.Tensor | None) -> float | torch.Tensor:
    """What the summed loss is divided by, 1 at least: `outer * inner` predictions, of which the mask `valid` (None:
    all) counts."""
    if mode == VALID and valid is not None:
        return valid.sum().clamp(min=1)
    return max(1, {FULL: outer * inner, VALID: outer * inner, BATCH_SIZE: outer, NONE: 1}[mode])


def check_label_count(layer: Layer, bottom: Sequence[Blob], axis: int) -> None:
    """One label for each prediction: the bottom's axes but `axis`."""
    shape = bottom[0].shape
    expected = math.prod(shape[:axis]) * math.prod(shape[axis + 1 :])
    layer.check(
        bottom[1].count == expected,
        "Number of labels must match number of predictions; e.g., if softmax axis == 1 and prediction shape is "
        "(N, C, H, W), label count (number of labels) must be N*H*W, with integer values in {0, 1, ..., C-1}: "
        f"expected {expected} labels for predictions {bottom[0].shape_string()}, found {bottom[1].shape_string()}",
    )


def classes_of(
    layer: Layer, labels: torch.Tensor, scores: torch.Tensor, ignore: int | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(class of each prediction, mask of those that count or None for all), from the labels' values.

    labels: any shape of outer * inner values. scores: (outer, classes, inner). Both results: (outer, inner).
    Raises ValueError for a label that is no class and not `ignore`.
    """
    outer, count, inner = scores.shape
    index = labels.detach().long().view(outer, inner)
    valid = None if ignore is None else index != ignore
    wrong = (index < 0) | (index >= count)
    if valid is not None:
        wrong &= valid

    def message(place: int, label: float) -> str:
        where = f"item {place // inner}" + (f", position {place % inner}" if inner > 1 else "")
        return (
            f"the label of {where} is not a class: expected 0 to {count - 1} (bottom 0 has {count} scores for each "
            f"prediction){'' if ignore is None else f' or ignore_label {ignore}'}, "
            f"found {label:g}; correct the labels or num_output"
        )

    value_checks.check(layer, wrong, labels, message)
    return (index if valid is None else index.where(valid, 0)).clamp(0, count - 1), valid


def _three_axes(x: torch.Tensor, axis: int) -> torch.Tensor:
    """x as (outer, x.shape[axis], inner)."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


@register("Softmax")
class Softmax(Layer):
    """exp(x) / sum exp(x) along `axis`."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.axis = bottom[0].axis(self.layer_param.softmax_param.axis)
        super().reshape(bottom, top)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, self.axis)


class _SoftmaxLoss(torch.autograd.Function):
    """Scores (outer, classes, inner) to (summed loss, probabilities). The gradient is p - 1 at the label, as Caffe's,
    also where the loss is clamped."""

    @staticmethod
    def forward(
        ctx: Any, scores: torch.Tensor, index: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prob = torch.softmax(scores, 1)
        losses = prob.gather(1, index.unsqueeze(1)).squeeze(1).clamp_(min=SMALLEST).log_().neg_()
        ctx.save_for_backward(prob, index, valid)
        ctx.mark_non_differentiable(prob)
        return (losses if valid is None else losses.where(valid, 0)).sum(), prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        prob, index, valid = ctx.saved_tensors
        down = prob.scatter_add(1, index.unsqueeze(1), prob.new_full((), -1).expand(index.unsqueeze(1).shape))
        if valid is not None:
            down.masked_fill_(~valid.unsqueeze(1), 0)
        return down.mul_(grad), None, None


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
    """The mean of -log softmax(x)[label].

    Bottoms: the scores (N, C, ...), C along softmax_param.axis, and the labels, one for each prediction, 0 to C - 1;
    predictions labelled ignore_label count nowhere. Top: the loss; second top: the probabilities, without gradient.
    normalization: VALID divides by the predictions that count (default), FULL by all, BATCH_SIZE by N, NONE by 1.
    """

    top_count = (1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.normalization = normalization_mode(self.layer_param.loss_param, VALID)
        # BVLC makes an inner Softmax layer of the same name
        glog.info("layer_factory.hpp:77", f"Creating layer {self.layer_param.name}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self.axis = bottom[0].axis(self.layer_param.softmax_param.axis)
        check_label_count(self, bottom, self.axis)
        self.with_prob = len(top) > 1
        if self.with_prob:
            top[1].reshape_like(bottom[0])

    def compute(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        param = self.layer_param.loss_param
        scores = _three_axes(x, self.axis)
        index, valid = classes_of(self, labels, scores, param.ignore_label if param.HasField("ignore_label") else None)
        loss, prob = _SoftmaxLoss.apply(scores, index, valid)
        outer, inner = index.shape
        loss = loss / normalizer(self.normalization, outer, inner, valid)
        return [loss, prob.view(x.shape)] if self.with_prob else loss


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """The sum of -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), stable for any x.

    Bottoms: the scores x (N, ...) and the targets t, as many, in [0, 1]; a target whose whole part is ignore_label
    counts nowhere. Top: the loss, divided by N (normalization BATCH_SIZE, the default here), by all scores (FULL), by
    those that count (VALID) or by 1 (NONE).
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.normalization = normalization_mode(self.layer_param.loss_param, BATCH_SIZE)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self.check(
            bottom[0].count == bottom[1].count,
            "SIGMOID_CROSS_ENTROPY_LOSS layer inputs must have the same count; "
            f"found {bottom[0].shape_string()} and {bottom[1].shape_string()}",
        )

    def compute(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.loss_param
        valid = target.trunc() != param.ignore_label if param.HasField("ignore_label") else None
        losses = F.binary_cross_entropy_with_logits(x, target.view(x.shape), reduction="none")
        if valid is not None:
            losses = losses.where(valid.view(x.shape), 0)
        outer = x.shape[0] if x.ndim else 1
        return losses.sum() / normalizer(self.normalization, outer, x.numel() // max(outer, 1), valid)


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """sum (a - b)^2 / (2 N). Bottoms: a and b, (N, ...); both receive gradients."""

    no_gradient = ()
    no_force_backward = ()

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self.check(
            bottom[0].count == bottom[1].count,
            f"Inputs must have the same dimension; found {bottom[0].shape_string()} and {bottom[1].shape_string()}",
        )

    def compute(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b.view(a.shape)).square().sum() / (2 * a.shape[0])


@register("Accuracy")
class Accuracy(Layer):
    """The share of predictions whose label has one of the top_k highest scores; an equal score of another class
    counts against it.

    Bottoms: the scores (N, C, ...), C along `axis`, and the labels, one for each prediction; predictions labelled
    ignore_label count nowhere. Top: the accuracy; second top: the accuracy within each class (C,), 0 for an absent one.
    """

    bottom_count = (2, 2)
    top_count = (1, 2)
    no_gradient = (0, 1)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.accuracy_param
        self.axis = bottom[0].axis(param.axis)
        check_label_count(self, bottom, self.axis)
        classes = bottom[0].shape[self.axis]
        self.check(
            param.top_k <= classes,
            f"top_k must be less than or equal to the number of classes: expected at most {classes}, "
            f"found {param.top_k}",
        )
        top[0].reshape()
        self.by_class = len(top) > 1
        if self.by_class:
            top[1].reshape(classes)

    def compute(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        param = self.layer_param.accuracy_param
        scores = _three_axes(x.detach(), self.axis)
        index, valid = classes_of(self, labels, scores, param.ignore_label if param.HasField("ignore_label") else None)
        better = (scores >= scores.gather(1, index.unsqueeze(1))).sum(1) - 1
        hit = (better < param.top_k).to(x.dtype)
        counted = torch.ones_like(hit) if valid is None else valid.to(x.dtype)
        hit *= counted
        accuracy = hit.sum() / counted.sum().clamp(min=1)
        if not self.by_class:
            return accuracy
        zeros = x.new_zeros(scores.shape[1])
        hits, counts = (zeros.index_add(0, index.view(-1), each.view(-1)) for each in (hit, counted))
        return [accuracy, hits / counts.clamp(min=1)]
