"""Batches for a GPU are those for a CPU to the bit, though bytes travel and the GPU subtracts and scales."""

from __future__ import annotations

import caffe
import fixtures
import numpy as np
import pytest
import torch
from caffe.data import upload
from caffe.proto import caffe_pb2, text

TRANSFORMS = {
    "plain": "",
    "crop and mirror": "crop_size: 7 mirror: true",
    "a mean and a scale": "mean_value: 104.7 scale: 0.00392156862 mirror: true",
    "a mean a channel": "mean_value: 104.1 mean_value: 116.7 mean_value: 122.7 crop_size: 8",
    "a mean image": 'mean_file: "mean.binaryproto" scale: 0.1',
    "a mean image, crop and mirror": 'mean_file: "mean.binaryproto" crop_size: 6 mirror: true scale: 0.1',
}
SOURCES = {
    "raw": 'type: "Data" data_param { source: "lmdb" batch_size: 5 backend: LMDB }',
    "encoded": 'type: "Data" data_param { source: "lmdb_encoded" batch_size: 5 backend: LMDB }',
    "list": 'type: "ImageData" image_data_param { source: "list.txt" root_folder: "images/" batch_size: 3 '
    "new_height: 10 new_width: 9 }",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("batches")
    fixtures.write(str(path))
    mixed = [fixtures.datum(one, 1) for one in fixtures.pictures(3, (3, 10, 9), 7)]
    mixed.insert(2, fixtures.datum(np.full((3, 10, 9), 0.5), 1))
    fixtures.write_lmdb(str(path / "mixed"), mixed)
    return path


def batches(source: str, transform: str, phase: int = caffe.TRAIN) -> list[np.ndarray]:
    """Three batches of a data layer where nets compute now."""
    layer = f'layer {{ name: "d" top: "data" top: "label" {source} transform_param {{ {transform} }} }}'
    caffe.set_random_seed(3)
    net = caffe.Net(text.parse(layer, caffe_pb2.NetParameter()), phase)
    return [net.forward()["data"].copy() for _ in range(3)]


@pytest.fixture
def sent(monkeypatch) -> set[torch.dtype]:
    """The types of the data that are sent."""
    types: set[torch.dtype] = set()
    send = upload.send
    monkeypatch.setattr(upload, "send", lambda tensors, *how: (types.add(tensors[0].dtype), send(tensors, *how))[1])
    return types


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_batches_are_equal_to_the_bit(simulated_gpu, folder, monkeypatch, sent, source, transform, phase):
    monkeypatch.chdir(folder)
    found = batches(SOURCES[source], TRANSFORMS[transform], phase)
    assert sent == {torch.uint8} and set(simulated_gpu.ahead) <= {"to device"}
    caffe.set_mode_cpu()
    expected = batches(SOURCES[source], TRANSFORMS[transform], phase)
    assert sent == {torch.uint8, torch.float32}
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_mean_image_is_sent_once(simulated_gpu, folder, monkeypatch):
    monkeypatch.chdir(folder)
    caffe.set_random_seed(3)
    layer = (
        f'layer {{ name: "d" top: "x" top: "y" {SOURCES["raw"]} transform_param {{ mean_file: "mean.binaryproto" }} }}'
    )
    source = caffe.Net(text.parse(layer, caffe_pb2.NetParameter()), caffe.TRAIN).layers[0]._batches
    upload.send(source.make(), source.finish)
    simulated_gpu.clear()
    upload.send(source.make(), source.finish)
    assert simulated_gpu.counts == {"to device": 3}, "pictures, labels, and which part of the mean each picture takes"


def test_floats_among_bytes_stay_floats(simulated_gpu, folder, monkeypatch, sent):
    monkeypatch.chdir(folder)
    source, fields = 'type: "Data" data_param { source: "mixed" batch_size: 4 backend: LMDB }', "mirror: true scale: 2"
    found = batches(source, fields)
    assert sent == {torch.float32}
    caffe.set_mode_cpu()
    for ours, theirs in zip(found, batches(source, fields), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (found[0][2] == 1).all()
