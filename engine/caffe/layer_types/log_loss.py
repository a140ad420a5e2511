"""Losses that are logarithms of probabilities: MultinomialLogisticLoss and InfogainLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from caffe.blob import Blob
from caffe.layer import LossLayer, merged, register
from caffe.layer_types.loss import check_label_count, classes_of, normalizer
from caffe.proto import caffe_pb2
from caffe.proto.text import read_binary

SMALLEST = 1e-20  # no probability counts as less


class _Logistic(torch.autograd.Function):
    """Probabilities (N, C) and classes (N, 1) to the summed loss; the gradient is -1 / p, p clamped, as Caffe's."""

    @staticmethod
    def forward(ctx: Any, prob: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        chosen = prob.gather(1, index).clamp_(min=SMALLEST)
        ctx.save_for_backward(prob, chosen, index)
        return -chosen.log().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        prob, chosen, index = ctx.saved_tensors
        return torch.zeros_like(prob).scatter_(1, index, -grad / chosen), None


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    """The mean of -log x[label]. Bottoms: probabilities (N, ...), all of an item's values being classes, and N labels.

    For scores use SoftmaxWithLoss, whose gradient is stable.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        labels = bottom[1]
        self.check(
            labels.channels == labels.height == labels.width == 1,
            f"expected one label an item, found {labels.shape_string()}",
        )

    def compute(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        prob = merged(x, 1)
        index, _ = classes_of(self, labels, prob.unsqueeze(-1), None)
        return _Logistic.apply(prob, index) / x.shape[0]


class _Infogain(torch.autograd.Function):
    """(x, axis, H (C, C), classes and mask (outer, inner)) to (summed loss, probabilities).

    The gradient is p * sum_k H[label, k] - H[label], also where the loss is clamped, as Caffe's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        axis: int,
        gains: torch.Tensor,
        index: torch.Tensor,
        valid: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prob = torch.softmax(x, axis)
        shape = (index.shape[0], x.shape[axis], index.shape[1])
        rows = gains[index].transpose(1, 2)  # (outer, C, inner)
        if valid is not None:
            rows = rows * valid.unsqueeze(1)
        ctx.save_for_backward(prob, rows)
        ctx.mark_non_differentiable(prob)
        return -(rows * prob.view(shape).clamp(min=SMALLEST).log()).sum(), prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        prob, rows = ctx.saved_tensors
        down = prob.view(rows.shape) * rows.sum(1, keepdim=True) - rows
        return (down * grad).view(prob.shape), None, None, None, None


@register("InfogainLoss")
class InfogainLoss(LossLayer):
    """The mean of -sum over k of H[label, k] log softmax(x)[k]; with the unit matrix for H this is SoftmaxWithLoss.

    Bottoms: the scores (N, C, ...), C along infogain_loss_param.axis, the labels, one for each prediction, 0 to C - 1,
    and H (C * C values), unless it comes from the binaryproto `source`. Predictions labelled ignore_label count
    nowhere. Top: the loss; second top: the probabilities, without gradient. normalization as SoftmaxWithLoss.
    softmax_param is not used, as in BVLC.
    """

    bottom_count = (2, 3)
    top_count = (1, 2)
    no_gradient = (1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param
        self.check(not param.loss_param.HasField("normalize"), 'normalize is deprecated. use "normalization"')
        self.gains: Blob | None = None
        if len(bottom) < 3:
            source = param.infogain_loss_param.source
            self.check(
                param.infogain_loss_param.HasField("source"),
                "Infogain matrix source must be specified: infogain_loss_param.source, or a third bottom",
            )
            self.gains = Blob()
            self.gains.from_proto(read_binary(source, caffe_pb2.BlobProto()))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self.axis = bottom[0].axis(self.layer_param.infogain_loss_param.axis)
        check_label_count(self, bottom, self.axis)
        self.classes = bottom[0].shape[self.axis]
        gains = self.gains if self.gains is not None else bottom[2]
        self.check(
            gains.count == self.classes**2,
            f"H must be {self.classes}x{self.classes}, as bottom 0 has {self.classes} scores for each prediction; "
            f"found {gains.shape_string()}",
        )
        self.with_prob = len(top) > 1
        if self.with_prob:
            top[1].reshape_like(bottom[0])

    def compute(self, x: torch.Tensor, labels: torch.Tensor, *gains: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        param = self.layer_param.loss_param
        matrix = self.gains.data_tensor.to(x.dtype) if self.gains is not None else gains[0]
        outer, inner = math.prod(x.shape[: self.axis]), math.prod(x.shape[self.axis + 1 :])
        scores = x.detach().reshape(outer, self.classes, inner)
        index, valid = classes_of(self, labels, scores, param.ignore_label if param.HasField("ignore_label") else None)
        matrix = matrix.reshape(self.classes, self.classes)
        loss, prob = _Infogain.apply(x, self.axis, matrix, index, valid)
        loss = loss / normalizer(param.normalization, outer, inner, valid)
        return [loss, prob] if self.with_prob else loss
