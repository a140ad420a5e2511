"""Data layers, caffe.io and NetSpec against what BVLC Caffe 1.0 answered (recorded/, written by data_cases.py)."""

import json
from pathlib import Path

import caffe
import data_cases as cases
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

RECORDED = dict(np.load(Path(cases.RECORDED) / "data.npz", allow_pickle=False))
SPECS = json.loads((Path(cases.RECORDED) / "net_spec.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    cases.write(caffe, str(path))
    return str(path)


def recorded(name):
    return [RECORDED[f"net/{name}/{index}"] for index in range(sum(key.startswith(f"net/{name}/") for key in RECORDED))]


def compare(found, expected, **tolerance):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, **tolerance)


@pytest.mark.parametrize("name", sorted(cases.net_cases("")))
def test_data_layer(name, folder):
    """The same values, in the same order, over the end of the data."""
    found = cases.run_net(caffe, *cases.net_cases(folder)[name])
    compare(found, recorded(name), rtol=0, atol=1e-6 if "mean_file" in name else 0)


def test_memory_data():
    compare(cases.run_memory(caffe), recorded("memory"), rtol=0, atol=0)


@pytest.mark.parametrize("key", sorted(key for key in RECORDED if key.startswith("io/")))
def test_io(key, folder, io_answers):
    expected = RECORDED[key]
    compare([io_answers[key[3:]]], [expected], rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.fixture(scope="module")
def io_answers(folder):
    answers = cases.io_answers(caffe, folder)
    assert {f"io/{name}" for name in answers} == {key for key in RECORDED if key.startswith("io/")}
    return answers


@pytest.mark.parametrize("name", sorted(SPECS))
def test_net_spec(name):
    expected = text_format.Parse(SPECS[name], caffe_pb2.NetParameter())
    assert cases.specs(caffe)[name]() == expected
