"""The engine answers every case as BVLC Caffe 1.0 did (recorded/*.npz), within 1e-4 of an array's largest value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cases
import comparison
import fixtures
import run_cases
import storage

RECORDED = storage.load(comparison.RECORDED)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These nets are too small to share among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("conformance")
    fixtures.write(str(path))
    return str(path)


def test_every_case_is_recorded():
    assert sorted(RECORDED) == sorted(cases.ALL), "run `python tests/conformance/conformance.py --record`"


@pytest.mark.parametrize("name", list(cases.ALL))
def test_answers_as_the_reference(name, folder):
    _, said = comparison.differences(RECORDED[name], run_cases.answer(name, folder))
    assert not said, "\n".join(said)


@pytest.mark.parametrize(
    "expected, found",
    [
        ([0.0, 100.0], [0.0, 100.011]),
        ([0.0, 0.0], [0.0, 1e-7]),
        ([1.0, np.nan], [1.0, 1.0]),
        ([1.0, np.inf], [1.0, -np.inf]),
        ([1.0], [[1.0]]),
        (["a"], ["b"]),
    ],
)
def test_a_difference_is_seen(expected, found):
    assert comparison.deviation(np.asarray(expected), np.asarray(found)) > comparison.TOLERANCE


def test_a_rounding_is_not_a_difference():
    assert comparison.deviation(np.asarray([0.0, 100.0]), np.asarray([0.009, 100.0])) <= comparison.TOLERANCE


def test_a_missing_value_is_a_difference():
    _, said = comparison.differences({"top0": np.ones(2)}, {})
    assert said == ["top0: answered only by the reference"]
