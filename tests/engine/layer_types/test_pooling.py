"""Pooling against its definition as loops, its gradient, and its refusals."""

import math

import caffe
import numpy as np
import pytest

LOWEST = -np.finfo(np.float32).max


def sizes(shape, kernel, stride, pad, floor):
    """BVLC's rule: rounded up or down; with any padding, no window starts at or past the image's end."""
    result = []
    for a in range(2):
        room = (shape[2 + a] + 2 * pad[a] - kernel[a]) / stride[a]
        count = (math.floor(room) if floor else math.ceil(room)) + 1
        if any(pad) and (count - 1) * stride[a] >= shape[2 + a] + pad[a]:
            count -= 1
        result.append(count)
    return result


def windows(shape, kernel, stride, pad, floor):
    """(place in the top, rows and columns of the window in the image, its size with the padding it covers)."""
    for place in np.ndindex(*sizes(shape, kernel, stride, pad, floor)):
        spans, area = [], 1
        for a in range(2):
            start = place[a] * stride[a] - pad[a]
            end = min(start + kernel[a], shape[2 + a] + pad[a])
            area *= end - start
            spans.append(range(max(start, 0), min(end, shape[2 + a])))
        yield place, spans, area


def naive(x, pool, *geometry):
    """(top, mask) for MAX; (top, None) for AVE."""
    top = np.zeros((*x.shape[:2], *sizes(x.shape, *geometry)))
    mask = np.full(top.shape, -1.0)
    for n, c in np.ndindex(*x.shape[:2]):
        for place, (rows, columns), area in windows(x.shape, *geometry):
            at = (n, c, *place)
            if pool == "AVE":
                total = sum(float(x[n, c, i, j]) for i in rows for j in columns)
                top[at] = total / area if area else math.nan
                continue
            top[at] = LOWEST
            for i in rows:
                for j in columns:
                    if x[n, c, i, j] > top[at]:
                        top[at], mask[at] = x[n, c, i, j], i * x.shape[3] + j
    return top, mask if pool == "MAX" else None


# fields: bottom shape, kernel, stride, pad, floor
CASES = {
    "kernel_size: 2 stride: 2": ((2, 2, 4, 6), (2, 2), (2, 2), (0, 0), False),
    "kernel_size: 3 stride: 2": ((2, 2, 6, 7), (3, 3), (2, 2), (0, 0), False),
    "kernel_size: 3 stride: 2 round_mode: FLOOR": ((1, 2, 6, 8), (3, 3), (2, 2), (0, 0), True),
    "kernel_size: 3 stride: 2 pad: 1": ((1, 2, 5, 6), (3, 3), (2, 2), (1, 1), False),
    "kernel_size: 2 stride: 2 pad: 1": ((1, 2, 5, 4), (2, 2), (2, 2), (1, 1), False),
    "kernel_size: 3 stride: 3 pad: 2": ((1, 2, 7, 6), (3, 3), (3, 3), (2, 2), False),
    "kernel_size: 4 pad: 3": ((1, 1, 2, 3), (4, 4), (1, 1), (3, 3), False),
    "kernel_size: 4 pad: 3 stride: 2 round_mode: FLOOR": ((1, 1, 6, 5), (4, 4), (2, 2), (3, 3), True),
    "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0": (
        (1, 2, 4, 6), (2, 3), (1, 2), (1, 0), False,
    ),
    "kernel_size: 1 stride: 3": ((1, 2, 3, 5), (1, 1), (3, 3), (0, 0), False),  # columns 0, 3, and 6 past the edge
    "kernel_size: 5 stride: 2": ((1, 2, 4, 4), (5, 5), (2, 2), (0, 0), False),
    "global_pooling: true": ((2, 2, 3, 5), (3, 5), (1, 1), (0, 0), False),
}  # fmt: skip


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("fields", CASES)
def test_values_and_gradient(one, normal, fields, pool):
    shape, *geometry = CASES[fields]
    x = normal(*shape)
    it = one(f'type: "Pooling" pooling_param {{ pool: {pool} {fields} }}', x)
    expected, _ = naive(x, pool, *geometry)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5, atol=1e-6)
    it.check_gradient()


@pytest.mark.parametrize("fields", CASES)
def test_mask(one, normal, fields):
    shape, *geometry = CASES[fields]
    x = normal(*shape)
    it = one(f'type: "Pooling" pooling_param {{ {fields} }}', x, tops=2)
    for found, expected in zip(it.forward(), naive(x, "MAX", *geometry), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    it.check_gradient()


def test_the_first_of_equal_values_is_the_maximum(one):
    it = one('type: "Pooling" pooling_param { kernel_size: 2 }', np.ones((1, 1, 2, 2)), tops=2)
    assert it.forward(record=True)[1] == 0
    np.testing.assert_array_equal(it.backward(2, 9)[0], [[[[2, 0], [0, 0]]]])


def test_global_pooling_follows_the_bottom(one, normal):
    it = one('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', normal(1, 2, 3, 3))
    it.arrays = [normal(1, 2, 5, 4)]
    np.testing.assert_allclose(it.forward()[..., 0, 0], it.arrays[0].mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_stochastic_draws_in_proportion(one):
    caffe.set_random_seed(2)
    x = np.tile(np.float32([[1, 0], [3, 4]]), (20, 20, 5, 5))
    it = one('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }', x)
    y = it.forward(record=True)
    shares = [(y == value).mean() for value in (0, 1, 3, 4)]
    np.testing.assert_allclose(shares, [0, 1 / 8, 3 / 8, 4 / 8], atol=0.02)
    down = it.backward(np.full(y.shape, 2.0))[0]
    assert down.sum() == 2 * y.size and (down * x).sum() == 2 * y.sum()


def test_stochastic_in_test_is_the_expectation(one):
    x = np.abs(np.random.RandomState(1).standard_normal((1, 2, 5, 5)))
    it = one('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }', x, phase=caffe.TEST)
    for place, (rows, columns), _ in windows(x.shape, (3, 3), (2, 2), (0, 0), False):
        part = x[:, :, rows.start : rows.stop, columns.start : columns.stop]
        expected = (part**2).sum((2, 3)) / part.sum((2, 3))
        np.testing.assert_allclose(it.forward()[:, :, place[0], place[1]], expected, rtol=1e-5)
    it.check_gradient()


REFUSED = {
    "": "Filter size is kernel_size OR kernel_h and kernel_w; not both.*found none",
    "kernel_size: 2 kernel_h: 2 kernel_w: 2": "not both.*found kernel_size, kernel_h, kernel_w",
    "kernel_h: 2": "For non-square filters both kernel_h and kernel_w are required; found kernel_h",
    "kernel_size: 0": r"Filter dimensions cannot be zero; found \(0, 0\)",
    "kernel_size: 2 stride: 0": "Stride dimensions cannot be zero",
    "kernel_size: 2 stride: 2147483648": "kernel, stride and pad must be below 2",
    "kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1": "pad is pad OR pad_h and pad_w are required",
    "kernel_size: 2 stride_h: 1": "stride is stride OR stride_h and stride_w are required",
    "kernel_size: 2 pad: 2": r"padding must be smaller than the kernel; found pad \(2, 2\) and kernel \(2, 2\)",
    "kernel_size: 2 pad: 1 pool: STOCHASTIC": "Padding implemented only for average and max pooling",
    "global_pooling: true kernel_size: 2": "With Global_pooling: true Filter size cannot specified",
    "global_pooling: true stride: 2": "With Global_pooling: true; only pad = 0 and stride = 1",
    "kernel_size: 9": r"the kernel \(9, 9\) with padding \(0, 0\) does not fit into 1 1 3 3 \(9\)",
}


@pytest.mark.parametrize("fields", REFUSED)
def test_refusals(one, fields):
    with pytest.raises(ValueError, match=REFUSED[fields]):
        one(f'type: "Pooling" pooling_param {{ {fields} }}', np.zeros((1, 1, 3, 3)))


def test_refuses_three_axes_and_a_mask_of_means(one):
    with pytest.raises(ValueError, match=r"Input must have 4 axes.*found 1 3 3 \(9\)"):
        one('type: "Pooling" pooling_param { kernel_size: 2 }', np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match="at most 1 top"):
        one('type: "Pooling" pooling_param { kernel_size: 2 pool: AVE }', np.zeros((1, 1, 3, 3)), tops=2)
