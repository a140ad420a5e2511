"""MultinomialLogisticLoss and InfogainLoss."""

import numpy as np
import pytest
from caffe.proto import caffe_pb2


def softmax(x, axis):
    e = np.exp(x.astype(float) - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_multinomial(one, normal):
    x, labels = softmax(normal(4, 2, 3), (1, 2)), np.array([0, 5, 3, 3])
    it = one('type: "MultinomialLogisticLoss"', x, labels)
    expected = -np.mean([np.log(item.ravel()[label]) for item, label in zip(x, labels, strict=True)])
    assert it.forward() == pytest.approx(expected, rel=1e-5)
    it.check_gradient()


def test_multinomial_of_zero_probability(one):
    it = one('type: "MultinomialLogisticLoss"', [[0.0, 1.0]], [0])
    assert it.forward(record=True) == pytest.approx(-np.log(1e-20))
    np.testing.assert_allclose(it.backward(np.float32(2))[0], [[-2e20, 0]])


@pytest.mark.parametrize(
    "fields, divisor",
    [("", 9), ("normalization: FULL", 12), ("normalization: BATCH_SIZE", 2), ("normalization: NONE", 1)],
)
def test_infogain(one, normal, fields, divisor):
    """Two items of 3 classes at 6 places; 3 of the 12 predictions are ignored."""
    x, gains = normal(2, 3, 6), np.abs(normal(3, 3))
    labels = np.array([[0, 1, 2, 7, 1, 0], [7, 7, 2, 2, 1, 0]])
    it = one(f'type: "InfogainLoss" loss_param {{ ignore_label: 7 {fields} }}', x, labels, gains, tops=2)
    prob, total = softmax(x, 1), 0.0
    for n, place in np.ndindex(2, 6):
        if labels[n, place] != 7:
            total -= gains[labels[n, place]] @ np.log(prob[n, :, place])
    loss, shown = it.forward()
    assert loss == pytest.approx(total / divisor, rel=1e-5)
    np.testing.assert_allclose(shown, prob, rtol=1e-5)
    it.check_gradient()


def test_infogain_with_the_unit_matrix_is_softmax_loss(one, normal, tmp_path):
    x, labels = normal(5, 4), np.array([0, 1, 2, 3, 1])
    matrix = caffe_pb2.BlobProto(num=1, channels=1, height=4, width=4, data=np.eye(4).ravel())
    (tmp_path / "h.binaryproto").write_bytes(matrix.SerializeToString())
    it = one(f'type: "InfogainLoss" infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}', x, labels)
    assert it.forward() == pytest.approx(float(one('type: "SoftmaxWithLoss"', x, labels).forward()))
    it.check_gradient()


def test_infogain_axis(one, normal):
    x, labels, gains = normal(2, 3, 4), np.array([[0, 3, 1], [2, 2, 0]]), np.abs(normal(4, 4))
    it = one('type: "InfogainLoss" infogain_loss_param { axis: -1 }', x, labels, gains)
    expected = -(gains[labels] * np.log(softmax(x, 2))).sum() / 6
    assert it.forward() == pytest.approx(expected, rel=1e-5)
    it.check_gradient()


@pytest.mark.parametrize(
    "fields, shapes, said",
    [
        ("", [(2, 3), (2,)], "Infogain matrix source must be specified"),
        ("loss_param { normalize: true }", [(2, 3), (2,), (3, 3)], "normalize is deprecated"),
        ("", [(2, 3), (2,), (2, 2)], r"H must be 3x3.*found 2 2 \(4\)"),
        ("", [(2, 3), (2, 2), (3, 3)], "Number of labels must match number of predictions"),
    ],
)
def test_infogain_refusals(one, fields, shapes, said):
    with pytest.raises(ValueError, match=said):
        one(f'type: "InfogainLoss" {fields}', *(np.zeros(shape) for shape in shapes))


def test_infogain_has_no_gradient_for_its_matrix(one):
    it = one('type: "InfogainLoss"', np.zeros((2, 3)), [0, 1], np.ones((3, 3)))
    it.forward()
    with pytest.raises(ValueError, match="cannot backpropagate to label inputs"):
        it.layer.backward(it.top, [True, False, True], it.bottom)


def test_multinomial_takes_one_label_an_item(one):
    with pytest.raises(ValueError, match=r"expected one label an item, found 2 2 \(4\)"):
        one('type: "MultinomialLogisticLoss"', np.zeros((2, 3)), np.zeros((2, 2)))
