"""The net generator: the committed files are what it writes, and its nets are what a variant and bits ask for."""

import os
from pathlib import Path

import caffe
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


@pytest.mark.parametrize("dataset", net.DATASETS)
def test_committed_files_are_what_net_writes(dataset, monkeypatch, tmp_path):
    committed = ROOT / "prototxt" / dataset
    (tmp_path / "prototxt").mkdir()
    monkeypatch.setattr(net, "ROOT", str(tmp_path))
    net.write(dataset, "dhn", 48, str(tmp_path / "prototxt" / dataset))
    for name in FILES:
        assert (tmp_path / "prototxt" / dataset / name).read_text() == (committed / name).read_text(), (
            f"prototxt/{dataset}/{name} is not what prototxt/net.py writes; run: python prototxt/net.py {dataset}")


def test_command_writes_the_three_files(tmp_path, capsys):
    net.main(["fashion_mnist", "--variant", "dhn_e", "--bits", "12", "--out", str(tmp_path / "run")])
    assert sorted(os.listdir(tmp_path / "run")) == sorted(FILES)
    assert capsys.readouterr().out.count("wrote ") == 3
    header = f"# Written by: python prototxt/net.py fashion_mnist --variant dhn_e --bits 12 --out {tmp_path / 'run'}\n"
    assert all((tmp_path / "run" / name).read_text().startswith(header) for name in FILES)


@pytest.mark.parametrize("variant, losses", [
    ("dhn", {"pairwise_loss", "quantization_loss"}),
    ("dhn_b", {"pairwise_loss", "quantization_loss"}),
    ("dhn_q", {"pairwise_loss"}),
    ("dhn_e", {"squared_similarity_loss", "quantization_loss"}),
])
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


@pytest.mark.parametrize("dataset", net.DATASETS)
def test_deploy_gives_codes(dataset, tmp_path):
    net.write(dataset, "dhn", 16, str(tmp_path))
    deploy = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    deploy.blobs["data"].data[...] = 1
    codes = deploy.forward()["hash_layer"]
    assert codes.shape == (deploy.blobs["data"].shape[0], 16)
    assert abs(codes).max() <= 1


@pytest.mark.parametrize("arguments, message", [
    (("mnist", "dhn", 48), "unknown dataset 'mnist'; there are fashion_mnist"),
    (("fashion_mnist", "dhn_x", 48), "unknown variant 'dhn_x'; there are dhn, dhn_q, dhn_e, dhn_b"),
    (("fashion_mnist", "dhn", 0), "bits must be at least 1; found 0"),
])
def test_refusals(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        net.write(*arguments, str(tmp_path))
    assert not os.listdir(tmp_path)
