"""HingeLoss and ContrastiveLoss."""

import numpy as np
import pytest


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 2, 2)])
def test_hinge(one, normal, norm, shape):
    x, labels = normal(*shape), np.array([0, 3, 1, 1, 2])
    it = one(f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}', x, labels)
    total = 0.0
    for item, label in zip(x.reshape(5, -1), labels, strict=True):
        for k, score in enumerate(item):
            missing = max(0.0, 1 - score if k == label else 1 + score)
            total += missing**2 if norm == "L2" else missing
    assert it.forward() == pytest.approx(total / 5, rel=1e-5)
    it.check_gradient()


def test_hinge_refusals(one):
    with pytest.raises(ValueError, match="expected one label for each of 2 items"):
        one('type: "HingeLoss"', np.zeros((2, 3)), np.zeros((2, 2)))
    it = one('type: "HingeLoss"', np.zeros((2, 3)), [0, 3])
    with pytest.raises(ValueError, match="label of item 1 is not a class: expected 0 to 2"):
        it.forward()


def naive_contrastive(a, b, similar, margin, legacy):
    total = 0.0
    for x, y, same in zip(a, b, similar, strict=True):
        square = ((x - y) ** 2).sum()
        apart = max(margin - square, 0) if legacy else max(margin - np.sqrt(square), 0) ** 2
        total += square if int(same) else apart
    return total / len(a) / 2


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1)])
def test_contrastive(one, normal, legacy, shape):
    a, b, similar = normal(*shape), normal(*shape), np.array([1, 0, 0, 1, 2, 0.5])
    margin = 14 if legacy else 5
    fields = f"margin: {margin} legacy_version: {str(legacy).lower()}"
    it = one(f'type: "ContrastiveLoss" contrastive_loss_param {{ {fields} }}', a, b, similar)
    expected = naive_contrastive(a.reshape(6, 5), b.reshape(6, 5), similar, margin, legacy)
    assert it.forward() == pytest.approx(expected, rel=1e-5)
    it.check_gradient()


def test_contrastive_of_equal_points_has_no_direction(one):
    it = one('type: "ContrastiveLoss"', np.ones((2, 3)), np.ones((2, 3)), [0, 1])
    assert it.forward(record=True) == 0.25  # half of margin^2, over 2
    assert not any(diff.any() for diff in it.backward(np.float32(1)))


@pytest.mark.parametrize(
    "a, b, similar, said",
    [
        ((2, 3), (2, 4), (2,), "expected bottoms of as many channels"),
        ((2, 3, 1, 2), (2, 3, 1, 2), (2,), "expected a height and width of 1 everywhere"),
        ((2, 3), (2, 3), (2, 2), "expected one similarity a pair"),
        ((2, 3), (2, 3), (3,), "expected one similarity a pair"),
        ((2, 3), (3, 3), (2,), "same first dimension"),
    ],
)
def test_contrastive_refusals(one, a, b, similar, said):
    with pytest.raises(ValueError, match=said):
        one('type: "ContrastiveLoss"', np.zeros(a), np.zeros(b), np.zeros(similar))
