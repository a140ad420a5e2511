"""The engine answers every case as BVLC Caffe 1.0 did (recorded/*.npz), within 1e-4 of an array's largest value."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
import comparison  # noqa: E402
import fixtures  # noqa: E402
import run_cases  # noqa: E402
import storage  # noqa: E402

RECORDED = storage.load(comparison.RECORDED)
# what the engine does not refuse yet: a case that passes must leave this set
PENDING = {
    "LayerRefusal/blob_diffs",
    "LayerRefusal/blob_double_diffs",
    "Refusal/backward_before_the_first",
    "Refusal/backward_from_beyond_the_last",
    "Refusal/bottom_ids_beyond",
    "Refusal/bottom_ids_negative",
    "Refusal/forward_beyond_the_last",
    "Refusal/forward_from_before_the_first",
    "Refusal/hdf5_bitfield",
    "Refusal/hdf5_time",
    "Refusal/hdf5_unreadable",
    "Refusal/no_shape_forward",
    "Refusal/solver_exp_gamma",
    "Refusal/solver_inv_gamma",
    "Refusal/solver_multistep_gamma",
    "Refusal/solver_restore_h5_learned_net",
    "Refusal/solver_restore_h5_learned_net_unreadable",
    "Refusal/solver_snapshot_as_second",
    "Refusal/solver_step_gamma",
    "Refusal/top_ids_beyond",
    "Refusal/top_ids_negative",
}


def each_case():
    marks = {True: [pytest.mark.xfail(strict=True)], False: []}
    return [pytest.param(name, marks=marks[name in PENDING]) for name in cases.ALL]


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


@pytest.mark.parametrize("name", each_case())
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
