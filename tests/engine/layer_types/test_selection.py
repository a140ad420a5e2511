"""Crop, Tile, BatchReindex, Filter, ArgMax, Reduction."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    "fields, like, part",
    [
        ("", (1, 1, 2, 3), np.s_[:, :, 0:2, 0:3]),
        ("offset: 1", (1, 1, 2, 3), np.s_[:, :, 1:3, 1:4]),
        ("offset: 2 offset: 1", (1, 1, 2, 3), np.s_[:, :, 2:4, 1:4]),
        ("axis: 1 offset: 1 offset: 0 offset: 2", (1, 2, 4, 3), np.s_[:, 1:3, :, 2:5]),
        ("axis: -1 offset: 3", (9, 9, 9, 2), np.s_[..., 3:5]),
    ],
)
def test_crop(one, normal, fields, like, part):
    x = normal(2, 3, 4, 5)
    it = one(f'type: "Crop" crop_param {{ {fields} }}', x, np.zeros(like))
    y = it.forward(record=True)
    np.testing.assert_array_equal(y, x[part])
    expected = np.zeros_like(x)
    expected[part] = 2
    found = it.backward(np.full(y.shape, 2))
    np.testing.assert_array_equal(found[0], expected)
    assert not found[1].any()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_tile(one, normal, axis):
    x = normal(2, 3, 2)
    it = one(f'type: "Tile" tile_param {{ axis: {axis} tiles: 3 }}', x)
    np.testing.assert_array_equal(it.forward(), np.concatenate([x, x, x], axis))
    it.check_gradient()


def test_batch_reindex(one, normal):
    x = normal(3, 2, 2)
    it = one('type: "BatchReindex"', x, [2.0, 0.0, 2.0, 2.0])
    np.testing.assert_array_equal(it.forward(), x[[2, 0, 2, 2]])
    it.check_gradient()


@pytest.mark.parametrize(
    "index, said", [(-1, "was negative"), (3, "greater than batch size: expected 0 to 2, found 3")]
)
def test_batch_reindex_refuses_items_that_are_not_there(one, index, said):
    it = one('type: "BatchReindex"', np.zeros((3, 2)), [0.0, index])
    with pytest.raises(ValueError, match=said):
        it.forward()


def test_filter(one, normal):
    x, y = normal(4, 2), normal(4, 3, 1)
    it = one('type: "Filter"', x, y, [0.0, 1.0, 0.5, 0.0], tops=2)
    assert [blob.shape for blob in it.top] == [(4, 2), (4, 3, 1)]  # nothing is known of the selector yet
    found = it.forward(record=True)
    np.testing.assert_array_equal(found[0], x[1:3])
    np.testing.assert_array_equal(found[1], y[1:3])
    diffs = it.backward(np.full((2, 2), 2), np.full((2, 3, 1), 3))
    np.testing.assert_array_equal(diffs[0], [[0, 0], [2, 2], [2, 2], [0, 0]])
    assert diffs[1].sum() == 18 and not diffs[1][[0, 3]].any()
    it.arrays[2] = np.zeros((4, 1), np.float32)
    assert [top.shape for top in it.forward()] == [(0, 2), (0, 3, 1)]
    it.arrays[2] = np.ones((4, 1), np.float32)
    np.testing.assert_array_equal(it.forward()[0], x)


def naive_arg_max(values, top_k):
    """(indices, values), the largest first; of equal ones the later first."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], -i))[:top_k]
    return order, values[order]


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_arg_max_of_an_item(one, normal, top_k, ties):
    x = np.round(normal(4, 3, 2)) if ties else normal(4, 3, 2)
    expected = [naive_arg_max(item.ravel(), top_k) for item in x]
    indices = one(f'type: "ArgMax" argmax_param {{ top_k: {top_k} }}', x).forward()
    np.testing.assert_array_equal(indices, [[each[0]] for each in expected])
    both = one(f'type: "ArgMax" argmax_param {{ top_k: {top_k} out_max_val: true }}', x).forward()
    np.testing.assert_array_equal(both, np.array(expected, np.float32))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("values", [False, True])
def test_arg_max_along_an_axis(one, normal, axis, values):
    x = np.round(2 * normal(3, 4, 3))
    it = one(f'type: "ArgMax" argmax_param {{ top_k: 2 axis: {axis} out_max_val: {str(values).lower()} }}', x)
    expected = np.apply_along_axis(lambda line: naive_arg_max(line, 2)[values], axis, x)
    np.testing.assert_array_equal(it.forward(), expected)


@pytest.mark.parametrize("shape, top", [((4, 5), (4, 1, 1)), ((2, 3, 2, 2, 2), (2, 1, 1, 1, 1)), ((3,), (3, 1, 1))])
def test_arg_max_has_three_axes_or_more(one, normal, shape, top):
    assert one('type: "ArgMax"', normal(*shape)).forward().shape == top


def test_arg_max_of_zeros_and_infinities(one):
    x = [[0.0, -0.0], [-0.0, 0.0], [-np.inf, -3e38], [3e38, np.inf], [-1e-45, -0.0]]
    found = one('type: "ArgMax" argmax_param { out_max_val: true }', x).forward()
    np.testing.assert_array_equal(found[:, 0, 0], [1, 1, 1, 1, 1])
    np.testing.assert_array_equal(found[:, 1, 0], np.array([0, 0, -3e38, np.inf, 0], np.float32))


OPERATIONS = {
    "SUM": np.sum,
    "MEAN": np.mean,
    "ASUM": lambda x: np.abs(x).sum(),
    "SUMSQ": lambda x: np.square(x).sum(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_reduction(one, normal, operation, axis):
    x = normal(2, 3, 4)
    it = one(f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: -2.5 }}', x)
    rows = x.reshape(*x.shape[: axis % 3], -1)
    expected = -2.5 * np.apply_along_axis(OPERATIONS[operation], -1, rows)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5)
    it.check_gradient()


@pytest.mark.parametrize(
    "prototxt, shapes, said",
    [
        (
            'type: "Crop" crop_param { offset: 2 }',
            [(1, 1, 4, 4), (1, 1, 2, 3)],
            "dimension 3 is out-of-bounds with size 3",
        ),
        (
            'type: "Crop" crop_param { offset: 1 offset: 1 offset: 1 }',
            [(1, 1, 4, 4), (1, 1, 2, 3)],
            "expected 2, found 3",
        ),
        ('type: "Crop"', [(1, 1, 4, 4), (1, 1)], "expected a second bottom with the axes of the first, 1 1 4 4"),
        ('type: "Tile"', [(2, 3)], "Number of tiles must be specified"),
        ('type: "Tile" tile_param { tiles: -1 }', [(2, 3)], "Number of tiles must be positive; found -1"),
        ('type: "BatchReindex"', [(2, 3), (2, 1)], r"expected indices of one axis; found 2 1 \(2\)"),
        ('type: "Filter"', [(2, 3), (2, 2)], "Selector blob dimensions must be singletons"),
        ('type: "Filter"', [(2, 3), (3,)], r"expected 3, found bottom\[0\] 2 3 \(6\)"),
        ('type: "Filter"', [(2, 3), (2, 3), (2,)], "expected one top for each bottom but the selector, 2; found 1"),
        ('type: "ArgMax" argmax_param { top_k: 0 }', [(2, 3)], "top k must not be less than 1; found 0"),
        ('type: "ArgMax" argmax_param { top_k: 7 }', [(2, 3, 2)], "flattened bottom blob per instance, 6; found 7"),
        ('type: "ArgMax" argmax_param { top_k: 4 axis: 1 }', [(2, 3, 2)], "the dimension of the axis, 3; found 4"),
        ('type: "Reduction" reduction_param { axis: 2 }', [(2, 3)], "axis 2 out of range"),
    ],
)
def test_refusals(one, prototxt, shapes, said):
    with pytest.raises(ValueError, match=said):
        one(prototxt, *(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("prototxt, arrays", [('type: "ArgMax"', 1), ('type: "BatchReindex"', 2)])
def test_indices_have_no_gradient(one, prototxt, arrays):
    it = one(prototxt, *(np.zeros(3) for _ in range(arrays)))
    it.forward()
    with pytest.raises(ValueError, match=f"cannot backpropagate to bottom {arrays - 1}"):
        it.layer.backward(it.top, [True] * arrays, it.bottom)
