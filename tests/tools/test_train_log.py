"""The log of `caffe train`: its displays, the time of an iteration, and reading it while it grows."""

from __future__ import annotations

import pytest
from dhn.runs.log import Display, follow, parse_display, seconds_per_step


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Iteration 20 (1.5 iter/s, 13.3s/20 iters), loss = 0.69", Display(20, 13.3, 20, 0.69)),
        ("Iteration 0 (0 iter/s, 0.1s/20 iters), loss = 87.3", Display(0, 0.1, 0, 87.3)),
        ("Iteration 0 (-nan iter/s, 0s/20 iters), loss = 1e-05", Display(0, 0.0, 0, 1e-05)),
        ("Iteration 40, lr = 0.001", None),
        ("Iteration 40, Testing net (#0)", None),
    ],
)
def test_parse_display(line, expected):
    assert parse_display(f"I1124 02:06:29.123456  4242 solver.cpp:239] {line}") == expected


def test_a_loss_that_is_not_a_number_is_read():
    display = parse_display("I1124 solver.cpp:239] Iteration 20 (1.5 iter/s, 13.3s/20 iters), loss = nan")
    assert display is not None and display.loss != display.loss


def test_seconds_per_step_without_lines(tmp_path):
    (tmp_path / "log").write_text("nothing\n")
    assert seconds_per_step(tmp_path / "log") is None


def test_follow_gives_whole_lines_and_the_rest(tmp_path):
    path = tmp_path / "log"
    path.write_text("old\n")
    pieces = iter(["a", "b\nc", "\nd"])

    def running() -> bool:
        piece = next(pieces, None)
        if piece is None:
            return False
        with open(path, "a") as stream:
            stream.write(piece)
        return True

    assert list(follow(path, 4, running, every=0)) == ["ab", "c", "d"]
