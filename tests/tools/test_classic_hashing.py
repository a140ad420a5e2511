"""LSH, SH, ITQ and ITQ-CCA against their definitions, on small data."""

from __future__ import annotations

import numpy as np
import pytest
from dhn.experiments import classic_hashing as hashing

BITS = 6


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Features (400, 10) of 4 classes with unequal variances, one-hot labels (400, 4)."""
    random = np.random.RandomState(7)
    labels = np.eye(4, dtype=np.uint8)[random.randint(4, size=400)]
    centres = random.normal(size=(4, 10)) * 2
    noise = random.normal(size=(400, 10)) * np.linspace(3, 0.5, 10)
    return (labels @ centres + noise + 5).astype(np.float32), labels


@pytest.mark.parametrize("name", hashing.METHODS)
@pytest.mark.parametrize("bits", [1, BITS])
def test_codes_of_any_images_repeatable(name, bits, data):
    features, labels = data
    codes = hashing.METHODS[name](features, labels, bits, 3)(features[:50])
    assert codes.shape == (50, bits) and codes.dtype == np.float32 and np.isfinite(codes).all()
    assert np.array_equal(codes, hashing.METHODS[name](features, labels, bits, 3)(features[:50]))
    assert 0 < (codes >= 0).mean() < 1


def test_lsh_is_signs_of_random_projections_of_centred_features(data):
    features, labels = data
    directions = np.random.RandomState(3).normal(size=(10, BITS))
    codes = hashing.lsh(features, labels, BITS, 3)(features)
    assert np.allclose(codes, (features - features.mean(0)) @ directions, atol=1e-4)
    # two vectors' bits differ as often as the angle between them, in parts of pi
    mean, many = features.mean(0), hashing.lsh(features, labels, 20000, 0)
    one, other = many(features[:1]) >= 0, many(features[1:2]) >= 0
    a, b = features[0] - mean, features[1] - mean
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert np.mean(one != other) == pytest.approx(angle / np.pi, abs=0.02)


def test_principal_directions_are_those_of_an_svd(data):
    features, _ = data
    found = hashing.principal(features, 3)
    _, _, right = np.linalg.svd(features - features.mean(0), full_matrices=False)
    assert np.allclose(np.abs(right[:3] @ found.directions), np.eye(3), atol=1e-3)


def test_sh_is_a_literal_loop_over_eigenfunctions(data):
    features, labels = data[0] * np.geomspace(10, 0.3, 10, dtype=np.float32), data[1]
    codes = hashing.sh(features, labels, BITS, 0)(features)
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    along = centred @ right[:BITS].T
    low, high = along.min(0), along.max(0)
    functions = []
    for axis in range(BITS):
        for mode in range(1, BITS + 1):
            frequency = mode * np.pi / (high[axis] - low[axis])
            functions.append((frequency**2, np.sin(np.pi / 2 + frequency * (along[:, axis] - low[axis]))))
    functions.sort(key=lambda each: each[0])  # the eigenvalue grows with the squared frequency
    for bit in range(BITS):
        expected = functions[bit][1]  # a principal direction's sign is free, which turns odd modes around
        nearest = min(np.abs(codes[:, bit] - expected).max(), np.abs(codes[:, bit] + expected).max())
        assert nearest < 1e-3
    frequencies = hashing.sh(features, labels, BITS, 0).frequency
    assert np.all(np.diff(frequencies) >= 0) and len(set(hashing.sh(features, labels, BITS, 0).axis)) < BITS


def quantization(values: np.ndarray) -> float:
    return float(((np.where(values >= 0, 1, -1) - values) ** 2).sum())


def test_itq_is_a_rotation_whose_objective_never_rises(data):
    features, labels = data
    values = hashing.principal(features, BITS)(features)
    objectives = []
    for iterations in range(12):
        found = hashing.rotation(values, 3, iterations)
        assert np.allclose(found.T @ found, np.eye(BITS), atol=1e-6)
        objectives.append(quantization(values @ found))
    assert np.all(np.diff(objectives) <= 1e-3) and objectives[-1] < objectives[0]
    codes = hashing.itq(features, labels, BITS, 3)(features)
    assert quantization(codes) <= objectives[-1] + 1e-3
    assert np.allclose(codes @ codes.T, values @ values.T, atol=1e-2)  # lengths and angles stay


def test_a_step_of_itq_is_the_best_rotation_for_its_signs(data):
    features, _ = data
    values = hashing.principal(features, 2)(features)
    signs = np.where(values @ hashing.rotation(values, 0, 0) >= 0, 1, -1)
    found = ((signs - values @ hashing.rotation(values, 0, 1)) ** 2).sum()
    for angle in np.linspace(0, 2 * np.pi, 721):
        turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for flip in (np.eye(2), np.diag([1, -1])):
            assert found <= ((signs - values @ turned @ flip) ** 2).sum() + 1e-3


def test_cca_finds_the_directions_that_correlate_with_the_labels(data):
    features, labels = data
    directions, correlations = hashing.correlated(features, labels)
    assert directions.shape == (10, 4) and np.all(np.diff(correlations) <= 1e-6)
    along = (features - features.mean(0)) @ directions
    assert np.allclose(np.cov(along.T, bias=True), np.eye(4), atol=0.01)
    for bit in range(3):  # 4 one-hot labels have 3 free directions
        fit = np.linalg.lstsq(labels.astype(float), along[:, bit], rcond=None)[0]
        assert np.corrcoef(labels @ fit, along[:, bit])[0, 1] == pytest.approx(correlations[bit], abs=0.01)
    assert correlations[3] < 0.05
    random = np.random.RandomState(0).normal(size=(10, 50))
    for direction in random.T:  # no direction correlates more than the first
        values = (features - features.mean(0)) @ direction
        fit = np.linalg.lstsq(labels.astype(float), values, rcond=None)[0]
        assert np.corrcoef(labels @ fit, values)[0, 1] <= correlations[0] + 1e-3


def test_itq_cca_rotates_weighted_directions_onto_all_bits(data):
    features, labels = data
    directions, correlations = hashing.correlated(features, labels)
    weighted = (features - features.mean(0)) @ (directions * correlations)
    for bits in (4, 12):
        codes = hashing.itq_cca(features, labels, bits, 0)(features)
        assert np.allclose(codes @ codes.T, weighted @ weighted.T, atol=1e-2)
        assert np.all(np.abs(codes).max(0) > 0)


def test_what_cannot_be_done_is_named(data):
    features, labels = data
    with pytest.raises(ValueError, match="at most as many bits as features have dimensions, 10; found 11"):
        hashing.itq(features, labels, 11, 0)
    with pytest.raises(ValueError, match="bits must be at least 1; found 0"):
        hashing.lsh(features, labels, 0, 0)
    with pytest.raises(ValueError, match="all of them equal"):
        hashing.sh(np.ones((5, 3)), labels[:5], 2, 0)
    with pytest.raises(ValueError, match=r"found \(5, 10\) and \(400, 4\)"):
        hashing.itq(features[:5], labels, 2, 0)
