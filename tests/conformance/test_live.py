"""What the live comparison is made of, on the engine alone: its files go round, its nets are as they say."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from caffe.cli import compute_image_mean, convert_imageset
from caffe.proto import caffe_pb2, text

import exchange
import whole_nets


def command(name: str, *words: str) -> None:
    """One of the engine's commands, without a process that would import torch once more."""
    module = {"convert_imageset": convert_imageset, "compute_image_mean": compute_image_mean}[name]
    assert module.main(list(words)) == 0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(what the engine finds in the files that it wrote, the losses of the solvers that trained on)."""
    folder = str(tmp_path_factory.mktemp("exchange"))
    databases = {**exchange.DATABASES, **(exchange.LEVELDB if importlib.util.find_spec("plyvel") else {})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "command", command)
        exchange.write(folder, databases)
    with np.load(folder + "/trained_on.npz", allow_pickle=False) as file:
        return exchange.read(folder, databases), dict(file)


def test_a_resumed_solver_repeats_the_losses_to_the_bit(written):
    found, trained_on = written
    assert len(trained_on) == len(exchange.SOLVERS) * len(exchange.FORMATS)
    for name, losses in trained_on.items():
        assert np.array_equal(found[name], losses), name
        assert len(set(losses.tolist())) == exchange.MORE  # it went on learning


def test_every_database_holds_the_pictures(written):
    found, _ = written
    pictures = found["lmdb: data 0"] + found["mean.binaryproto"]
    assert pictures.max() > 200 and np.array_equal(found["lmdb: label 0"], [0, 1, 2, 0, 1])
    for name in exchange.DATABASES:
        assert np.array_equal(found[f"{name}: data 2"], found["lmdb: data 2"])


def test_both_formats_hold_the_same_weights(written):
    found, _ = written
    for name in exchange.SOLVERS:
        binary, hdf5 = ({k.split(": ")[1]: v for k, v in found.items() if k.startswith(f"{name} {form}:")}
                        for form in exchange.FORMATS)  # fmt: skip
        assert binary.keys() == hdf5.keys() and "conv[0]" in binary
        assert all(np.array_equal(binary[key], hdf5[key]) for key in binary)


@pytest.mark.parametrize("name", whole_nets.NETS)
def test_nothing_in_a_whole_net_is_drawn(name):
    net = text.parse(whole_nets.text(name), caffe_pb2.NetParameter())
    assert net.name == name
    assert all(layer.dropout_param.dropout_ratio == 0 for layer in net.layer if layer.type == "Dropout")


@pytest.mark.parametrize("name", whole_nets.LARGE)
def test_a_net_layer_by_layer_has_no_layer_in_place(name):
    net = text.parse(whole_nets.text(name, in_place=False), caffe_pb2.NetParameter())
    tops = [top for layer in net.layer for top in layer.top]
    assert len(set(tops)) == len(tops)
    assert {bottom for layer in net.layer for bottom in layer.bottom} <= set(tops)
