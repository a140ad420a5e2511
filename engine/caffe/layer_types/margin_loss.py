"""Losses that leave alone what is right by a margin: HingeLoss and ContrastiveLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from caffe.blob import Blob
from caffe.layer import LossLayer, merged, register
from caffe.layer_types.loss import classes_of
from caffe.proto import caffe_pb2

L2 = caffe_pb2.HingeLossParameter.Norm.Value("L2")


@register("HingeLoss")
class HingeLoss(LossLayer):
    """One-against-all hinge loss: max(0, 1 - x) for the labelled class and max(0, 1 + x) for the others, summed (norm
    L1) or squared and summed (L2), over N.

    Bottoms: the scores (N, ...), all of an item's values being classes, and N labels.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self.check(
            bottom[1].count == bottom[0].shape[0],
            f"expected one label for each of {bottom[0].shape[0]} items, found {bottom[1].shape_string()}",
        )

    def compute(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = merged(x, 1)
        index, _ = classes_of(self, labels, scores.unsqueeze(-1), None)
        signs = torch.ones_like(scores).scatter_(1, index, -1)
        margins = F.relu(1 + signs * scores)
        return (margins.square() if self.layer_param.hinge_loss_param.norm == L2 else margins).sum() / x.shape[0]


class _Contrastive(torch.autograd.Function):
    """Rows a, b (N, C) and which pairs are similar (N,) to the loss. The gradient is BVLC's, which adds 1e-4 to the
    distance it divides by."""

    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, similar: torch.Tensor, margin: float, legacy: bool
    ) -> torch.Tensor:
        difference = a - b
        square = difference.square().sum(1)
        distance = square.sqrt()
        missing = (margin - (square if legacy else distance)).clamp_(min=0)
        slope = -(missing > 0).to(a.dtype) if legacy else -missing / (distance + 1e-4)
        ctx.save_for_backward(difference * slope.masked_fill(similar, 1).unsqueeze(1))
        return torch.where(similar, square, missing if legacy else missing.square()).sum() / (2 * len(a))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        (direction,) = ctx.saved_tensors
        down = direction * (grad / len(direction))
        return down, -down, None, None, None


@register("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    """The mean over N pairs of half of: d^2 for a similar pair, max(margin - d, 0)^2 for another, d being the Euclidean
    distance (Hadsell et al. 2006). legacy_version: max(margin - d^2, 0) for another pair.

    Bottoms: a and b, (N, C) or (N, C, 1, 1), both of which receive gradients, and whether each pair is similar, (N,):
    not 0, its fraction cut off.
    """

    bottom_count = (3, 3)
    no_gradient = (2,)
    no_force_backward = (2,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        a, b, similar = bottom
        found = "; found " + ", ".join(blob.shape_string() for blob in bottom)
        self.check(a.channels == b.channels, f"expected bottoms of as many channels{found}")
        self.check(
            all(blob.height == blob.width == 1 for blob in bottom),
            f"expected a height and width of 1 everywhere{found}",
        )
        self.check(similar.channels == 1, f"expected one similarity a pair{found}")
        self.check(similar.shape[:1] == a.shape[:1], f"expected one similarity a pair{found}")

    def compute(self, a: torch.Tensor, b: torch.Tensor, similar: torch.Tensor) -> torch.Tensor:
        param = self.layer_param.contrastive_loss_param
        rows = [merged(x, 1) for x in (a, b)]
        return _Contrastive.apply(*rows, similar.reshape(-1).trunc() != 0, param.margin, param.legacy_version)
