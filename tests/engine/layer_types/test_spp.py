"""SPP against pooling over its bins as loops."""

import numpy as np
import pytest


def naive(x, levels, average):
    """Each grid's bins are of one size, ceil(size / bins), and centred: what lies beyond the image is padding."""
    columns = []
    for level in range(levels):
        bins = 2**level
        kernel = [-(-size // bins) for size in x.shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, x.shape[2:], strict=True)]
        y = np.zeros((*x.shape[:2], bins, bins))
        for n, c, i, j in np.ndindex(*y.shape):
            rows, cols = (
                slice(max(at * k - p, 0), at * k - p + k) for at, k, p in zip((i, j), kernel, pad, strict=True)
            )
            part = x[n, c, rows, cols].astype(float)
            # a window is cut where the padding ends
            height, width = (
                min(at * k - p + k, size + p) - (at * k - p)
                for at, k, p, size in zip((i, j), kernel, pad, x.shape[2:], strict=True)
            )
            y[n, c, i, j] = part.sum() / (height * width) if average else part.max()
        columns.append(y.reshape(len(x), -1))
    return np.concatenate(columns, 1)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("shape, levels", [((2, 2, 4, 4), 3), ((1, 2, 7, 9), 3), ((2, 3, 6, 5), 2)])
def test_values_and_gradient(one, normal, pool, shape, levels):
    x = normal(*shape)
    it = one(f'type: "SPP" spp_param {{ pyramid_height: {levels} pool: {pool} }}', x)
    y = it.forward()
    assert y.shape == (shape[0], shape[1] * (4**levels - 1) // 3)
    np.testing.assert_allclose(y, naive(x, levels, pool == "AVE"), rtol=1e-4, atol=1e-6)
    it.check_gradient()


def test_one_level_keeps_four_axes(one, normal):
    x = normal(2, 3, 4, 5)
    y = one('type: "SPP" spp_param { pyramid_height: 1 }', x).forward()
    np.testing.assert_array_equal(y, x.max((2, 3), keepdims=True))


def test_images_of_another_size_give_vectors_of_the_same_length(one, normal):
    it = one('type: "SPP" spp_param { pyramid_height: 2 }', normal(2, 3, 6, 6))
    assert it.forward().shape == (2, 15)
    it.arrays = [normal(1, 3, 9, 5)]
    np.testing.assert_array_equal(it.forward(), naive(it.arrays[0], 2, False).astype(np.float32))


@pytest.mark.parametrize(
    "height, shape, said",
    [
        (0, (1, 1, 4, 4), "pyramid_height must be above 0"),
        (2, (1, 4), "Input must have 4 axes"),
        (2, (1, 1, 0, 4), "Input dimensions cannot be zero"),
        (4, (1, 1, 3, 3), "the padding must be smaller than the kernel"),
    ],
)
def test_refusals(one, height, shape, said):
    with pytest.raises(ValueError, match=said):
        one(f'type: "SPP" spp_param {{ pyramid_height: {height} }}', np.zeros(shape))
