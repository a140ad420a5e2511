"""ROIPooling, SmoothL1Loss, Permute and Normalize against their definitions as loops, and their gradients."""

import math
import sys

import numpy as np
import pytest

REGIONS = [
    [0, 0, 0, 7, 5],
    [1, 2, 1, 5, 9],  # past the bottom of the image
    [0, 3, 3, 3, 3],  # one pixel: every bin sees it
    [1, 40, 40, 50, 50],  # outside: empty bins
    [0, -6, -4, 4, 4],  # begins outside
    [1, 5, 4, 1, 0],  # turned round: taken for one pixel
]


def naive_roi(x, regions, bins_h, bins_w, scale):
    top = np.zeros((len(regions), x.shape[1], bins_h, bins_w))
    source = np.full((*top.shape, 3), -1)

    def away(v):
        return math.floor(v + 0.5) if v >= 0 else math.ceil(v - 0.5)

    for r, region in enumerate(regions):
        n = int(region[0])
        left, up, right, down = (away(np.float32(v) * np.float32(scale)) for v in region[1:])
        step_h, step_w = (np.float32(max(end - start + 1, 1)) / np.float32(bins) for start, end, bins in
                          ((up, down, bins_h), (left, right, bins_w)))  # fmt: skip
        for c, i, j in np.ndindex(x.shape[1], bins_h, bins_w):
            ys = [min(max(f, 0), x.shape[2]) for f in (math.floor(i * step_h) + up, math.ceil((i + 1) * step_h) + up)]
            xs = [min(max(f, 0), x.shape[3]) for f in (math.floor(j * step_w) + left,
                                                       math.ceil((j + 1) * step_w) + left)]  # fmt: skip
            best = -math.inf
            for a in range(*ys):
                for b in range(*xs):
                    if x[n, c, a, b] > best:
                        best = top[r, c, i, j] = x[n, c, a, b]
                        source[r, c, i, j] = (n, a, b)
    return top, source


@pytest.mark.parametrize("bins, scale", [((2, 3), 1), ((3, 2), 0.5), ((1, 1), 0.0625)])
def test_roi_pooling(one, normal, bins, scale, monkeypatch):
    x = normal(2, 3, 6, 8)
    regions = np.float32([[r[0], *(np.float32(r[1:]) / scale)] for r in REGIONS])
    it = one(f'type: "ROIPooling" roi_pooling_param {{ pooled_h: {bins[0]} pooled_w: {bins[1]} '
             f"spatial_scale: {scale} }}", x, regions)  # fmt: skip
    monkeypatch.setattr(sys.modules[type(it.layer).__module__], "_AT_ONCE", 500)  # several steps
    expected, source = naive_roi(x, regions, *bins, scale)
    found = it.forward(record=True)
    np.testing.assert_array_equal(found, np.float32(expected))
    diff = normal(*found.shape) * 2
    down = np.zeros_like(x)
    for place in np.ndindex(*found.shape):
        n, a, b = source[place]
        if n >= 0:
            down[n, place[1], a, b] += diff[place]
    first, second = it.backward(diff)
    np.testing.assert_allclose(first, down, rtol=1e-5, atol=1e-5)
    assert not second.any()


def test_roi_pooling_gives_the_gradient_to_the_first_of_equal_values(one):
    it = one(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', np.ones((1, 1, 2, 2)), [[0, 0, 0, 1, 1]]
    )
    it.forward(record=True)
    np.testing.assert_array_equal(it.backward(np.full((1, 1, 1, 1), 2))[0].ravel(), [2, 0, 0, 0])


@pytest.mark.parametrize(
    "region", [[0, 0, 0, np.inf, 1], [0, np.nan, 0, 1, 1], [0, 0, 0, 1, 1e30], [np.nan, 0, 0, 1, 1]]
)
def test_roi_pooling_refuses_what_is_no_place(one, region):
    with pytest.raises(ValueError, match=r"must be numbers of 32 bits|expected an item of the batch"):
        layer = 'type: "ROIPooling" roi_pooling_param { pooled_w: 2 pooled_h: 2 }'
        one(layer, np.zeros((2, 1, 4, 4)), [region]).forward()


def test_roi_pooling_refuses(one):
    x = np.zeros((2, 1, 4, 4))
    with pytest.raises(ValueError, match="pooled_h must be > 0"):
        one('type: "ROIPooling" roi_pooling_param { pooled_w: 2 }', x, [[0, 0, 0, 1, 1]])
    with pytest.raises(ValueError, match="regions must have 5 values each"):
        one('type: "ROIPooling" roi_pooling_param { pooled_w: 2 pooled_h: 2 }', x, [[0, 0, 0, 1]])
    with pytest.raises(ValueError, match="region 1 is of item 2, expected an item of the batch, 0 to 1"):
        one('type: "ROIPooling" roi_pooling_param { pooled_w: 2 pooled_h: 2 }', x, [[0] * 5, [2, 0, 0, 1, 1]]).forward()


@pytest.mark.parametrize("weights", [0, 1, 2])
@pytest.mark.parametrize("sigma", [1, 3])
def test_smooth_l1(one, normal, weights, sigma):
    a, b = normal(3, 4, 2), normal(3, 4, 2)
    inside, outside = (np.abs(normal(3, 4, 2)) for _ in range(2))
    it = one(f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}', a, b, *[inside, outside][:weights])
    total = 0
    for place in np.ndindex(*a.shape):
        x = float(a[place] - b[place]) * (float(inside[place]) if weights else 1)
        f = 0.5 * (sigma * x) ** 2 if abs(x) < 1 / sigma**2 else abs(x) - 0.5 / sigma**2
        total += f * (float(outside[place]) if weights > 1 else 1)
    assert it.forward() == pytest.approx(total / 3, rel=1e-5)
    it.layer.no_gradient = (2, 3)
    it.check_gradient()


def test_smooth_l1_leaves_the_weights_alone(one, normal):
    it = one('type: "SmoothL1Loss"', *(normal(2, 3) for _ in range(4)))
    it.forward(record=True)
    down = it.backward(2)
    assert down[0].any() and down[1].any() and not down[2].any() and not down[3].any()
    with pytest.raises(ValueError, match=r"bottom 2 must be of bottom 0's shape 2 3 \(6\)"):
        one('type: "SmoothL1Loss"', normal(2, 3), normal(2, 3), normal(2, 4))


@pytest.mark.parametrize(
    "order, axes",
    [("order: 0 order: 2 order: 3 order: 1", (0, 2, 3, 1)), ("order: 3", (3, 0, 1, 2)), ("", (0, 1, 2, 3))],
)
def test_permute(one, normal, order, axes):
    x = normal(2, 3, 4, 5)
    it = one(f'type: "Permute" permute_param {{ {order} }}', x)
    np.testing.assert_array_equal(it.forward(), x.transpose(axes))
    it.check_gradient()


def test_permute_refuses(one, normal):
    with pytest.raises(ValueError, match="less than the input dimension 2"):
        one('type: "Permute" permute_param { order: 2 }', normal(2, 3))
    with pytest.raises(ValueError, match="duplicate orders"):
        one('type: "Permute" permute_param { order: 1 order: 1 }', normal(2, 3))


@pytest.mark.parametrize("shared", ["true", "false"])
@pytest.mark.parametrize("across", ["true", "false"])
def test_normalize(one, normal, across, shared):
    x = normal(2, 3, 2, 4)
    it = one(f'type: "Normalize" norm_param {{ across_spatial: {across} channel_shared: {shared} eps: 0.5 '
             'scale_filler { type: "gaussian" std: 20 } }', x)  # fmt: skip
    scale = it.blobs[0].data
    assert scale.shape == (() if shared == "true" else (3,))
    expected = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*x.shape):
        around = x[n].ravel() if across == "true" else x[n, :, i, j]
        size = math.sqrt(sum(float(v) ** 2 for v in around) + 0.5)
        expected[n, c, i, j] = x[n, c, i, j] / size * (scale if shared == "true" else scale[c])
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-4, atol=1e-4)
    it.check_gradient()


def test_normalize_without_a_filler_scales_by_one(one, normal):
    x = normal(2, 3, 2)
    np.testing.assert_allclose((one('type: "Normalize"', x).forward() ** 2).sum((1, 2)), 1, rtol=1e-4)
