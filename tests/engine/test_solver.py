"""Solvers: learning-rate policies, update rules by hand, loss smoothing, snapshots, resuming, refusals."""

from __future__ import annotations

import math

import caffe
import numpy as np
import pytest
import torch
from caffe.proto import caffe_pb2, text
from caffe.smoothed_loss import SmoothedLoss

NET = """
name: "toy"
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } data_filler { value: 0.5 } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def solver(extra: str = "", kind: str = "SGD", net: str = NET):
    param = text.parse(
        f'base_lr: 0.1 lr_policy: "fixed" max_iter: 100 random_seed: 3 solver_mode: CPU snapshot_after_train: false '
        f'type: "{kind}"',
        caffe_pb2.SolverParameter(),
    )
    text_extra = text.parse(extra, caffe_pb2.SolverParameter())
    param.MergeFrom(text_extra)
    text.parse(net, param.net_param)
    return caffe.get_solver(param)


def gradients(made) -> list[np.ndarray]:
    made.net.clear_param_diffs()
    made.net.forward()
    made.net.backward()
    return [blob.diff.copy() for blob in made.net.params["ip"]]


@pytest.mark.parametrize(
    "text_, rates",
    [
        ('lr_policy: "fixed"', lambda i: 0.1),
        ('lr_policy: "step" gamma: 0.5 stepsize: 3', lambda i: 0.1 * 0.5 ** (i // 3)),
        ('lr_policy: "exp" gamma: 0.9', lambda i: 0.1 * 0.9**i),
        ('lr_policy: "inv" gamma: 0.1 power: 0.75', lambda i: 0.1 * (1 + 0.1 * i) ** -0.75),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: 2 stepvalue: 5', lambda i: 0.1 * 0.1 ** ((i >= 2) + (i >= 5))),
        ('lr_policy: "poly" power: 2', lambda i: 0.1 * (1 - i / 100) ** 2),
        ('lr_policy: "sigmoid" gamma: -1 stepsize: 4', lambda i: 0.1 / (1 + math.exp(i - 4))),
    ],
)
def test_learning_rate_policies(text_, rates):
    made = solver(text_)
    for i in range(8):
        assert made.lr == pytest.approx(rates(i), rel=1e-5)
        made.step(1)


@pytest.mark.parametrize(
    "extra, words",
    [
        ('lr_policy: "often"', "Unknown learning rate policy: 'often'"),
        ('lr_policy: "step" gamma: 0.5', "lr_policy 'step' needs stepsize"),
        ('lr_policy: "step" gamma: 0.5 stepsize: 0', "stepsize must be positive"),
        ('lr_policy: "multistep" gamma: 0.5', "needs stepvalue"),
    ],
)
def test_policies_that_lack_something(extra, words):
    with pytest.raises(ValueError, match=words):
        solver(extra).step(1)


@pytest.mark.parametrize(
    "kind, extra, words",
    [
        ("AdaGrad", "momentum: 0.9", "Momentum cannot be used with AdaGrad"),
        ("RMSProp", "momentum: 0.9", "Momentum cannot be used with RMSProp"),
        ("RMSProp", "rms_decay: 1.5", "rms_decay should lie between 0 and 1"),
        ("SGD", 'regularization_type: "L3"', "Unknown regularization type: L3"),
        ("SGD", "average_loss: 0", "average_loss"),
        ("SGD", "iter_size: 0", "iter_size"),
        ("SGD", "snapshot: 5", "snapshot is specified but snapshot_prefix is not"),
        ("SGD", 'net: "a.prototxt"', "more than one of these fields"),
        ("SGD", "test_iter: 3", "test_interval must be positive"),
        ("SGD", "test_iter: 3 test_interval: 1 test_state {} test_state {}", "once per test net: expected 1, found 2"),
        ("Fancy", "", "Unknown solver type: Fancy"),
    ],
)
def test_refusals(kind, extra, words):
    with pytest.raises(ValueError, match=words):
        solver(extra, kind)


def test_a_solver_without_a_net():
    with pytest.raises(ValueError, match="must specify a train net"):
        caffe.SGDSolver(caffe_pb2.SolverParameter())


def test_refusals_name_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, words in (
        ('net: "no.prototxt" regularization_type: "L3"', "Unknown regularization type: L3"),
        ('net: "no.prototxt" type: "Fancy"', "Unknown solver type: Fancy"),
        ('net: "no.prototxt"', "Cannot read no.prototxt"),
    ):
        (tmp_path / "s.prototxt").write_text(line)
        with pytest.raises((ValueError, FileNotFoundError), match=f"^s.prototxt: {words}"):
            caffe.get_solver("s.prototxt")


def test_a_path_that_none_can_be_is_told(tmp_path):
    for field in ("net", "train_net", "test_net", "snapshot_prefix", "weights"):
        (tmp_path / "s.prototxt").write_text(f'{field}: "a\\000b" base_lr: 1 lr_policy: "fixed"')
        with pytest.raises(ValueError, match=r"s.prototxt: 'a\\x00b': expected the path of a file, found a zero"):
            caffe.get_solver(str(tmp_path / "s.prototxt"))
    (tmp_path / "s.solverstate").write_bytes(caffe_pb2.SolverState(iter=1, learned_net="a\0b").SerializeToString())
    made = caffe.get_solver(
        caffe_pb2.SolverParameter(net_param={"layer": [{"name": "x", "type": "Input", "top": ["x"]}]})
    )
    with pytest.raises(ValueError, match=r"s.solverstate: learned_net: 'a\\x00b': expected the path of a file"):
        made.restore(str(tmp_path / "s.solverstate"))
    (tmp_path / "s.solverstate").write_bytes(caffe_pb2.SolverState(iter=1, learned_net="a" * 300).SerializeToString())
    with pytest.raises(FileNotFoundError, match=r"s.solverstate was written with the weights aaa"):
        made.restore(str(tmp_path / "s.solverstate"))


def test_snapshot_prefix_is_checked_before_training(tmp_path):
    with pytest.raises(PermissionError, match="Cannot write to snapshot prefix"):
        solver(f'snapshot: 5 snapshot_prefix: "{tmp_path}/missing/x"')
    (tmp_path / "s.prototxt").write_text(f'net: "n.prototxt" snapshot_prefix: "{"1" * 300}"')
    with pytest.raises(
        PermissionError, match=r"s\.prototxt: Cannot write to snapshot prefix '1+'.*: File name too long"
    ):
        caffe.get_solver(str(tmp_path / "s.prototxt"))


def test_sgd_with_momentum_decay_and_multipliers():
    made = solver("momentum: 0.9 weight_decay: 0.01")
    weight, bias = (blob.data.copy() for blob in made.net.params["ip"])
    v = [np.zeros_like(weight), np.zeros_like(bias)]
    for _ in range(3):
        g = gradients(made)
        v[0] = 0.9 * v[0] + 0.1 * (g[0] + 0.01 * weight)
        v[1] = 0.9 * v[1] + 0.2 * g[1]
        weight, bias = weight - v[0], bias - v[1]
        made.step(1)
        np.testing.assert_allclose(made.net.params["ip"][0].data, weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made.net.params["ip"][1].data, bias, rtol=1e-5, atol=1e-6)


def test_l1_and_clipping():
    made = solver('weight_decay: 0.5 regularization_type: "L1" clip_gradients: 0.1')
    weight = made.net.params["ip"][0].data.copy()
    g = gradients(made)
    scale = 0.1 / np.sqrt(sum((one**2).sum() for one in g))
    made.step(1)
    expected = weight - 0.1 * (g[0] * scale + 0.5 * np.sign(weight))
    np.testing.assert_allclose(made.net.params["ip"][0].data, expected, rtol=1e-5, atol=1e-6)


def test_iter_size_averages():
    one, four = solver(), solver("iter_size: 4")
    np.testing.assert_array_equal(one.net.params["ip"][0].data, four.net.params["ip"][0].data)
    one.step(1)
    four.step(1)
    np.testing.assert_allclose(one.net.params["ip"][0].data, four.net.params["ip"][0].data, rtol=1e-6)


def step_by_hand(kind, g, h, t):
    if kind == "Nesterov":
        old, h[0] = h[0], 0.9 * h[0] + 0.1 * g
        return 1.9 * h[0] - 0.9 * old
    if kind == "AdaGrad":
        h[0] = h[0] + g * g
        return 0.1 * g / (np.sqrt(h[0]) + 1e-3)
    if kind == "RMSProp":
        h[0] = 0.8 * h[0] + 0.2 * g * g
        return 0.1 * g / (np.sqrt(h[0]) + 1e-3)
    if kind == "AdaDelta":
        h[0] = 0.9 * h[0] + 0.1 * g * g
        step = g * np.sqrt((h[1] + 1e-3) / (h[0] + 1e-3))
        h[1] = 0.9 * h[1] + 0.1 * step * step
        return 0.1 * step
    h[0] = 0.9 * h[0] + 0.1 * g
    h[1] = 0.99 * h[1] + 0.01 * g * g
    return 0.1 * np.sqrt(1 - 0.99**t) / (1 - 0.9**t) * h[0] / (np.sqrt(h[1]) + 1e-3)


@pytest.mark.parametrize(
    "kind, extra",
    [
        ("Nesterov", "momentum: 0.9"),
        ("AdaGrad", "delta: 1e-3"),
        ("RMSProp", "delta: 1e-3 rms_decay: 0.8"),
        ("AdaDelta", "delta: 1e-3 momentum: 0.9"),
        ("Adam", "delta: 1e-3 momentum: 0.9 momentum2: 0.99"),
    ],
)
def test_update_rules_by_hand(kind, extra):
    made = solver(extra, kind)
    weight = made.net.params["ip"][0].data.astype(np.float64)
    h = [np.zeros_like(weight), np.zeros_like(weight)]
    for t in range(1, 4):
        weight = weight - step_by_hand(kind, gradients(made)[0].astype(np.float64), h, t)
        made.step(1)
        np.testing.assert_allclose(made.net.params["ip"][0].data, weight, rtol=1e-4, atol=1e-5)


def test_smoothed_loss_is_the_mean_of_the_window():
    smoothed = SmoothedLoss(3)
    for losses in [[1], [2, 4], [3], [7], [6, 8, 10]]:
        smoothed.add([torch.tensor(float(loss)) for loss in losses])
        if losses[0] == 2:
            assert smoothed.read() == pytest.approx((1 + 3) / 2)
    assert smoothed.read() == smoothed.read() == pytest.approx((3 + 7 + 8) / 3)


def test_callbacks_run_around_the_gradients():
    made, seen = solver(), []
    made.add_callback(lambda: seen.append("start"), lambda: seen.append("ready"))
    made.step(2)
    assert seen == ["start", "ready"] * 2


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("kind, extra", [("SGD", "momentum: 0.9"), ("Adam", "momentum: 0.9")])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, monkeypatch, form, kind, extra):
    extra += f' snapshot_format: {form} snapshot_prefix: "{tmp_path}/run" lr_policy: "step" stepsize: 2 gamma: 0.5'
    whole, first = solver(extra, kind), solver(extra, kind)
    whole.step(6)
    first.step(3)
    first.snapshot()
    state = next(tmp_path.glob("run_iter_3.solverstate*"))
    second = solver(extra + " random_seed: 99", kind)
    second.restore(state)
    assert second.iter == 3
    second.step(3)
    for mine, theirs in zip(whole.net.params["ip"], second.net.params["ip"], strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in tmp_path.glob("run_iter_3.*"):
        path.rename(moved / path.name)
    solver(extra, kind).restore(moved / state.name)


def test_restoring_what_does_not_fit(tmp_path):
    prefix = f'snapshot_prefix: "{tmp_path}/run"'
    made = solver(prefix)
    made.snapshot()
    state, model = tmp_path / "run_iter_0.solverstate", tmp_path / "run_iter_0.caffemodel"
    with pytest.raises(ValueError, match="Incorrect length of history blobs: expected 4"):
        solver(prefix, "Adam").restore(state)
    with pytest.raises(ValueError, match="history blob 0 has shape"):
        solver(prefix, net=NET.replace("dim: 3", "dim: 5")).restore(state)
    with pytest.raises(ValueError):
        made.restore(model)
    with pytest.raises(FileNotFoundError):
        made.restore(tmp_path / "nowhere.solverstate")
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(ValueError, match="truncated"):
        made.restore(state)
    made.snapshot()
    model.unlink()
    with pytest.raises(FileNotFoundError, match="put the caffemodel back"):
        made.restore(state)


def test_solve_stops_at_max_iter_and_snapshots_once(tmp_path):
    made = solver(f'max_iter: 4 snapshot: 2 snapshot_prefix: "{tmp_path}/s" snapshot_after_train: true')
    made.solve()
    assert made.iter == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"s_iter_{n}.{kind}" for n in (2, 4) for kind in ("caffemodel", "solverstate")
    ]


def test_test_nets_use_the_trained_parameters():
    made = solver("test_iter: 2 test_interval: 5")
    made.step(3)
    scores = made.test(0)
    assert scores["loss"][0] == pytest.approx(float(made.net.forward()["loss"]), rel=1e-5)
    assert np.shares_memory(made.test_nets[0].params["ip"][0].data, made.net.params["ip"][0].data)


EXTREMES = {  # a solver's fields, an iteration, and the rate there as C computes it
    'lr_policy: "exp" gamma: 3e38': (9, math.inf),
    'lr_policy: "sigmoid" gamma: -1e30 stepsize: 1': (2, 0),
    'lr_policy: "inv" gamma: 0.5 power: -1e9': (3, math.inf),
    'lr_policy: "poly" power: 0.5 max_iter: 2': (3, math.nan),
}


@pytest.mark.parametrize("fields", EXTREMES)
def test_a_rate_beyond_the_numbers_is_what_c_makes_of_it(fields):
    made = solver(fields)
    made.iter, expected = EXTREMES[fields]
    np.testing.assert_equal(made.lr, expected)


@pytest.mark.parametrize("moments", ["momentum: 1", "momentum: 0.9 momentum2: 2", "momentum: 1e30 momentum2: 1e30"])
def test_moments_from_1_on_give_no_numbers_and_a_warning(moments, capfd):
    made = solver(f"{moments} display: 1", "Adam")
    made.step(40)
    assert "the loss is nan" in capfd.readouterr().err


def test_a_test_of_no_batch_has_no_outputs(capfd):
    """As in BVLC Caffe, whose loss of it is not a number."""
    made = solver("test_iter: 0 test_interval: 5 test_compute_loss: true")
    assert made.test(0) == {}
    assert "Test loss: nan" in capfd.readouterr().err


def test_an_output_that_changes_its_size_within_a_test_is_refused():
    made = solver("test_iter: 2 test_interval: 5")
    net, forward = made.test_nets[0], made.test_nets[0]._forward_loss

    def smaller(*ends):
        loss = forward(*ends)
        net.blobs["loss"].reshape(1 + len(called))
        called.append(loss)
        return loss

    called = []
    net._forward_loss = smaller
    with pytest.raises(ValueError, match="output loss: expected 1 values as in the batch before, found 2"):
        made.test(0)


def test_stages_choose_the_layers_of_each_net():
    net = NET + 'layer { name: "extra" type: "Silence" bottom: "ip" include { stage: "b" } }'
    made = solver(
        'test_iter: 1 test_iter: 1 test_interval: 5 test_state { stage: "a" } test_state { stage: "b" } '
        'train_state { stage: "b" }',
        net=net,
    )
    assert ["extra" in one._layer_names for one in (made.net, *made.test_nets)] == [True, False, True]


def test_weights_named_in_the_solver(tmp_path):
    first = solver()
    first.net.params["ip"][0].data[...] = 7
    first.net.save(tmp_path / "w.caffemodel")
    assert (solver(f'weights: "{tmp_path}/w.caffemodel"').net.params["ip"][0].data == 7).all()


@pytest.mark.parametrize("path", ["nowhere.caffemodel", "."])
def test_weights_that_cannot_be_read_say_who_names_them(path):
    with pytest.raises(OSError, match=r"^solver, weights: .*expected a binary NetParameter"):
        solver(f'weights: "{path}"')


def test_training_does_not_depend_on_held_arrays():
    """An array that a user keeps makes the net copy instead of taking buffers over; the numbers stay."""
    free, watched = solver("momentum: 0.9"), solver("momentum: 0.9")
    held = [blob.data for blob in watched.net.blobs.values()] + [blob.diff for blob in watched.net.blobs.values()]
    free.step(3)
    watched.step(3)
    np.testing.assert_array_equal(free.net.params["ip"][0].data, watched.net.params["ip"][0].data)
    assert held[2].any()


def test_training_is_the_same_where_host_and_device_memory_are_apart(monkeypatch, tmp_path):
    """As on a GPU: lazy copies between a host array and a device tensor; simulated, so that a CPU can test it."""
    from caffe import synced_memory

    extra = f'momentum: 0.9 test_iter: 1 test_interval: 2 snapshot_prefix: "{tmp_path}/s"'
    shared = solver(extra)
    shared.step(4)
    monkeypatch.setattr(synced_memory, "shares_host_memory", lambda where: False)
    apart = solver(extra)
    held = apart.net.params["ip"][0].data
    apart.step(4)
    np.testing.assert_array_equal(held, shared.net.params["ip"][0].data)
    apart.snapshot()
    again = solver(extra)
    again.restore(tmp_path / "s_iter_4.solverstate")
    again.step(1)
    shared.step(1)
    np.testing.assert_array_equal(again.net.params["ip"][0].data, shared.net.params["ip"][0].data)


def test_an_iteration_copies_nothing_to_the_host(monkeypatch):
    """Where memories are apart, a training iteration without display brings no blob to the host."""
    from caffe import synced_memory

    monkeypatch.setattr(synced_memory, "shares_host_memory", lambda where: False)
    made = solver("momentum: 0.9")
    made.step(1)
    copies = []
    to_host = synced_memory.Memory.to_host
    monkeypatch.setattr(synced_memory.Memory, "to_host", lambda self: copies.append(1) or to_host(self))
    made.step(3)
    assert not copies
    assert made.net.blobs["loss"].data.size and copies


@pytest.mark.parametrize("field", ["base_lr", "momentum", "weight_decay", "gamma", "power", "clip_gradients", "delta"])
@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_refused(field, number):
    with pytest.raises(ValueError, match=f"{field} must be a finite number, found -?(nan|inf)"):
        solver(f"{field}: {number}")


def test_multipliers_that_are_not_finite_are_refused_with_their_layer():
    with pytest.raises(ValueError, match="layer 'ip': lr_mult must be a finite number, found nan"):
        solver(net=NET.replace("lr_mult: 2", "lr_mult: nan"))
    with pytest.raises(ValueError, match="layer 'loss': loss_weight must be a finite number, found inf"):
        solver(net=NET.replace('top: "loss"', 'top: "loss" loss_weight: inf'))


def warnings_in(logged) -> list[str]:
    return [record.getMessage() for record in logged if record.levelname == "WARNING"]


def test_a_loss_that_is_not_finite_is_warned_of_once(logged):
    made = solver("base_lr: 1e30 display: 2")
    made.step(10)
    [warning] = warnings_in(logged)
    where = "the first blob that is not finite is param 0 of layer 'ip' (InnerProduct)"
    assert warning == f"Iteration 2: the loss is nan; {where}"
    assert made.iter == 10, "the training goes on, as BVLC Caffe's does"


def test_the_warning_names_the_first_top_where_the_parameters_are_finite(logged):
    net = (
        NET.replace('bottom: "ip" bottom', 'bottom: "log" bottom')
        + """
        layer { name: "log" type: "Log" bottom: "ip" top: "log" log_param { scale: 0 shift: -1 } }"""
    )
    layers = net.split("layer {")
    made = solver("display: 1", net="layer {".join([*layers[:3], layers[4], layers[3]]))
    made.step(1)
    assert warnings_in(logged) == [
        "Iteration 0: the loss is nan; the first blob that is not finite is 'log' of layer 'log' (Log)"
    ]


def test_a_training_without_display_is_warned_of_at_its_snapshot(logged, tmp_path):
    made = solver(f'base_lr: 1e30 snapshot: 3 snapshot_prefix: "{tmp_path}/toy"')
    made.step(9)
    [warning] = warnings_in(logged)
    assert warning.startswith("Iteration 3: the parameters are not finite, and the snapshot is of no use; the first ")


def test_finite_training_is_not_warned_of(logged, tmp_path):
    made = solver(f'display: 1 snapshot: 2 snapshot_prefix: "{tmp_path}/toy"')
    made.step(4)
    assert warnings_in(logged) == []
