"""LRN and MVN against their definitions as loops, their gradients, and their refusals."""

import numpy as np
import pytest


def lrn_across(x, size, alpha, beta, k):
    y = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*x.shape):
        around = range(max(0, c - size // 2), min(x.shape[1], c + size // 2 + 1))
        y[n, c, i, j] = x[n, c, i, j] * (k + alpha / size * sum(float(x[n, d, i, j]) ** 2 for d in around)) ** -beta
    return y


def lrn_within(x, size, alpha, beta, k):
    y = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*x.shape):
        rows, columns = (
            range(max(0, at - size // 2), min(end, at + size // 2 + 1))
            for at, end in zip((i, j), x.shape[2:], strict=True)
        )
        total = sum(float(x[n, c, a, b]) ** 2 for a in rows for b in columns)
        y[n, c, i, j] = x[n, c, i, j] * (1 + alpha * total / size**2) ** -beta
    return y


@pytest.mark.parametrize("region, naive", [("ACROSS_CHANNELS", lrn_across), ("WITHIN_CHANNEL", lrn_within)])
@pytest.mark.parametrize(
    "size, alpha, beta, k", [(5, 1.0, 0.75, 1.0), (3, 0.5, 0.6, 2.0), (1, 2.0, 0.75, 1.0), (9, 1e-4, 0.75, 1.0)]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_lrn(one, normal, region, naive, size, alpha, beta, k, in_place):
    x = normal(2, 7, 3, 4)
    fields = f"norm_region: {region} local_size: {size} alpha: {alpha} beta: {beta} k: {k}"
    it = one(f'type: "LRN" lrn_param {{ {fields} }}', x, in_place=in_place)
    np.testing.assert_allclose(it.forward(), naive(x, size, alpha, beta, k), rtol=1e-5, atol=1e-6)
    it.check_gradient()


def test_lrn_refusals(one):
    with pytest.raises(ValueError, match="LRN only supports odd values for local_size; found 4"):
        one('type: "LRN" lrn_param { local_size: 4 }', np.zeros((1, 2, 3, 3)))
    with pytest.raises(ValueError, match=r"Input must have 4 axes.*found 2 3 \(6\)"):
        one('type: "LRN"', np.zeros((2, 3)))


def naive_mvn(x, across, variance, eps):
    y = x.astype(float).copy()
    for n, c in np.ndindex(x.shape[0], 1 if across else x.shape[1]):
        part = y[n] if across else y[n, c]
        part -= part.mean()
        if variance:
            part /= np.sqrt((part**2).mean()) + eps
    return y


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("variance", [False, True])
def test_mvn(one, normal, across, variance):
    x = normal(2, 3, 2, 5) * 4 + 1
    fields = f"across_channels: {str(across).lower()} normalize_variance: {str(variance).lower()} eps: 1e-6"
    it = one(f'type: "MVN" mvn_param {{ {fields} }}', x)
    np.testing.assert_allclose(it.forward(), naive_mvn(x, across, variance, 1e-6), rtol=1e-4, atol=1e-5)
    it.check_gradient()


def test_mvn_of_constant_values_is_zero(one):
    it = one('type: "MVN" mvn_param { eps: 0.5 }', np.full((1, 2, 2, 2), 3))
    assert not it.forward(record=True).any()
    diff = it.backward(np.arange(8).reshape(1, 2, 2, 2))[0]
    np.testing.assert_allclose(diff[0, 0], [[-3, -1], [1, 3]])  # (dy - its mean) / eps


def test_mvn_takes_missing_axes_for_ones(one, normal):
    x = normal(3, 4)
    it = one('type: "MVN" mvn_param { across_channels: true }', x)
    y = it.forward()
    assert y.shape == (3, 4, 1, 1)
    np.testing.assert_allclose(y[..., 0, 0], naive_mvn(x, True, True, 1e-9), rtol=1e-4, atol=1e-5)
