"""`make gpu-check` on the simulated device: its sections of correctness pass, and a wrong engine fails them."""

from __future__ import annotations

import json

import caffe
import cases
import check
import check_correctness
import check_dhn
import numpy as np
import pytest
import torch
from dhn.scoring import retrieval


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer cases and iterations than on a card."""
    kept = ("InnerProduct/", "Pooling/max_overlap", "Refusal/")
    monkeypatch.setattr(cases, "ALL", {name: case for name, case in cases.ALL.items() if name.startswith(kept)})
    monkeypatch.setattr(check_correctness, "ITERATIONS", 2)
    monkeypatch.setattr(check_dhn, "ITERATIONS", 60)


def run(tmp_path, *sections: str) -> tuple[int, dict]:
    """(exit status, what was written)."""
    status = check.main(["--simulated", "--json", str(tmp_path / "check.json"), *sections])
    return status, json.loads((tmp_path / "check.json").read_text())


def test_all_sections_of_correctness_pass(tmp_path, capsys):
    status, written = run(tmp_path)
    assert status == 0, [each for each in written["checks"] if not each["ok"]]
    assert list(dict.fromkeys(each["section"] for each in written["checks"])) == [
        name for name in check.SECTIONS if name not in check.SPEED
    ]
    assert written["card"] == "simulated" and written["torch"] == torch.__version__
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == len(written["checks"]) >= 20
    assert not any(line.startswith("FAIL") for line in lines)


def test_a_wrong_answer_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(check.SECTIONS, "labels", lambda report: report.check("here", False, found=3))
    status, written = run(tmp_path, "labels", "environment")
    assert status == 1 and written["checks"][0] == {"section": "labels", "name": "here", "ok": False, "found": 3}
    assert "FAIL labels: here  found=3" in capsys.readouterr().out


def test_what_a_section_raises_fails_and_the_next_one_runs(tmp_path, monkeypatch):
    def broken(report):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(check.SECTIONS, "labels", broken)
    status, written = run(tmp_path, "labels", "environment")
    assert status == 1 and written["checks"][0]["error"] == "RuntimeError: out of memory"
    assert written["checks"][-1]["section"] == "environment" and written["checks"][-1]["ok"]


def test_a_copy_in_an_iteration_fails(tmp_path, monkeypatch):
    forward = caffe.Net._forward_loss
    monkeypatch.setattr(
        caffe.Net, "_forward_loss", lambda net, *range_: (net.blobs["ip"].data, forward(net, *range_))[1]
    )
    status, written = run(tmp_path, "transfers")
    assert status == 1 and written["checks"][0]["counts"]["to host, blocking"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so(capsys):
    assert check.main([]) == 2
    assert "finds no CUDA device; --simulated runs without one" in capsys.readouterr().err


def test_its_map_is_the_standard_protocols():
    random = np.random.RandomState(1)
    codes, labels = random.randn(40, 8), (random.rand(40, 3) < 0.4).astype(float)
    found = check_dhn.mean_average_precision(codes[:10], codes[10:], labels[:10], labels[10:])
    expected = retrieval.score(codes[:10], labels[:10], codes[10:], labels[10:])["map"]
    assert found == pytest.approx(expected, abs=1e-12)
