"""The net generator: the committed files are what it writes, and its nets are what a variant and bits ask for."""

import json
import os
import re
from pathlib import Path

import caffe
import dataset_table
import net
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

ROOT = Path(__file__).resolve().parents[2]
FILES = ("train_val.prototxt", "deploy.prototxt", "solver.prototxt")


def read(path, message=None):
    message = message or caffe_pb2.NetParameter()
    text_format.Parse(Path(path).read_text(), message)
    return message


def layers(path):
    return {layer.name: layer for layer in read(path).layer}


COMMITTED = [
    ("fashion_mnist", "small_alexnet"),
    *((dataset, name) for dataset in ("cifar10", "nus_wide", "flickr25k") for name in net.FINE_TUNED),
    ("cifar10", "cifar_quick"),
]


@pytest.mark.parametrize("dataset, name", COMMITTED)
def test_committed_files_are_what_net_writes(dataset, name, monkeypatch, tmp_path):
    committed = Path(net.default_folder(dataset, name))
    monkeypatch.setattr(net, "ROOT", str(tmp_path))
    monkeypatch.setattr(dataset_table, "ROOT", str(tmp_path))
    written = Path(net.default_folder(dataset, name))
    net.write(dataset, "dhn", 48, str(written), name)
    for file in FILES:
        assert (written / file).read_text() == (committed / file).read_text(), (
            f"{committed / file} is not what net.py writes; run: python prototxt/net.py {dataset} --net {name}"
        )


@pytest.mark.parametrize(
    "dataset, name",
    [
        ("fashion_mnist", None),
        *((dataset, "squeezenet") for dataset in ("cifar10", "nus_wide", "flickr25k")),
        ("cifar10", "cifar_quick"),
    ],
)
def test_committed_pretraining_is_what_net_writes(dataset, name, monkeypatch, tmp_path):
    committed = Path(net.default_folder(dataset, name, net.PRETRAINING))
    monkeypatch.setattr(net, "ROOT", str(tmp_path))
    monkeypatch.setattr(dataset_table, "ROOT", str(tmp_path))
    written = Path(net.default_folder(dataset, name, net.PRETRAINING))
    net.write(dataset, net.PRETRAINING, 0, str(written), name)
    assert sorted(path.name for path in written.iterdir()) == ["solver.prototxt", "train_val.prototxt"]
    for file in ("solver.prototxt", "train_val.prototxt"):
        assert (written / file).read_text() == (committed / file).read_text(), (
            f"run: python prototxt/net.py {dataset} --variant pretraining --net {name}"
        )


def test_pretraining_has_the_layers_that_a_variant_takes_over(tmp_path):
    net.write("fashion_mnist", "dhn", 48, str(tmp_path / "dhn"))
    net.write("fashion_mnist", net.PRETRAINING, 0, str(tmp_path / "first"))
    first, second = (layers(tmp_path / name / "train_val.prototxt") for name in ("first", "dhn"))
    shared = [name for name in second if name.startswith(("conv", "fc"))]
    assert len(shared) == 5
    for name in shared:
        assert first[name] == second[name]
    assert "hash_layer" not in first and "classes" not in second


def test_pretraining_is_refused_where_weights_come_from_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="nus_wide with alexnet has no pretraining"):
        net.write("nus_wide", net.PRETRAINING, 0, str(tmp_path))


def order(path):
    """What follows conv1 and conv2 in a net, by type."""
    types = [layer.type for layer in read(path).layer if layer.name[-1] in "12"]
    return [kind for kind in types if kind in ("Convolution", "ReLU", "LRN", "Pooling")]


def test_alexnet_normalises_first_and_caffenet_pools_first(tmp_path):
    for name, block in (
        ("alexnet", ["Convolution", "ReLU", "LRN", "Pooling"]),
        ("caffenet", ["Convolution", "ReLU", "Pooling", "LRN"]),
    ):
        net.write("nus_wide", "dhn", 48, str(tmp_path), name)
        for file in ("train_val.prototxt", "deploy.prototxt"):
            assert order(tmp_path / file) == 2 * block
        assert f"_{name}_" in read(tmp_path / "deploy.prototxt").name


def test_the_paper_s_net_has_the_released_numbers(tmp_path):
    net.write("nus_wide", "dhn", 48, str(tmp_path))
    found = layers(tmp_path / "train_val.prototxt")
    shapes = {
        name: (
            layer.convolution_param.num_output,
            layer.convolution_param.kernel_size[0],
            layer.convolution_param.group,
        )
        for name, layer in found.items()
        if layer.type == "Convolution"
    }
    assert shapes == {
        "conv1": (96, 11, 1),
        "conv2": (256, 5, 2),
        "conv3": (384, 3, 1),
        "conv4": (384, 3, 2),
        "conv5": (256, 3, 2),
    }
    biases = {
        name: (layer.convolution_param if layer.type == "Convolution" else layer.inner_product_param).bias_filler.value
        for name, layer in found.items()
        if layer.type in ("Convolution", "InnerProduct")
    }
    assert biases == {"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "hash_layer": 0}
    assert [found[name].inner_product_param.weight_filler.std for name in ("fc6", "fc7", "hash_layer")] == (
        pytest.approx([0.005, 0.005, 0.01])
    )
    assert {(param.lr_mult, param.decay_mult) for param in found["fc7"].param} == {(1, 1), (2, 0)}
    assert found["drop7"].dropout_param.dropout_ratio == 0.5
    assert found["quantization_loss"].loss_weight == [pytest.approx(0.3)]
    assert json.loads(found["quantization_loss"].python_param.param_str) == {"normalization": "authors"}
    data = json.loads(next(layer for layer in read(tmp_path / "train_val.prototxt").layer).python_param.param_str)
    assert (data["resize"], data["crop"], data["mirror"], data["mean_value"], data["batch_size"]) == (
        256,
        227,
        True,
        [104, 117, 123],
        64,
    )
    solver = read(tmp_path / "solver.prototxt", caffe_pb2.SolverParameter())
    assert (solver.lr_policy, solver.stepsize, solver.max_iter, solver.snapshot) == ("step", 500, 10000, 1000)
    assert [solver.base_lr, solver.gamma, solver.momentum, solver.weight_decay] == pytest.approx([2e-5, 0.3, 0.9, 5e-4])
    shape = read(tmp_path / "deploy.prototxt").layer[0].input_param.shape[0]
    assert list(shape.dim) == [50, 3, 227, 227]


def test_a_seed_is_that_of_solver_and_images(tmp_path):
    net.write("fashion_mnist", "dhn", 12, str(tmp_path), seed=7)
    assert read(tmp_path / "solver.prototxt", caffe_pb2.SolverParameter()).random_seed == 7
    settings = [json.loads(layer.python_param.param_str) for layer in read(tmp_path / "train_val.prototxt").layer[:2]]
    assert [each.get("seed") for each in settings] == [7, None]
    header = (tmp_path / "solver.prototxt").read_text().splitlines()[0]
    assert "--bits 12 --seed 7 --out" in header


def test_alexnet_on_small_images_has_two_steps_of_its_own(tmp_path):
    net.write("fashion_mnist", net.PRETRAINING, 0, str(tmp_path / "first"), "alexnet")
    net.write("fashion_mnist", "dhn", 48, str(tmp_path / "dhn"), "alexnet")
    first, second = (layers(tmp_path / name / "train_val.prototxt") for name in ("first", "dhn"))
    assert first["classes"].inner_product_param.num_output == 10
    assert first["conv1"] == second["conv1"]
    for name in ("conv2", "conv5", "fc6", "fc7"):
        one, other = first[name], second[name]
        param = "convolution_param" if name.startswith("conv") else "inner_product_param"
        assert getattr(one, param).weight_filler.type == "xavier" and getattr(one, param).bias_filler.value == 0
        assert getattr(other, param).weight_filler.type == "gaussian" and getattr(other, param).bias_filler.value == 1
        assert getattr(one, param).num_output == getattr(other, param).num_output
    solvers = [read(tmp_path / name / "solver.prototxt", caffe_pb2.SolverParameter()) for name in ("first", "dhn")]
    assert [(each.type, each.base_lr, each.max_iter) for each in solvers] == [
        ("Adam", pytest.approx(1e-4), 200),
        ("Adam", pytest.approx(5e-5), 150),
    ]
    data = json.loads(read(tmp_path / "dhn" / "train_val.prototxt").layer[0].python_param.param_str)
    assert (data["mean_value"], data["resize"], data["crop"], data["gray"]) == (73, 256, 227, False)


def test_another_net_for_a_small_data_set_and_one_s_own(tmp_path, monkeypatch):
    net.write("fashion_mnist", "dhn", 12, str(tmp_path), "alexnet")
    assert list(read(tmp_path / "deploy.prototxt").layer[0].input_param.shape[0].dim) == [50, 3, 227, 227]
    monkeypatch.setattr(net, "ROOT", str(tmp_path))
    monkeypatch.setattr(dataset_table, "ROOT", str(tmp_path))
    with pytest.raises(ValueError, match="unknown dataset 'birds'; there are fashion_mnist"):
        net.write("birds", "dhn", 12, str(tmp_path))
    (tmp_path / "data" / "birds").mkdir(parents=True)
    (tmp_path / "data" / "birds" / "split.json").write_text('{"counts": {"query": 340}}')
    net.write("birds", "dhn", 12, str(tmp_path / "runs" / "birds-dhn-12"))
    solver = read(tmp_path / "runs/birds-dhn-12/solver.prototxt", caffe_pb2.SolverParameter())
    assert list(solver.test_iter) == [7]
    assert "data/birds/query_lmdb" in (tmp_path / "runs/birds-dhn-12/train_val.prototxt").read_text()


def test_command_writes_the_three_files(tmp_path, capsys):
    net.main(["fashion_mnist", "--variant", "dhn_e", "--bits", "12", "--out", str(tmp_path / "run")])
    assert sorted(os.listdir(tmp_path / "run")) == sorted(FILES)
    assert capsys.readouterr().out.count("wrote ") == 3
    header = f"# Written by: python prototxt/net.py fashion_mnist --variant dhn_e --bits 12 --out {tmp_path / 'run'}\n"
    assert all((tmp_path / "run" / name).read_text().startswith(header) for name in FILES)


@pytest.mark.parametrize(
    "variant, losses",
    [
        ("dhn", {"pairwise_loss", "quantization_loss"}),
        ("dhn_b", {"pairwise_loss", "quantization_loss"}),
        ("dhn_q", {"pairwise_loss"}),
        ("dhn_e", {"squared_similarity_loss", "quantization_loss"}),
    ],
)
def test_losses_of_a_variant(tmp_path, variant, losses):
    net.write("fashion_mnist", variant, 48, str(tmp_path))
    found = {name: layer for name, layer in layers(tmp_path / "train_val.prototxt").items() if layer.loss_weight}
    assert set(found) == losses
    for name, layer in found.items():
        assert layer.python_param.module == name and layer.bottom[0] == "hash_layer"


def test_hash_layer_is_dhn_s(tmp_path):
    net.write("fashion_mnist", "dhn", 24, str(tmp_path))
    for name in ("train_val", "deploy"):
        layer = layers(tmp_path / f"{name}.prototxt")["hash_layer"]
        assert layer.inner_product_param.num_output == 24
        assert [param.lr_mult for param in layer.param] == [10, 20]


def test_a_run_folder_keeps_its_snapshots(tmp_path, monkeypatch):
    monkeypatch.setattr(net, "ROOT", str(tmp_path))
    net.write("fashion_mnist", "dhn_q", 12, str(tmp_path / "runs/fashion_mnist-dhn_q-12"))
    solver = read(tmp_path / "runs/fashion_mnist-dhn_q-12/solver.prototxt", caffe_pb2.SolverParameter())
    assert solver.net == "runs/fashion_mnist-dhn_q-12/train_val.prototxt"
    assert solver.snapshot_prefix == "runs/fashion_mnist-dhn_q-12/dhn_q"


def conv_shapes(path):
    """Outputs, kernel, stride and pad of a net's convolutions, by their names."""
    convolutions = {name: each.convolution_param for name, each in layers(path).items() if each.type == "Convolution"}
    return {
        name: (param.num_output, param.kernel_size[0], *(param.stride or [1]), *(param.pad or [0]))
        for name, param in convolutions.items()
    }


def test_squeezenet_is_v1_0_up_to_fire9(tmp_path):
    net.write("nus_wide", "dhn", 48, str(tmp_path), "squeezenet")
    shapes = conv_shapes(tmp_path / "deploy.prototxt")
    assert shapes.pop("conv1") == (96, 7, 2, 0)
    channels = [(16, 64)] * 2 + [(32, 128)] * 2 + [(48, 192)] * 2 + [(64, 256)] * 2
    for index, (squeeze, expand) in enumerate(channels, 2):
        fire = [shapes.pop(f"fire{index}/{name}") for name in ("squeeze1x1", "expand1x1", "expand3x3")]
        assert fire == [(squeeze, 1, 1, 0), (expand, 1, 1, 0), (expand, 3, 1, 1)]
    assert not shapes
    found = layers(tmp_path / "deploy.prototxt")
    assert [found[name].bottom[0] for name in ("fire2/squeeze1x1", "fire5/squeeze1x1", "fire9/squeeze1x1")] == [
        "pool1",
        "pool4",
        "pool8",
    ]
    assert found["pool9"].bottom == ["fire9/concat"] and found["pool9"].pooling_param.global_pooling
    assert found["fc10"].bottom == ["pool9/norm"] and found["fc10"].param[0].lr_mult == 10
    assert found["hash_layer"].bottom == ["fc10"]
    norm = layers(tmp_path / "train_val.prototxt")["pool9/norm"]
    assert norm.type == "BatchNorm" and not norm.batch_norm_param.HasField("use_global_stats")


def test_squeezenet_and_its_classifier_share_all_layers_below_the_codes(tmp_path):
    net.write("cifar10", "dhn", 48, str(tmp_path / "dhn"), "squeezenet")
    net.write("cifar10", net.PRETRAINING, 0, str(tmp_path / "first"), "squeezenet")
    first, second = (layers(tmp_path / name / "train_val.prototxt") for name in ("first", "dhn"))
    shared = [name for name in second if name.startswith(("conv", "fire", "pool", "relu", "fc", "drop"))]
    assert len(shared) == 2 + 8 * 7 + 3 + 2 + 3
    for name in shared:
        assert first[name] == second[name]
    assert first["classes"].inner_product_param.num_output == 10 and first["softmax_loss"].bottom[0] == "classes"


@pytest.mark.parametrize("dataset, count", [("nus_wide", 21), ("flickr25k", 38)])
def test_images_of_several_labels_are_classified_by_a_sigmoid_each(tmp_path, monkeypatch, dataset, count):
    monkeypatch.setattr(dataset_table, "ROOT", str(tmp_path))
    net.write(dataset, net.PRETRAINING, 0, str(tmp_path), "squeezenet")
    found = layers(tmp_path / "train_val.prototxt")
    assert found["classes"].inner_product_param.num_output == count
    assert found["sigmoid_loss"].bottom == ["classes", "label"] and found["sigmoid_loss"].loss_param.ignore_label == -1
    assert not {"softmax_loss", "label_index", "accuracy"} & set(found)
    (tmp_path / "data" / dataset).mkdir(parents=True)
    (tmp_path / "data" / dataset / "split.json").write_text('{"label_names": ["sky", "sea", "tree"]}')
    net.write(dataset, net.PRETRAINING, 0, str(tmp_path), "squeezenet")
    assert layers(tmp_path / "train_val.prototxt")["classes"].inner_product_param.num_output == 3


@pytest.mark.parametrize(
    "size, net_name, words",
    [
        (
            [32, 32],
            "cifar_quick",
            r"birds has the net cifar_quick, .* are small \(32 x 32\); others: NET=a",
        ),
        ([48, 64], "cifar_quick", r"small \(64 x 48\)"),
        ([48, 65], "alexnet", "birds has the net alexnet, the paper's, .* NET=squeezenet, NET=cifar_quick"),
        (None, "alexnet", "birds has the net alexnet"),
    ],
)
def test_small_pictures_of_your_own_have_a_small_net(tmp_path, monkeypatch, size, net_name, words):
    monkeypatch.setattr(dataset_table, "ROOT", str(tmp_path))
    (tmp_path / "data" / "birds").mkdir(parents=True)
    facts = {"counts": {"query": 20}, "label_names": list("abcd"), "images": {"multi_label": False, "size": size}}
    (tmp_path / "data" / "birds" / "split.json").write_text(json.dumps(facts))
    assert net.recipe("birds").net == net.nets_of("birds")[0] == net_name
    assert re.search(words, dataset_table.choice("birds"))
    assert dataset_table.choice("cifar10") == ""
    assert net.recipe("birds", "cifar_quick").classes == 4
    net.write("birds", "dhn", 12, str(tmp_path / "run"))
    assert f"_{net_name}_" in read(tmp_path / "run" / "deploy.prototxt").name


@pytest.mark.parametrize(
    "dataset, name",
    [
        ("fashion_mnist", None),
        ("cifar10", "alexnet"),
        ("cifar10", "caffenet"),
        ("cifar10", "squeezenet"),
        ("cifar10", "cifar_quick"),
    ],
)
def test_deploy_gives_codes(dataset, name, tmp_path):
    net.write(dataset, "dhn", 16, str(tmp_path), name)
    deploy = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    deploy.blobs["data"].reshape(2, *deploy.blobs["data"].shape[1:])
    deploy.reshape()
    deploy.blobs["data"].data[...] = 1
    codes = deploy.forward()["hash_layer"]
    assert codes.shape == (deploy.blobs["data"].shape[0], 16)
    assert abs(codes).max() <= 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("mnist", "dhn", 48), "unknown dataset 'mnist'; there are fashion_mnist, cifar10"),
        (("fashion_mnist", "dhn_x", 48), "unknown variant 'dhn_x'; there are dhn, dhn_q, dhn_e, dhn_b"),
        (("fashion_mnist", "dhn", 0), "bits must be at least 1; found 0"),
        (
            ("cifar10", "dhn", 48, "vgg"),
            "unknown net 'vgg'; there are small_alexnet, cifar_quick, alexnet, caffenet, squeezenet",
        ),
        (("cifar10", "dhn", 48, "small_alexnet"), "cifar10 has no net 'small_alexnet'; it has alexnet, caffenet"),
    ],
)
def test_refusals(tmp_path, arguments, message):
    dataset, variant, bits, *name = arguments
    with pytest.raises(ValueError, match=message):
        net.write(dataset, variant, bits, str(tmp_path), *name)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label_names", "xyzw"), ("label_names", {}), ("counts", {"query": -1}), ("counts", {"query": "x"}),
        ("counts", {"query": 1, "train": "x"}), ("images", {"size": "ab"}), ("images", {"multi_label": "x"}),
        ("images", None),
    ],
)  # fmt: skip
def test_a_damaged_split_makes_no_net(tmp_path, monkeypatch, key, value):
    monkeypatch.setattr(dataset_table, "ROOT", str(tmp_path))
    path = tmp_path / "data" / "birds" / "split.json"
    path.parent.mkdir(parents=True)
    good = {"label_names": ["a", "b"], "counts": {"query": 4, "train": 6}, "images": {"size": [8, 9]}}
    path.write_text(json.dumps(good))
    assert dataset_table.labels_of("birds")[:2] == (4, 2)
    path.write_text(json.dumps({**good, key: value}))
    with pytest.raises(ValueError, match=rf"split\.json: is damaged: '{key}' cannot be "):
        dataset_table.labels_of("birds")
