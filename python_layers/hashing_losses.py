"""The losses of DHN as pure functions: arrays in, (loss, gradient) out, in the dtype of the codes.

Codes are numpy arrays or torch's tensors on a GPU (loss_arrays.py), and so is the gradient; the loss of numpy's is a
float, that of tensors one of one value. Labels are numpy arrays.

Zhu, Long, Wang, Cao: Deep Hashing Network for Efficient Similarity Retrieval, AAAI 2016. Notation: Z are the codes of
a batch (B, K), Theta = Z Z^T, s_ij = 1 if images i and j share a label and 0 if not. Sums over pairs run over all B^2
ordered pairs (i, j), a pair of an image with itself included, as in the code the authors released.
"""

from __future__ import annotations

import math

import numpy as np

import loss_arrays


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


def _next_to(codes, *tables: np.ndarray) -> list:
    """The tables (B, B) as numbers of the codes' dtype, where the codes are."""
    dtype = codes.dtype if isinstance(codes, np.ndarray) else np.float32
    return [loss_arrays.next_to(codes, table.astype(dtype)) for table in tables]


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
    divisor = 1 if normalization == "sum" else total or 1
    np_or_torch = loss_arrays.module(codes)
    similar, known, weights = _next_to(codes, similar, known, weights)
    theta = codes @ codes.T
    ones, zeros = np_or_torch.ones_like(theta), np_or_torch.zeros_like(theta)
    decay = np_or_torch.exp(-abs(theta))
    softplus = theta.clip(0, None) + np_or_torch.log1p(decay)
    sigmoid = np_or_torch.where(theta >= 0, ones, decay) / (1 + decay)
    loss = (weights * np_or_torch.where(known > 0, softplus - similar * theta, zeros)).sum() / divisor
    slope = weights * np_or_torch.where(known > 0, sigmoid - similar, zeros)
    return loss_arrays.number(loss), (slope @ codes) * (2 / divisor)


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
    divisor = 1 if normalization == "sum" else total or 1
    np_or_torch = loss_arrays.module(codes)
    target, known, weights = _next_to(codes, np.where(similar, 1, -1), known, weights)
    theta = codes @ codes.T
    residual = np_or_torch.where(known > 0, theta / bits - target, np_or_torch.zeros_like(theta))
    weighted = weights * residual
    loss = (weighted * residual).sum() / divisor
    return loss_arrays.number(loss), (weighted @ codes) * (4 / (bits * divisor))


def log_cosh_quantization(codes: np.ndarray, normalization: str) -> tuple[float, np.ndarray]:
    """Q = sum over i, k of log cosh(|z_ik| - 1), the smooth surrogate of || |z_i| - 1 ||_1, and its gradient.

    codes: (B, K). normalization: `sum`; `mean` over B K; `authors`: the loss is that of `mean`, the gradient
    sign(z) tanh(|z| - 1) / B is K times the gradient of that loss, as released. sign(0) = +1 in all of them, since a
    code of 0 would else stay there. Returns (loss, gradient (B, K)).
    """
    np_or_torch = loss_arrays.module(codes)
    count, items = codes.shape[0] * codes.shape[1], codes.shape[0]
    distance = abs(codes) - 1
    magnitude = abs(distance)
    log_cosh = magnitude + np_or_torch.log1p(np_or_torch.exp(-2 * magnitude)) - math.log(2)
    ones = np_or_torch.ones_like(codes)
    sign = np_or_torch.where(codes >= 0, ones, -ones)
    loss = log_cosh.sum() / (1 if normalization == "sum" else count)
    divisor = {"sum": 1, "mean": count, "authors": items}[normalization]
    return loss_arrays.number(loss), sign * np_or_torch.tanh(distance) / divisor
