"""The pairwise cross-entropy loss of DHN as a Caffe Python layer."""

from __future__ import annotations

import caffe

import labels
import loss_arrays
import whole_batch
from hashing_losses import pairwise_cross_entropy
from layer_params import Param, read_param_str


class PairwiseLossLayer(caffe.Layer):
    """L = sum over pairs of log(1 + exp Theta_ij) - s_ij Theta_ij, Theta_ij = <z_i, z_j> (Zhu et al., AAAI 2016).

    bottom[0]: codes Z (B, K), any reals, TanH's output in DHN; receives the gradient.
    bottom[1]: labels Y (B, C); s_ij = 1 if y_i . y_j > 0, else 0. Pairs with a row of -1 (unknown) are left out.
    Entries are 0 or 1 (see labels.py). Class numbers (B,), a Data or ImageData layer's, need the key `labels`.
    top[0]: the loss, a scalar. Caffe gives a Python layer no weight of its own: write `loss_weight: 1` in the layer.
    """

    def setup(self, bottom, top):
        """param_str, JSON:

        normalization: `mean` (default), the loss is divided by the number of known ordered pairs, self pairs included;
        `sum`: not divided; `authors`: as `mean`, with the pairs that dhn-caffe takes for known (those with
        0 <= y_i . y_j < C), so that the gradient is the released code's.
        similar_weight: what a similar pair counts for where a dissimilar one counts for 1; with another number than 1
        (default, the paper's) `mean` divides by the sum of the weights. `balanced`: the batch's dissimilar pairs over
        its similar ones, self pairs included, so that both kinds count the same. HashNet calls it class_num.
        labels: what bottom[1] is; not needed for label vectors of 2 labels or more. `classes`: class numbers (B,) or
        (B, 1), similar where equal, -1 unknown; `vectors`: (B, 1), 1 where an image carries the one label.
        pairs: where several solvers train side by side, `all` (default): the loss of the whole batch, pairs of images
        of two solvers included; `own`: that of each solver's pairs, whose mean over the solvers is another objective.
        BVLC Caffe has `own` alone.
        Example: {"similar_weight": "balanced", "labels": "classes"}.
        """
        if len(bottom) != 2 or len(top) != 1:
            raise ValueError(
                f"PairwiseLossLayer takes 2 bottoms (codes, labels) and 1 top (loss); "
                f"found {len(bottom)} and {len(top)}"
            )
        settings = read_param_str(
            self.param_str,
            "PairwiseLossLayer",
            {
                "normalization": Param("a string", "mean", choices=("mean", "sum", "authors")),
                "similar_weight": Param('a number above 0, or "balanced"', 1),
                "labels": Param("a string", choices=labels.DECLARED),
                "pairs": Param("a string", "all", choices=whole_batch.PAIRS),
            },
        )
        self.normalization, self.similar_weight = settings["normalization"], settings["similar_weight"]
        self.declared, self.pairs = settings["labels"], settings["pairs"]

    def reshape(self, bottom, top):
        codes, found = tuple(bottom[0].shape), tuple(bottom[1].shape)
        loss_arrays.check_codes(codes, "PairwiseLossLayer")
        axes = labels.batch_shape(found, "PairwiseLossLayer", self.declared)
        if self.normalization == "authors" and self.declared != "classes" and axes[1] == 1:
            raise ValueError(
                'PairwiseLossLayer: "normalization": "authors" expects label vectors of 2 labels or more, '
                "found 1: there, images that share all labels are an unknown pair, so none is similar"
            )
        if codes[:1] != found[:1]:
            raise ValueError(
                f"PairwiseLossLayer: codes (B, K) and labels (B, C) need the same B; found {codes} and {found}"
            )
        top[0].reshape(1)

    def forward(self, bottom, top):
        batch = whole_batch.gather(loss_arrays.rows(bottom[0]), bottom[1].data, self.pairs, self.phase)
        table = labels.check_batch(batch.labels, "PairwiseLossLayer", self.declared)
        loss, gradient = pairwise_cross_entropy(batch.codes, table, self.normalization, self.similar_weight)
        self.gradient = gradient[batch.own] * batch.solvers
        loss_arrays.set_loss(top[0], loss)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[1]:
            raise ValueError(
                "PairwiseLossLayer cannot back-propagate to its labels (bottom[1]); set propagate_down: false for them"
            )
        if propagate_down[0]:
            loss_arrays.set_diff(bottom[0], top[0], self.gradient)
