"""The losses of the forks as functions of arrays: against their formulas written out, and what is released."""

import authors_formulas as formulas
import numpy as np
import pytest
from authors_forks import losses as fork_losses
from hashing_losses import log_cosh_quantization, pairwise_cross_entropy

B, K, C = 7, 5, 4


def batch(seed, scale=1.0):
    """(codes (B, K), labels (B, C)): with a 0 among the codes; one row without labels, one unknown, two with all."""
    random = np.random.RandomState(seed)
    codes = (scale * random.randn(B, K)).astype(np.float32)
    codes[0, 1] = 0
    labels = random.randint(2, size=(B, C)).astype(np.float32)
    labels[1], labels[2], labels[3:5] = 0, -1, 1
    return codes, labels


def agree(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * max(scale, 1))


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("weights", [{}, {"l_threshold": 2, "q_threshold": 0.2, "l_lambda": 0.5, "q_gamma": 3},
                                     {"l_threshold": 0, "q_threshold": 1, "l_lambda": 0, "q_gamma": 0}])  # fmt: skip
def test_dhn_caffe(scale, weights):
    codes, labels = batch(1, scale)
    found = fork_losses.dhn_caffe(codes, labels, **weights)
    agree(found, formulas.dhn_caffe(codes, labels, **weights))
    assert found[2].dtype == np.float32


@pytest.mark.parametrize("threshold", [-1, 0, 1.5])
def test_hash_caffe(threshold):
    codes, labels = batch(2, 1.5)
    labels = np.abs(labels)
    agree(fork_losses.hash_caffe_pairwise(codes, labels, threshold),
          formulas.self_pairs(codes, labels, threshold, 1, unknown=False))  # fmt: skip
    agree(fork_losses.hash_caffe_quantization(codes, threshold), formulas.quantization(np.float64(codes), threshold))


@pytest.mark.parametrize("weights", [
    {}, {"class_num": 5, "l_threshold": 1, "l_lambda": 0.7, "sigmoid_param": 0.2},
    {"class_num": 3, "sigmoid_param": 2, "continous_similarity": True}])  # fmt: skip
def test_hashnet(weights):
    first, second = batch(3, 1.5), batch(4)
    found = fork_losses.hashnet(*first, *second, **weights)
    agree(found, formulas.hashnet(*first, *second, **weights))
    assert found[1].dtype == found[2].dtype == np.float32


def test_pairs_that_nobody_knows_have_no_loss_and_no_gradient():
    codes, labels = batch(5)
    loss, _, gradient = fork_losses.dhn_caffe(codes, np.ones_like(labels), q_gamma=0)
    assert loss == 0 and not gradient.any()
    loss, *gradients = fork_losses.hashnet(codes, np.ones_like(labels), codes, np.ones_like(labels))
    assert loss == 0 and not np.any(gradients)


def test_the_python_layers_authors_mode_is_dhn_caffes_gradient():
    codes, labels = batch(6)
    labels[2] = 1
    pairwise, quantization, gradient = fork_losses.dhn_caffe(codes, labels, q_gamma=0.3)
    expected = pairwise_cross_entropy(codes, labels, "authors"), log_cosh_quantization(codes, "authors")
    assert (pairwise, quantization) == pytest.approx((expected[0][0], expected[1][0]), rel=1e-6)
    np.testing.assert_allclose(gradient, expected[0][1] + 0.3 * expected[1][1], rtol=1e-5, atol=1e-7)


def test_the_python_layers_similar_weight_is_hashnets_class_num():
    codes, labels = batch(6)
    labels[2] = 1
    loss, gradient, _ = fork_losses.hashnet(codes, labels, codes, labels, class_num=5)
    expected = pairwise_cross_entropy(codes, labels, "authors", 5)
    assert loss == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-7)


def test_what_is_printed_and_what_is_back_propagated_disagree_as_released():
    codes, labels = batch(7, 0.5)
    base = fork_losses.dhn_caffe(codes, labels)
    weighted = fork_losses.dhn_caffe(codes, labels, l_lambda=2, q_gamma=2)
    assert weighted[:2] == base[:2]  # weights scale the gradient only
    np.testing.assert_allclose(weighted[2], 2 * base[2], rtol=1e-6)
    with_threshold = fork_losses.dhn_caffe(3 * codes, labels, l_threshold=0)
    assert with_threshold[0] < fork_losses.dhn_caffe(3 * codes, labels)[0]
    np.testing.assert_array_equal(with_threshold[2], fork_losses.dhn_caffe(3 * codes, labels)[2])

    step = 1e-3  # the quantization gradient is K times that of the printed mean
    nudged = np.float64(codes)
    nudged[3, 2] += step
    slope = (fork_losses.hash_caffe_quantization(nudged)[0]
             - fork_losses.hash_caffe_quantization(np.float64(codes))[0]) / step  # fmt: skip
    assert fork_losses.hash_caffe_quantization(codes)[1][3, 2] == pytest.approx(K * slope, rel=0.01)
    assert fork_losses.hash_caffe_quantization(np.zeros((1, 1), np.float32))[1] == pytest.approx(np.tanh(-1))


def test_hashnets_sigmoid_param_scales_the_first_values_only():
    first, second = batch(8, 1e-4), batch(9, 1e-4)  # so small that sigmoid(Theta) does not feel it
    plain = fork_losses.hashnet(*first, *second)
    scaled = fork_losses.hashnet(*first, *second, sigmoid_param=0.2)
    for one, other in zip(plain[1:], scaled[1:], strict=True):
        np.testing.assert_allclose(other.ravel()[:B], 0.2 * one.ravel()[:B], rtol=1e-4)
        np.testing.assert_allclose(other.ravel()[B:], one.ravel()[B:], rtol=1e-4)


def test_large_codes_do_not_overflow():
    codes = np.full((2, 4), 20, np.float32)
    with np.errstate(all="raise", under="ignore"):
        loss, quantization, gradient = fork_losses.dhn_caffe(codes, np.eye(2, dtype=np.float32))
    assert loss == pytest.approx(800) and quantization == pytest.approx(19 - np.log(2))
    assert np.isfinite(gradient).all()
