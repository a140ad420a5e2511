"""DepthwiseConvolution and ShuffleChannel against their definitions as loops, and their gradients."""

import numpy as np
import pytest


def test_depthwise_convolution(one, normal):
    x = normal(2, 3, 5, 4)
    it = one('type: "DepthwiseConvolution" convolution_param { num_output: 6 group: 3 kernel_size: 3 pad: 1 stride: 2 '
             'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } }', x)  # fmt: skip
    weight, bias = (blob.data for blob in it.blobs)
    assert weight.shape == (6, 1, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((2, 6, 3, 2))
    for n, o, i, j in np.ndindex(*expected.shape):
        part = padded[n, o // 2, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[n, o, i, j] = (part.astype(float) * weight[o, 0]).sum() + bias[o]
    np.testing.assert_allclose(it.forward(), expected, rtol=1e-4, atol=1e-4)
    it.check_gradient()
    with pytest.raises(ValueError, match="group must be the number of the bottom's channels, 3; found 1"):
        one('type: "DepthwiseConvolution" convolution_param { num_output: 6 kernel_size: 3 }', x)


@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6, 2, 3), (2, 6)])
def test_shuffle_channel(one, normal, shape, group):
    x = normal(*shape)
    it = one(f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', x)
    expected = np.zeros_like(x)
    for g in range(group):
        for c in range(6 // group):
            expected[:, c * group + g] = x[:, g * (6 // group) + c]
    np.testing.assert_array_equal(it.forward(), expected)
    it.check_gradient()


def test_shuffle_channel_refuses(one, normal):
    with pytest.raises(ValueError, match=r"Wrong group size: group 4 does not divide the channels of 2 6 \(12\)"):
        one('type: "ShuffleChannel" shuffle_channel_param { group: 4 }', normal(2, 6))
