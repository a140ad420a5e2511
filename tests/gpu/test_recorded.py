"""BVLC Caffe's recorded answers (tests/conformance/) on the simulated device: some of each kind, all in slow
runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import caffe
import cases
import comparison
import fixtures
import pytest
import run_cases
import storage
import torch
from caffe import device

RECORDED = storage.load(comparison.RECORDED)
REFUSALS = ("Refusal", "LayerRefusal")  # they raise before anything is computed
EVERY = {"Solver": 12, "WholeNet": 5}  # one of so many; one of 3 of the other kinds


def selected() -> Iterator[object]:
    """The cases that compute, those of the quick tests unmarked."""
    numbers: Counter[str] = Counter()
    for name in cases.ALL:
        kind = name.split("/")[0]
        if kind not in REFUSALS:
            quick = numbers[kind] % EVERY.get(kind, 3) == 0
            numbers[kind] += 1
            yield name if quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These nets are too small to share among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("conformance")
    fixtures.write(str(path))
    return str(path)


@pytest.mark.parametrize("name", list(selected()))
def test_answers_as_the_reference(name: str, folder: str, simulated_gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffe, "set_mode_cpu", lambda: None)  # cases that say so in passing
    _, messages = comparison.differences(RECORDED[name], run_cases.answer(name, folder))
    assert not messages, "\n".join(messages)
    assert device.current().type == "cuda"
