"""LRN, BatchNorm, MVN, Scale, Bias against their definitions as loops, their gradients, and their refusals."""

import caffe
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


def rows_by_channel(x):
    """(N, C, ...) as (C, values)."""
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(float)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 2, 3), (1, 2, 2, 2, 2)])
@pytest.mark.parametrize("in_place", [False, True])
def test_batch_norm_of_the_batch(one, normal, shape, in_place):
    x = 3 * normal(*shape) + 1
    it = one('type: "BatchNorm" batch_norm_param { eps: 0.01 moving_average_fraction: 0.5 }', x, in_place=in_place)
    rows = rows_by_channel(x)
    expected = (rows - rows.mean(1)[:, None]) / np.sqrt(rows.var(1) + 0.01)[:, None]
    np.testing.assert_allclose(rows_by_channel(it.forward()), expected, rtol=1e-4, atol=1e-5)
    it.forward()
    for blob, value in zip(it.blobs, (rows.mean(1), rows.var(1, ddof=1), 1), strict=True):
        np.testing.assert_allclose(blob.data, value * np.float64(1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "phase, fields", [(caffe.TRAIN, ""), (caffe.TEST, ""), (caffe.TEST, "use_global_stats: false")]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_batch_norm_gradient(one, normal, phase, fields, in_place):
    it = one(f'type: "BatchNorm" batch_norm_param {{ {fields} }}', normal(3, 2, 2, 2), phase=phase, in_place=in_place)
    for blob, value in zip(it.blobs, ([1, 2], [4, 6], [2]), strict=True):
        blob.data[...] = value
    it.check_gradient()


def test_batch_norm_keeps_its_statistics_and_gives_them_no_gradient(one, normal):
    it = one('type: "BatchNorm"', normal(3, 2, 4))
    it.forward(record=True)
    kept = [blob.data.copy() for blob in it.blobs]
    it.backward(np.ones((3, 2, 4)))
    for blob, value in zip(it.blobs, kept, strict=True):
        np.testing.assert_array_equal(blob.data, value)
        assert not blob.diff.any()


@pytest.mark.parametrize("phase, fields", [(caffe.TEST, ""), (caffe.TRAIN, "use_global_stats: true")])
def test_batch_norm_of_the_kept_statistics(one, normal, phase, fields):
    x = normal(2, 2, 3)
    it = one(f'type: "BatchNorm" batch_norm_param {{ {fields} }}', x, phase=phase)
    for blob, value in zip(it.blobs, ([1, 2], [4, 6], [2]), strict=True):
        blob.data[...] = value
    expected = (x - np.array([0.5, 1])[:, None]) / np.sqrt(np.array([2, 3]) + 1e-5)[:, None]
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(it.blobs[0].data, [1, 2])
    it.blobs[2].data[...] = 0  # nothing kept yet: mean and variance count as 0
    np.testing.assert_allclose(it.forward(), x / np.sqrt(1e-5), rtol=1e-4)


def test_batch_norm_of_one_value(one, normal):
    it = one('type: "BatchNorm"', normal(1, 3, 1, 1))
    np.testing.assert_array_equal(it.forward(), np.zeros((1, 3, 1, 1)))
    np.testing.assert_array_equal(it.blobs[1].data, np.zeros(3))
    it.check_gradient()


def test_batch_norm_statistics_do_not_learn(one, normal):
    it = one('type: "BatchNorm" param { lr_mult: 0 }', normal(2, 3))
    assert [spec.lr_mult for spec in it.layer.layer_param.param] == [0, 0, 0]
    with pytest.raises(
        ValueError, match=r"Cannot configure batch normalization statistics as layer parameters.*found 1"
    ):
        one('type: "BatchNorm" param { lr_mult: 0 } param { name: "v" }', normal(2, 3))


def test_batch_norm_refusals(one):
    with pytest.raises(ValueError, match="axis 1 out of range for 1-D Blob"):
        one('type: "BatchNorm"', np.zeros(4))
    it = one('type: "BatchNorm"', np.zeros((2, 3)))
    it.arrays = [np.zeros((2, 4), np.float32)]
    with pytest.raises(ValueError, match=r"expected 3 channels, found 2 4 \(8\)"):
        it.forward()
    with pytest.raises(ValueError, match=r"expected blobs of shapes \(3,\), \(3,\), \(1,\); found 1 \(1\)"):
        one('type: "BatchNorm" blobs { shape { dim: 1 } data: 1 }', np.zeros((2, 3)))


# fields: shape of the scale, and how many axes of the bottom (2, 3, 2, 4) come before it
SCALES = {
    "": ((3,), 1),
    "axis: 0": ((2,), 0),
    "axis: -1": ((4,), 3),
    "axis: 1 num_axes: 2": ((3, 2), 1),
    "axis: 0 num_axes: -1": ((2, 3, 2, 4), 0),
    "num_axes: 0": ((), 0),
}


@pytest.mark.parametrize("bias", ["false", "true"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("fields", SCALES)
def test_scale(one, normal, fields, bias, in_place):
    x, (shape, before) = normal(2, 3, 2, 4), SCALES[fields]
    fill = 'filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    it = one(f'type: "Scale" scale_param {{ {fields} bias_term: {bias} {fill} }}', x, in_place=in_place)
    assert [blob.shape for blob in it.blobs] == [shape] * (1 + (bias == "true"))
    y, scale = it.forward(), it.blobs[0].data
    for at in np.ndindex(*x.shape):
        inner = at[before : before + len(shape)]
        expected = x[at] * scale[inner] + (it.blobs[1].data[inner] if bias == "true" else 0)
        assert abs(y[at] - expected) < 1e-5
    it.check_gradient()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bias", ["false", "true"])
def test_scale_from_a_bottom(one, normal, bias, in_place):
    x, scale = normal(2, 3, 4), normal(3)
    fill = 'bias_filler { type: "constant" value: 5 }'
    it = one(f'type: "Scale" scale_param {{ bias_term: {bias} {fill} }}', x, scale, in_place=in_place)
    expected = x * scale[:, None] + (5 if bias == "true" else 0)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-6)
    assert len(it.blobs) == (bias == "true")
    it.check_gradient()


def test_scale_is_one_by_default(one, normal):
    it = one('type: "Scale" scale_param { bias_term: true }', normal(2, 3))
    np.testing.assert_array_equal(it.forward(), it.arrays[0])


def test_scale_given_without_its_bias(one):
    """BVLC makes the bias where only the scale came with the layer."""
    it = one('type: "Scale" blobs { shape { dim: 1 } data: 3 } scale_param { bias_term: true }', [[2.0]])
    np.testing.assert_array_equal(it.forward(), [[6]])
    assert [blob.shape for blob in it.blobs] == [(1,), (1,)]


def test_scale_refusals(one):
    with pytest.raises(ValueError, match=r"extends past .* bottom\[0\] axis = 1: 2 axes, bottom shape 2 3"):
        one('type: "Scale" scale_param { num_axes: 2 }', np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"num_axes must be non-negative, or -1 .*found -2"):
        one('type: "Scale" scale_param { num_axes: -2 }', np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"dimension mismatch between bottom\[0\] and scale: expected \(3,\), found 2"):
        one('type: "Scale"', np.zeros((2, 3)), np.zeros(2))


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


@pytest.mark.parametrize(
    "fields, shape, view",
    [
        ("", (3,), (1, 3, 1, 1)),
        ("axis: 0 num_axes: 2", (2, 3), (2, 3, 1, 1)),
        ("axis: -2 num_axes: -1", (4, 2), (1, 1, 4, 2)),
        ("num_axes: 0", (), (1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("as_bottom", [False, True])
def test_bias(one, normal, fields, shape, view, as_bottom):
    x, bias = normal(2, 3, 4, 2), normal(*shape)
    it = one(f'type: "Bias" bias_param {{ {fields} }}', x, *([bias] * as_bottom))
    if not as_bottom:
        assert it.blobs[0].shape == shape and not it.blobs[0].data.any()
        it.blobs[0].data[...] = bias
    np.testing.assert_array_equal(it.forward(), x + bias.reshape(view))
    it.check_gradient()


def test_bias_refusals(one):
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"dimension mismatch between bottom\[0\] and bias: expected .3,., found 2"):
        one('type: "Bias"', x, np.zeros(2))
    with pytest.raises(ValueError, match=r"bias blob.s shape extends past bottom.0.* axis = 1: 2 axes"):
        one('type: "Bias" bias_param { num_axes: 2 }', x)
    with pytest.raises(ValueError, match="expected 0 blob"):
        one('type: "Bias" blobs { shape { dim: 3 } data: 1 data: 1 data: 1 }', x, np.zeros(3))
