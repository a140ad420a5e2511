"""The hash methods that DHN is compared with: LSH, SH, ITQ and ITQ-CCA. Pure functions of arrays.

Each of METHODS takes training features (N, D), their labels (N, C), the number of bits K and a seed, and returns a
function from features (M, D) to real-valued codes (M, K) float32; a bit is their sign, 0 counting as +1. Features are
taken as they are: what is subtracted from them is the training features' mean.

Sources: LSH by random hyperplanes, Charikar, STOC 2002. SH, Weiss, Torralba and Fergus, NIPS 2008. ITQ and ITQ-CCA,
Gong and Lazebnik, CVPR 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike


class BitsError(ValueError):
    """A number of bits that a method cannot give of these features."""


RIDGE = 1e-4  # added to the variances that CCA divides by, relative to their mean; Gong and Lazebnik add 1e-4 as well
ITERATIONS = 50  # of ITQ, as in its paper


class Affine(NamedTuple):
    """Codes (x - mean) @ directions, of features (M, D)."""

    mean: np.ndarray  # (D,)
    directions: np.ndarray  # (D, K)

    def __call__(self, features: ArrayLike) -> np.ndarray:
        return ((np.asarray(features, np.float32) - self.mean) @ self.directions).astype(np.float32)


class Eigenfunctions(NamedTuple):
    """SH: bit k is sin(pi / 2 + frequency[k] * (p - low)), p the projection on the principal direction axis[k]."""

    projection: Affine
    low: np.ndarray  # (P,)
    axis: np.ndarray  # (K,) of the projections
    frequency: np.ndarray  # (K,) radians a unit

    def __call__(self, features: ArrayLike) -> np.ndarray:
        along = (self.projection(features) - self.low)[:, self.axis]
        return np.sin(np.pi / 2 + along * self.frequency).astype(np.float32)


Encoder = Affine | Eigenfunctions  # features (M, D) -> codes (M, K), whose signs are the bits


def lsh(features: np.ndarray, labels: np.ndarray, bits: int, seed: int) -> Affine:
    """Random hyperplanes through the mean of the features. No label is looked at."""
    features = _checked(features, labels, bits)
    directions = np.random.RandomState(seed).normal(size=(features.shape[1], bits))
    return Affine(features.mean(0), directions.astype(np.float32))


def sh(features: np.ndarray, labels: np.ndarray, bits: int, seed: int) -> Eigenfunctions:
    """Spectral hashing: the K smoothest eigenfunctions of a uniform box along the principal directions.

    The box spans the training features' range; mode m on an axis of length l has the frequency m pi / l. Nothing is
    drawn by chance. Raises ValueError where all features are equal.
    """
    features = _checked(features, labels, bits)
    projection = principal(features, min(bits, features.shape[1]))
    along = projection(features)
    low, length = along.min(0), np.ptp(along, axis=0)
    if not length.max() > 0:
        raise ValueError("SH needs features that differ; found all of them equal")
    used = np.flatnonzero(length > 1e-6 * length.max())  # an axis without length has no eigenfunctions
    axis, mode = (each.ravel() for each in np.meshgrid(used, np.arange(1, bits + 1), indexing="ij"))
    frequency = mode * np.pi / length[axis]
    smoothest = np.argsort(frequency, kind="stable")[:bits]
    return Eigenfunctions(projection, low, axis[smoothest], frequency[smoothest].astype(np.float32))


def itq(features: np.ndarray, labels: np.ndarray, bits: int, seed: int) -> Affine:
    """The first K principal directions, rotated so that the signs are near the values. No label is looked at.

    Raises BitsError for more bits than features have dimensions.
    """
    features = _checked(features, labels, bits)
    if bits > features.shape[1]:
        raise BitsError(
            f"ITQ gives at most as many bits as features have dimensions, {features.shape[1]}; found {bits}"
        )
    projection = principal(features, bits)
    return _rotated(projection, features, seed)


def itq_cca(features: np.ndarray, labels: np.ndarray, bits: int, seed: int) -> Affine:
    """The directions that correlate with the labels, each times its correlation, rotated as in ITQ.

    There are at most as many such directions as labels; with more bits than that, the rotation spreads them over all K
    bits, as in the authors' code. Images whose labels are unknown (-1) tell nothing of a correlation and are left out.

    Raises BitsError where fewer than two images have known labels.
    """
    features, labels = _checked(features, labels, bits), np.asarray(labels)
    labelled = (labels >= 0).all(1)
    if labelled.sum() < 2:
        raise BitsError(f"ITQ-CCA learns from labels; found {labelled.sum()} of {len(labels)} images with known ones")
    mean = features.mean(0)
    directions, correlations = correlated(features[labelled], labels[labelled])
    chosen = np.zeros((features.shape[1], bits), np.float32)
    count = min(bits, len(correlations))
    chosen[:, :count] = (directions * correlations)[:, :count]
    return _rotated(Affine(mean, chosen), features, seed)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], Encoder]] = {
    "lsh": lsh,
    "sh": sh,
    "itq": itq,
    "itq_cca": itq_cca,
}
TITLES = {"lsh": "LSH", "sh": "SH", "itq": "ITQ", "itq_cca": "ITQ-CCA"}


def principal(features: np.ndarray, count: int) -> Affine:
    """The `count` principal directions of features (N, D), of unit length, that of the largest variance first."""
    mean = features.mean(0)
    centred = features - mean
    size = features.shape[1]
    _, directions = scipy.linalg.eigh(centred.T @ centred, subset_by_index=[size - count, size - 1])
    return Affine(mean, np.ascontiguousarray(directions[:, ::-1], np.float32))


def correlated(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canonical correlation analysis of features (N, D) and labels (N, C).

    Returns directions (D, n) along which the features have unit variance, no correlation among each other, and the
    largest correlations (n,) with the labels, greatest first; n = min(C, D).
    """
    x, y = (each - each.mean(0) for each in (features.astype(np.float64), (labels > 0).astype(np.float64)))
    within, between = x.T @ x / len(x), x.T @ y / len(x)
    variances = y.T @ y / len(x)
    for matrix in (within, variances):
        matrix[np.diag_indices_from(matrix)] += max(RIDGE * np.trace(matrix) / len(matrix), 1e-12)
    explained = between @ scipy.linalg.solve(variances, between.T, assume_a="pos")
    size, count = len(within), min(len(within), len(variances))
    squares, directions = scipy.linalg.eigh(
        (explained + explained.T) / 2, within, subset_by_index=[size - count, size - 1]
    )
    return directions[:, ::-1].astype(np.float32), np.sqrt(np.maximum(squares[::-1], 0)).astype(np.float32)


def rotation(values: np.ndarray, seed: int, iterations: int = ITERATIONS) -> np.ndarray:
    """ITQ's rotation R (K, K) of centred values (N, K): it makes || sign(values R) - values R ||^2 small.

    From a random rotation on, the signs and the rotation that is best for them (by an SVD) are found in turn; neither
    step makes the objective larger. (faiss.ITQMatrix is not used: over its iterations the objective also rises.)
    """
    size = values.shape[1]
    rotated = np.linalg.qr(np.random.RandomState(seed).normal(size=(size, size)))[0]
    for _ in range(iterations):
        signs = np.where(values @ rotated >= 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd((values.T @ signs).astype(np.float64))
        rotated = left @ right
    return rotated


def _rotated(projection: Affine, features: np.ndarray, seed: int) -> Affine:
    turn = rotation(projection(features), seed)
    return Affine(projection.mean, (projection.directions @ turn).astype(np.float32))


def _checked(features: ArrayLike, labels: np.ndarray, bits: int) -> np.ndarray:
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or len(features) < 2 or len(features) != len(labels):
        raise ValueError(
            f"expected features (N, D) of at least 2 images and labels (N, C), found {features.shape} and "
            f"{np.shape(labels)}"
        )
    if bits < 1:
        raise ValueError(f"bits must be at least 1; found {bits}")
    return features
