"""The loss layers in a net: what they hand back, to whom, and what they refuse."""

import json

import caffe
import cv2
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
    labels = "" if module == "quantization_loss" else 'bottom: "labels"'
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
        net.forward(end="ip")["codes"].copy(), net.blobs["labels"].data.copy(), normalization
    )
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


@pytest.mark.parametrize("module", ["pairwise_loss", "squared_similarity_loss"])
@pytest.mark.parametrize("normalization", ["mean", "sum"])
@pytest.mark.parametrize("similar_weight", [5, 0.25, "balanced"])
def test_the_diff_of_weighted_pairs_is_that_of_the_forward(tmp_path, module, normalization, similar_weight):
    param_str = json.dumps({"similar_weight": similar_weight, "normalization": normalization})
    net = make_net(tmp_path, module, param_str, "loss_weight: 2")
    net.forward()
    net.backward()
    codes, labels = net.blobs["codes"].data.astype(float), net.blobs["labels"].data.astype(float)
    formula = {"pairwise_loss": pairwise_cross_entropy, "squared_similarity_loss": squared_similarity}[module]
    loss = lambda z: 2 * formula(z, labels, normalization, similar_weight)[0]  # noqa: E731
    assert 2 * net.blobs["loss"].data.item() == pytest.approx(loss(codes), rel=1e-5)
    plain = formula(codes, labels, normalization)[0]
    assert abs(loss(codes) - 2 * plain) > 1e-3 * abs(plain), "the weight changes the loss"
    step = 1e-6
    for index in np.ndindex(*codes.shape):
        moved = [
            codes
            + sign * step * (np.arange(codes.size).reshape(codes.shape) == np.ravel_multi_index(index, codes.shape))
            for sign in (1, -1)
        ]
        slope = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        assert net.blobs["codes"].diff[index] == pytest.approx(slope, rel=1e-4, abs=1e-5)


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


@pytest.mark.parametrize("module", LOSSES)
@pytest.mark.parametrize("param_str", ["", '{"labels": "classes"}'])
@pytest.mark.parametrize("bottoms", ["ss", "sx", "xs"])
def test_a_loss_in_the_place_of_codes_or_labels_is_refused(tmp_path, module, param_str, bottoms):
    if module == "quantization_loss":
        bottoms, param_str = "s", ""
    names = " ".join(f'bottom: "{name}"' for name in bottoms)
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 } } }'
        'layer { name: "sum" type: "Reduction" bottom: "x" top: "s" reduction_param { axis: 0 } }'
        f'layer {{ name: "loss" type: "Python" {names} top: "loss" python_param {{'
        f' module: "{module}" layer: "{LOSSES[module][0]}" param_str: \'{param_str}\' }} }}'
    )
    with pytest.raises(ValueError, match=rf"{LOSSES[module][0]}: .*(codes|labels|vectors)"):
        caffe.Net(str(path), caffe.TRAIN)


def test_wrong_number_of_bottoms_is_refused(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 5 } } }'
        'layer { name: "loss" type: "Python" bottom: "x" top: "loss" python_param {'
        ' module: "pairwise_loss" layer: "PairwiseLossLayer" } }'
    )
    with pytest.raises(ValueError, match=r"takes 2 bottoms .* found 1 and 1"):
        caffe.Net(str(path), caffe.TRAIN)


@pytest.mark.parametrize(
    "module, param_str, message",
    [
        (
            "pairwise_loss",
            '{"normalisation": "sum"}',
            "unknown key 'normalisation'; the keys are labels, normalization, pairs, similar_weight",
        ),
        ("pairwise_loss", '{"normalization": "batch"}', "must be one of mean, sum, authors; found 'batch'"),
        ("squared_similarity_loss", '{"normalization": "authors"}', "must be one of mean, sum; found 'authors'"),
        ("pairwise_loss", '{"labels": "numbers"}', "must be one of vectors, classes; found 'numbers'"),
        ("pairwise_loss", '{"similar_weight": 0}', 'must be a number above 0, or "balanced"; found 0'),
        ("pairwise_loss", '{"similar_weight": NaN}', 'must be a number above 0, or "balanced"; found NaN'),
        (
            "squared_similarity_loss",
            '{"similar_weight": "even"}',
            'must be a number above 0, or "balanced"; found "even"',
        ),
        ("quantization_loss", '{"similar_weight": 2}', "unknown key 'similar_weight'"),
        ("quantization_loss", '{"labels": "classes"}', "unknown key 'labels'"),
        ("quantization_loss", '{"normalization": 1}', "'normalization' must be a string; found 1"),
        ("quantization_loss", "normalization: sum", "param_str must be JSON"),
    ],
)
def test_param_str_refusals(tmp_path, module, param_str, message):
    with pytest.raises(ValueError, match=message):
        make_net(tmp_path, module, param_str)


# -- what bottom[1] means

WITH_LABELS = ("pairwise_loss", "squared_similarity_loss")
CLASSES = np.array([4, 0, 4, -1, 1, 0], np.float32)


def label_net(folder, module, shape, param_str="", normalization=None):
    """A net of inputs `x` (6, 5), of which it makes `codes` (6, 4), and `labels` of a shape."""
    settings = {**json.loads(param_str or "{}"), **({"normalization": normalization} if normalization else {})}
    path = folder / "net.prototxt"
    path.write_text(f"""
        layer {{ name: "in" type: "Input" top: "x" top: "labels" input_param {{
                 shape {{ dim: {B} dim: 5 }} shape {{ {" ".join(f"dim: {size}" for size in shape)} }} }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "codes"
                 inner_product_param {{ num_output: {K} weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss" type: "Python" bottom: "codes" bottom: "labels" top: "loss" loss_weight: 2
                 python_param {{ module: "{module}" layer: "{LOSSES[module][0]}"
                                 param_str: '{json.dumps(settings)}' }} }}""")
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["x"].data[...] = np.random.RandomState(5).randn(B, 5)
    return net


@pytest.mark.parametrize("module", WITH_LABELS)
@pytest.mark.parametrize(
    "shape, message",
    [
        ((6,), r'found class numbers \(B,\): \(6,\). Write param_str: .*"labels": "classes"'),
        ((6, 1), r'found one value an image: \(6, 1\). Write .*"classes".*"labels": "vectors"'),
        ((6, 1, 1, 1), r"found one value an image: \(6, 1, 1, 1\)"),
        ((6, 2, 3), r"expected label vectors \(B, C\) in bottom\[1\], found \(6, 2, 3\)"),
    ],
)
def test_class_numbers_are_refused_by_name(tmp_path, module, shape, message):
    with pytest.raises(ValueError, match=rf"{LOSSES[module][0]}: .*{message}"):
        label_net(tmp_path, module, shape)


@pytest.mark.parametrize(
    "module, normalization",
    [
        ("pairwise_loss", "mean"),
        ("pairwise_loss", "sum"),
        ("pairwise_loss", "authors"),
        ("squared_similarity_loss", "mean"),
    ],
)
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1, 1)])
def test_declared_class_numbers_are_one_hot_vectors(tmp_path, module, normalization, shape):
    net = label_net(tmp_path, module, shape, '{"labels": "classes"}', normalization)
    net.blobs["labels"].data[...] = CLASSES.reshape(shape)
    net.forward()
    net.backward()
    one_hot = np.eye(5, dtype=np.float32)[CLASSES.astype(int)]
    one_hot[CLASSES < 0] = -1
    loss, gradient = LOSSES[module][1](net.blobs["codes"].data.copy(), one_hot, normalization)
    assert net.blobs["loss"].data.item() == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(net.blobs["codes"].diff, 2 * gradient, rtol=1e-5, atol=1e-7)


def test_a_stock_data_layer_feeds_the_loss_where_declared(tmp_path):
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((4, 4), 40 * index, np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{i}.png {c:g}\n" for i, c in enumerate(CLASSES)))

    def net(param_str):
        (tmp_path / "net.prototxt").write_text(f"""
            layer {{ name: "data" type: "ImageData" top: "data" top: "label"
                     image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 6 is_color: false }} }}
            layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "codes"
                     inner_product_param {{ num_output: 3 }} }}
            layer {{ name: "loss" type: "Python" bottom: "codes" bottom: "label" top: "loss" loss_weight: 1
                     python_param {{ module: "pairwise_loss" layer: "PairwiseLossLayer" {param_str} }} }}""")
        return caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)

    with pytest.raises(ValueError, match=r"PairwiseLossLayer: .* found class numbers \(B,\): \(6,\)"):
        net("")
    declared = net("""param_str: '{"labels": "classes"}'""")
    declared.params["ip"][0].data[...] = 0.002 * np.random.RandomState(0).randn(3, 16)
    declared.forward()
    declared.backward()
    assert declared.blobs["loss"].data.item() == pytest.approx(3.610087, rel=1e-6)  # BVLC Caffe's answers
    assert np.abs(declared.params["ip"][0].diff).sum() == pytest.approx(6680.62, rel=1e-6)


@pytest.mark.parametrize("module", WITH_LABELS)
def test_one_label_declared_as_a_vector(tmp_path, module):
    net = label_net(tmp_path, module, (6, 1), '{"labels": "vectors"}')
    labels = np.array([[1], [0], [1], [-1], [0], [1]], np.float32)
    net.blobs["labels"].data[...] = labels
    net.forward()
    expected = LOSSES[module][1](net.blobs["codes"].data.copy(), labels, "mean")[0]
    assert net.blobs["loss"].data.item() == pytest.approx(expected, rel=1e-6)


def test_authors_mode_has_no_similar_pair_of_one_label(tmp_path):
    with pytest.raises(ValueError, match=r'"normalization": "authors" expects label vectors of 2 labels or more'):
        label_net(tmp_path, "pairwise_loss", (6, 1), '{"labels": "vectors"}', "authors")


@pytest.mark.parametrize("module", WITH_LABELS)
@pytest.mark.parametrize(
    "row, message",
    [
        ([0, 2, 0], "found 2"),
        ([0, 0.5, 0], "found 0.5"),
        ([1, -1, 0], "Write 0 where"),
        ([0, 255, 0], "found 255"),
        ([float("nan"), 0, 0], "found nan"),
    ],
)
def test_other_values_are_refused_by_row(tmp_path, module, row, message):
    net = label_net(tmp_path, module, (6, 3))
    net.forward()  # all 0: no labels
    net.blobs["labels"].data[4] = row
    with pytest.raises(ValueError, match=rf"{LOSSES[module][0]}: bottom\[1\], row 4: .*{message}"):
        net.forward()
