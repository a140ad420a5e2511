"""Interp and Upsample against their definitions as loops, and their gradients."""

import math

import numpy as np
import pytest


def naive_interp(x, size):
    top = np.zeros((*x.shape[:2], *size))
    steps = [(a - 1) / (b - 1) if b > 1 else 0 for a, b in zip(x.shape[2:], size, strict=True)]
    for i, j in np.ndindex(*size):
        (y, fy), (z, fz) = ((math.floor(at), at - math.floor(at)) for at in (i * steps[0], j * steps[1]))
        for a, b, weight in ((y, z, (1 - fy) * (1 - fz)), (y, z + 1, (1 - fy) * fz),
                             (y + 1, z, fy * (1 - fz)), (y + 1, z + 1, fy * fz)):  # fmt: skip
            if weight > 1e-9:
                top[:, :, i, j] += weight * x[:, :, min(a, x.shape[2] - 1), min(b, x.shape[3] - 1)]
    return top


SIZES = {  # of a 5 x 7 image
    "height: 8 width: 3": (8, 3),
    "height: 1 width: 1": (1, 1),
    "zoom_factor: 3": (13, 19),
    "shrink_factor: 2": (3, 4),
    "shrink_factor: 2 zoom_factor: 4": (9, 13),
    "shrink_factor: 2 height: 9 width: 9": (3, 4),
    "zoom_factor: 2 pad_beg: -1 pad_end: -2": (3, 7),
}


@pytest.mark.parametrize("fields", SIZES)
def test_interp(one, normal, fields):
    x = normal(2, 2, 5, 7)
    it = one(f'type: "Interp" interp_param {{ {fields} }}', x)
    seen = x[:, :, 1:3, 1:5] if "pad" in fields else x
    np.testing.assert_allclose(it.forward(), naive_interp(seen, SIZES[fields]), rtol=1e-4, atol=1e-5)
    it.check_gradient()


def test_interp_refuses(one, normal):
    for fields, words in {
        "": "expected shrink_factor, zoom_factor, or both height and width",
        "height: 3": "expected shrink_factor",
        "zoom_factor: 0": "zoom_factor must be positive; found 0",
        "zoom_factor: 2 pad_beg: 1": r"Only supports non-pos padding \(cropping\)",
        "zoom_factor: 2 pad_beg: -5": "leave nothing",
    }.items():
        with pytest.raises(ValueError, match=words):
            one(f'type: "Interp" interp_param {{ {fields} }}', normal(1, 1, 5, 7))


def places(shape, size):
    """A mask without two values at one place."""
    random = np.random.RandomState(1)
    count = shape[2] * shape[3]
    planes = [random.permutation(size[0] * size[1])[:count] for _ in range(shape[0] * shape[1])]
    return np.float32(planes).reshape(shape)


@pytest.mark.parametrize(
    "fields, size",
    [("", (6, 4)), ("scale: 3", (9, 6)), ("scale_h: 2 scale_w: 4", (6, 8)), ("pad_out_h: true", (5, 4)),
     ("upsample_h: 7 upsample_w: 5", (7, 5))],
)  # fmt: skip
def test_upsample(one, normal, fields, size):
    x = normal(2, 2, 3, 2)
    mask = places(x.shape, size)
    it = one(f'type: "Upsample" upsample_param {{ {fields} }}', x, mask)
    expected = np.zeros((2, 2, size[0] * size[1]), np.float32)
    for n, c, i, j in np.ndindex(*x.shape):
        expected[n, c, int(mask[n, c, i, j])] = x[n, c, i, j]
    np.testing.assert_array_equal(it.forward(record=True), expected.reshape(2, 2, *size))
    diff = normal(2, 2, *size)
    first, second = it.backward(diff)
    np.testing.assert_array_equal(
        first, np.take_along_axis(diff.reshape(4, -1), np.int64(mask.reshape(4, -1)), 1).reshape(x.shape)
    )
    assert not second.any()


def test_upsample_undoes_a_pooling_with_its_mask(one, normal):
    x = normal(1, 2, 4, 6)
    values, mask = one('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', x, tops=2).forward()
    back = one('type: "Upsample"', values, mask).forward()
    assert back.shape == x.shape and (back != 0).sum() == 12
    np.testing.assert_array_equal(back[back != 0], x[back != 0])


def test_upsample_refuses(one, normal):
    with pytest.raises(ValueError, match=r"out of range - check scale settings .* found 24, expected 0 to 23"):
        one('type: "Upsample"', normal(1, 1, 3, 2), np.full((1, 1, 3, 2), 24)).forward()
    with pytest.raises(ValueError, match="both upsample_h and upsample_w"):
        one('type: "Upsample" upsample_param { upsample_h: 3 }', normal(1, 1, 3, 2), normal(1, 1, 3, 2))
    with pytest.raises(ValueError, match="mask must be of the values' shape"):
        one('type: "Upsample"', normal(1, 1, 3, 2), normal(1, 1, 3, 3))
