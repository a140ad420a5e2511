"""ReLU, Sigmoid, TanH, Power, Dropout."""

import math

import caffe
import numpy as np
import pytest

FORMULAS = {
    'type: "ReLU"': lambda x: max(x, 0.0),
    'type: "ReLU" relu_param { negative_slope: 0.25 }': lambda x: x if x > 0 else 0.25 * x,
    'type: "Sigmoid"': lambda x: 1 / (1 + math.exp(-x)),
    'type: "TanH"': math.tanh,
    'type: "Power"': lambda x: x,
    'type: "Power" power_param { scale: -2 shift: 0.5 }': lambda x: 0.5 - 2 * x,
    'type: "Power" power_param { power: 2 }': lambda x: x**2,
    'type: "Power" power_param { power: 3 scale: 0.5 shift: 1 }': lambda x: (1 + 0.5 * x) ** 3,
    'type: "Power" power_param { power: 0.5 scale: 0.1 shift: 1 }': lambda x: math.sqrt(1 + 0.1 * x),
    'type: "Power" power_param { power: 0 scale: 2 }': lambda x: 1.0,
    'type: "Power" power_param { power: 3 scale: 0 shift: 2 }': lambda x: 8.0,
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("prototxt", FORMULAS)
def test_values_and_gradient(one, normal, prototxt, in_place):
    x = normal(2, 3, 4)
    it = one(prototxt, x, in_place=in_place)
    expected = np.vectorize(FORMULAS[prototxt], otypes=[float])(x.astype(float))
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5, atol=1e-6)
    it.check_gradient()


@pytest.mark.parametrize("hold_a_view", [False, True])
def test_in_place_after_the_batch_shrank(one, normal, hold_a_view):
    """The buffer stays larger than the blob, and the gradient needs the bottom that the top was written over."""
    it = one('type: "Power" power_param { power: 3 }', normal(6, 4), in_place=True)
    it.forward(record=True)
    it.arrays = [it.arrays[0][:2]]
    view = it.bottom[0].data if hold_a_view else None
    it.check_gradient()
    assert view is None or np.array_equal(view[:2], it.top[0].data)


def test_relu_at_zero_has_no_gradient(one):
    it = one('type: "ReLU"', [0.0, -1.0, 1.0])
    it.forward(record=True)
    np.testing.assert_array_equal(it.backward([2, 2, 2])[0], [0, 0, 2])


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_in_train(one, in_place):
    caffe.set_random_seed(11)
    it = one('type: "Dropout" dropout_param { dropout_ratio: 0.2 }', np.full((100, 100), 3.0), in_place=in_place)
    y = it.forward(record=True)
    assert set(np.unique(y)) == {0.0, np.float32(3 / 0.8)}
    assert abs((y == 0).mean() - 0.2) < 0.02
    np.testing.assert_allclose(it.backward(np.full(y.shape, 2.0))[0], y * 2 / 3, rtol=1e-6)
    assert (it.forward() != y).any()


def test_dropout_gradient(one, normal):
    one('type: "Dropout"', normal(4, 5)).check_gradient()


def test_dropout_repeats_with_its_seed(one, normal):
    it = one('type: "Dropout"', normal(20, 20))
    results = []
    for _ in range(2):
        caffe.set_random_seed(1)
        results.append(it.forward())
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_in_test_passes(one, normal, in_place):
    x = normal(3, 4)
    it = one('type: "Dropout"', x, phase=caffe.TEST, in_place=in_place)
    np.testing.assert_array_equal(it.forward(record=True), x)
    np.testing.assert_array_equal(it.backward(2 * x)[0], 2 * x)


def test_dropout_refuses_to_drop_everything(one):
    with pytest.raises(ValueError, match=r"'it' \(Dropout\): dropout_ratio must be .* below 1; found 1$"):
        one('type: "Dropout" dropout_param { dropout_ratio: 1 }', np.zeros(3))
