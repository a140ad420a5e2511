"""The Makefile does what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Makefile").read_text()
# variable: what is typed, what it becomes
SWITCHES = {"ALLOW_OVERLAP": ("1", "--allow-overlap"), "EACH": ("1", "--each"), "SHORT": ("1", "--short")}
TARGETS = re.search(r"^\.PHONY: (.*)$", TEXT, re.MULTILINE)[1].split()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_help_has_a_line_for_every_target():
    said = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in said.stdout.splitlines() if line.startswith("  ")] == TARGETS


def make(*words: str) -> subprocess.CompletedProcess:
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("words", "unread"),
    [
        (["score", "ITERATIONS=20"], "ITERATIONS"),
        (["resume", "BITS=12", "LR=0.1"], "LR"),
        (["train", "SEEDS=1 2 3"], "SEEDS"),  # known, but not read by this target
        (["data", "score", "WEIGHTS=w.caffemodel"], "WEIGHTS"),
        (["test", "BITS=12"], "BITS"),
        (["report", "GPU=0"], "GPU"),
        (["ITERATIONS=20"], "ITERATIONS"),  # make alone is make help
    ],
)
def test_a_variable_that_a_target_does_not_read_is_refused(words, unread):
    said = make("-n", *words)
    assert said.returncode == 2 and not said.stdout
    goals = " ".join(word for word in words if "=" not in word) or "help"
    assert f"make {goals} does not read {unread}. It reads: " in said.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"help", "reference"}))
def test_a_target_does_what_is_typed(target):
    """Every variable that a target reads stands in its commands: a table that promised more would lose it."""
    reads = make("--eval", f"show: ; @echo $(reads-{target})", "show").stdout.split()
    typed = {name: SWITCHES.get(name, [f"typed{name}"] * 2) for name in reads}
    said = make("-n", target, "OMP_NUM_THREADS=1", *(f"{name}={value}" for name, (value, _) in typed.items()))
    assert said.returncode == 0, said.stderr
    assert [name for name, (_, shown) in typed.items() if shown not in said.stdout] == []
    named = set(re.findall(r"\b[A-Z_]{2,}=", TEXT.split("@echo", 1)[1].split("\ndemo:")[0]))
    assert {f"{name}=" for name in reads} <= named | {"MIRROR="}, "make help names it"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", ["train", "tune", "ablation"])
def test_settings_become_set(target):
    said = make("-n", target, "LR=1e-3", "LAMBDA=0", "SIMILAR_WEIGHT=balanced", "SET=momentum=0.95 lr_policy=fixed")
    words = re.findall(r"--set '([^']*)'", said.stdout)
    assert words == ["base_lr=1e-3", "lambda=0", "similar_weight=balanced", "momentum=0.95", "lr_policy=fixed"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_switch_is_1_or_0():
    assert "--allow-overlap" not in make("-n", "data", "ALLOW_OVERLAP=0").stdout
    said = make("-n", "data", "ALLOW_OVERLAP=yes")
    assert said.returncode == 2 and "ALLOW_OVERLAP=yes: expected 1 or 0" in said.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_python_too_old_or_missing_is_named(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\ncase "$1" in -c) exit 1;; *) echo Python 3.9.2;; esac\n')
    (tmp_path / "python").chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in re.search(r"^\$\(READY\): (.*)$", TEXT, re.MULTILINE)[1].split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for python, found in (
        (tmp_path / "python", "found Python 3.9.2"),
        (tmp_path / "none", "name another: make PYTHON"),
    ):
        command = ["make", "test", f"PYTHON={python}"]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert said.returncode and "expected Python 3.10 to 3.13" in said.stderr and found in said.stderr
        assert not (tmp_path / ".venv").exists()
