"""ReLU, Sigmoid, TanH, Power, Dropout, BNLL, Clip, ELU, Swish, Exp, Log, AbsVal, PReLU, Threshold."""

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
    'type: "BNLL"': lambda x: math.log(1 + math.exp(x)),
    'type: "Clip" clip_param { min: -0.5 max: 0.75 }': lambda x: min(max(x, -0.5), 0.75),
    'type: "ELU"': lambda x: x if x > 0 else math.exp(x) - 1,
    'type: "ELU" elu_param { alpha: 0.5 }': lambda x: x if x > 0 else 0.5 * (math.exp(x) - 1),
    'type: "Swish"': lambda x: x / (1 + math.exp(-x)),
    'type: "Swish" swish_param { beta: 2.5 }': lambda x: x / (1 + math.exp(-2.5 * x)),
    'type: "Exp"': math.exp,
    'type: "Exp" exp_param { scale: 2 shift: -1 }': lambda x: math.exp(2 * x - 1),
    'type: "Exp" exp_param { base: 2 scale: -0.5 shift: 3 }': lambda x: 2 ** (3 - 0.5 * x),
    'type: "Exp" exp_param { base: 1 }': lambda x: 1.0,
    'type: "Log" log_param { scale: 0.1 shift: 1 }': lambda x: math.log(1 + 0.1 * x),
    'type: "Log" log_param { base: 2 scale: 0.1 shift: 1 }': lambda x: math.log2(1 + 0.1 * x),
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


def test_bnll_of_large_values(one):
    np.testing.assert_array_equal(one('type: "BNLL"', [200.0, -200.0]).forward(), [200, 0])


def test_clip_passes_the_gradient_of_its_bounds(one):
    it = one('type: "Clip" clip_param { min: -1 max: 1 }', [-2.0, -1.0, 0.0, 1.0, 2.0])
    it.forward(record=True)
    np.testing.assert_array_equal(it.backward(np.full(5, 2))[0], [0, 2, 2, 2, 0])


def test_absval(one, normal):
    x = normal(2, 5)
    it = one('type: "AbsVal"', x)
    np.testing.assert_array_equal(it.forward(), np.abs(x))
    it.check_gradient()
    with pytest.raises(ValueError, match="AbsVal Layer does not allow in-place computation"):
        one('type: "AbsVal"', x, in_place=True)


def test_threshold(one):
    it = one('type: "Threshold" threshold_param { threshold: 0.5 }', [0.4, 0.5, 0.6])
    np.testing.assert_array_equal(it.forward(), [0, 0, 1])
    with pytest.raises(ValueError, match="Threshold Layer 'it' cannot backpropagate to bottom 0"):
        it.layer.backward(it.top, [True], it.bottom)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_prelu(one, normal, shared, in_place):
    x = normal(2, 3, 4)
    it = one(f'type: "PReLU" prelu_param {{ channel_shared: {str(shared).lower()} }}', x, in_place=in_place)
    slopes = it.blobs[0].data
    assert slopes.shape == (() if shared else (3,)) and (slopes == 0.25).all()
    slopes[...] = -0.5 if shared else [0.1, -0.2, 3]
    expected = np.where(x > 0, x, x * np.broadcast_to(slopes, 3)[:, None])
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-6)
    it.check_gradient()


def test_prelu_takes_as_many_channels_as_slopes(one, normal):
    it = one('type: "PReLU" prelu_param { filler { type: "constant" value: 2 } }', normal(2, 3))
    assert (it.blobs[0].data == 2).all()
    it.arrays = [normal(2, 4)]
    with pytest.raises(ValueError, match=r"expected 3 channels, one for each slope; found shape 2 4 \(8\)"):
        it.forward()


@pytest.mark.parametrize(
    "prototxt, said",
    [
        ('type: "Exp" exp_param { base: -3 }', "base must be strictly positive, or -1 for e; found -3"),
        ('type: "Log" log_param { base: 0 }', "base must be strictly positive"),
        ('type: "Log" log_param { base: 1 }', "expected a base other than 1"),
        ('type: "Clip" clip_param { max: 1 }', "Message missing required fields: clip_param.min"),
        ('type: "PReLU"', "Number of axes of bottom blob must be >=2; found 2"),
    ],
)
def test_refusals(one, prototxt, said):
    with pytest.raises(ValueError, match=said):
        one(prototxt, [1.0, 2.0])
