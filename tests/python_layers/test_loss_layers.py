"""The loss layers in a net: what they hand back, to whom, and what they refuse."""

import caffe
import numpy as np
import pytest
from hashing_losses import log_cosh_quantization, pairwise_cross_entropy, squared_similarity

B, K, C = 6, 4, 3
LOSSES = {
    "pairwise_loss": ("PairwiseLossLayer", lambda z, y, n: pairwise_cross_entropy(z, y, n)),
    "squared_similarity_loss": ("SquaredSimilarityLossLayer", lambda z, y, n: squared_similarity(z, y, n)),
    "quantization_loss": ("QuantizationLossLayer", lambda z, y, n: log_cosh_quantization(z, n)),
}


def make_net(folder, module, param_str="", extra="", batch=B):
    """A net whose codes come from an InnerProduct, so that they have a gradient; labels are an input."""
    labels = '' if module == "quantization_loss" else 'bottom: "labels"'
    path = folder / "net.prototxt"
    path.write_text(f"""
        layer {{ name: "in" type: "Input" top: "x" top: "labels"
                 input_param {{ shape {{ dim: {batch} dim: 5 }} shape {{ dim: {B} dim: {C} }} }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "codes"
                 inner_product_param {{ num_output: {K} weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss" type: "Python" bottom: "codes" {labels} top: "loss" {extra}
                 python_param {{ module: "{module}" layer: "{LOSSES[module][0]}" param_str: '{param_str}' }} }}""")
    net = caffe.Net(str(path), caffe.TRAIN)
    random = np.random.RandomState(0)
    net.blobs["x"].data[...] = random.randn(batch, 5)
    net.blobs["labels"].data[...] = np.eye(C)[random.randint(C, size=B)]
    net.blobs["labels"].data[2] = -1
    return net


@pytest.mark.parametrize("module", LOSSES)
@pytest.mark.parametrize("normalization", ["mean", "sum"])
def test_loss_and_diff_times_the_loss_weight(tmp_path, module, normalization):
    net = make_net(tmp_path, module, f'{{"normalization": "{normalization}"}}', "loss_weight: 2")
    loss, gradient = LOSSES[module][1](
        net.forward(end="ip")["codes"].copy(), net.blobs["labels"].data.copy(), normalization)
    net.forward()
    assert net.blobs["loss"].data.item() == pytest.approx(loss, rel=1e-5)
    net.backward()
    np.testing.assert_allclose(net.blobs["codes"].diff, 2 * gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("module", LOSSES)
def test_mean_is_the_default(tmp_path, module):
    net = make_net(tmp_path, module, extra="loss_weight: 1")
    net.forward()
    expected = LOSSES[module][1](net.blobs["codes"].data, net.blobs["labels"].data, "mean")[0]
    assert net.blobs["loss"].data.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("module", ["pairwise_loss", "quantization_loss"])
def test_authors_mode_reaches_the_codes(tmp_path, module):
    net = make_net(tmp_path, module, '{"normalization": "authors"}', "loss_weight: 0.5")
    net.forward()
    net.backward()
    expected = LOSSES[module][1](net.blobs["codes"].data, net.blobs["labels"].data, "authors")[1]
    np.testing.assert_allclose(net.blobs["codes"].diff, 0.5 * expected, rtol=1e-5, atol=1e-8)


def test_without_loss_weight_nothing_is_learned(tmp_path):
    net = make_net(tmp_path, "pairwise_loss")
    net.forward()
    net.backward()
    assert net.blobs["loss"].data.item() > 0
    assert not net.params["ip"][0].diff.any()


@pytest.mark.parametrize("module", ["pairwise_loss", "squared_similarity_loss"])
def test_labels_receive_no_gradient(tmp_path, module):
    net = make_net(tmp_path, module, extra="loss_weight: 1 propagate_down: true propagate_down: true")
    net.forward()
    with pytest.raises(ValueError, match="cannot back-propagate to its labels"):
        net.backward()


@pytest.mark.parametrize("module", LOSSES)
def test_codes_that_need_no_gradient_get_none(tmp_path, module):
    net = make_net(tmp_path, module, extra="loss_weight: 1")
    layer = list(net._layer_names).index("loss")

    class Blob:
        def __init__(self, data):
            self.data, self.diff = data, np.full_like(data, 7)

    codes, labels = Blob(np.ones((B, K), np.float32)), Blob(np.ones((B, C), np.float32))
    net.layers[layer].backward([Blob(np.ones(1, np.float32))], [False, False], [codes, labels])
    assert (codes.diff == 7).all()


@pytest.mark.parametrize("module", ["pairwise_loss", "squared_similarity_loss"])
def test_batches_of_different_size_are_refused(tmp_path, module):
    with pytest.raises(ValueError, match=r"need the same B; found \(7, 4\) and \(6, 3\)"):
        make_net(tmp_path, module, batch=7)


def test_wrong_number_of_bottoms_is_refused(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 5 } } }'
                    'layer { name: "loss" type: "Python" bottom: "x" top: "loss" python_param {'
                    ' module: "pairwise_loss" layer: "PairwiseLossLayer" } }')
    with pytest.raises(ValueError, match=r"takes 2 bottoms .* found 1 and 1"):
        caffe.Net(str(path), caffe.TRAIN)


@pytest.mark.parametrize("module, param_str, message", [
    ("pairwise_loss", '{"normalisation": "sum"}', "unknown key 'normalisation'; the keys are normalization"),
    ("pairwise_loss", '{"normalization": "batch"}', "must be one of mean, sum, authors; found 'batch'"),
    ("squared_similarity_loss", '{"normalization": "authors"}', "must be one of mean, sum; found 'authors'"),
    ("quantization_loss", '{"normalization": 1}', "'normalization' must be a string; found 1"),
    ("quantization_loss", "normalization: sum", "param_str must be JSON"),
])
def test_param_str_refusals(tmp_path, module, param_str, message):
    with pytest.raises(ValueError, match=message):
        make_net(tmp_path, module, param_str)
