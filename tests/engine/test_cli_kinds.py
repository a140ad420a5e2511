"""Files given in the wrong place: known by their content, answered with the right flag."""

from __future__ import annotations

import caffe
import h5py
import lmdb
import numpy as np
import pytest
from caffe.cli.main import main
from caffe.proto import kinds

NET = """
name: "n"
layer { name: "x" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
"""
V1 = """
name: "n" layers { name: "ip" type: INNER_PRODUCT
  blobs { num: 1 channels: 1 height: 4 width: 3 data: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] }
  blobs { num: 1 channels: 1 height: 1 width: 4 data: [1, 2, 3, 4] } }
"""
SOLVER = (
    'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s" solver_mode: CPU # layer {}\n'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind."""
    path = tmp_path_factory.mktemp("kinds")
    (path / "net.prototxt").write_text(NET)
    (path / "solver.prototxt").write_text(SOLVER.replace('"net.', f'"{path}/net.').replace('"s"', f'"{path}/s"'))
    solver = caffe.get_solver(str(path / "solver.prototxt"))
    solver.solve()  # writes s_iter_1.*
    solver.net.save_hdf5(str(path / "w.h5"))
    hdf5 = (path / "solver.prototxt").read_text() + "snapshot_format: HDF5 max_iter: 2"
    (path / "solver_h5.prototxt").write_text(hdf5.replace("max_iter: 1 ", ""))
    caffe.get_solver(str(path / "solver_h5.prototxt")).solve()
    (path / "old.caffemodel").write_bytes(
        caffe.proto.text.parse(V1, caffe.proto.caffe_pb2.NetParameter()).SerializeToString()
    )
    mean = caffe.io.array_to_blobproto(np.ones((1, 3, 2, 2)))
    (path / "mean.binaryproto").write_bytes(mean.SerializeToString())
    old = caffe.proto.caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2])
    (path / "old_mean.binaryproto").write_bytes(old.SerializeToString())
    layer = {"name": "input", "type": "Input", "top": ["data"]}
    values = caffe.proto.caffe_pb2.BlobProto(data=[0.5] * 20000)
    large = caffe.proto.caffe_pb2.NetParameter(layer=[layer, {"name": "conv", "blobs": [values]}])
    (path / "large.caffemodel").write_bytes(large.SerializeToString())
    comment = "# input '" + "a comment of many words, " * 3000
    (path / "large.prototxt").write_text(f"{NET}{comment}\n")
    lmdb.open(str(path / "db")).close()
    (path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (path / "page").write_text("<!DOCTYPE html><html>404</html>")
    (path / "packed").write_bytes(b"\x1f\x8b\x08\x00")
    (path / "noise").write_bytes(bytes(range(256)))
    (path / "words").write_text("some words, layer by layer")
    return path


KINDS = {
    "net.prototxt": "a net prototxt",
    "solver.prototxt": "a solver prototxt",
    "s_iter_1.caffemodel": "a caffemodel",
    "old.caffemodel": "a caffemodel",
    "large.caffemodel": "a caffemodel",  # `input` and no brace among its first 65,536 bytes
    "large.prototxt": "a net prototxt",  # those end within a comment
    "w.h5": "an HDF5 caffemodel",
    "s_iter_1.solverstate": "a solverstate",
    "s_iter_2.solverstate.h5": "an HDF5 solverstate",
    "mean.binaryproto": "a mean image (binaryproto)",
    "old_mean.binaryproto": "a mean image (binaryproto)",
    "db": "an LMDB",
    "pointer": "a Git LFS pointer",
    "page": "an HTML page",
    "packed": "a compressed file",
    "noise": None,
    "nothing": None,
}


@pytest.mark.parametrize("name", KINDS)
def test_kind(folder, name):
    assert kinds.kind(folder / name) == KINDS[name]


MISPLACED = {
    "train -solver solver.prototxt -snapshot s_iter_1.caffemodel": "found a caffemodel; give it with -weights",
    "train -solver solver.prototxt -snapshot w.h5": "found an HDF5 caffemodel; give it with -weights",
    "train -solver solver.prototxt -snapshot net.prototxt": "found a net prototxt; give it with -model",
    "train -solver solver.prototxt -weights s_iter_1.solverstate": "found a solverstate; give it with -snapshot",
    "train -solver solver.prototxt -weights s_iter_2.solverstate.h5": "an HDF5 solverstate; give it with -snapshot",
    "train -solver solver.prototxt -weights mean.binaryproto": "found a mean image (binaryproto); give it as mean_file",
    "train -solver solver.prototxt -weights pointer": "found a Git LFS pointer; the file itself is elsewhere",
    "train -solver solver.prototxt -weights db": "found an LMDB; give it as source of a Data layer",
    "train -solver net.prototxt": "expected a solver prototxt, found a net prototxt; give it with -model",
    "train -solver s_iter_1.caffemodel": "expected a SolverParameter in text form, found a caffemodel; give it with",
    "time -model solver.prototxt": "expected a net prototxt, found a solver prototxt; give it with -solver",
    "time -model s_iter_1.solverstate": "found a solverstate; give it with -snapshot",
    "test -model net.prototxt -weights net.prototxt": "expected a caffemodel, found a net prototxt; give it with",
}


@pytest.mark.parametrize("command", MISPLACED)
def test_a_file_in_the_wrong_place(folder, command, capfd, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(command.split()) == 1
    assert MISPLACED[command] in capfd.readouterr().err.splitlines()[-1]


def test_the_right_files_pass(folder, capfd, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["train", "-solver", "solver.prototxt", "-weights", "w.h5"]) == 0
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", "s_iter_1.solverstate"]) == 0
    caffe.Net("net.prototxt", caffe.TEST).copy_from(str(folder / "old.caffemodel"))


@pytest.mark.parametrize("block", [0, 512, 4096])
def test_hdf5_is_known_also_after_a_block_of_the_users(block, tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w", userblock_size=block) as file:
        file["data"] = 1.0
    assert kinds.is_hdf5(path) and h5py.is_hdf5(path)
    path.write_bytes(b"\0" * 5000)
    assert not kinds.is_hdf5(path)
    path.write_bytes(b"")
    assert not kinds.is_hdf5(path) and not kinds.is_hdf5(tmp_path)
