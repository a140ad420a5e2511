"""InnerProduct against its definition, its gradient, and its refusals."""

import numpy as np
import pytest

FILL = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def prototxt(fields: str) -> str:
    return f'type: "InnerProduct" inner_product_param {{ {fields} {FILL} }}'


def naive(rows, weight, bias):
    y = np.zeros((len(rows), len(weight)))
    for m, n in np.ndindex(*y.shape):
        y[m, n] = sum(float(rows[m, k]) * float(weight[n, k]) for k in range(rows.shape[1])) + bias[n]
    return y


@pytest.mark.parametrize("transpose", ["false", "true"])
@pytest.mark.parametrize("bias", ["false", "true"])
@pytest.mark.parametrize("axis, rows, top", [(1, 2, (2, 4)), (2, 6, (2, 3, 4)), (0, 1, (4,)), (-1, 12, (2, 3, 2, 4))])
def test_values_and_gradient(one, normal, axis, rows, top, bias, transpose):
    x = normal(2, 3, 2, 3)
    it = one(prototxt(f"num_output: 4 axis: {axis} bias_term: {bias} transpose: {transpose}"), x)
    weight = it.blobs[0].data
    count = x.size // rows
    assert weight.shape == ((count, 4) if transpose == "true" else (4, count))
    assert [blob.shape for blob in it.blobs[1:]] == [(4,)] * (bias == "true")
    y = it.forward()
    assert y.shape == top
    expected = naive(
        x.reshape(rows, count),
        weight.T if transpose == "true" else weight,
        it.blobs[1].data if bias == "true" else np.zeros(4),
    )
    np.testing.assert_allclose(y, expected.reshape(top), rtol=1e-4, atol=1e-4)
    it.check_gradient()


def test_blobs_in_the_prototxt_are_kept_in_their_old_shape(one):
    """Files from before N-d blobs hold the weight as (1, 1, N, K)."""
    given = "blobs { num: 1 channels: 1 height: 2 width: 1 data: 3 data: 4 }"
    it = one(f'type: "InnerProduct" {given} inner_product_param {{ num_output: 2 bias_term: false }}', [[2.0]])
    np.testing.assert_array_equal(it.forward(), [[6, 8]])
    assert it.blobs[0].shape == (1, 1, 2, 1)
    it.check_gradient()


def test_the_batch_may_change(one, normal):
    it = one(prototxt("num_output: 2"), normal(2, 3))
    it.arrays = [normal(5, 3)]
    np.testing.assert_allclose(
        it.forward(), naive(it.arrays[0], *(blob.data for blob in it.blobs)), rtol=1e-4, atol=1e-4
    )


def test_refusals(one):
    it = one(prototxt("num_output: 2"), np.zeros((2, 3)))
    it.arrays = [np.zeros((2, 4), np.float32)]
    with pytest.raises(ValueError, match=r"incompatible with inner product parameters: expected 3 .*found 4"):
        it.forward()
    with pytest.raises(ValueError, match="num_output must be above 0; found 0"):
        one(prototxt(""), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"expected a blob of shape \(2, 3\), found 2 \(2\)"):
        one('blobs { shape { dim: 2 } data: 1 data: 1 } type: "InnerProduct" inner_product_param '
            "{ num_output: 2 bias_term: false }", np.zeros((2, 3)))  # fmt: skip
    with pytest.raises(ValueError, match=r"InnerProduct Layer takes 1 bottom blob\(s\) as input; found 2"):
        one(prototxt("num_output: 2"), np.zeros((2, 3)), np.zeros((2, 3)))
