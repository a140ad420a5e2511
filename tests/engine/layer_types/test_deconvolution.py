"""Deconvolution and Im2col against their definitions as loops, their gradients, and their refusals."""

import numpy as np
import pytest

FILL = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def spread(x, weight, bias, stride, pad, dilation, group):
    """x (N, C, spatial), weight (C, O / group, kernel): each value times the filter, added where it falls."""
    axes = x.ndim - 2
    whole = [stride[a] * (x.shape[2 + a] - 1) + dilation[a] * (weight.shape[2 + a] - 1) + 1 for a in range(axes)]
    y = np.zeros((len(x), weight.shape[1] * group, *whole))
    channels, outputs = x.shape[1] // group, weight.shape[1]
    for n, c in np.ndindex(*x.shape[:2]):
        for place in np.ndindex(*x.shape[2:]):
            for o in range(outputs):
                for tap in np.ndindex(*weight.shape[2:]):
                    at = [place[a] * stride[a] + tap[a] * dilation[a] for a in range(axes)]
                    y[(n, c // channels * outputs + o, *at)] += x[(n, c, *place)] * weight[(c, o, *tap)]
    y = y[(..., *(slice(p, size - p) for p, size in zip(pad, whole, strict=True)))]
    return y + bias.reshape(-1, *(1,) * axes)


# bottom shape, num_output, prototxt fields, stride, pad, dilation, group
CASES = {
    "plain": ((2, 3, 3, 4), 2, "kernel_size: 3", (1, 1), (0, 0), (1, 1), 1),
    "stride_pad": ((2, 2, 3, 4), 3, "kernel_size: 4 stride: 2 pad: 1", (2, 2), (1, 1), (1, 1), 1),
    "groups": ((1, 4, 3, 3), 6, "kernel_size: 2 group: 2 stride: 2", (2, 2), (0, 0), (1, 1), 2),
    "dilation": ((1, 2, 3, 2), 2, "kernel_size: 2 dilation: 3 dilation: 2", (1, 1), (0, 0), (3, 2), 1),
    "h_and_w": ((1, 2, 3, 2), 2, "kernel_h: 3 kernel_w: 1 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
                (1, 2), (1, 0), (1, 1), 1),
    "one_spatial_axis": ((2, 2, 4), 2, "kernel_size: 3 stride: 3", (3,), (0,), (1,), 1),
    "three_spatial_axes": ((1, 2, 2, 2, 3), 2, "kernel_size: 2 stride: 2 pad: 1", (2,) * 3, (1,) * 3, (1,) * 3, 1),
    "four_spatial_axes": ((1, 4, 2, 1, 2, 2), 2, "kernel_size: 2 stride: 2 pad: 1 dilation: 2 group: 2",
                          (2,) * 4, (1,) * 4, (2,) * 4, 2),
    "no_spatial_axis": ((3, 4), 2, "kernel_size: 1 group: 2", (), (), (), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradient(one, normal, name):
    shape, outputs, fields, stride, pad, dilation, group = CASES[name]
    x = normal(*shape)
    it = one(f'type: "Deconvolution" convolution_param {{ num_output: {outputs} {fields} {FILL} }}', x)
    weight, bias = (blob.data for blob in it.blobs)
    assert weight.shape[:2] == (shape[1], outputs // group) and bias.shape == (outputs,)
    np.testing.assert_allclose(
        it.forward(), spread(x, weight, bias, stride, pad, dilation, group), rtol=1e-4, atol=1e-4
    )
    it.check_gradient()


def test_axis_and_no_bias(one, normal):
    x = normal(2, 2, 2, 3, 2)
    it = one(
        f'type: "Deconvolution" convolution_param {{ num_output: 3 axis: 2 kernel_size: 2 bias_term: false {FILL} }}', x
    )
    expected = spread(x.reshape(4, 2, 3, 2), it.blobs[0].data, np.zeros(3), (1, 1), (0, 0), (1, 1), 1)
    np.testing.assert_allclose(it.forward(), expected.reshape(2, 2, 3, 4, 3), rtol=1e-4, atol=1e-4)
    it.check_gradient()


def test_bilinear_upsampling(one):
    """What segmentation nets use it for: inside, a plane stays a plane."""
    rows, columns = np.mgrid[0:4, 0:5]
    it = one(
        'type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 4 stride: 2 pad: 1 bias_term: false '
        'weight_filler { type: "bilinear" } }',
        (2.0 * rows + columns)[None, None],
    )
    y = it.forward()[0, 0]
    assert y.shape == (8, 10)
    np.testing.assert_allclose(np.diff(y[1:-1, 1:-1], axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.diff(y[1:-1, 1:-1], axis=1), 0.5, rtol=1e-5)


def test_refuses_padding_that_leaves_nothing(one):
    with pytest.raises(ValueError, match=r"the padding \[2, 2\] leaves no value of the top .* found 0"):
        one('type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 2 pad: 2 }', np.zeros((1, 1, 3, 5)))


def seen(x, kernel, stride, pad, dilation):
    """x (N, C, spatial) to (N, C * taps, positions), one value at a time."""
    axes = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    sizes = [(padded.shape[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(axes)]
    y = np.zeros((x.shape[0], x.shape[1] * int(np.prod(kernel)), *sizes), np.float32)
    for n, c in np.ndindex(*x.shape[:2]):
        for index, tap in enumerate(np.ndindex(*kernel)):
            for place in np.ndindex(*sizes):
                at = [place[a] * stride[a] + tap[a] * dilation[a] for a in range(axes)]
                y[(n, c * int(np.prod(kernel)) + index, *place)] = padded[(n, c, *at)]
    return y


IM2COL = {
    "plain": ((2, 3, 4, 5), "kernel_size: 3", (3, 3), (1, 1), (0, 0), (1, 1)),
    "stride_pad": ((1, 2, 5, 4), "kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 2", (3, 2), (2, 2), (1, 2), (1, 1)),
    "dilation": ((1, 2, 5, 6), "kernel_size: 2 dilation: 3 dilation: 2", (2, 2), (1, 1), (0, 0), (3, 2)),
    "one_spatial_axis": ((2, 2, 6), "kernel_size: 3 stride: 2", (3,), (2,), (0,), (1,)),
    "three_spatial_axes": ((1, 2, 3, 2, 3), "kernel_size: 2 pad: 1 stride: 2", (2,) * 3, (2,) * 3, (1,) * 3, (1,) * 3),
}


@pytest.mark.parametrize("name", IM2COL)
def test_im2col(one, normal, name):
    shape, fields, *numbers = IM2COL[name]
    x = normal(*shape)
    it = one(f'type: "Im2col" convolution_param {{ {fields} }}', x)
    np.testing.assert_array_equal(it.forward(), seen(x, *numbers))
    it.check_gradient()


def test_im2col_axis(one, normal):
    x = normal(2, 2, 3, 3, 3)
    it = one('type: "Im2col" convolution_param { kernel_size: 2 axis: -3 }', x)
    expected = seen(x.reshape(4, 3, 3, 3), (2, 2), (1, 1), (0, 0), (1, 1))
    np.testing.assert_array_equal(it.forward(), expected.reshape(2, 2, 12, 2, 2))


@pytest.mark.parametrize(
    "fields, said",
    [
        ("", "kernel_size must be specified once, or once per spatial dimension"),
        ("kernel_size: 0", r"Filter dimensions must be nonzero; found \[0, 0\]"),
        ("kernel_size: 1 stride: 0", "Stride dimensions must be nonzero"),
        ("kernel_size: 1 axis: 3", "expected 1 spatial axis or more after axis 3"),
        ("kernel_size: 5", r"the filter does not fit into its input: it spans \[5, 5\]"),
    ],
)
def test_im2col_refusals(one, fields, said):
    with pytest.raises(ValueError, match=said):
        one(f'type: "Im2col" convolution_param {{ {fields} }}', np.zeros((1, 2, 4, 4)))
