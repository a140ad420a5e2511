"""Nets: wiring, state rules, splits, sharing, who needs backward, running in parts, weights in and out."""

from __future__ import annotations

import caffe
import caffe.weight_files
import numpy as np
import pytest
from caffe.net_param import filter_net, insert_splits
from caffe.proto import caffe_pb2, text

IP = (
    'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more} '
    'inner_product_param {{ num_output: {out} weight_filler {{ type: "xavier" }} }} }}\n'
)
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }\n'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }\n'
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'


def ip(name="ip", bottom="data", out=3, more=""):
    return IP.format(name=name, bottom=bottom, out=out, more=more)


def message(source: str) -> caffe_pb2.NetParameter:
    return text.parse(source, caffe_pb2.NetParameter())


def make(source: str, phase=caffe.TRAIN, **state) -> caffe.Net:
    return caffe.Net(message(source), phase, **state)


@pytest.fixture
def net():
    net = make('name: "small"' + DATA + LABEL + ip() + LOSS)
    rng = np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=(4, 3))
    net.blobs["label"].data[...] = [0, 1, 2, 1]
    return net


# -- wiring


@pytest.mark.parametrize(
    "source, words",
    [
        (DATA + ip(bottom="nowhere"), r"Unknown bottom blob 'nowhere' \(layer 'ip', bottom index 0\)"),
        (DATA + DATA, "Top blob 'data' produced by multiple sources"),
        (DATA + 'layer { name: "x" type: "Nonsense" bottom: "data" top: "x" }', "Unknown layer type: Nonsense"),
        (DATA + 'layer { name: "x" type: "ReLU" top: "x" }', "'x' .ReLU.: ReLU Layer takes 1 bottom"),
        (DATA + ip(more="propagate_down: true propagate_down: true"), "expected 1, found 2"),
        (DATA + ip(more="param {} param {} param {}"), "Too many params specified for layer ip"),
        (DATA + ip(more="loss_weight: 1 loss_weight: 1"), "loss_weight must be unspecified or specified once"),
        (DATA + ip(more="include { phase: TRAIN } exclude { phase: TEST }"), "not both"),
        (
            DATA + ip("a", more='param { name: "w" }') + ip("b", out=5, more='param { name: "w" }'),
            "Cannot share param 'w' owned by layer 'a' with layer 'b'; shape mismatch",
        ),
        (
            DATA + ip("a", more='param { name: "w" lr_mult: 1 }') + ip("b", more='param { name: "w" lr_mult: 2 }'),
            "mismatched lr_mult: 1 in layer 'a', 2 in layer 'b'",
        ),
    ],
)
def test_an_unsound_net_is_refused_with_its_layer(source, words):
    with pytest.raises(ValueError, match=words):
        make(source)


def test_an_axis_out_of_range_names_the_layer():
    with pytest.raises(ValueError, match=r"layer 's' \(Softmax\): axis 5 out of range for 2-D Blob with shape 4 3"):
        make(DATA + 'layer { name: "s" type: "Softmax" bottom: "data" top: "s" softmax_param { axis: 5 } }')


def test_a_layer_gives_a_gradient_it_was_not_told_of_before_forward(net):
    net.forward()
    net.backward()
    assert not net.blobs["data"].diff.any()
    net.layers[2].backward([net.blobs["ip"]], [True], [net.blobs["data"]])
    np.testing.assert_allclose(
        net.blobs["data"].diff, net.blobs["ip"].diff @ net.params["ip"][0].data, rtol=1e-4, atol=1e-7
    )


def test_unsound_phase():
    with pytest.raises(ValueError, match=r"caffe.TRAIN \(0\) or caffe.TEST \(1\), found 7"):
        make(DATA, 7)


RULES = """
layer { name: "train" type: "Input" include { phase: TRAIN } }
layer { name: "test" type: "Input" include { phase: TEST } }
layer { name: "deep" type: "Input" include { min_level: 2 } }
layer { name: "shallow" type: "Input" include { max_level: 1 } }
layer { name: "a" type: "Input" include { stage: "a" } }
layer { name: "a_or_b" type: "Input" include { stage: "a" } include { stage: "b" } }
layer { name: "a_and_b" type: "Input" include { stage: "a" stage: "b" } }
layer { name: "not_a" type: "Input" exclude { stage: "a" } }
layer { name: "without_a" type: "Input" include { not_stage: "a" } }
"""


@pytest.mark.parametrize(
    "state, kept",
    [
        ({"phase": 0}, "train shallow not_a without_a"),
        ({"phase": 1, "level": 2}, "test deep not_a without_a"),
        ({"phase": 0, "stage": ["a"]}, "train shallow a a_or_b"),
        ({"phase": 0, "stage": ["b", "a"]}, "train shallow a a_or_b a_and_b"),
    ],
)
def test_state_rules(state, kept):
    param = message(RULES)
    param.state.CopyFrom(caffe_pb2.NetState(**state))
    assert [layer.name for layer in filter_net(param).layer] == kept.split()


def test_splits_are_named_as_bvlc_names_them():
    source = DATA + ip("a") + ip("b") + 'layer { name: "s" type: "Silence" bottom: "a" bottom: "b" }'
    split = insert_splits(message(source))
    assert [layer.name for layer in split.layer] == ["data", "data_data_0_split", "a", "b", "s"]
    assert list(split.layer[1].top) == ["data_data_0_split_0", "data_data_0_split_1"]
    assert (split.layer[2].bottom[0], split.layer[3].bottom[0]) == tuple(split.layer[1].top)


def test_a_loss_that_is_read_again_is_split_with_its_weight():
    source = DATA + LABEL + ip() + LOSS.replace("top:", "loss_weight: 2 top:")
    source += 'layer { name: "p" type: "Power" bottom: "loss" top: "p" }'
    split = insert_splits(message(source)).layer[4]
    assert split.name == "loss_loss_0_split"
    assert list(split.loss_weight) == [2, 0]


def test_in_place_uses_one_blob():
    net = make(DATA + ip() + 'layer { name: "r" type: "ReLU" bottom: "ip" top: "ip" }')
    assert list(net.blobs) == ["data", "ip"]
    net.params["ip"][0].data[...] = -1
    net.blobs["data"].data[...] = 1
    assert net.forward()["ip"].max() == 0


def test_names_and_ids(net):
    assert list(net._layer_names) == ["data", "label", "ip", "loss"]
    assert net.inputs == ["data", "label"]
    assert net.outputs == ["loss"]
    assert net.bottom_names["loss"] == ["ip", "label"]
    assert net.top_names["ip"] == ["ip"]
    assert (net._bottom_ids(3), net._top_ids(3)) == ([2, 1], [3])
    assert net.blob_loss_weights["loss"] == 1
    assert [layer.type for layer in net.layers] == ["Input", "Input", "InnerProduct", "SoftmaxWithLoss"]
    assert list(net.params) == ["ip"]
    assert net.layer_dict["ip"] is net.layers[2]


# -- who needs backward


def needs(net) -> list[str]:
    return [name for name, need in zip(net._layer_names, net._layer_need_backward, strict=True) if need]


def test_layers_without_a_loss_behind_them_run_without_autograd():
    net = make(DATA + ip() + 'layer { name: "r" type: "ReLU" bottom: "ip" top: "r" }')
    assert needs(net) == []
    net.forward()
    assert all(layer._record is None for layer in net.layers) and net.layer_dict["r"]._output is None


def test_frozen_layers_at_the_bottom_need_no_backward():
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    net = make(DATA + LABEL + ip("low", more=frozen) + ip("ip", "low") + LOSS)
    assert needs(net) == ["ip", "loss"]
    net.blobs["data"].data[...] = 1
    net.forward()
    net.backward()
    assert not net.params["low"][0].diff.any()
    assert net.params["ip"][0].diff.any()


def test_a_learning_layer_below_a_frozen_one_gets_its_gradient():
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    net = make(DATA + LABEL + ip("low") + ip("ip", "low", more=frozen) + LOSS)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(4, 3))
    net.forward()
    net.backward()
    assert net.params["low"][0].diff.any()
    assert not net.params["ip"][0].diff.any()


def test_propagate_down_false_cuts_the_gradient():
    net = make(DATA + LABEL + ip("low") + ip("ip", "low", more="propagate_down: false") + LOSS)
    assert needs(net) == ["ip", "loss"]


def test_force_backward_reaches_the_inputs_but_not_labels(net):
    forced = make("force_backward: true\n" + DATA + LABEL + ip() + LOSS)
    forced.params["ip"][0].data[...] = net.params["ip"][0].data
    for name in ("data", "label"):
        forced.blobs[name].data[...] = net.blobs[name].data
    forced.forward()
    forced.backward()
    assert forced.blobs["data"].diff.any()
    assert not forced.blobs["label"].diff.any()


# -- running


def test_gradient_through_the_net_is_the_derivative(net):
    net.forward()
    net.backward()
    weight, gradient = net.params["ip"][0], net.params["ip"][0].diff.copy()
    for index in np.ndindex(*weight.shape):
        kept, losses = weight.data[index], []
        for step in (1e-2, -1e-2):
            weight.data[index] = kept + step
            losses.append(float(net.forward()["loss"]))
        weight.data[index] = kept
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(gradient[index], abs=1e-3)


def test_parameter_diffs_add_up_until_cleared(net):
    net.forward()
    net.backward()
    once = net.params["ip"][0].diff.copy()
    net.backward()
    close = {"rtol": 1e-6, "atol": 1e-7}  # a value next to 0 is rounded as its sums are
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * once, **close)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_loss_weight_scales_the_gradient(net):
    heavy = make(DATA + LABEL + ip() + LOSS.replace("top:", "loss_weight: 3 top:"))
    heavy.params["ip"][0].data[...] = net.params["ip"][0].data
    for name in ("data", "label"):
        heavy.blobs[name].data[...] = net.blobs[name].data
    last = len(net.layers) - 1
    assert heavy._forward(0, last) == pytest.approx(3 * net._forward(0, last), rel=1e-6)
    net.backward()
    heavy.backward()
    np.testing.assert_allclose(heavy.params["ip"][0].diff, 3 * net.params["ip"][0].diff, rtol=1e-5)


def test_forward_and_backward_in_parts(net):
    loss = float(net.forward()["loss"])
    scores = net.forward(end="ip")["ip"].copy()
    net.blobs["ip"].data[...] = scores
    assert float(net.forward(start="loss")["loss"]) == pytest.approx(loss)
    net.backward(end="loss")
    assert net.blobs["ip"].diff.any()
    assert not net.params["ip"][0].diff.any()
    net.backward(start="ip", end="ip")
    assert net.params["ip"][0].diff.any()


def test_forward_takes_inputs_and_returns_live_views(net):
    out = net.forward(["ip"], data=np.ones((4, 3)), label=np.zeros(4))
    assert set(out) == {"loss", "ip"}
    assert np.shares_memory(out["ip"], net.blobs["ip"].data)
    with pytest.raises(ValueError, match="do not match net inputs"):
        net.forward(data=np.ones((4, 3)))
    with pytest.raises(ValueError, match="not batch sized"):
        net.forward(data=np.ones((2, 3)), label=np.zeros(2))
    with pytest.raises(ValueError, match="no layer 'nowhere'; its layers: data, label, ip, loss"):
        net.forward(start="nowhere")
    with pytest.raises(KeyError, match="no blob 'nowhere'"):
        net.forward(["nowhere"])


def test_writes_to_a_held_array_reach_the_next_forward(net):
    data = net.blobs["data"].data
    before = net.forward(["ip"])["ip"].copy()
    data *= 2
    np.testing.assert_allclose(net.forward(["ip"])["ip"], 2 * before, rtol=1e-5)


def test_a_held_output_shows_the_next_forward(net):
    held = net.forward(["ip"])["ip"]
    before = held.copy()
    net.blobs["data"].data[...] *= 2
    net.forward()
    np.testing.assert_allclose(held, 2 * before, rtol=1e-5)


def test_reshape_follows_the_inputs(net):
    net.blobs["data"].reshape(7, 3)
    net.blobs["label"].reshape(7)
    net.reshape()
    assert net.blobs["ip"].shape == (7, 3)
    net.blobs["data"].reshape(2, 3)
    net.blobs["label"].reshape(2)
    net.forward()
    net.backward()
    assert net.blobs["ip"].shape == (2, 3)


def test_forward_all_takes_any_number(net):
    scores = make(DATA + ip())
    data = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    out = scores.forward_all(data=data)["ip"]
    assert out.shape == (10, 3)
    np.testing.assert_allclose(out, data @ scores.params["ip"][0].data.T, rtol=1e-4, atol=1e-6)


def test_forward_backward_all():
    net = make("force_backward: true\n" + DATA + ip())
    data = np.ones((6, 3), np.float32)
    top = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    outputs, gradients = net.forward_backward_all(data=data, ip=top)
    assert outputs["ip"].shape == (6, 3)
    np.testing.assert_allclose(gradients["data"], top @ net.params["ip"][0].data, rtol=1e-4, atol=1e-6)


def test_callbacks_see_each_layer(net):
    seen = []
    net.before_forward(lambda i: seen.append(("f", i)))
    net.after_backward(lambda i: seen.append(("b", i)))
    net.forward()
    net.backward()
    assert seen == [("f", i) for i in range(4)] + [("b", i) for i in (3, 2, 1, 0)]


def test_shared_parameters_are_one_memory():
    net = make(DATA + ip("a", more='param { name: "w" }') + ip("b", "a", more='param { name: "w" }'))
    net.params["a"][0].data[0, 0] = 42
    assert net.params["b"][0].data[0, 0] == 42
    assert len(net.learnable_params) == 3  # w and two biases


def test_permissive_sharing_takes_another_shape():
    more = 'param {{ name: "w" share_mode: {} }}'
    source = DATA + ip("a", out=2, more=more.format("STRICT"))
    source += IP.format(name="b", bottom="data", out=2, more=more.format("PERMISSIVE")).replace(
        "inner_product_param {", "inner_product_param { transpose: true"
    )
    net = make(source)
    assert net.params["b"][0].shape == (3, 2)
    assert np.shares_memory(net.params["a"][0].data, net.params["b"][0].data)


# -- weights


@pytest.mark.parametrize(
    "suffix, save, load", [(".caffemodel", "save", "copy_from"), (".h5", "save_hdf5", "load_hdf5")]
)
def test_weights_go_out_and_come_in(net, tmp_path, suffix, save, load):
    path = tmp_path / f"net{suffix}"
    getattr(net, save)(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    other = make(DATA + LABEL + ip() + LOSS)
    getattr(other, load)(path)
    for mine, theirs in zip(net.params["ip"], other.params["ip"], strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)
    third = make(DATA + LABEL + ip() + LOSS, weights=path)
    np.testing.assert_array_equal(third.params["ip"][0].data, net.params["ip"][0].data)


@pytest.mark.parametrize("names", [("",), ("a/b", "a"), ("a", "a/0")])
def test_names_that_hdf5_cannot_keep_are_told(tmp_path, names):
    net = make(DATA + "".join(IP.format(name=name, bottom="data", out=2, more="") for name in names))
    said = rf"Error saving weights to .*w.h5: .*layer's name '{names[-1]}' .*another name"
    with pytest.raises(ValueError, match=said):
        net.save_hdf5(tmp_path / "w.h5")
    assert not list(tmp_path.iterdir())


def test_layers_are_matched_by_name(net, tmp_path):
    path = tmp_path / "net.caffemodel"
    net.save(path)
    other = make(DATA + LABEL + ip("renamed") + LOSS.replace('"ip"', '"renamed"'))
    before = other.params["renamed"][0].data.copy()
    other.copy_from(path)
    np.testing.assert_array_equal(other.params["renamed"][0].data, before)


def test_weights_that_do_not_fit_are_refused(net, tmp_path):
    path = tmp_path / "net.caffemodel"
    net.save(path)
    wide = make(DATA + ip(out=5))
    with pytest.raises(ValueError) as error:
        wide.copy_from(path)
    assert "Cannot copy param 0 weights from layer 'ip'; shape mismatch" in str(error.value)
    assert "3 3 (9)" in str(error.value) and "5 3 (15)" in str(error.value) and "rename the layer" in str(error.value)
    unbiased = make(DATA + ip().replace("num_output", "bias_term: false num_output"))
    with pytest.raises(ValueError, match="Incompatible number of blobs for layer ip: expected 1, found 2"):
        unbiased.copy_from(path)


def test_a_file_that_is_no_caffemodel_is_refused(net, tmp_path):
    path = tmp_path / "x.caffemodel"
    with pytest.raises(FileNotFoundError, match=r"x\.caffemodel"):
        net.copy_from(path)
    path.write_bytes(caffe_pb2.SolverState(iter=3, learned_net="y").SerializeToString())
    with pytest.raises(ValueError, match=r"x\.caffemodel"):
        net.copy_from(path)
    net.save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="truncated"):
        net.copy_from(path)


def test_a_caffemodel_above_protobufs_limit_is_refused(net, tmp_path, monkeypatch):
    monkeypatch.setattr(caffe.weight_files, "_PROTOBUF_LIMIT", 40)
    with pytest.raises(ValueError, match=r"48 bytes of parameters, and a binary caffemodel holds at most 40; use HDF5"):
        net.save(tmp_path / "big.caffemodel")
    assert not list(tmp_path.iterdir())


def test_share_with_is_one_memory(net):
    other = make(DATA + LABEL + ip() + LOSS, caffe.TEST)
    other.share_with(net)
    net.params["ip"][0].data[0, 0] = 9
    assert other.params["ip"][0].data[0, 0] == 9


def test_arrays_outlive_nets(net):
    weights = net.params["ip"][0].data
    expected = weights.copy()
    del net
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("ends", ["min: -inf max: 0.1", "min: 0 max: inf", "min: -3e38 max: 3e38", "max: nan"])
def test_a_uniform_filler_without_a_finite_range_names_its_layer(ends):
    source = DATA + ip().replace('type: "xavier"', f'type: "uniform" {ends}')
    with pytest.raises(ValueError, match=r"layer 'ip' .*uniform filler: expected (a finite range|min at most max)"):
        make(source)


@pytest.mark.parametrize(
    "blobs", ["shape { dim: 4 }", "shape { dim: -3 }", "num: 2 data: 1", "shape { dim: 2147483647 }"]
)
def test_blobs_of_a_prototxt_that_hold_no_parameters_name_their_layer(blobs):
    bias = f'layer {{ name: "b" type: "Bias" bottom: "data" top: "b" blobs {{ {blobs} }} }}'
    with pytest.raises(ValueError, match=r"layer 'b' \(Bias\): blobs: "):
        make(DATA + bias)


def test_a_file_that_a_layer_names_and_that_is_not_there_names_the_layer():
    loss = LOSS.replace("SoftmaxWithLoss", "InfogainLoss").replace("top", 'infogain_loss_param { source: "x" } top', 1)
    with pytest.raises(FileNotFoundError, match=r"layer 'loss' \(InfogainLoss\): Cannot read x"):
        make(DATA + LABEL + ip() + loss)
