"""Layers that work on a batch part by part give what they give for it whole, also into the memory they held before."""

import numpy as np
import pytest
from caffe.cpu import convolution, kernels, parts, pointwise
from caffe.layer_types import pooling

LAYERS = {
    "convolution": 'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 }',
    "no bias": 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 2 bias_term: false }',
    "one value": 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 }',
    "pooling": 'type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }',
    "lrn": 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }',
}


def run(layer, rounds: int):
    """(top, bottom diff, parameter diffs) of a layer after some iterations over other values."""
    import caffe
    from caffe.proto import caffe_pb2, text

    caffe.set_random_seed(1)
    weights = 'weight_filler { type: "xavier" } bias_filler { type: "uniform" }' if "Conv" in layer else ""
    layer = layer.replace("convolution_param {", f"convolution_param {{ {weights}")
    net = caffe.Net(text.parse('force_backward: true layer { name: "x" type: "Input" top: "x" '
                               "input_param { shape { dim: 7 dim: 4 dim: 9 dim: 8 } } } "
                               f'layer {{ name: "y" bottom: "x" top: "y" {layer} }}', caffe_pb2.NetParameter()),
                    caffe.TRAIN)  # fmt: skip
    random = np.random.RandomState(0)
    for _ in range(rounds):
        net.clear_param_diffs()
        net.blobs["x"].data[...] = random.standard_normal(net.blobs["x"].shape)
        net._forward(0, 1)
        net.blobs["y"].diff[...] = random.standard_normal(net.blobs["y"].shape)
        net._backward(1, 0)
    params = [blob.diff.copy() for blob in net.params["y"]] if "y" in net.params else []
    return [net.blobs["y"].data.copy(), net.blobs["x"].diff.copy(), *params]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rounds", [1, 3])
def test_parts_are_the_whole(name, rounds, monkeypatch):
    monkeypatch.setattr(kernels, "LIBRARY", None)  # it has parts of its own
    whole = run(LAYERS[name], rounds)
    seen = []
    original = parts.parts

    def counted(batch, values=parts.CACHED):
        found = list(original(batch, 2 * 4 * 9 * 8))  # two images
        seen.append(len(found))
        return iter(found)

    monkeypatch.setattr(parts, "parts", counted)
    for module in (convolution, pointwise, pooling):
        monkeypatch.setattr(module, "parts", counted)
    monkeypatch.setattr(convolution, "COPIED", 1)
    parted = run(LAYERS[name], rounds)
    assert seen and max(seen) == 4, "seven images, two at a time"
    for one, other in zip(whole, parted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * max(1.0, np.abs(one).max()))


def test_what_a_blob_held_is_used_again_unless_an_array_is_out():
    import caffe
    from caffe.proto import caffe_pb2, text

    net = caffe.Net(text.parse('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 '
                               'dim: 5 } } } layer { name: "y" type: "LRN" bottom: "x" top: "y" }',
                               caffe_pb2.NetParameter()), caffe.TEST)  # fmt: skip
    net.blobs["x"].data[...] = 1
    net._forward(0, 1)
    memory = net.blobs["y"].data_memory
    first = memory.tensor.data_ptr()
    net._forward(0, 1)
    assert memory.tensor.data_ptr() == first
    held = net.blobs["y"].data
    before = held.copy()
    net.blobs["x"].data[...] = 2
    net._forward(0, 1)
    assert not np.array_equal(held, before) and np.shares_memory(held, net.blobs["y"].data)


def test_relu_writes_over_a_convolution_but_not_over_what_a_gradient_needs():
    import caffe
    from caffe.proto import caffe_pb2, text

    linear = 'type: "InnerProduct" inner_product_param { num_output: 3 }'
    for below, allowed in ((linear, True), ('type: "TanH"', False)):
        net = caffe.Net(text.parse('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } '
                                   f'layer {{ name: "y" bottom: "x" top: "y" {below} }} '
                                   'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }',
                                   caffe_pb2.NetParameter()), caffe.TRAIN)  # fmt: skip
        assert net.layers[2].may_overwrite is allowed
