"""Convolution against its definition as loops, its gradient, and its refusals."""

import numpy as np
import pytest

FILL = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def naive(x, weight, bias, stride, pad, dilation, group):
    """x (N, C, spatial), weight (O, C / group, kernel): one output value at a time."""
    axes = x.ndim - 2
    padded = np.pad(x.astype(float), [(0, 0), (0, 0), *((p, p) for p in pad)])
    sizes = [(padded.shape[2 + a] - dilation[a] * (weight.shape[2 + a] - 1) - 1) // stride[a] + 1 for a in range(axes)]
    y = np.zeros((len(x), len(weight), *sizes))
    channels, outputs = weight.shape[1], len(weight) // group
    for n, o in np.ndindex(*y.shape[:2]):
        first = o // outputs * channels
        for place in np.ndindex(*sizes):
            for c in range(channels):
                for tap in np.ndindex(*weight.shape[2:]):
                    at = [place[a] * stride[a] + tap[a] * dilation[a] for a in range(axes)]
                    y[(n, o, *place)] += weight[(o, c, *tap)] * padded[(n, first + c, *at)]
            y[(n, o, *place)] += bias[o]
    return y


# bottom shape, num_output, prototxt fields, stride, pad, dilation, group
CASES = {
    "plain": ((2, 3, 5, 6), 4, "kernel_size: 3", (1, 1), (0, 0), (1, 1), 1),
    "stride_pad": ((2, 3, 5, 6), 2, "kernel_size: 3 stride: 2 pad: 1", (2, 2), (1, 1), (1, 1), 1),
    "groups": ((2, 4, 4, 4), 6, "kernel_size: 2 group: 2", (1, 1), (0, 0), (1, 1), 2),
    "dilation": ((1, 2, 7, 8), 3, "kernel_size: 3 dilation: 2 dilation: 3", (1, 1), (0, 0), (2, 3), 1),
    "h_and_w": (
        (1, 2, 6, 5), 2, "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 2 pad_w: 1",
        (2, 1), (2, 1), (1, 1), 1,
    ),
    "per_axis": ((1, 2, 6, 5), 2, "kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 pad: 0 pad: 1",
                 (1, 2), (0, 1), (1, 1), 1),
    "one_spatial_axis": ((2, 3, 7), 2, "kernel_size: 3 pad: 1", (1,), (1,), (1,), 1),
    "three_spatial_axes": ((1, 2, 3, 4, 3), 2, "kernel_size: 2 stride: 2 pad: 1", (2,) * 3, (1,) * 3, (1,) * 3, 1),
    "four_spatial_axes": ((1, 4, 3, 2, 3, 4), 2, "kernel_size: 2 stride: 2 pad: 1 dilation: 2 group: 2",
                          (2,) * 4, (1,) * 4, (2,) * 4, 2),
    "no_spatial_axis": ((3, 4), 2, "kernel_size: 1 group: 2", (), (), (), 2),
    "nd_im2col": ((1, 2, 4, 4), 2, "kernel_size: 3 force_nd_im2col: true engine: CAFFE", (1, 1), (0, 0), (1, 1), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradient(one, normal, name):
    shape, outputs, fields, stride, pad, dilation, group = CASES[name]
    x = normal(*shape)
    it = one(f'type: "Convolution" convolution_param {{ num_output: {outputs} {fields} {FILL} }}', x)
    weight, bias = (blob.data for blob in it.blobs)
    assert weight.shape[:2] == (outputs, shape[1] // group) and bias.shape == (outputs,)
    expected = naive(x, weight, bias, stride, pad, dilation, group)
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-4, atol=1e-4)
    it.check_gradient()


def test_axis_and_no_bias(one, normal):
    """Everything before the channel axis is a batch."""
    x = normal(2, 3, 2, 4, 4)
    it = one(
        f'type: "Convolution" convolution_param {{ num_output: 3 axis: -3 kernel_size: 2 bias_term: false {FILL} }}', x
    )
    assert len(it.blobs) == 1
    y = it.forward()
    expected = naive(x.reshape(6, 2, 4, 4), it.blobs[0].data, np.zeros(3), (1, 1), (0, 0), (1, 1), 1)
    np.testing.assert_allclose(y, expected.reshape(2, 3, 3, 3, 3), rtol=1e-4, atol=1e-4)
    it.check_gradient()


def test_two_bottoms_share_the_filters(one, normal):
    a, b = normal(2, 3, 4, 4), normal(2, 3, 4, 4)
    prototxt = f'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 3 {FILL} }}'
    it = one(prototxt, a, b, tops=2)
    weight, bias = (blob.data for blob in it.blobs)
    for y, x in zip(it.forward(), (a, b), strict=True):
        np.testing.assert_allclose(y, naive(x, weight, bias, (1, 1), (0, 0), (1, 1), 1), rtol=1e-4, atol=1e-4)
    it.check_gradient()


def test_bottoms_may_change_size(one, normal):
    it = one(f'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 3 {FILL} }}', normal(2, 1, 5, 5))
    for shape in ((1, 1, 7, 4), (3, 1, 3, 3)):
        it.arrays = [normal(*shape)]
        expected = naive(it.arrays[0], *(blob.data for blob in it.blobs), (1, 1), (0, 0), (1, 1), 1)
        np.testing.assert_allclose(it.forward(), expected, rtol=1e-4, atol=1e-4)
        it.check_gradient()


def test_blobs_in_the_prototxt_are_kept(one):
    given = "blobs { shape { dim: 1 dim: 1 dim: 1 dim: 1 } data: 3 } blobs { shape { dim: 1 } data: 5 }"
    it = one(
        f'type: "Convolution" {given} convolution_param {{ num_output: 1 kernel_size: 1 }}', np.full((1, 1, 1, 2), 2)
    )
    np.testing.assert_array_equal(it.forward(), [[[[11, 11]]]])


REFUSED = {
    "kernel_size: 2 kernel_h: 2 kernel_w: 2": "Either kernel_size or kernel_h/w should be specified; not both",
    "kernel_size: 2 stride: 1 stride_h: 1": "Either stride or stride_h/w should be specified; not both",
    "kernel_size: 2 pad: 1 pad_w: 1": "Either pad or pad_h/w should be specified; not both",
    "": r"kernel_size must be specified once, or once per spatial dimension \(kernel_size specified 0 times; 2 spat",
    "kernel_size: 2 stride: 1 stride: 1 stride: 1": r"stride must be specified once.*specified 3 times; 2 spatial dims",
    "kernel_h: 2": r"Filter dimensions must be nonzero; found \[2, 0\]",
    "kernel_size: 2 stride_h: 2": r"Stride dimensions must be nonzero; found \[2, 0\]",
    "kernel_size: 2 group: 3": "channels should be multiples of group; found 4 channels, group 3",
    "kernel_size: 2 group: 4": "output should be multiples of group; found num_output 6, group 4",
    "kernel_size: 2 axis: 4": "axis 4 out of range for 4-D Blob with shape 1 4 3 3",
    "kernel_size: 7 pad: 1": "the filter does not fit .* expected at least 7 .* found 5",
}


@pytest.mark.parametrize("fields", REFUSED)
def test_refusals(one, fields):
    with pytest.raises(ValueError, match=REFUSED[fields]):
        one(f'type: "Convolution" convolution_param {{ num_output: 6 {fields} }}', np.zeros((1, 4, 3, 3)))


def test_refuses_other_filters_than_its_own(one):
    given = "blobs { shape { dim: 1 dim: 1 } data: 3 }"
    with pytest.raises(ValueError, match=r"Incorrect weight shape: expected shape 1 1 1 1 \(1\); instead.* 1 1 \(1\)"):
        one(f'type: "Convolution" {given} convolution_param {{ num_output: 1 kernel_size: 1 bias_term: false }}',
            np.zeros((1, 1, 1, 1)))  # fmt: skip
    with pytest.raises(ValueError, match="Incorrect number of weight blobs: expected 2, found 1"):
        one(f'type: "Convolution" {given} convolution_param {{ num_output: 1 kernel_size: 1 }}', np.zeros((1, 1, 1, 1)))


@pytest.mark.parametrize("shape, said", [((1, 2, 3, 3), "Input size incompatible"), ((1, 4, 3), "num_axes may not")])
def test_refuses_a_bottom_it_was_not_set_up_for(one, shape, said):
    it = one('type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 }', np.zeros((1, 4, 3, 3)))
    it.arrays = [np.zeros(shape, np.float32)]
    with pytest.raises(ValueError, match=said):
        it.forward()


def test_refuses_bottoms_of_two_shapes(one):
    with pytest.raises(ValueError, match=r"shape mismatch - bottom\[0\]: 1 2 3 3 \(18\) vs. bottom\[1\]: 1 2 4 3"):
        one('type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 }',
            *(np.zeros((1, 2, size, 3)) for size in (3, 4)), tops=2)  # fmt: skip


def test_kernel_h_needs_two_spatial_axes(one):
    with pytest.raises(ValueError, match="kernel_h & kernel_w can only be used for 2D convolution; found 1 spatial"):
        one('type: "Convolution" convolution_param { num_output: 1 kernel_h: 1 kernel_w: 1 }', np.zeros((1, 2, 3)))
