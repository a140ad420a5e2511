"""The losses as functions: against loops over pairs, against differences of their own forward, at the extremes."""

import math

import numpy as np
import pytest
from hashing_losses import (
    authors_similarity,
    log_cosh_quantization,
    pairwise_cross_entropy,
    similarity,
    squared_similarity,
)

LABELS = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [-1, -1, -1], [0, 0, 0], [0, 0, 1]], float)

WEIGHTS = [1, 3.5, "balanced"]  # of a similar pair


def codes_of(dtype, seed=0):
    return np.random.RandomState(seed).uniform(-1.5, 1.5, (len(LABELS), 4)).astype(dtype)


def pairs(labels):
    """(i, j, similar) of each ordered known pair, by a loop."""
    rows = [None if (row == -1).all() else set(np.flatnonzero(row > 0)) for row in labels]
    return [
        (i, j, bool(a & b)) for i, a in enumerate(rows) for j, b in enumerate(rows) if a is not None and b is not None
    ]


def weighted_pairs(labels, similar_weight):
    """(i, j, similar, weight) of each ordered known pair, by a loop."""
    known = pairs(labels)
    similar = sum(s for _, _, s in known)
    if similar_weight == "balanced":
        similar_weight = (len(known) - similar) / similar
    return [(i, j, s, similar_weight if s else 1) for i, j, s in known]


def numeric_gradient(loss, codes, step=1e-6):
    gradient = np.empty_like(codes)
    for index in np.ndindex(*codes.shape):
        moved = codes.copy()
        moved[index] += step
        above = loss(moved)
        moved[index] -= 2 * step
        gradient[index] = (above - loss(moved)) / (2 * step)
    return gradient


@pytest.mark.parametrize("similar_weight", WEIGHTS)
@pytest.mark.parametrize("normalization", ["mean", "sum"])
def test_pairwise_is_the_sum_over_pairs(normalization, similar_weight):
    codes, known = codes_of(np.float64), weighted_pairs(LABELS, similar_weight)
    total = sum(w * (math.log(1 + math.exp(codes[i] @ codes[j])) - s * (codes[i] @ codes[j])) for i, j, s, w in known)
    count = sum(w for *_, w in known) if normalization == "mean" else 1
    loss = pairwise_cross_entropy(codes, LABELS, normalization, similar_weight)[0]
    assert loss == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize("similar_weight", WEIGHTS)
@pytest.mark.parametrize("normalization", ["mean", "sum"])
def test_squared_similarity_is_the_sum_over_pairs(normalization, similar_weight):
    codes, known = codes_of(np.float64), weighted_pairs(LABELS, similar_weight)
    total = sum(w * ((1 if s else -1) - codes[i] @ codes[j] / 4) ** 2 for i, j, s, w in known)
    count = sum(w for *_, w in known) if normalization == "mean" else 1
    assert squared_similarity(codes, LABELS, normalization, similar_weight)[0] == pytest.approx(
        total / count, rel=1e-12
    )


@pytest.mark.parametrize("loss", [pairwise_cross_entropy, squared_similarity])
def test_balanced_is_the_mean_of_both_kinds_means(loss):
    codes = codes_of(np.float64)
    once, twice = (loss(codes, LABELS, "sum", weight)[0] for weight in (1, 2))
    count = sum(s for _, _, s in pairs(LABELS))
    similar, dissimilar = (twice - once) / count, (2 * once - twice) / (len(pairs(LABELS)) - count)
    assert loss(codes, LABELS, "mean", "balanced")[0] == pytest.approx((similar + dissimilar) / 2, rel=1e-12)


@pytest.mark.parametrize("loss", [pairwise_cross_entropy, squared_similarity])
@pytest.mark.parametrize("rows", [[0, 0, 2], [4, 4]], ids=["similar alone", "dissimilar alone"])
def test_balanced_in_a_batch_of_one_kind(loss, rows):
    codes = codes_of(np.float64)[: len(rows)]
    for ours, plain in zip(
        loss(codes, LABELS[rows], "mean", "balanced"), loss(codes, LABELS[rows], "mean"), strict=True
    ):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("loss", [pairwise_cross_entropy, squared_similarity])
def test_a_weight_of_1_changes_nothing(loss):
    codes, labels = codes_of(np.float32), LABELS.astype(np.float32)
    for ours, weighted in zip(loss(codes, labels, "mean"), loss(codes, labels, "mean", 1.0), strict=True):
        np.testing.assert_array_equal(ours, weighted)
    assert loss(codes, labels, "mean", "balanced")[1].dtype == np.float32


@pytest.mark.parametrize("normalization", ["mean", "sum"])
def test_quantization_is_the_sum_over_bits(normalization):
    codes = codes_of(np.float64)
    total = sum(math.log(math.cosh(abs(z) - 1)) for z in codes.flat)
    count = codes.size if normalization == "mean" else 1
    assert log_cosh_quantization(codes, normalization)[0] == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize("normalization", ["mean", "sum"])
@pytest.mark.parametrize(
    "loss",
    [
        lambda z, n: pairwise_cross_entropy(z, LABELS, n),
        lambda z, n: squared_similarity(z, LABELS, n),
        lambda z, n: pairwise_cross_entropy(z, LABELS, n, 3.5),
        lambda z, n: squared_similarity(z, LABELS, n, 0.5),
        lambda z, n: pairwise_cross_entropy(z, LABELS, n, "balanced"),
        lambda z, n: squared_similarity(z, LABELS, n, "balanced"),
        log_cosh_quantization,
    ],
    ids=[
        "pairwise",
        "squared_similarity",
        "pairwise weighted",
        "squared_similarity weighted",
        "pairwise balanced",
        "squared_similarity balanced",
        "quantization",
    ],
)
def test_gradient_is_that_of_the_forward(loss, normalization):
    codes = codes_of(np.float64)
    gradient = loss(codes, normalization)[1]
    expected = numeric_gradient(lambda z: loss(z, normalization)[0], codes)
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def test_authors_pairwise_gradient_is_the_released_formula():
    codes, expected = codes_of(np.float64), np.zeros((6, 4))
    known = 0
    for i in range(6):
        for j in range(6):
            s = LABELS[i] @ LABELS[j]
            if 0 <= s < LABELS.shape[1]:
                known += 1
                expected[i] += 2 * (1 / (1 + math.exp(-codes[i] @ codes[j])) - (s > 0)) * codes[j]
    loss, gradient = pairwise_cross_entropy(codes, LABELS, "authors")
    np.testing.assert_allclose(gradient, expected / known, rtol=1e-12)
    # a row without labels is known to be dissimilar even from the unknown row, there
    assert known == len(pairs(LABELS)) + 2
    assert loss > 0


def test_authors_take_images_that_share_all_labels_for_unknown():
    similar, known = authors_similarity(np.ones((2, 3)))
    assert not known.any() and not similar.any()
    assert similarity(np.ones((2, 3)))[0].all()


def test_authors_pairwise_is_the_mean_on_ordinary_labels():
    labels, codes = np.eye(5)[[0, 1, 1, 4]], codes_of(np.float64)[:4]
    for ours, theirs in zip(
        pairwise_cross_entropy(codes, labels, "mean"), pairwise_cross_entropy(codes, labels, "authors"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_authors_quantization_prints_the_mean_but_descends_the_sum_over_bits():
    codes = codes_of(np.float64)
    codes[0, 0] = 0
    loss, gradient = log_cosh_quantization(codes, "authors")
    assert loss == log_cosh_quantization(codes, "mean")[0]
    sign = np.where(codes >= 0, 1, -1)
    np.testing.assert_allclose(gradient, sign * np.tanh(np.abs(codes) - 1) / len(codes), rtol=1e-12)
    np.testing.assert_allclose(gradient, 4 * log_cosh_quantization(codes, "mean")[1], rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 10.0, 100.0])
def test_no_theta_overflows_in_float32(scale):
    codes = np.array([[1, 0], [-1, 0], [1, 0]], np.float32) * np.float32(scale)
    labels = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    theta, s = codes.astype(float) @ codes.T.astype(float), labels @ labels.T > 0
    expected = np.sum(np.logaddexp(0, theta) - s * theta)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, gradient = pairwise_cross_entropy(codes, labels, "sum")
    assert np.abs(theta).max() <= 1e4 * (1 + 1e-6)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert gradient.dtype == np.float32 and np.isfinite(gradient).all()


def test_quantization_is_stable_far_from_the_codes():
    codes = np.array([[1e4, -1e4, 0]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        loss, gradient = log_cosh_quantization(codes, "sum")
    assert loss == pytest.approx(2 * (9999 - math.log(2)) + math.log(math.cosh(1)), rel=1e-6)
    np.testing.assert_allclose(gradient, [[1, -1, -math.tanh(1)]], rtol=1e-6)


@pytest.mark.parametrize("loss", [pairwise_cross_entropy, squared_similarity])
def test_unknown_rows_change_nothing(loss):
    codes, known = codes_of(np.float64), [0, 1, 2, 4, 5]
    with_unknown, without = loss(codes, LABELS, "mean"), loss(codes[known], LABELS[known], "mean")
    assert with_unknown[0] == pytest.approx(without[0], rel=1e-12)
    np.testing.assert_allclose(with_unknown[1][known], without[1], rtol=1e-12)
    assert not with_unknown[1][3].any()


@pytest.mark.parametrize("loss", [pairwise_cross_entropy, squared_similarity])
def test_no_known_pair_is_no_loss(loss):
    value, gradient = loss(codes_of(np.float32)[:2], np.full((2, 3), -1, np.float32), "mean")
    assert value == 0 and not gradient.any()


def test_half_unknown_row_is_refused():
    with pytest.raises(ValueError, match=r"row 1 of the labels .* found \[1.0, -1.0\]"):
        similarity(np.array([[1, 0], [1, -1.0]]))
