"""LSTM, RNN and LSTMUnit against loops over timesteps and streams."""

import caffe
import numpy as np
import pytest

FILL = 'weight_filler { type: "uniform" min: -0.6 max: 0.6 } bias_filler { type: "uniform" min: -0.6 max: 0.6 }'
CONT = np.array([[0, 1], [1, 0], [1, 1], [0, 1]], np.float32)  # the second stream goes on from the batch before


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive_lstm(x, cont, blobs, static=None, states=None):
    """(outputs, last h, last c)."""
    weight, bias, *rest = blobs
    outer, inner = rest if static is not None else (None, rest[0])
    dim = inner.shape[1]
    h, c = states or np.zeros((2, x.shape[1], dim))
    outputs = np.zeros((*x.shape[:2], dim))
    h, c = h.astype(float), c.astype(float)
    for t, n in np.ndindex(*x.shape[:2]):
        drive = weight @ x[t, n].ravel() + bias + inner @ (cont[t, n] * h[n])
        if static is not None:
            drive = drive + outer @ static[n].ravel()
        i, f, o, g = drive.reshape(4, dim)
        c[n] = cont[t, n] * sigmoid(f) * c[n] + sigmoid(i) * np.tanh(g)
        h[n] = sigmoid(o) * np.tanh(c[n])
        outputs[t, n] = h[n]
    return outputs, h, c


def naive_rnn(x, cont, blobs, static=None, states=None):
    """(outputs, last h)."""
    weight, bias, *rest = blobs
    outer = rest.pop(0) if static is not None else None
    inner, out, out_bias = rest
    h = (states[0] if states else np.zeros((x.shape[1], len(inner)))).astype(float)
    outputs = np.zeros((*x.shape[:2], len(out)))
    for t, n in np.ndindex(*x.shape[:2]):
        drive = weight @ x[t, n].ravel() + bias + inner @ (cont[t, n] * h[n])
        if static is not None:
            drive = drive + outer @ static[n].ravel()
        h[n] = np.tanh(drive)
        outputs[t, n] = np.tanh(out @ h[n] + out_bias)
    return outputs, h


NAIVE = {"LSTM": naive_lstm, "RNN": naive_rnn}
SHAPES = {
    "LSTM": [(12, 6), (12,), (12, 3)],
    "RNN": [(3, 6), (3,), (3, 3), (3, 3), (3,)],
}


def layer(kind, fields=""):
    return f'type: "{kind}" recurrent_param {{ num_output: 3 {FILL} {fields} }}'


@pytest.mark.parametrize("kind", NAIVE)
@pytest.mark.parametrize("with_static", [False, True])
def test_values_and_gradient(one, normal, kind, with_static):
    x, static = normal(4, 2, 3, 2), normal(2, 5)
    it = one(layer(kind), x, CONT, *([static] * with_static))
    shapes = SHAPES[kind]
    assert [blob.shape for blob in it.blobs] == (
        [*shapes[:2], (shapes[0][0], 5), *shapes[2:]] if with_static else shapes
    )
    blobs = [blob.data for blob in it.blobs]
    given = (static,) if with_static else ()
    outputs, *states = NAIVE[kind](x, CONT, blobs, *given)
    np.testing.assert_allclose(it.forward(), outputs, rtol=1e-4, atol=1e-5)
    # the next batch goes on from the last states
    again, *_ = NAIVE[kind](x, CONT, blobs, *(given or (None,)), states)
    np.testing.assert_allclose(it.forward(), again, rtol=1e-4, atol=1e-5)
    assert np.abs(again[:, 0] - outputs[:, 0]).max() < 1e-6 < np.abs(again[0, 1] - outputs[0, 1]).max()
    it.check_gradient()


@pytest.mark.parametrize("kind, states", [("LSTM", 2), ("RNN", 1)])
@pytest.mark.parametrize("with_static", [False, True])
def test_exposed_states(one, normal, kind, states, with_static):
    x, static, given = normal(4, 2, 6), normal(2, 4), [normal(1, 2, 3) for _ in range(states)]
    arrays = [x, CONT, *([static] * with_static), *given]
    it = one(layer(kind, "expose_hidden: true"), *arrays, tops=1 + states)
    expected = NAIVE[kind](
        x, CONT, [blob.data for blob in it.blobs], static if with_static else None, [one[0] for one in given]
    )
    for _ in range(2):  # each batch begins with the states given
        outputs, *last = it.forward(record=True)
        np.testing.assert_allclose(outputs, expected[0], rtol=1e-4, atol=1e-5)
        for found, state in zip(last, expected[1:], strict=True):
            np.testing.assert_allclose(found, state[None], rtol=1e-4, atol=1e-5)
    nothing = np.zeros(outputs.shape)
    for blob in it.bottom[2 + with_static :]:
        blob.diff[...] = 7
    diffs = it.backward(nothing, *(np.ones(state.shape) for state in last))
    assert not diffs[0].any()  # exposed states' diffs are not read
    assert all((diff == 7).all() for diff in diffs[2 + with_static :])  # nor written


def test_the_number_of_streams_may_change(one, normal):
    it = one(layer("LSTM"), normal(2, 3, 4), np.zeros((2, 3)))
    it.forward()
    it.arrays = [normal(2, 1, 4), np.zeros((2, 1), np.float32)]
    outputs, *_ = naive_lstm(*it.arrays, [blob.data for blob in it.blobs])
    np.testing.assert_allclose(it.forward(), outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind, units", [("LSTM", ["unit", "unit"]), ("RNN", ["h_neuron", "o_neuron"])])
def test_debug_info_shows_each_step(one, normal, logged, kind, units):
    x = normal(4, 2, 6)
    it = one(layer(kind, "debug_info: true"), x, CONT)
    outputs, *states = NAIVE[kind](x[:1], CONT[:1], [blob.data for blob in it.blobs])
    values = [states[1], states[0]] if kind == "LSTM" else [states[0], outputs]
    logged.clear()
    it.forward()
    lines = [record.getMessage() for record in logged if "[Forward]" in record.getMessage()]
    assert len(lines) == 8
    for line, unit, top, value in zip(lines, units, "ch" if kind == "LSTM" else "ho", values, strict=False):
        start, _, shown = line.rpartition(" ")
        assert start == f"    [Forward] Layer it_{unit}_1, top blob {top}_1 data:"
        assert float(shown) == pytest.approx(np.abs(value).mean(), rel=1e-4)


@pytest.mark.parametrize("cont", [[[1, 0]], [[0, 0]], [[1, 0.5]]])
def test_lstm_unit(one, normal, cont):
    cell, gates = normal(1, 2, 3), normal(1, 2, 12)
    it = one('type: "LSTMUnit"', cell, gates, cont, tops=2)
    i, f, o, g = (gates[..., 3 * k : 3 * k + 3].astype(float) for k in range(4))
    expected = np.reshape(cont, (1, 2, 1)) * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    found = it.forward()
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], sigmoid(o) * np.tanh(expected), rtol=1e-5, atol=1e-6)
    it.check_gradient()


def test_lstm_learns_to_remember(tmp_path):
    """The last output says which of two signals came first, 5 steps before."""
    (tmp_path / "net.prototxt").write_text(
        """
        layer { name: "in" type: "Input" top: "x" top: "cont" top: "label"
          input_param { shape { dim: 6 dim: 8 dim: 2 } shape { dim: 6 dim: 8 } shape { dim: 8 } } }
        layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
          recurrent_param { num_output: 6 weight_filler { type: "xavier" } } }
        layer { name: "cut" type: "Slice" bottom: "h" top: "before" top: "last" slice_param { axis: 0 slice_point: 5 } }
        layer { name: "drop" type: "Silence" bottom: "before" }
        layer { name: "flat" type: "Reshape" bottom: "last" top: "flat" reshape_param { shape { dim: 8 dim: -1 } } }
        layer { name: "score" type: "InnerProduct" bottom: "flat" top: "score"
          inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
        """
    )
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.05 lr_policy: "fixed" max_iter: 80 type: "Adam" display: 0'
    )
    caffe.set_random_seed(3)
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    labels = np.arange(8) % 2
    solver.net.blobs["x"].data[...] = 0
    solver.net.blobs["x"].data[0, np.arange(8), labels] = 1
    solver.net.blobs["cont"].data[...] = np.arange(6)[:, None] > 0
    solver.net.blobs["label"].data[...] = labels
    solver.step(80)
    assert float(solver.net.blobs["loss"].data) < 0.05


STEPS = [(3, 2, 4), (3, 2)]


@pytest.mark.parametrize(
    "kind, shapes, tops, fields, said",
    [
        ("LSTM", [(3, 2, 4), (3, 2, 1)], 1, "", r"bottom\[1\] must have exactly 2 axes"),
        ("LSTM", [(3, 2, 4), (2, 2)], 1, "", r"bottom\[1\] must have bottom\[0\]'s timesteps and streams"),
        ("LSTM", [(3,), (3, 2)], 1, "", r"bottom\[0\] must have at least 2 axes"),
        ("LSTM", [(3, 2), (3, 2)], 1, "", "axis 2 out of range"),
        ("LSTM", [*STEPS, (3, 4)], 1, "", "the static input must have bottom.0.'s streams as first axis"),
        ("LSTM", [*STEPS, (2, 4), (2, 4)], 1, "", "LSTM Layer takes at most 3 bottom"),
        ("LSTM", STEPS, 3, "expose_hidden: true", "LSTM Layer takes at least 4 bottom"),
        ("RNN", [*STEPS, (1, 2, 3)], 1, "expose_hidden: true", "RNN Layer produces 2 top"),
        ("RNN", [*STEPS, (1, 2, 4)], 2, "expose_hidden: true", r"blobs_\[0\]: 1 2 3 \(6\) vs. bottom\[2\]: 1 2 4"),
    ],
)  # fmt: skip
def test_refusals(one, kind, shapes, tops, fields, said):
    with pytest.raises(ValueError, match=said):
        one(layer(kind, fields), *(np.zeros(shape) for shape in shapes), tops=tops)


def test_needs_num_output(one):
    with pytest.raises(ValueError, match="num_output must be positive; found 0"):
        one('type: "RNN"', *(np.zeros(shape) for shape in STEPS))


def test_refuses_another_number_of_timesteps(one):
    it = one(layer("LSTM"), np.zeros((3, 2, 4)), np.zeros((3, 2)))
    it.arrays = [np.zeros((2, 2, 4), np.float32), np.zeros((2, 2), np.float32)]
    with pytest.raises(ValueError, match="input number of timesteps changed: expected 3, found 2 2 4"):
        it.forward()


def test_cont_has_no_gradient(one):
    it = one(layer("RNN"), np.zeros((3, 2, 4)), np.zeros((3, 2)))
    it.forward()
    with pytest.raises(ValueError, match="cannot backpropagate to bottom 1"):
        it.layer.backward(it.top, [True, True], it.bottom)
