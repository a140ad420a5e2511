"""The quantization loss of DHN as a Caffe Python layer."""

from __future__ import annotations

import caffe

import loss_arrays
import whole_batch
from hashing_losses import log_cosh_quantization
from layer_params import Param, read_param_str


class QuantizationLossLayer(caffe.Layer):
    """Q = sum over i, k of log cosh(|z_ik| - 1): how far codes are from -1 and +1 (Zhu et al., AAAI 2016).

    bottom[0]: codes Z (B, K), any reals, TanH's output in DHN; receives the gradient.
    top[0]: the loss, a scalar. Its `loss_weight` is the paper's lambda; without one, Caffe does not train on it.
    """

    def setup(self, bottom, top):
        """param_str, JSON:

        normalization: `mean` (default), the loss is divided by B K; `sum`: not divided; `authors`: prints the mean over
        B K, but back-propagates sign(z) tanh(|z| - 1) / B, K times the gradient of what it prints. Loss and gradient
        disagree there by design, as in the released code. Where several solvers train side by side, `sum` is that of
        the whole batch. Example: {"normalization": "authors"}.
        """
        if len(bottom) != 1 or len(top) != 1:
            raise ValueError(
                f"QuantizationLossLayer takes 1 bottom (codes) and 1 top (loss); found {len(bottom)} and {len(top)}"
            )
        settings = read_param_str(
            self.param_str,
            "QuantizationLossLayer",
            {"normalization": Param("a string", "mean", choices=("mean", "sum", "authors"))},
        )
        self.normalization = settings["normalization"]

    def reshape(self, bottom, top):
        loss_arrays.check_codes(tuple(bottom[0].shape), "QuantizationLossLayer")
        top[0].reshape(1)

    def forward(self, bottom, top):
        loss, gradient = log_cosh_quantization(loss_arrays.rows(bottom[0]), self.normalization)
        parts = whole_batch.solvers(self.phase) if self.normalization == "sum" else 1
        self.gradient = gradient * parts
        loss_arrays.set_loss(top[0], loss * parts)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            loss_arrays.set_diff(bottom[0], top[0], self.gradient)
