"""A loss that is not finite: read from the log, whoever names the first blob, and the real training that is ended."""

from __future__ import annotations

import signal

import pytest
from dhn.runs import divergence, training
from dhn.runs.divergence import Divergence, LossWatch
from dhn.runs.folder import Run

WARNING = "Iteration 20: the loss is inf; the first blob that is not finite is 'fc8' of layer 'fc8 last' (InnerProduct)"
FC8 = "blob 'fc8' of layer 'fc8 last' (InnerProduct)"


@pytest.mark.parametrize(
    ("lines", "place", "iteration"),
    [
        (["Iteration 20 (1 iter/s, 1s/20 iters), loss = inf", "    Train net output #0: a = 1",
          "    Train net output #1: b c = inf (* 2 = inf loss)", "    Train net output #2: d = nan",
          "Iteration 20, lr = 9"], "the net's output 'b c'", 20),
        (["Iteration 20 (1 iter/s, 1s/20 iters), loss = inf", WARNING, "    Train net output #0: a = nan",
          "Iteration 20, lr = 9"], FC8, 20),
        ([WARNING, "Iteration 20 (1 iter/s, 1s/20 iters), loss = inf", "Iteration 20, lr = 9"], FC8, 20),
        (["Iteration 20 (1 iter/s, 1s/20 iters), loss = inf", "    Train net output #0: a = nan", WARNING,
          "Snapshotting to binary proto file x"], FC8, 20),
        (["Iteration 40, loss = inf", "Iteration 40, Testing net (#0)"], "", 40),
    ],
)  # fmt: skip
def test_the_first_blob_that_is_not_finite_is_read_from_the_log(lines, place, iteration):
    watch = LossWatch()
    fine = ["Iteration 0 (1 iter/s, 1s/20 iters), loss = 87.3", "    Train net output #0: a = 1e+38",
            "    Test net output #0: a = nan", "Iteration 0, lr = 9"]  # fmt: skip
    assert [watch.feed(f"I1124 02:06:29.1  42 solver.cpp:239] {line}") for line in fine + lines] == (
        [False] * (len(fine + lines) - 1) + [True]
    )
    assert watch.divergence == Divergence(iteration, "inf", place)


SOLVER = """
net: "net.prototxt" base_lr: 1e30 lr_policy: "fixed" display: 2 max_iter: 20000 snapshot: 1 snapshot_prefix: "dhn"
solver_mode: CPU random_seed: 1 snapshot_after_train: true
"""
DIVERGES = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 3 }
  data_filler { type: "gaussian" std: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def test_caffe_itself_is_stopped_before_it_saves_what_is_not_finite(tmp_path):
    """The real `caffe train` with a learning rate that is far too high; 20,000 iterations would take a minute."""
    folder = tmp_path / "runs" / "x-dhn-8"
    folder.mkdir(parents=True)
    (tmp_path / "net.prototxt").write_text(DIVERGES)
    (folder / "solver.prototxt").write_text(SOLVER.replace('"dhn"', f'"{folder}/dhn"'))
    run = Run("x", "dhn", 8, tmp_path)
    with run.lock() as lock:
        status, diverged = training.launch(run, None, lock)
    assert status == -signal.SIGTERM
    assert diverged.iteration <= 6 and diverged.loss.lstrip("-") in ("nan", "inf") and diverged.place
    assert "Optimization Done" not in run.log.read_text()
    divergence.remove_spoiled(folder / "dhn", diverged.iteration)
    left = sorted(folder.glob("*.caffemodel"))
    assert all(divergence.is_finite(path.with_suffix(".solverstate")) for path in left)
    assert len(left) < diverged.iteration
    assert not list(folder.glob(".*"))
