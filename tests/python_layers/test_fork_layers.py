"""The forks' layer types in nets: the authors' files, written anew, load, train and predict; what is refused."""

import importlib.metadata

import authors_formulas as formulas
import authors_nets as nets
import caffe
import cv2
import numpy as np
import pytest
from caffe.proto import caffe_pb2, text

SIZE = nets.TRIMMED


@pytest.fixture
def images(tmp_path):
    """A list of 24 images with 4 labels each; one of them unlabelled, one unknown, two with all labels."""
    random = np.random.RandomState(0)
    labels = random.randint(2, size=(24, 4))
    labels[3], labels[5], labels[7:9] = 0, -1, 1
    lines = []
    for index, row in enumerate(labels):
        cv2.imwrite(str(tmp_path / f"{index}.png"), random.randint(256, size=(24, 30, 3), dtype=np.uint8))
        lines.append(" ".join([str(tmp_path / f"{index}.png"), *map(str, row)]))
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "train.txt"


def layer(source):
    """One layer's text as a net of it, of inputs a, b, c, d: codes and labels of shapes (6, 3) and (6, 4)."""
    inputs = "".join(f'layer {{ name: "{name}" type: "Input" top: "{name}" '
                     f'input_param {{ shape {{ dim: 6 dim: {dim} }} }} }}'
                     for name, dim in zip("abcd", (3, 4, 3, 4), strict=True))  # fmt: skip
    return caffe.Net(text.parse(f"force_backward: true {inputs} layer {{ name: 'it' {source} }}",
                                caffe_pb2.NetParameter()), caffe.TRAIN)  # fmt: skip


def filled(source):
    """`layer(source)`, its inputs random, forward and backward done."""
    net = layer(source)
    random = np.random.RandomState(1)
    for name in "abcd":
        shape = net.blobs[name].shape
        net.blobs[name].data[...] = random.randint(2, size=shape) if name in "bd" else random.randn(*shape)
    net.forward()
    net.backward()
    return net, [net.blobs[name].data.copy() for name in "abcd"]


# -- training


def step_by_formula(fork, solver, hashnet, iteration):
    """(codes, printed losses, scale, gradient before the TanH) from the blobs of the net's last forward."""
    blobs = solver.net.blobs
    data = {name: np.float64(blobs[name].data) for name in blobs}
    if fork == "hashnet":
        counter = 1 + iteration - (1 + iteration) % 2  # of the last change of scale; step_size is 2
        scale = (1 + 0.005 * counter) ** 0.5
        codes, rows = data["fc8_code"], SIZE.batch
        printed, *gradients = formulas.hashnet(codes[:rows], data["label1"], codes[rows:], data["label2"],
                                               l_threshold=15, **hashnet)  # fmt: skip
        return codes, [printed], scale, np.concatenate(gradients) * scale * (1 - codes**2)
    codes, labels = data["hash_layer"], data["label"]
    if fork == "dhn_caffe":
        pairwise, quantized, gradient = formulas.dhn_caffe(codes, labels, 15, 15, 1, 0.3)
        return codes, [pairwise + quantized], 1, gradient * (1 - codes**2)
    pairwise, gradient = formulas.self_pairs(codes, labels, 15, 1, unknown=False)
    quantized, pull = formulas.quantization(codes, 15, 0.2)
    return codes, [pairwise, quantized], 1, (gradient + pull) * (1 - codes**2)


@pytest.mark.parametrize("fork, hashnet", [
    ("dhn_caffe", {}), ("hash_caffe", {}), ("hashnet", {"class_num": 5, "sigmoid_param": 0.2}),
    ("hashnet", {"class_num": 3, "sigmoid_param": 0.5, "continous_similarity": True})])  # fmt: skip
def test_five_iterations_are_those_of_the_formulas(tmp_path, images, fork, hashnet):
    pairwise = " ".join(f"{key}: {str(value).lower()}" for key, value in {"l_threshold": 15, **hashnet}.items())
    path = nets.write(fork, tmp_path / "net", images, SIZE, pairwise=pairwise if hashnet else None,
                      base_lr=0.01, random_seed=3, snapshot=0, snapshot_after_train="false")  # fmt: skip
    net_path = tmp_path / "net" / "train_val.prototxt"
    net_path.write_text(net_path.read_text().replace("step_size: 200", "step_size: 2"))
    path.write_text(path.read_text().replace("snapshot_after_train: false\nsnapshot_after_train: false",
                                             "snapshot_after_train: false"))  # fmt: skip
    solver = caffe.get_solver(str(path))
    name, features = ("fc8", "fc6") if fork == "hashnet" else ("hash_layer", "fc6")
    weight, bias = (np.float64(blob.data) for blob in solver.net.params[name])
    start, speeds = weight.copy(), [0.0, 0.0]
    for iteration in range(1, 6):
        solver.step(1)
        codes, printed, scale, gradient = step_by_formula(fork, solver, hashnet, iteration)
        inputs = np.float64(solver.net.blobs[features].data)
        np.testing.assert_allclose(codes, np.tanh(scale * (inputs @ weight.T + bias)), rtol=0, atol=1e-5)
        tops = [solver.net.blobs[top].data.item() for top in ("pairwise_loss", "quantization_loss")[: len(printed)]]
        np.testing.assert_allclose(tops, printed, rtol=1e-5)
        decayed = gradient.T @ inputs + 0.0005 * weight
        speeds = [0.9 * speeds[0] + 0.1 * decayed, 0.9 * speeds[1] + 0.2 * gradient.sum(0)]
        weight, bias = weight - speeds[0], bias - speeds[1]
        for blob, speed, value in zip(solver.net.params[name], speeds, (weight, bias), strict=True):
            np.testing.assert_allclose(blob.diff, speed, rtol=0, atol=1e-5 * np.abs(speed).max() + 1e-7)
            np.testing.assert_allclose(blob.data, value, rtol=0, atol=1e-5 * np.abs(value).max())
    assert np.abs(weight - start).max() > 0.01  # they did learn


@pytest.mark.parametrize("fork", nets.FORKS)
def test_released_sizes_load_and_predict(tmp_path, images, fork):
    labels = nets.LABELS[fork]
    images.write_text("\n".join(line.split()[0] + " 1" * labels for line in images.read_text().splitlines()))
    nets.write(fork, tmp_path / "net", images)
    light = (tmp_path / "net" / "train_val.prototxt").read_text().replace('type: "gaussian"', 'type: "constant"')
    (tmp_path / "net" / "train_val.prototxt").write_text(light)  # the fillers' time is not what is tested
    net = caffe.Net(str(tmp_path / "net" / "train_val.prototxt"), caffe.TRAIN)
    batch = {"hashnet": 512}.get(fork, 64)
    assert net.blobs["data"].shape == (batch, 3, 227, 227)
    assert net.blobs["label1" if fork == "hashnet" else "label"].shape == (nets.BATCH[fork], labels)
    assert net.blobs["fc6"].shape == (batch, 4096) and net.params["fc6"][0].shape == (4096, 9216)
    assert net.blobs["fc8_code" if fork == "hashnet" else "hash_layer"].shape == (batch, 48)
    assert net.outputs == (["pairwise_loss", "quantization_loss"] if fork == "hash_caffe" else ["pairwise_loss"])
    if fork == "dhn_caffe":
        return
    deploy = tmp_path / "net" / "deploy.prototxt"
    deploy.write_text(deploy.read_text().replace("4096", "64"))
    net = caffe.Net(str(deploy), caffe.TEST)
    assert net.blobs["data"].shape == (50, 3, 227, 227)
    net.blobs["data"].reshape(1, 3, 227, 227)
    net.blobs["data"].data[...] = 50 * np.random.RandomState(0).randn(1, 3, 227, 227)
    codes = net.forward()[net.outputs[0]]
    assert codes.shape == (1, 48) and 0 < np.abs(codes).max() <= 1


def test_a_trained_net_is_read_by_deploy(tmp_path, images):
    path = nets.write("hash_caffe", tmp_path / "net", images, SIZE, random_seed=3)
    solver = caffe.get_solver(str(path))
    solver.step(1)
    solver.net.save(str(tmp_path / "w.caffemodel"))
    net = caffe.Net(str(tmp_path / "net" / "deploy.prototxt"), caffe.TEST, weights=str(tmp_path / "w.caffemodel"))
    np.testing.assert_array_equal(net.params["hash_layer"][0].data, solver.net.params["hash_layer"][0].data)
    assert np.abs(net.forward(data=np.ones((50, 3, 17, 17)))["hash_layer"]).max() > 0


def test_a_caffemodel_with_a_forks_own_field_numbers_is_read(tmp_path):
    net = caffe.Net(text.parse("""layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }""",
                               caffe_pb2.NetParameter()), caffe.TEST)  # fmt: skip
    net.params["ip"][0].data[...] = 7
    net.save(str(tmp_path / "w.caffemodel"))
    released = caffe_pb2.LayerParameter(name="pairwise_loss", type="PairwiseLoss").SerializeToString()
    released += b"\xa2\x09\x05\x1d\x00\x00\x70\x41"  # field 148, clip_param in BVLC's numbering, holds 3: 15.0
    with open(tmp_path / "w.caffemodel", "ab") as stream:
        stream.write(b"\xa2\x06" + bytes([len(released)]) + released)  # NetParameter.layer
    net.params["ip"][0].data[...] = 0
    net.copy_from(str(tmp_path / "w.caffemodel"))
    assert net.params["ip"][0].data.tolist() == [[7, 7]]


# -- layers alone


def test_every_type_is_a_plug_in():
    found = importlib.metadata.entry_points(group="caffe.layer_types")
    types = {"PairwiseLoss", "QuantizationLoss", "MultiLabelData", "ScaleTanH", "Entropy"}
    assert {entry.name for entry in found} == types
    assert all(entry.load().__name__ == entry.name for entry in found)


SELF = 'type: "PairwiseLoss" bottom: "a" bottom: "b" top: "loss" propagate_down: true propagate_down: false'


@pytest.mark.parametrize("weight", [1, 3])
def test_loss_weight_reaches_hash_caffes_gradient_alone(weight):
    field = f"loss_weight: {weight} pairwise_param"
    net, (codes, labels, *_) = filled(f"{SELF} {field} {{ l_lambda: 2 q_gamma: 0.5 }}")
    *printed, gradient = formulas.dhn_caffe(codes, labels, l_lambda=2, q_gamma=0.5)
    assert net.blobs["loss"].data == pytest.approx(sum(printed), rel=1e-5)
    np.testing.assert_allclose(net.blobs["a"].diff, gradient, rtol=1e-5, atol=1e-7)

    net, (codes, labels, *_) = filled(f"{SELF} {field} {{ threshold: -1 }}")
    printed, gradient = formulas.self_pairs(codes, labels, -1, 1, unknown=False)
    assert net.blobs["loss"].data == pytest.approx(printed, rel=1e-5)
    np.testing.assert_allclose(net.blobs["a"].diff, weight * gradient, rtol=1e-5, atol=1e-7)

    net, (codes, *_) = filled('type: "QuantizationLoss" bottom: "a" top: "loss" '
                              f"loss_weight: {weight} quantization_param {{ threshold: 0.2 }}")  # fmt: skip
    printed, gradient = formulas.quantization(np.float64(codes), 0.2, weight)
    assert net.blobs["loss"].data == pytest.approx(printed, rel=1e-5)
    np.testing.assert_allclose(net.blobs["a"].diff, gradient, rtol=1e-5, atol=1e-7)


def test_a_weight_of_zero_switches_a_printed_loss_off():
    net, (codes, labels, *_) = filled(f"{SELF} pairwise_param {{ l_lambda: 0 q_gamma: 0.5 }}")
    _, quantized, gradient = formulas.dhn_caffe(codes, labels, l_lambda=0, q_gamma=0.5)
    assert net.blobs["loss"].data == pytest.approx(quantized, rel=1e-5)
    np.testing.assert_allclose(net.blobs["a"].diff, gradient, rtol=1e-5, atol=1e-7)


FOUR = 'type: "PairwiseLoss" bottom: "a" bottom: "b" bottom: "c" bottom: "d" top: "loss" '
FOUR_DOWN = FOUR + "propagate_down: true propagate_down: false propagate_down: true propagate_down: false "


def test_hashnet_with_four_bottoms():
    net, arrays = filled(FOUR_DOWN + "loss_weight: 4 pairwise_param { class_num: 2 q_gamma: 9 sigmoid_param: 0.3 }")
    printed, *gradients = formulas.hashnet(*arrays, class_num=2, sigmoid_param=0.3)
    assert net.blobs["loss"].data == pytest.approx(printed, rel=1e-5)
    for name, gradient in zip("ac", gradients, strict=True):
        np.testing.assert_allclose(net.blobs[name].diff, gradient, rtol=1e-5, atol=1e-7)


def test_dhn_caffe_logs_both_losses(logged):
    filled(f"{SELF} pairwise_param {{ l_lambda: 0 }}")
    lines = [record.getMessage() for record in logged]
    assert any(line.startswith("L loss:") for line in lines) and any(line.startswith("Q loss:") for line in lines)


SCALAR = 'type: "Reduction" bottom: "a" top: "s" } layer { name: "it" '


@pytest.mark.parametrize("source, message", [
    (SELF, "empty pairwise_param with 2 bottoms.*l_threshold: -1.*threshold: -1"),
    (SELF + " pairwise_param { threshold: 15 q_gamma: 1 }", "different forks.*found threshold, q_gamma"),
    (SELF + " pairwise_param { class_num: 2 }", "different forks.*found class_num"),
    (SELF + " pairwise_param { axis: 0 }", "axis must be 1.*found 0"),
    (FOUR + "pairwise_param { threshold: 15 }", "expected those of HashNet.*found threshold"),
    (FOUR.replace('bottom: "d"', ""), "2 bottom blobs.*found 3"),
    (FOUR.replace('bottom: "c"', 'bottom: "b"').replace('bottom: "d"', 'bottom: "a"'), "codes of one shape"),
    ('type: "ScaleTanH" bottom: "a" top: "t" scale_tanh_param { step_size: 0 }', "step_size must be 1 or more"),
    ('type: "ScaleTanH" bottom: "a" top: "t" scale_tanh_param { gamma: 2 }', "gamma has no effect without power"),
    ('type: "Entropy" bottom: "a" top: "e" entropy_param { threshold: 1 }', "Entropy.*no net that the authors"),
    (SCALAR + 'type: "QuantizationLoss" bottom: "s" top: "loss"', r"codes \(B, K\) in bottom\[0\], found \(1\)"),
    (SCALAR + SELF.replace('"a"', '"s"').replace('"b"', '"s"') + " pairwise_param { threshold: 1 }", "0-D Blob"),
    (SCALAR + SELF.replace('"a"', '"s"') + " pairwise_param { threshold: 1 }", "0-D Blob"),
])  # fmt: skip
def test_what_is_refused(source, message):
    with pytest.raises(ValueError, match=f"layer 'it'.*{message}"):
        layer(source)


@pytest.mark.parametrize("source", [SELF.replace("false", "true"), FOUR_DOWN.replace("false", "true")])
def test_no_gradient_for_labels(source):
    with pytest.raises(ValueError, match=r"'it' \(PairwiseLoss\): cannot backpropagate to label inputs"):
        filled(source + " pairwise_param { l_threshold: -1 }")


@pytest.mark.parametrize("in_place", [False, True])
def test_scale_tanh_grows_with_the_count_of_reshapes(in_place):
    top = "p" if in_place else "t"
    net = caffe.Net(text.parse(f"""force_backward: true
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "p" type: "Power" bottom: "x" top: "p" }}
        layer {{ name: "t" type: "ScaleTanH" bottom: "p" top: "{top}"
                 scale_tanh_param {{ init_scale: 0.5 step_size: 3 gamma: 2 power: 0.5 }} }}""",
                               caffe_pb2.NetParameter()), caffe.TRAIN)  # fmt: skip
    x = np.linspace(-2, 2, 6).reshape(2, 3)
    net.blobs["x"].data[...] = x
    for forward in range(1, 8):
        counter = 3 * ((1 + forward) // 3)
        scale = 0.5 * (1 + 2 * counter) ** 0.5 if counter else 0.5
        np.testing.assert_allclose(net.forward()[top], np.tanh(scale * x), rtol=1e-5)
        net.blobs[top].diff[...] = 2
        net.backward()
        np.testing.assert_allclose(net.blobs["x"].diff, 2 * scale * (1 - np.tanh(scale * x) ** 2), rtol=1e-4)


# -- data

DATA = 'layer {{ name: "it" type: "{}" top: "data" top: "label" {}_param {{ source: "{}" batch_size: 2 {} }} }}'


def read(kind, source, fields):
    prefix = {"ImageData": "image_data", "MultiLabelData": "multi_label_data"}[kind]
    net = caffe.Net(text.parse(DATA.format(kind, prefix, source, fields), caffe_pb2.NetParameter()), caffe.TRAIN)
    return net, net.forward()


@pytest.mark.parametrize("kind, field", [("ImageData", "label_dim"), ("MultiLabelData", "label_num")])
def test_label_vectors_from_a_list(images, kind, field):
    folder = images.parent
    (folder / "a b.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "relative.txt").write_text("0.png 1 0\t-1\na b.png 0  5 1\n")
    _, blobs = read(kind, folder / "relative.txt", f'{field}: 3 root_folder: "{folder}/"')
    assert blobs["label"].tolist() == [[1, 0, -1], [0, 5, 1]]
    for index, image in enumerate(blobs["data"]):
        np.testing.assert_array_equal(image, cv2.imread(str(folder / f"{index}.png")).transpose(2, 0, 1))
    net, _ = read(kind, images, f"{field}: 4 new_height: 8 new_width: 9 is_color: false rand_skip: 1")
    assert net.blobs["data"].shape == (2, 1, 8, 9) and net.blobs["label"].shape == (2, 4)


def test_one_label_has_an_axis_only_when_a_fork_asks_for_it(images):
    images.write_text("\n".join(" ".join(line.split()[:2]) for line in images.read_text().splitlines()))
    assert read("ImageData", images, "")[1]["label"].shape == (2,)
    assert read("ImageData", images, "label_dim: 1")[1]["label"].shape == (2, 1)
    assert read("MultiLabelData", images, "")[1]["label"].shape == (2, 1)


@pytest.mark.parametrize("kind, field", [("ImageData", "label_dim"), ("MultiLabelData", "label_num")])
def test_lists_that_do_not_fit(images, kind, field):
    images.write_text("a.png 1 0\nb.png 1 x\n")
    with pytest.raises(ValueError, match=r"'it'.*train.txt:2: expected `path` and 2 labels, .*found 'b.png 1 x'"):
        read(kind, images, f"{field}: 2")
    images.write_text("a.png 1 0\nb.png 1\n")
    with pytest.raises(ValueError, match=r"train.txt:2: expected `path` and 2 labels, whole numbers, found"):
        read(kind, images, f"{field}: 2")
    with pytest.raises(ValueError, match=f"expected {field} of 1 or more, found 0"):
        read(kind, images, f"{field}: 0")


# -- class numbers in place of label vectors


def one_label(kind, shape, bottoms='bottom: "codes" bottom: "labels"'):
    """A net of codes (4, 3) and labels of a shape, with a loss of a pairwise_param."""
    dims = " ".join(f"dim: {size}" for size in shape)
    return caffe.Net(text.parse(f"""layer {{ name: "in" type: "Input" top: "codes" top: "labels"
        input_param {{ shape {{ dim: 4 dim: 3 }} shape {{ {dims} }} }} }}
        layer {{ name: "it" type: "PairwiseLoss" {bottoms} top: "loss" pairwise_param {{ {kind} }} }}""",
                                caffe_pb2.NetParameter()), caffe.TRAIN)  # fmt: skip


FOUR = 'bottom: "codes" bottom: "labels" bottom: "codes" bottom: "labels"'


@pytest.mark.parametrize(
    "kind, shape, bottoms, message",
    [
        ("l_threshold: 15", (4,), "", r"found class numbers \(B,\): 4 \(4\); write list lines .* label_dim: C"),
        ("threshold: 15", (4,), "", r"found class numbers \(B,\): 4 \(4\)"),
        ("class_num: 1", (4,), FOUR, r"found class numbers \(B,\): 4 \(4\)"),
        (
            "l_threshold: 15",
            (4, 1),
            "",
            r"of 2 labels or more in bottom\[1\], found 4 1 \(4\): images that share all C",
        ),
        ("class_num: 1", (4, 1, 1, 1), FOUR, r"of 2 labels or more in bottom\[1\], found 4 1 1 1 \(4\)"),
    ],
)
def test_class_numbers_are_refused(kind, shape, bottoms, message):
    with pytest.raises(ValueError, match=rf"'it' \(PairwiseLoss\): expected label vectors \(B, C\) .*{message}"):
        one_label(kind, shape, *([bottoms] if bottoms else []))


def test_one_label_is_read_where_the_released_code_can():
    net = one_label("threshold: -1", (4, 1))
    net.blobs["codes"].data[...] = np.random.RandomState(3).randn(4, 3)
    labels = np.array([[1], [0], [1], [1]])
    net.blobs["labels"].data[...] = labels
    net.forward()
    expected, _ = formulas.self_pairs(net.blobs["codes"].data, labels, -1, 1, unknown=False)
    assert net.blobs["loss"].data.item() == pytest.approx(expected, rel=1e-6)
    net.blobs["labels"].data[3] = 4
    with pytest.raises(ValueError, match=r"found class numbers up to 4; write list lines"):
        net.forward()
    one_label("l_lambda: 0", (4, 1)).forward()  # dhn-caffe's quantization loss alone: the labels do not matter


@pytest.mark.parametrize("kind, bottoms", [("l_threshold: 15", ""), ("threshold: 15", ""), ("class_num: 1", FOUR)])
def test_label_vectors_of_minus_and_plus_1_are_refused(kind, bottoms):
    net = one_label(kind, (4, 3), *([bottoms] if bottoms else []))
    net.blobs["labels"].data[...] = [[1, 0, 1], [-1, -1, -1], [0, 0, 0], [1, -1, 1]]
    with pytest.raises(ValueError, match=r"bottom\[1\], row 3: .* found -1 among other labels. Write 0 where"):
        net.forward()
    net.blobs["labels"].data[3] = [1, 0, 1]
    net.forward()
