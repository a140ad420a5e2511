"""Parameter, as a top and trained, and Embed."""

import caffe
import numpy as np
import pytest


def test_parameter_is_its_top(one):
    it = one('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }')
    assert not it.forward().any() and it.top[0].shape == (2, 3)
    it.blobs[0].data[...] = 5
    it.top[0].diff[...] = 2
    assert (it.forward() == 5).all() and (it.blobs[0].diff == 2).all()


def test_parameter_learns(tmp_path):
    """Gradient descent on the squared distance to a fixed blob brings it there."""
    (tmp_path / "net.prototxt").write_text(
        """
        layer { name: "it" type: "Parameter" top: "it" parameter_param { shape { dim: 1 dim: 3 } } }
        layer { name: "aim" type: "DummyData" top: "aim"
          dummy_data_param { shape { dim: 1 dim: 3 } data_filler { value: 4 } } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "it" bottom: "aim" top: "loss" }
        """
    )
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.5 lr_policy: "fixed" max_iter: 20 display: 0'
    )
    solver = caffe.SGDSolver(str(tmp_path / "solver.prototxt"))
    solver.step(20)
    np.testing.assert_allclose(solver.net.params["it"][0].data, [[4, 4, 4]], rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_embed(one, normal, bias):
    filled = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    it = one(
        f'type: "Embed" embed_param {{ num_output: 3 input_dim: 4 bias_term: {str(bias).lower()} {filled} }}',
        [[0.0, 3.0, 3.0], [1.0, 1.9, 0.0]],  # fractions are cut off
    )
    assert [blob.shape for blob in it.blobs] == [(4, 3), (3,)][: 1 + bias]
    expected = it.blobs[0].data[[[0, 3, 3], [1, 1, 0]]] + (it.blobs[1].data if bias else 0)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-6)
    it.check_gradient()


@pytest.mark.parametrize("index", [-1, 4])
def test_embed_refuses_what_is_no_row(one, index):
    it = one('type: "Embed" embed_param { num_output: 3 input_dim: 4 }', [0.0, index])
    with pytest.raises(ValueError, match=f"value 1 of the bottom is no row .* expected 0 to 3 .*, found {index}"):
        it.forward()


def test_embed_refusals(one):
    for fields, said in (
        ("input_dim: 2", "num_output must be positive"),
        ("num_output: 2", "input_dim must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            one(f'type: "Embed" embed_param {{ {fields} }}', [0.0])
    with pytest.raises(ValueError, match=r"expected blobs of shapes \[\(2, 1\), \(1,\)\], found \[\(1, 1\)\]"):
        one('type: "Embed" embed_param { num_output: 1 input_dim: 2 } blobs { shape { dim: 1 dim: 1 } data: 1 }', [0.0])
    it = one('type: "Embed" embed_param { num_output: 1 input_dim: 2 }', [0.0])
    with pytest.raises(ValueError, match="cannot backpropagate to bottom 0"):
        it.layer.backward(it.top, [True], it.bottom)
