"""Codes that are all equal or stay at 0, told from the losses in the log of a training's first 100 iterations."""

from __future__ import annotations

import pytest
from dhn.runs.code_watch import CodeWatch

# pairwise losses at the iterations that the logs of real trainings of 48 bits displayed
DEMO = {0: 0.721344, 50: 0.622301, 100: 0.461586, 150: 0.350327}  # make demo
# codes that stand on CIFAR-10's uncentred pixels, averaged over 8x8; base_lr 0.001 without quantization loss, and 0.01
AT_ZERO = {0: 0.788527, 20: 0.705459, 40: 0.694692, 60: 0.692145, 80: 0.693307, 100: 0.692292}
EQUAL = {0: 0.788527, 20: 38.4785, 40: 35.4582, 60: 34.0758, 80: 32.9342, 100: 32.817}
# a loss that moves slowly away from log 2
SLOW = {0: 0.7153, 50: 0.6913, 100: 0.6846, 150: 0.6722}


def log(values: dict[int, float], output: str = "pairwise_loss") -> list[str]:
    """The lines of a log in which `caffe train` displayed these losses."""
    lines = []
    for iteration, value in values.items():
        rate = "0 iter/s, 1.2087s/20 iters" if iteration == 0 else "14.2386 iter/s, 1.40464s/20 iters"
        lines += [
            f"I1128 06:25:56.950168 14545 solver.cpp:239] Iteration {iteration} ({rate}), loss = {value + 0.1:g}",
            f"I1128 06:25:56.950687 14545 solver.cpp:258]     Train net output #0: {output} = {value:g} "
            f"(* 1 = {value:g} loss)",
            "I1128 06:25:56.950797 14545 solver.cpp:258]     Train net output #1: quantization_loss = 0.1 "
            "(* 1 = 0.1 loss)",
            f"I1128 06:25:56.950902 14545 sgd_solver.cpp:112] Iteration {iteration}, lr = 0.003",
        ]
    return lines


def sentences(lines: list[str], bits: int = 48) -> list[str]:
    watch = CodeWatch(bits)
    return [sentence for line in lines if (sentence := watch.feed(line))]


def test_codes_that_stay_at_0():
    (sentence,) = sentences(log(AT_ZERO | {120: 0.6925}))
    assert sentence.startswith("codes stay at 0: pairwise_loss is that of codes of 0, 0.693, since iteration 60.")
    assert "lower the learning rate" in sentence and "BatchNorm" in sentence


def test_codes_that_are_all_equal():
    (sentence,) = sentences(log(EQUAL))
    assert sentence.startswith("codes are all equal: pairwise_loss is above 12, now 32.8, since iteration 60.")


def test_it_comes_with_iteration_100():
    lines = log(EQUAL)
    assert sentences(lines[:-4]) == [] and len(sentences(lines[:-2])) == 1


@pytest.mark.parametrize("values", [DEMO, SLOW, {**EQUAL, 100: 1.2}, {**AT_ZERO, 80: 0.67}])
def test_a_training_that_learns_is_left_alone(values):
    assert sentences(log(values)) == []


def test_the_squared_loss_has_values_of_its_own():
    at_zero, equal = {0: 1.02, 50: 1.001, 100: 1.0}, {0: 1.02, 50: 3.7, 100: 3.6}
    (first,) = sentences(log(at_zero, "squared_similarity_loss"))
    (second,) = sentences(log(equal, "squared_similarity_loss"))
    assert first.startswith("codes stay at 0: squared_similarity_loss is that of codes of 0, 1.000,")
    assert second.startswith("codes are all equal: squared_similarity_loss is above 1.5, now 3.6,")
    assert sentences(log({**at_zero, 100: 0.9}, "squared_similarity_loss")) == []


def test_what_is_not_watched():
    assert sentences(log(AT_ZERO, "softmax_loss")) == []
    assert sentences(log(AT_ZERO), bits=0) == [], "a pretraining has no codes"
    assert sentences(log({200: 0.6931, 220: 0.6931})) == [], "a training that goes on from a snapshot"
    tests = [line.replace("Train net", "Test net") for line in log(AT_ZERO)]
    assert sentences(tests) == []
