"""A loss that is not finite: read from the log, whoever names the first blob, and the real training that is ended."""

from __future__ import annotations

import signal

import pytest
from dhn.runs import divergence, training
from dhn.runs.divergence import Divergence, LossWatch
from dhn.runs.folder import Run

DISPLAY = "solver.cpp:239] Iteration 20 (1 iter/s, 1s/20 iters), loss = inf"
OUTPUTS = ["solver.cpp:258]     Train net output #0: a = 1",
           "solver.cpp:258]     Train net output #1: b c = inf (* 2 = inf loss)",
           "solver.cpp:258]     Train net output #2: d = nan"]  # fmt: skip
RATE = "sgd_solver.cpp:112] Iteration 20, lr = 9"
FC8 = "'fc8' of layer 'fc8 last' (InnerProduct)"
WARNING = f"solver.cpp:239] Iteration 20: the loss is inf; the first blob that is not finite is {FC8}"
PARAMETERS = "solver.cpp:447] Iteration 20: the parameters are not finite, and the snapshot is of no use"


@pytest.mark.parametrize(
    ("lines", "what", "place"),
    [
        ([DISPLAY, *OUTPUTS, RATE], "the loss is inf", "the net's output 'b c'"),
        ([WARNING], "the loss is inf", FC8),
        ([DISPLAY, WARNING], "the loss is inf", FC8),
        ([DISPLAY, *OUTPUTS, WARNING], "the loss is inf", FC8),
        (["solver.cpp:239] Iteration 20: the loss is inf", DISPLAY, *OUTPUTS, RATE], "the loss is inf",
         "the net's output 'b c'"),
        ([f"{PARAMETERS}; the first blob that is not finite is param 1 of layer 'ip' (InnerProduct)"],
         "the parameters are not finite", "param 1 of layer 'ip' (InnerProduct)"),
        (["solver.cpp:327] Iteration 20, loss = inf", "solver.cpp:347] Iteration 20, Testing net (#0)"],
         "the loss is inf", ""),
    ],
)  # fmt: skip
def test_the_first_blob_that_is_not_finite_is_read_from_the_log(lines, what, place):
    watch = LossWatch()
    fine = ["solver.cpp:239] Iteration 0 (1 iter/s, 1s/20 iters), loss = 87.3",
            "solver.cpp:258]     Train net output #0: a = 1e+38", "solver.cpp:414]     Test net output #0: a = nan",
            "sgd_solver.cpp:112] Iteration 0, lr = 9"]  # fmt: skip
    told = [watch.feed(f"I1124 02:06:29.123456  42 {line}") for line in fine + lines]
    assert told == [False] * (len(told) - 1) + [True]
    assert watch.divergence == Divergence(20, what, place)
    assert Divergence(**watch.divergence.facts()) == watch.divergence


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
    assert status == 128 + signal.SIGTERM
    assert diverged.iteration <= 6 and diverged.place == "param 0 of layer 'ip' (InnerProduct)", diverged
    assert "Optimization Done" not in run.log.read_text()
    divergence.remove_spoiled(folder / "dhn", diverged.iteration)
    left = sorted(folder.glob("*.caffemodel"))
    assert all(divergence.is_finite(path.with_suffix(".solverstate")) for path in left)
    assert len(left) < diverged.iteration
    assert not list(folder.glob(".*"))
