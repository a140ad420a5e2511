"""The losses of DHN as pure functions: arrays in, (loss, gradient) out, in the dtype of the codes.

Zhu, Long, Wang, Cao: Deep Hashing Network for Efficient Similarity Retrieval, AAAI 2016. Notation: Z are the codes of
a batch (B, K), Theta = Z Z^T, s_ij = 1 if images i and j share a label and 0 if not. Sums over pairs run over all B^2
ordered pairs (i, j), a pair of an image with itself included, as in the code the authors released.
"""

from __future__ import annotations

import math

import numpy as np


def similarity(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who shares a label with whom.

    labels: (B, C), entries >= 0; a row of -1 says that this image's labels are unknown.
    Returns (similar, known), both bool (B, B): similar where y_i . y_j > 0; known where neither image is unknown.
    Raises ValueError for a row with negative entries which is not all -1.
    """
    labels = labels.reshape(len(labels), -1)
    negative = labels < 0
    unknown = (labels == -1).all(axis=1)
    if (negative.any(axis=1) & ~unknown).any():
        row = int(np.flatnonzero(negative.any(axis=1) & ~unknown)[0])
        raise ValueError(
            f"row {row} of the labels must be entries >= 0, or -1 throughout (unknown); found {labels[row].tolist()}"
        )
    known = ~(unknown[:, None] | unknown[None, :])
    return (labels @ labels.T > 0) & known, known


def authors_similarity(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`similarity` by the rule of dhn-caffe: s_ij = y_i . y_j is unknown if < 0 or >= C, and similar if > 0.

    So two images which share all C labels are an unknown pair there, and an unlabelled image (all 0) and an unknown
    one are a known, dissimilar pair. Without such rows both rules agree.
    """
    labels = labels.reshape(len(labels), -1)
    product = labels @ labels.T
    known = (product >= 0) & (product < labels.shape[1])
    return (product > 0) & known, known


def pair_weights(similar: np.ndarray, known: np.ndarray, similar_weight: float | str) -> tuple[np.ndarray, float]:
    """What each pair counts for, and the sum of it.

    similar, known: bool (B, B). similar_weight: w of a similar pair, where a known dissimilar one counts for 1 (the
    class_num of HashNet); `balanced`: w = dissimilar pairs / similar pairs, so that both kinds together count the same,
    or 1 in a batch that has one kind alone. Returns (weights (B, B), w similar pairs + dissimilar pairs).
    """
    positive = int(similar.sum())
    negative = int(known.sum()) - positive
    if similar_weight == "balanced":
        similar_weight = negative / positive if positive and negative else 1
    return np.where(similar, similar_weight, known), similar_weight * positive + negative


def pairwise_cross_entropy(
    codes: np.ndarray, labels: np.ndarray, normalization: str, similar_weight: float | str = 1
) -> tuple[float, np.ndarray]:
    """L = sum over known pairs of w_ij (log(1 + exp Theta_ij) - s_ij Theta_ij), dL/dZ = 2 (w (sigmoid(Theta) - s)) Z.

    codes: (B, K); labels: (B, C). normalization: `sum`; `mean`, both over the sum of the weights w, which is the number
    of known pairs where all weigh 1; `authors`, as `mean` with the known pairs of `authors_similarity` (of dhn-caffe,
    which has no weights, and of HashNet, which has). similar_weight: see `pair_weights`. No Theta overflows.
    Returns (loss, gradient (B, K)).
    """
    similar, known = (authors_similarity if normalization == "authors" else similarity)(labels)
    weights, total = pair_weights(similar, known, similar_weight)
    weights = weights.astype(codes.dtype)
    theta = codes @ codes.T
    decay = np.exp(-np.abs(theta))
    softplus = np.maximum(theta, 0) + np.log1p(decay)
    sigmoid = np.where(theta >= 0, 1, decay) / (1 + decay)
    divisor = 1 if normalization == "sum" else total or 1
    loss = (weights * np.where(known, softplus - similar * theta, 0)).sum() / divisor
    slope = weights * np.where(known, sigmoid - similar, 0).astype(codes.dtype, copy=False)
    return float(loss), (slope @ codes) * codes.dtype.type(2 / divisor)


def squared_similarity(
    codes: np.ndarray, labels: np.ndarray, normalization: str, similar_weight: float | str = 1
) -> tuple[float, np.ndarray]:
    """L = sum over known pairs of w_ij (s'_ij - Theta_ij / K)^2 with s' = 2 s - 1, and its gradient.

    codes: (B, K); labels: (B, C). normalization: `sum`, or `mean` over the sum of the weights w, which is the number of
    known pairs where all weigh 1. similar_weight: see `pair_weights`. Returns (loss, gradient (B, K)).
    """
    similar, known = similarity(labels)
    weights, total = pair_weights(similar, known, similar_weight)
    bits = codes.shape[1]
    target = np.where(similar, 1, -1).astype(codes.dtype)
    residual = np.where(known, codes @ codes.T / bits - target, 0).astype(codes.dtype, copy=False)
    weighted = weights.astype(codes.dtype) * residual
    divisor = 1 if normalization == "sum" else total or 1
    return float((weighted * residual).sum() / divisor), (weighted @ codes) * codes.dtype.type(4 / (bits * divisor))


def log_cosh_quantization(codes: np.ndarray, normalization: str) -> tuple[float, np.ndarray]:
    """Q = sum over i, k of log cosh(|z_ik| - 1), the smooth surrogate of || |z_i| - 1 ||_1, and its gradient.

    codes: (B, K). normalization: `sum`; `mean` over B K; `authors`: the loss is that of `mean`, the gradient
    sign(z) tanh(|z| - 1) / B is K times the gradient of that loss, as released. sign(0) = +1 in all of them, since a
    code of 0 would else stay there. Returns (loss, gradient (B, K)).
    """
    distance = np.abs(codes) - 1
    magnitude = np.abs(distance)
    log_cosh = magnitude + np.log1p(np.exp(-2 * magnitude)) - math.log(2)
    sign = np.where(codes >= 0, 1, -1).astype(codes.dtype)
    loss = log_cosh.sum() / (1 if normalization == "sum" else codes.size)
    divisor = {"sum": 1, "mean": codes.size, "authors": len(codes)}[normalization]
    return float(loss), sign * np.tanh(distance) / codes.dtype.type(divisor)
