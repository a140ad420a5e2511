"""pycaffe's names, Classifier, Detector, coord_map and draw against BVLC Caffe 1.0 (recorded/, by pycaffe_cases.py)."""

import json
import sys
from pathlib import Path

import caffe
import data_cases
import numpy as np
import pycaffe_cases as cases
import pytest

ARRAYS = dict(np.load(Path(cases.RECORDED) / "pycaffe.npz", allow_pickle=False))
ANSWERS = json.loads((Path(cases.RECORDED) / "pycaffe.json").read_text())


def compare(found, prefix):
    expected = {key.removeprefix(prefix): value for key, value in ARRAYS.items() if key.startswith(prefix)}
    assert set(found) == set(expected)
    assert expected
    for key, value in expected.items():
        assert found[key].shape == value.shape, key
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=key)


@pytest.fixture(scope="module")
def found_names(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("names"))
    return cases.names(cases.instances(caffe, folder), lambda name, value: True)


@pytest.mark.parametrize("where", sorted(ANSWERS["names"]))
def test_every_public_name_exists(found_names, where):
    missing = set(ANSWERS["names"][where]) - set(found_names[where])
    assert not missing, f"{where} lacks {sorted(missing)}"


def test_the_recorded_names_are_whole():
    """The test above cannot fail on an empty record."""
    counts = {where: len(names) for where, names in ANSWERS["names"].items()}
    assert counts["Net"] == 37
    assert min(count for where, count in counts.items() if where != "NCCL") > 0
    assert sum(counts.values()) > 300


def test_classifier(tmp_path):
    compare(cases.classifier_answers(caffe, str(tmp_path)), "classifier/")


def test_detector(tmp_path):
    compare(cases.detector_answers(caffe, str(tmp_path), data_cases.png), "detector/")


def test_coord_map():
    expected = ANSWERS["coord_map"]
    found = cases.coord_maps(caffe)
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, list) and isinstance(value[1], list):
            axis, scale, shift = value
            assert found[name][0] == axis, name
            np.testing.assert_allclose(found[name][1], scale, err_msg=name)
            np.testing.assert_allclose(found[name][2], shift, err_msg=name)
        else:
            assert found[name] == value, name


def test_draw(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydotplus", cases.fake_pydot())
    assert json.loads(json.dumps(cases.drawings(caffe))) == ANSWERS["draw"]
