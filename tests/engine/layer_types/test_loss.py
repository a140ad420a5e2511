"""Softmax, SoftmaxWithLoss, SigmoidCrossEntropyLoss, EuclideanLoss, Accuracy."""

import math

import numpy as np
import pytest


def probabilities(x, axis):
    e = np.exp(x.astype(float) - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("in_place", [False, True])
def test_softmax(one, normal, axis, in_place):
    x = 3 * normal(2, 4, 3)
    it = one(f'type: "Softmax" softmax_param {{ axis: {axis} }}', x, in_place=in_place)
    np.testing.assert_allclose(it.forward(), probabilities(x, axis), rtol=1e-5)
    it.check_gradient()


def test_softmax_of_large_values(one):
    np.testing.assert_array_equal(one('type: "Softmax"', [[1e30, -1e30]]).forward(), [[1, 0]])


def predictions(shape, axis):
    """(where one prediction stands, with `:` for the classes; where its label stands)."""
    rest = shape[:axis] + shape[axis + 1 :]
    for at in np.ndindex(*rest):
        yield (*at[:axis], slice(None), *at[axis:]), at


DIVISORS = {  # by mode: predictions, counted ones, batch
    "normalization: FULL": lambda every, valid, batch: every,
    "normalization: VALID": lambda every, valid, batch: max(valid, 1),
    "normalization: BATCH_SIZE": lambda every, valid, batch: batch,
    "normalization: NONE": lambda every, valid, batch: 1,
    "normalize: true": lambda every, valid, batch: max(valid, 1),
    "normalize: false": lambda every, valid, batch: batch,
    "normalize: false normalization: FULL": lambda every, valid, batch: every,
}


@pytest.mark.parametrize("ignore", [None, 2, -1])
@pytest.mark.parametrize("mode", ["", *DIVISORS])
@pytest.mark.parametrize("shape, axis", [((4, 3), 1), ((3, 3, 2, 2), 1), ((2, 2, 3), -1)])
def test_softmax_loss(one, normal, shape, axis, mode, ignore):
    x, axis = normal(*shape), axis % len(shape)
    labels = np.random.RandomState(1).randint(0, 3, shape[:axis] + shape[axis + 1 :])
    if ignore == -1:
        labels[0] = -1
    fields = mode + ("" if ignore is None else f" ignore_label: {ignore}")
    it = one(f'type: "SoftmaxWithLoss" loss_param {{ {fields} }} softmax_param {{ axis: {axis} }}', x, labels, tops=2)
    prob = probabilities(x, axis)
    losses = [-math.log(prob[there][labels[at]]) for there, at in predictions(shape, axis) if labels[at] != ignore]
    batch = math.prod(shape[:axis])
    divisor = DIVISORS[mode or "normalization: VALID"](labels.size, len(losses), batch)
    loss, second = it.forward()
    np.testing.assert_allclose(loss, sum(losses) / divisor, rtol=1e-5)
    np.testing.assert_allclose(second, prob, rtol=1e-5)
    it.check_gradient()


def test_softmax_loss_with_every_label_ignored(one, normal):
    it = one('type: "SoftmaxWithLoss" loss_param { ignore_label: 7 }', normal(2, 3), [7, 7])
    assert it.forward(record=True) == 0
    assert not it.backward(2)[0].any()


def test_softmax_loss_counts_no_probability_below_the_least_float(one):
    """The loss is clamped; the gradient is p - 1 all the same."""
    it = one('type: "SoftmaxWithLoss"', [[0.0, 1000.0]], [0])
    np.testing.assert_allclose(it.forward(record=True), -math.log(np.finfo(np.float32).tiny), rtol=1e-6)
    np.testing.assert_array_equal(it.backward(2)[0], [[-2, 2]])


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "Accuracy"])
@pytest.mark.parametrize("label, ignore", [(3, None), (-1, None), (-1, 7), (math.nan, None)])
def test_a_label_that_is_no_class_is_refused(one, normal, kind, label, ignore):
    fields = "" if ignore is None else f"ignore_label: {ignore}"
    param = "loss_param" if kind == "SoftmaxWithLoss" else "accuracy_param"
    it = one(f'type: "{kind}" {param} {{ {fields} }}', normal(2, 3, 2), [[0, 1], [2, label]])
    with pytest.raises(ValueError, match=f"the label of item 1, position 1 .* expected 0 to 2 .* found {label:g};"):
        it.forward()


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "Accuracy"])
def test_one_label_for_each_prediction(one, normal, kind):
    with pytest.raises(ValueError, match=r"Number of labels must match .*: expected 4 .* 2 3 2 \(12\), found 2 \(2\)"):
        one(f'type: "{kind}"', normal(2, 3, 2), [0, 1])


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "EuclideanLoss"])
def test_losses_refuse_two_batch_sizes(one, normal, kind):
    with pytest.raises(ValueError, match=r"data and label should have the same first dimension.*2 3 .* and 3 3 "):
        one(f'type: "{kind}"', normal(2, 3), normal(3, 3))


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss"])
def test_labels_get_no_gradient(one, normal, kind):
    it = one(f'type: "{kind}"', normal(2, 1), [0, 0] if kind == "SoftmaxWithLoss" else [[0], [0]])
    it.forward(record=True)
    with pytest.raises(ValueError, match=f"{kind} Layer 'it' cannot backpropagate to label inputs"):
        it.layer.backward(it.top, [True, True], it.bottom)


@pytest.mark.parametrize("ignore", [None, -1])
@pytest.mark.parametrize("mode", ["", *DIVISORS])
def test_sigmoid_cross_entropy_loss(one, normal, mode, ignore):
    x = 2 * normal(3, 4)
    target = np.random.RandomState(1).randint(0, 2, x.shape).astype(float)
    target[0, 0] = 0.25
    if ignore is not None:
        target[1, 1:3] = ignore
    fields = mode + ("" if ignore is None else f" ignore_label: {ignore}")
    it = one(f'type: "SigmoidCrossEntropyLoss" loss_param {{ {fields} }}', x, target)
    losses = []
    for value, t in zip(x.ravel().astype(float), target.ravel(), strict=True):
        if ignore is None or int(t) != ignore:
            p = 1 / (1 + math.exp(-value))
            losses.append(-t * math.log(p) - (1 - t) * math.log(1 - p))
    divisor = DIVISORS[mode or "normalization: BATCH_SIZE"](x.size, len(losses), 3)
    np.testing.assert_allclose(it.forward(), sum(losses) / divisor, rtol=1e-5)
    it.check_gradient()


def test_sigmoid_cross_entropy_ignores_by_the_whole_part(one):
    it = one(
        'type: "SigmoidCrossEntropyLoss" loss_param { ignore_label: 0 }', [[1, 2], [3, -1]], [[0.25, 1], [-0.5, 0]]
    )
    np.testing.assert_allclose(it.forward(record=True), math.log(1 + math.exp(-2)) / 2, rtol=1e-6)
    np.testing.assert_array_equal(it.backward(2)[0] != 0, [[False, True], [False, False]])


def test_sigmoid_cross_entropy_of_large_scores(one):
    it = one('type: "SigmoidCrossEntropyLoss"', [[1e4, -1e4, 1e4]], [[1, 0, 0]])
    assert it.forward(record=True) == 1e4
    np.testing.assert_array_equal(it.backward(2)[0], [[0, 0, 2]])


def test_sigmoid_cross_entropy_refuses_other_counts(one, normal):
    with pytest.raises(ValueError, match=r"must have the same count; found 2 3 \(6\) and 2 4 \(8\)"):
        one('type: "SigmoidCrossEntropyLoss"', normal(2, 3), normal(2, 4))


@pytest.mark.parametrize("other", [(2, 3, 2), (2, 6)])
def test_euclidean_loss(one, normal, other):
    a, b = normal(2, 3, 2), normal(*other)
    it = one('type: "EuclideanLoss"', a, b)
    expected = sum((float(x) - float(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / 4
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5)
    it.check_gradient()


def test_euclidean_loss_refuses_other_counts(one, normal):
    with pytest.raises(ValueError, match=r"Inputs must have the same dimension; found 2 3 \(6\) and 2 4 \(8\)"):
        one('type: "EuclideanLoss"', normal(2, 3), normal(2, 4))


@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("shape, axis", [((8, 4), 1), ((3, 4, 2), 1), ((3, 2, 4), -1)])
def test_accuracy(one, shape, axis, top_k, ignore):
    random = np.random.RandomState(4)
    x = random.randint(0, 5, shape).astype(float)  # with ties
    axis %= len(shape)
    labels = random.randint(0, 3, shape[:axis] + shape[axis + 1 :])  # class 3 is absent
    fields = f"top_k: {top_k} axis: {axis}" + ("" if ignore is None else f" ignore_label: {ignore}")
    it = one(f'type: "Accuracy" accuracy_param {{ {fields} }}', x, labels, tops=2)
    hits = [[] for _ in range(4)]
    for there, at in predictions(shape, axis):
        if labels[at] != ignore:
            scores = x[there]
            rivals = sum(scores[c] >= scores[labels[at]] for c in range(4)) - 1
            hits[labels[at]].append(rivals < top_k)
    total, by_class = it.forward()
    np.testing.assert_allclose(total, np.mean([hit for each in hits for hit in each]), rtol=1e-6)
    np.testing.assert_allclose(by_class, [np.mean(each) if each else 0 for each in hits], rtol=1e-6)
    alone = one(f'type: "Accuracy" accuracy_param {{ {fields} }}', x, labels)
    assert alone.forward() == total and total.shape == ()


def test_accuracy_with_every_label_ignored_is_0(one, normal):
    assert one('type: "Accuracy" accuracy_param { ignore_label: 2 }', normal(2, 3), [2, 2]).forward() == 0


def test_accuracy_refusals(one, normal):
    with pytest.raises(ValueError, match=r"top_k must be less than .* expected at most 3, found 4"):
        one('type: "Accuracy" accuracy_param { top_k: 4 }', normal(2, 3), [0, 0])
    it = one('type: "Accuracy"', normal(2, 3), [0, 0])
    it.forward()
    with pytest.raises(ValueError, match="Accuracy Layer 'it' cannot backpropagate to bottom 0"):
        it.layer.backward(it.top, [True, False], it.bottom)
