"""BatchNorm, Scale and Bias against their definitions, their gradients, their refusals; and kernels.c against torch."""

import caffe
import numpy as np
import pytest
import torch
from caffe.cpu import kernels
from caffe.proto import caffe_pb2, text

COMPILED = pytest.mark.skipif(kernels.LIBRARY is None, reason="kernels.c is not compiled")


@pytest.fixture
def calls(monkeypatch):
    """The names of the functions of kernels.c that are called."""
    names, run = [], kernels.run
    monkeypatch.setattr(kernels, "run", lambda name, *arguments: names.append(name) or run(name, *arguments))
    return names


def rows_by_channel(x):
    """(N, C, ...) as (C, values)."""
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(float)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 2, 3), (1, 2, 2, 2, 2)])
@pytest.mark.parametrize("in_place", [False, True])
def test_batch_norm_of_the_batch(one, normal, shape, in_place):
    x = 3 * normal(*shape) + 1
    it = one('type: "BatchNorm" batch_norm_param { eps: 0.01 moving_average_fraction: 0.5 }', x, in_place=in_place)
    rows = rows_by_channel(x)
    expected = (rows - rows.mean(1)[:, None]) / np.sqrt(rows.var(1) + 0.01)[:, None]
    np.testing.assert_allclose(rows_by_channel(it.forward()), expected, rtol=1e-4, atol=1e-5)
    it.forward()
    for blob, value in zip(it.blobs, (rows.mean(1), rows.var(1, ddof=1), 1), strict=True):
        np.testing.assert_allclose(blob.data, value * np.float64(1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "phase, fields", [(caffe.TRAIN, ""), (caffe.TEST, ""), (caffe.TEST, "use_global_stats: false")]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_batch_norm_gradient(one, normal, phase, fields, in_place):
    it = one(f'type: "BatchNorm" batch_norm_param {{ {fields} }}', normal(3, 2, 2, 2), phase=phase, in_place=in_place)
    for blob, value in zip(it.blobs, ([1, 2], [4, 6], [2]), strict=True):
        blob.data[...] = value
    it.check_gradient()


def test_batch_norm_keeps_its_statistics_and_gives_them_no_gradient(one, normal):
    it = one('type: "BatchNorm"', normal(3, 2, 4))
    it.forward(record=True)
    kept = [blob.data.copy() for blob in it.blobs]
    it.backward(np.ones((3, 2, 4)))
    for blob, value in zip(it.blobs, kept, strict=True):
        np.testing.assert_array_equal(blob.data, value)
        assert not blob.diff.any()


@pytest.mark.parametrize("phase, fields", [(caffe.TEST, ""), (caffe.TRAIN, "use_global_stats: true")])
def test_batch_norm_of_the_kept_statistics(one, normal, phase, fields):
    x = normal(2, 2, 3)
    it = one(f'type: "BatchNorm" batch_norm_param {{ {fields} }}', x, phase=phase)
    for blob, value in zip(it.blobs, ([1, 2], [4, 6], [2]), strict=True):
        blob.data[...] = value
    expected = (x - np.array([0.5, 1])[:, None]) / np.sqrt(np.array([2, 3]) + 1e-5)[:, None]
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(it.blobs[0].data, [1, 2])
    it.blobs[2].data[...] = 0  # nothing kept yet: mean and variance count as 0
    np.testing.assert_allclose(it.forward(), x / np.sqrt(1e-5), rtol=1e-4)


def test_batch_norm_of_one_value(one, normal):
    it = one('type: "BatchNorm"', normal(1, 3, 1, 1))
    np.testing.assert_array_equal(it.forward(), np.zeros((1, 3, 1, 1)))
    np.testing.assert_array_equal(it.blobs[1].data, np.zeros(3))
    it.check_gradient()


def test_batch_norm_statistics_do_not_learn(one, normal):
    it = one('type: "BatchNorm" param { lr_mult: 0 }', normal(2, 3))
    assert [spec.lr_mult for spec in it.layer.layer_param.param] == [0, 0, 0]
    with pytest.raises(
        ValueError, match=r"Cannot configure batch normalization statistics as layer parameters.*found 1"
    ):
        one('type: "BatchNorm" param { lr_mult: 0 } param { name: "v" }', normal(2, 3))


def test_batch_norm_refusals(one):
    with pytest.raises(ValueError, match="axis 1 out of range for 1-D Blob"):
        one('type: "BatchNorm"', np.zeros(4))
    it = one('type: "BatchNorm"', np.zeros((2, 3)))
    it.arrays = [np.zeros((2, 4), np.float32)]
    with pytest.raises(ValueError, match=r"expected 3 channels, found 2 4 \(8\)"):
        it.forward()
    with pytest.raises(ValueError, match=r"expected blobs of shapes \(3,\), \(3,\), \(1,\); found 1 \(1\)"):
        one('type: "BatchNorm" blobs { shape { dim: 1 } data: 1 }', np.zeros((2, 3)))


# fields: shape of the scale, and how many axes of the bottom (2, 3, 2, 4) come before it
SCALES = {
    "": ((3,), 1),
    "axis: 0": ((2,), 0),
    "axis: -1": ((4,), 3),
    "axis: 1 num_axes: 2": ((3, 2), 1),
    "axis: 0 num_axes: -1": ((2, 3, 2, 4), 0),
    "num_axes: 0": ((), 0),
}


@pytest.mark.parametrize("bias", ["false", "true"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("fields", SCALES)
def test_scale(one, normal, fields, bias, in_place):
    x, (shape, before) = normal(2, 3, 2, 4), SCALES[fields]
    fill = 'filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    it = one(f'type: "Scale" scale_param {{ {fields} bias_term: {bias} {fill} }}', x, in_place=in_place)
    assert [blob.shape for blob in it.blobs] == [shape] * (1 + (bias == "true"))
    y, scale = it.forward(), it.blobs[0].data
    for at in np.ndindex(*x.shape):
        inner = at[before : before + len(shape)]
        expected = x[at] * scale[inner] + (it.blobs[1].data[inner] if bias == "true" else 0)
        assert abs(y[at] - expected) < 1e-5
    it.check_gradient()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bias", ["false", "true"])
def test_scale_from_a_bottom(one, normal, bias, in_place):
    x, scale = normal(2, 3, 4), normal(3)
    fill = 'bias_filler { type: "constant" value: 5 }'
    it = one(f'type: "Scale" scale_param {{ bias_term: {bias} {fill} }}', x, scale, in_place=in_place)
    expected = x * scale[:, None] + (5 if bias == "true" else 0)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-6)
    assert len(it.blobs) == (bias == "true")
    it.check_gradient()


def test_scale_is_one_by_default(one, normal):
    it = one('type: "Scale" scale_param { bias_term: true }', normal(2, 3))
    np.testing.assert_array_equal(it.forward(), it.arrays[0])


def test_scale_given_without_its_bias(one):
    """BVLC makes the bias where only the scale came with the layer."""
    it = one('type: "Scale" blobs { shape { dim: 1 } data: 3 } scale_param { bias_term: true }', [[2.0]])
    np.testing.assert_array_equal(it.forward(), [[6]])
    assert [blob.shape for blob in it.blobs] == [(1,), (1,)]


def test_scale_refusals(one):
    with pytest.raises(ValueError, match=r"extends past .* bottom\[0\] axis = 1: 2 axes, bottom shape 2 3"):
        one('type: "Scale" scale_param { num_axes: 2 }', np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"num_axes must be non-negative, or -1 .*found -2"):
        one('type: "Scale" scale_param { num_axes: -2 }', np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"dimension mismatch between bottom\[0\] and scale: expected \(3,\), found 2"):
        one('type: "Scale"', np.zeros((2, 3)), np.zeros(2))


@pytest.mark.parametrize(
    "fields, shape, view",
    [
        ("", (3,), (1, 3, 1, 1)),
        ("axis: 0 num_axes: 2", (2, 3), (2, 3, 1, 1)),
        ("axis: -2 num_axes: -1", (4, 2), (1, 1, 4, 2)),
        ("num_axes: 0", (), (1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("as_bottom", [False, True])
def test_bias(one, normal, fields, shape, view, as_bottom):
    x, bias = normal(2, 3, 4, 2), normal(*shape)
    it = one(f'type: "Bias" bias_param {{ {fields} }}', x, *([bias] * as_bottom))
    if not as_bottom:
        assert it.blobs[0].shape == shape and not it.blobs[0].data.any()
        it.blobs[0].data[...] = bias
    np.testing.assert_array_equal(it.forward(), x + bias.reshape(view))
    it.check_gradient()


def test_bias_refusals(one):
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"dimension mismatch between bottom\[0\] and bias: expected .3,., found 2"):
        one('type: "Bias"', x, np.zeros(2))
    with pytest.raises(ValueError, match=r"bias blob.s shape extends past bottom.0.* axis = 1: 2 axes"):
        one('type: "Bias" bias_param { num_axes: 2 }', x)
    with pytest.raises(ValueError, match="expected 0 blob"):
        one('type: "Bias" blobs { shape { dim: 3 } data: 1 data: 1 data: 1 }', x, np.zeros(3))


NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 2 dim: 9 dim: 9 } } }
layer { name: "one" type: "Convolution" bottom: "data" top: "one"
  convolution_param { num_output: 5 kernel_size: 3 bias_term: false weight_filler { type: "gaussian" std: 1 } } }
layer { name: "norm" type: "BatchNorm" bottom: "one" top: "one" }
layer { name: "scale" type: "Scale" bottom: "one" top: "one" param { lr_mult: LEARN } param { lr_mult: LEARN }
  scale_param { bias_term: true filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "one" top: "one" }
layer { name: "apart" type: "BatchNorm" bottom: "one" top: "apart" }
layer { name: "again" type: "BatchNorm" bottom: "apart" top: "apart" }
layer { name: "twice" type: "Scale" bottom: "apart" top: "twice" scale_param { filler { type: "gaussian" std: 1 } } }
layer { name: "more" type: "Scale" bottom: "twice" top: "twice" scale_param { bias_term: true
  filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } } }
layer { name: "last" type: "ReLU" bottom: "twice" top: "twice" }
layer { name: "sum" type: "Reduction" bottom: "twice" top: "sum" loss_weight: 1
  reduction_param { operation: SUMSQ coeff: 0.5 } }
"""


def trained(phase: int, learn: int, watched: bool) -> dict[str, np.ndarray]:
    """Every blob and parameter, and their diffs, of NET after three batches of which the last one is smaller."""
    param = text.parse(NET.replace("LEARN", str(learn)), caffe_pb2.NetParameter())
    param.force_backward = True
    caffe.set_random_seed(2)
    net = caffe.Net(param, phase)
    random = np.random.default_rng(4)
    views = [blob.data for blob in net.blobs.values()] if watched else []
    for images in (3, 3, 2):
        net.blobs["data"].reshape(images, 2, 9, 9)
        net.blobs["data"].data[...] = random.normal(0.5, 2, net.blobs["data"].shape)
        net.clear_param_diffs()
        net.forward()
        net.backward()
    assert len(views) in (0, len(net.blobs))
    blobs = {**net.blobs, **{f"{name} {i}": blob for name, each in net.params.items() for i, blob in enumerate(each)}}
    return {f"{name} {side}": getattr(blob, side).copy() for name, blob in blobs.items() for side in ("data", "diff")}


@COMPILED
@pytest.mark.parametrize("watched", [False, True], ids=["", "numpy views are out"])
@pytest.mark.parametrize("learn", [0, 1])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_net_in_place_by_the_kernels_and_by_torch(phase, learn, watched, calls, monkeypatch):
    found = trained(phase, learn, watched)
    assert {"scale_channels", "channel_gradient"} <= set(calls) and ("batch_norm" in calls) == (phase == caffe.TRAIN)
    monkeypatch.setattr(kernels, "LIBRARY", None)
    for name, expected in trained(phase, learn, watched).items():
        tolerance = 1e-4 * max(1e-2, np.abs(expected).max())
        np.testing.assert_allclose(found[name], expected, atol=tolerance, rtol=0, err_msg=name)


@COMPILED
@pytest.mark.parametrize("fields", ["", "use_global_stats: true"])
@pytest.mark.parametrize("in_place", [False, True])
def test_batch_norm_gradient_by_the_kernels(one, normal, fields, in_place, calls):
    it = one(f'type: "BatchNorm" batch_norm_param {{ {fields} }}', normal(2, 3, 3, 4), in_place=in_place)
    it.layer.may_overwrite = in_place
    for blob, value in zip(it.blobs, ([1, 2, 3], [4, 6, 8], [2]), strict=True):
        blob.data[...] = value
    it.check_gradient()
    if it.bottom[0].data_memory.where.type == "cpu":
        assert calls


@COMPILED
@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (2, 5, 56, 57), (1, 2, 112, 112), (2, 70, 3, 3)])
def test_statistics_are_no_less_exact_than_torch(shape):
    """Beside float64, where the mean is large against the deviation."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 50
    channels = shape[1]
    y, (mean, variance, inverse) = torch.empty_like(x), (torch.empty(channels) for _ in range(3))
    sizes = (*shape[:2], x[0, 0].numel())
    kernels.run("batch_norm", y, x, mean, variance, inverse, *sizes, 1e-5)
    rows = x.double().transpose(0, 1).reshape(channels, -1)
    torch.testing.assert_close(mean.double(), rows.mean(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), rows.var(1), rtol=2e-7, atol=0)
    expected = torch.batch_norm(x.double(), None, None, None, None, True, 0.0, 1e-5, False)
    ours, torchs = ((each - expected).abs().max() for each in (
        y, torch.batch_norm(x, None, None, None, None, True, 0.0, 1e-5, False)))  # fmt: skip
    assert ours <= 1.1 * torchs
    kernels.run("batch_norm", x, x, mean, variance, inverse, *sizes, 1e-5)
    assert torch.equal(x, y)
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    leaf = (rows.clone().view(channels, shape[0], -1).transpose(0, 1).reshape(shape)).requires_grad_()
    torch.batch_norm(leaf, None, None, None, None, True, 0.0, 1e-5, False).backward(dy.double())
    dx, sums = torch.empty_like(dy), torch.empty(2, channels)
    kernels.run("channel_gradient", dx, sums[0], sums[1], dy, y, inverse, *sizes, True)
    torch.testing.assert_close(dx.double(), leaf.grad, rtol=1e-4, atol=3e-6)
