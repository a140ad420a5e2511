"""Files that a disk or a transfer has damaged: each is answered by one sentence with its name, or read."""

import random
import shutil

import caffe
import h5py
import numpy as np
import pytest
from caffe.cli.main import main
from caffe.layer_types.hdf5 import read_datasets

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s" solver_mode: CPU
"""


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """Snapshots of a small solver, binary and HDF5, and a file of an HDF5Data layer."""
    folder = tmp_path_factory.mktemp("snapshots")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "net.prototxt").write_text(NET)
        for form in ("BINARYPROTO", "HDF5"):
            (folder / "solver.prototxt").write_text(f"{SOLVER} snapshot_format: {form}")
            caffe.get_solver("solver.prototxt").solve()
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"], file["label"] = np.zeros((5, 3), np.float32), np.arange(5)
    return folder


def damaged(content: bytes, seed: int) -> bytes:
    """A damaged copy: cut off, bytes changed, a part of it missing, or another in its place."""
    rng, data = random.Random(seed), bytearray(content)
    kind = seed % 4
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    at = rng.randrange(min(len(data), rng.choice([len(data), 512, 2048])))
    if kind == 1:
        for _ in range(rng.choice([1, 4, 32])):
            data[(at + rng.randrange(64)) % len(data)] = rng.choice([0, 255, rng.randrange(256)])
    elif kind == 2:
        del data[at : at + rng.choice([1, 8, 200])]
    else:
        data[at : at + 8] = rng.choice([b"\\xff" * 8, bytes(8), b"\\0" * 7 + b"\\x7f"])
    return bytes(data)


def weights(path):
    caffe.Net("net.prototxt", caffe.TEST, weights=path)


def state(path):
    caffe.get_solver("solver.prototxt").restore(path)


CASES = {
    "s_iter_1.caffemodel": (weights, 20),
    "s_iter_1.caffemodel.h5": (weights, 60),
    "s_iter_1.solverstate": (state, 20),
    "s_iter_1.solverstate.h5": (state, 60),
    "data.h5": (lambda path: read_datasets(path, ["data", "label"]), 60),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_answered_by_a_sentence(snapshots, tmp_path, monkeypatch, name):
    use, count = CASES[name]
    for file in snapshots.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    content, refused = (tmp_path / name).read_bytes(), 0
    for seed in range(count):
        (tmp_path / name).write_bytes(damaged(content, seed))
        try:
            use(name)
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            assert name in str(error), (seed, error)
        except Exception as error:
            raise AssertionError(f"damage {seed} of {name}") from error
    assert refused > count // 5


def test_a_command_tells_it_in_one_line(snapshots, tmp_path, monkeypatch, capfd):
    for file in snapshots.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s_iter_1.solverstate.h5"
    path.write_bytes(path.read_bytes()[:3000])
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", path.name]) == 1
    log = capfd.readouterr().err
    assert "s_iter_1.solverstate.h5: expected an HDF5 solverstate, found a damaged HDF5 file (" in log
    assert "Traceback" not in log
