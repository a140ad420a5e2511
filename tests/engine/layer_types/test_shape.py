"""Concat, Slice, Split, Flatten, Reshape, Eltwise, Silence."""

import numpy as np
import pytest


@pytest.mark.parametrize("fields, axis", [("", 1), ("axis: 2", 2), ("axis: -3", 0), ("concat_dim: 2", 2)])
def test_concat(one, normal, fields, axis):
    shapes = [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
    for size, shape in zip((1, 3, 2), shapes, strict=True):
        shape[axis] = size
    arrays = [normal(*shape) for shape in shapes]
    it = one(f'type: "Concat" concat_param {{ {fields} }}', *arrays)
    y, start = it.forward(), 0
    for array in arrays:
        size = array.shape[axis]
        np.testing.assert_array_equal(y.take(range(start, start + size), axis), array)
        start += size
    assert start == y.shape[axis]
    it.check_gradient()


def test_concat_of_one(one, normal):
    it = one('type: "Concat"', normal(2, 3))
    np.testing.assert_array_equal(it.forward(), it.arrays[0])
    it.check_gradient()


@pytest.mark.parametrize(
    "fields, other, said",
    [
        ("axis: 1 concat_dim: 1", (2, 3), "Either axis or concat_dim should be specified; not both"),
        ("concat_dim: 2", (2, 3), r"concat_dim out of range: found 2, bottom shape 2 3 \(6\)"),
        ("", (2, 3, 1), "All inputs must have the same #axes"),
        ("axis: 0", (2, 4), r"same shape, except at concat_axis 0; found bottom\[0\] 2 3 \(6\) and bottom\[1\] 2 4"),
    ],
)
def test_concat_refusals(one, fields, other, said):
    with pytest.raises(ValueError, match=said):
        one(f'type: "Concat" concat_param {{ {fields} }}', np.zeros((2, 3)), np.zeros(other))


@pytest.mark.parametrize(
    "fields, axis, sizes",
    [
        ("", 1, [2, 2, 2]),
        ("slice_point: 1 slice_point: 4", 1, [1, 3, 2]),
        ("axis: 0 slice_point: 2 slice_point: 3", 0, [2, 1, 1]),
        ("slice_dim: 2", 2, [1, 1, 1]),
        ("axis: -1", 2, [1, 1, 1]),
    ],
)
def test_slice(one, normal, fields, axis, sizes):
    x = normal(4, 6, 3)
    it = one(f'type: "Slice" slice_param {{ {fields} }}', x, tops=3)
    start = 0
    for y, size in zip(it.forward(), sizes, strict=True):
        np.testing.assert_array_equal(y, x.take(range(start, start + size), axis))
        start += size
    it.check_gradient()


def test_a_slice_is_a_copy(one, normal):
    it = one('type: "Slice"', normal(2, 4), tops=2)
    it.forward()
    it.top[0].data[...] = 0
    assert it.bottom[0].data.all()


@pytest.mark.parametrize(
    "fields, said",
    [
        ("axis: 1 slice_dim: 1", "Either axis or slice_dim should be specified; not both"),
        ("slice_dim: 5", "slice_dim out of range: found 5"),
        ("", r"Number of top blobs \(2\) should evenly divide input slice axis \(5\)"),
        ("slice_point: 1 slice_point: 2", "one slice_point fewer than tops, 1; found 2"),
        ("slice_point: 5", r"slice_points must rise .* size 5; found \[5\]"),
        ("slice_point: 0", r"slice_points must rise .* size 5; found \[0\]"),
        ("axis: 0 slice_point: 1", "at most 1 tops, the axis's size; found 2"),
    ],
)
def test_slice_refusals(one, fields, said):
    with pytest.raises(ValueError, match=said):
        one(f'type: "Slice" slice_param {{ {fields} }}', np.zeros((1, 5)), tops=2)


@pytest.mark.parametrize("tops", [1, 2, 3])
def test_split(one, normal, tops):
    x = normal(2, 3)
    it = one('type: "Split"', x, tops=tops)
    it.forward(record=True)
    for blob in it.top:
        np.testing.assert_array_equal(blob.data, x)
        assert np.shares_memory(blob.data, it.bottom[0].data)
    diffs = [normal(2, 3) for _ in range(tops)]
    np.testing.assert_allclose(it.backward(*diffs)[0], sum(diffs), rtol=1e-6)
    for blob, diff in zip(it.top, diffs, strict=True):
        np.testing.assert_array_equal(blob.diff, diff)


# bottom (2, 3, 4, 5): prototxt, top
SHAPES = {
    'type: "Flatten"': (2, 60),
    'type: "Flatten" flatten_param { axis: 2 }': (2, 3, 20),
    'type: "Flatten" flatten_param { axis: 0 end_axis: -2 }': (24, 5),
    'type: "Flatten" flatten_param { axis: 1 end_axis: 1 }': (2, 3, 4, 5),
    'type: "Flatten" flatten_param { axis: 3 end_axis: 2 }': (2, 3, 4, 1, 5),
    'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }': (2, 60),
    'type: "Reshape" reshape_param { shape { dim: 6 dim: 4 dim: 5 } }': (6, 4, 5),
    'type: "Reshape" reshape_param { shape { dim: 0 dim: 0 dim: 2 dim: -1 } }': (2, 3, 2, 10),
    'type: "Reshape" reshape_param { shape { dim: -1 } axis: 1 }': (2, 60),
    'type: "Reshape" reshape_param { shape { dim: 12 } axis: 1 num_axes: 2 }': (2, 12, 5),
    'type: "Reshape" reshape_param { shape { dim: 1 } axis: 2 num_axes: 0 }': (2, 3, 1, 4, 5),
    'type: "Reshape" reshape_param { shape { dim: 1 dim: 1 } axis: -1 num_axes: 0 }': (2, 3, 4, 5, 1, 1),
    'type: "Reshape" reshape_param { shape { dim: -1 dim: 0 } axis: -3 num_axes: 2 }': (2, 3, 4, 5),
}


@pytest.mark.parametrize("prototxt", SHAPES)
def test_renamed_axes(one, normal, prototxt):
    x = normal(2, 3, 4, 5)
    it = one(prototxt, x)
    expected = x.reshape(SHAPES[prototxt])
    np.testing.assert_array_equal(it.forward(record=True), expected)
    assert np.shares_memory(it.top[0].data, it.bottom[0].data)
    np.testing.assert_array_equal(it.backward(2 * expected)[0], 2 * x)
    it.arrays = [normal(1, 3, 4, 5)]  # the same again after the batch shrank
    if SHAPES[prototxt][0] == 2:
        assert it.forward(record=True).shape == (1, *SHAPES[prototxt][1:])


@pytest.mark.parametrize(
    "fields, said",
    [
        ("shape { dim: -1 dim: -1 }", "new shape contains multiple -1 dims"),
        ("shape { dim: -2 }", r"dims must be -1, 0 or above; found \[-2\]"),
        ("shape { dim: 7 }", r"output count must match input count: expected 6, found shape \(7,\)"),
        ("shape { dim: 4 dim: -1 }", r"bottom count \(6\) must be divisible by .* \(4\)"),
        ("shape { dim: 1 dim: 1 dim: 0 }", "new shape contains a 0, but there was no corresponding bottom axis"),
        ("shape { dim: 1 } axis: 3", "axis 3 out of range for 2-D input blob"),
        ("shape { dim: 1 } axis: -4", "axis -4 out of range"),
        ("shape { dim: 1 } num_axes: -2", "num_axes must be >= 0, or -1 for all; found -2"),
        ("shape { dim: 1 } axis: 1 num_axes: 2", "end_axis = axis . num_axes is out of range: found 3"),
    ],
)
def test_reshape_refusals(one, fields, said):
    with pytest.raises(ValueError, match=said):
        one(f'type: "Reshape" reshape_param {{ {fields} }}', np.zeros((2, 3)))


@pytest.mark.parametrize("kind", ["Reshape", "Flatten", "Split", "Slice"])
def test_refuses_to_work_in_place(one, kind):
    with pytest.raises(ValueError, match=f"{kind} Layer does not allow in-place computation"):
        one(f'type: "{kind}"', np.zeros((2, 2)), in_place=True)


def test_flatten_refuses_axes_in_the_wrong_order(one):
    with pytest.raises(ValueError, match="axis 2 must not come after end_axis 0"):
        one('type: "Flatten" flatten_param { axis: 2 end_axis: 0 }', np.zeros((2, 3, 4)))


ELTWISE = {
    "": lambda a, b, c: a + b + c,
    "coeff: 2 coeff: -0.5 coeff: 1": lambda a, b, c: 2 * a - 0.5 * b + c,
    "operation: PROD": lambda a, b, c: a * b * c,
    "operation: PROD stable_prod_grad: false": lambda a, b, c: a * b * c,
    "operation: MAX": max,
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("fields", ELTWISE)
def test_eltwise(one, normal, fields, in_place):
    arrays = [normal(2, 3, 2) for _ in range(3)]
    it = one(f'type: "Eltwise" eltwise_param {{ {fields} }}', *arrays, in_place=in_place)
    expected = np.vectorize(ELTWISE[fields])(*arrays)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5)
    it.check_gradient()


def test_one_bottom_of_eltwise_max_gets_the_gradient(one):
    """BVLC's choice among equals: of the first two the second; a later bottom only where it is greater."""
    it = one('type: "Eltwise" eltwise_param { operation: MAX }', [1.0, 3], [1.0, 2], [1.0, 3])
    it.forward(record=True)
    np.testing.assert_array_equal(it.backward([2, 2]), [[0, 2], [2, 0], [0, 0]])


def test_eltwise_refusals(one):
    pair = np.zeros((2, 3)), np.zeros((2, 3))
    with pytest.raises(ValueError, match="one coefficient per bottom blob; found 1 for 2"):
        one('type: "Eltwise" eltwise_param { coeff: 1 }', *pair)
    with pytest.raises(ValueError, match="only takes coefficients for summation"):
        one('type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 2 }', *pair)
    with pytest.raises(ValueError, match=r"bottom\[0\]: 2 3 \(6\), bottom\[1\]: 3 2 \(6\)"):
        one('type: "Eltwise"', np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"Eltwise Layer takes at least 2 bottom blob\(s\) as input; found 1"):
        one('type: "Eltwise"', np.zeros(2))


def test_silence(one, normal):
    it = one('type: "Silence"', normal(2, 3), normal(4), tops=0)
    assert it.forward(record=True) == []
    for blob in it.bottom:
        blob.diff[...] = 7
    for diff in it.backward():
        assert not diff.any()
