"""The losses of dhn-caffe, hash-caffe and HashNet as their CUDA code computes them: arrays in, (loss, gradient) out.

The three repositories (zhuhan1236/dhn-caffe, thuml/hash-caffe, thuml/HashNet) are the DHN group's own code. What they
print and what they back-propagate disagree in places; these functions keep both sides as released, and each docstring
names where. One difference in form: log(1 + exp Theta) is computed so that it cannot overflow; the released code prints
inf from Theta = 89 on, unless a threshold is set.

Notation: Z are the codes of a batch (B, K), Y its label vectors (B, C), Theta the products of codes, s_ij = 1 where
images i and j share a label. Sums over pairs run over all B^2 ordered pairs, in self-pair forms with each image's pair
with itself.
"""

from __future__ import annotations

import math

import numpy as np


def dhn_caffe(
    codes: np.ndarray,
    labels: np.ndarray,
    l_threshold: float = -1,
    q_threshold: float = -1,
    l_lambda: float = 1,
    q_gamma: float = 1,
) -> tuple[float, float, np.ndarray]:
    """PairwiseLoss of dhn-caffe: (pairwise loss, quantization loss, gradient (B, K)).

    codes: (B, K); labels: (B, C). The layer prints [l_lambda > 0] pairwise + [q_gamma > 0] quantization. As released:

    - the weights l_lambda and q_gamma scale the gradient and not what is printed;
    - a pair whose y_i . y_j is C or more counts as unknown, so two images that have all C labels do;
    - the gradient is l_lambda (2 / n) (sigmoid(Theta) - s) Z + (q_gamma / B) sign(z) tanh(|z| - 1) with sign(0) = +1:
      its second part is K times the gradient of the printed mean over B K;
    - the thresholds change the printed losses and not the gradient.
    """
    similar, known = _shared_labels(labels, labels)
    loss, slope = _pairs(codes @ codes.T, similar, known.astype(codes.dtype), l_threshold)
    quantization, pull = hash_caffe_quantization(codes, q_threshold)
    return loss, quantization, codes.dtype.type(l_lambda) * (slope @ codes) + codes.dtype.type(q_gamma) * pull


def hash_caffe_pairwise(codes: np.ndarray, labels: np.ndarray, threshold: float = -1) -> tuple[float, np.ndarray]:
    """PairwiseLoss of hash-caffe: (loss, gradient (B, K) for loss weight 1).

    codes: (B, K); labels: (B, C). As dhn-caffe's pairwise part, without unknown pairs: n = B^2, and s_ij = 1 wherever
    y_i . y_j > 0. The threshold changes the printed loss and not the gradient.
    """
    similar = labels @ labels.T > 0
    loss, slope = _pairs(codes @ codes.T, similar, np.ones(similar.shape, codes.dtype), threshold)
    return loss, slope @ codes


def hash_caffe_quantization(codes: np.ndarray, threshold: float = -1) -> tuple[float, np.ndarray]:
    """QuantizationLoss of hash-caffe, and the quantization part of dhn-caffe: (loss, gradient (B, K) for weight 1).

    The loss is the mean over B K of log cosh(|z| - 1), or of |z| - 1 - log 2 where threshold > 0 and |z| - 1 is above
    it. As released:

    - the gradient sign(z) tanh(|z| - 1) / B is K times that of the printed mean, and knows no threshold;
    - the values are summed by magnitude: with a threshold below log 2, |z| - 1 - log 2 < 0 counts as positive.
    """
    distance = np.abs(codes) - 1
    magnitude = np.abs(distance)
    values = magnitude + np.log1p(np.exp(-2 * magnitude)) - math.log(2)  # log cosh, without overflow
    if threshold > 0 and (distance > threshold).any():
        values = np.abs(np.where(distance > threshold, distance - math.log(2), values))
    sign = np.where(codes >= 0, 1, -1).astype(codes.dtype)  # sign(0) = +1
    return float(values.sum() / codes.size), sign * np.tanh(distance) / codes.dtype.type(len(codes))


def hashnet(
    first: np.ndarray,
    first_labels: np.ndarray,
    second: np.ndarray,
    second_labels: np.ndarray,
    class_num: float = 1,
    l_threshold: float = -1,
    l_lambda: float = 1,
    sigmoid_param: float = 1,
    continous_similarity: bool = False,
) -> tuple[float, np.ndarray, np.ndarray]:
    """PairwiseLoss of HashNet, every image of one batch with every one of another: (loss, dZ1 (B, K), dZ2 (B, K)).

    first, second: codes (B, K); their labels: (B, C). Theta = sigmoid_param Z1 Z2^T; a similar pair weighs class_num, a
    dissimilar one 1, an unknown one (as in dhn-caffe) 0; the loss is the weighted mean, and is printed times
    [l_lambda > 0]. With G = 2 weight (sigmoid(Theta) - s), the gradients are (l_lambda / n) G Z2 and (l_lambda / n) G^T
    Z1, n the sum of the weights. As released:

    - the factor 2, which belongs to pairs within one batch, is kept;
    - sigmoid_param scales the first B values of each gradient, in memory order, and not all B K of them;
    - continous_similarity (its spelling) multiplies G by 4 c, c_ij = (y_i . y_j)^2 / (|y_i|^2 |y_j|^2), where 0 counts
      as 0.25 and an empty label vector's |y|^2 as 1; it does not enter the printed loss;
    - the threshold changes the printed loss and not the gradients.
    """
    similar, known = _shared_labels(first_labels, second_labels)
    weight = np.where(similar, first.dtype.type(class_num), 1) * known
    theta = first.dtype.type(sigmoid_param) * (first @ second.T)
    loss, slope = _pairs(theta, similar, weight.astype(first.dtype), l_threshold)
    if continous_similarity:
        slope = slope * (4 * _cosine_squared(first_labels, second_labels))
    gradients = []
    for gradient in (slope @ second, slope.T @ first):
        gradient = gradient * first.dtype.type(l_lambda)
        gradient.reshape(-1)[: len(gradient)] *= first.dtype.type(sigmoid_param)
        gradients.append(gradient)
    return loss, gradients[0], gradients[1]


def _shared_labels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(similar, known), bool (B1, B2): s_ij = y_i . y_j is unknown if < 0 or >= C, similar if > 0."""
    product = first @ second.T
    known = (product >= 0) & (product < first.shape[1])
    return (product > 0) & known, known


def _pairs(theta: np.ndarray, similar: np.ndarray, weight: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """The weighted mean of the pairs' losses, and 2 weight (sigmoid(Theta) - s) over the sum of the weights.

    A pair's loss is log(1 + exp Theta) - s Theta, or Theta (1 - s) where threshold >= 0 and Theta >= threshold.
    """
    decay = np.exp(-np.abs(theta))
    losses = np.maximum(theta, 0) + np.log1p(decay) - similar * theta
    if threshold >= 0:
        losses = np.where(theta >= threshold, theta * ~similar, losses)
    sigmoid = np.where(theta >= 0, 1, decay) / (1 + decay)
    total = weight.sum()
    total = total if total > 0 else theta.dtype.type(1)
    return float((weight * losses).sum() / total), weight * (sigmoid - similar) * (2 / total)


def _cosine_squared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """c_ij = (y_i . y_j)^2 / (|y_i|^2 |y_j|^2): a norm of 0 counts as 1, a c_ij of 0 as 0.25."""
    norms = [(labels * labels).sum(1) for labels in (first, second)]
    norms = [np.where(norm == 0, 1, norm) for norm in norms]
    cosine = (first @ second.T) ** 2 / (norms[0][:, None] * norms[1][None, :])
    return np.where(cosine == 0, 0.25, cosine).astype(first.dtype)
