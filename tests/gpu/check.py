"""Check the engine on a real GPU, in under 4 minutes; run from the repository's root.

    python tests/gpu/check.py [--simulated] [--json FILE] [SECTION ...]

A line a check: ok or FAIL, its section, its name, what was measured. FILE (default: build/gpu_check.json) gets the same
with the card, the versions and the commit. The exit status is 1 where a check failed, 2 where there is no card.
--simulated runs the sections that prove correctness on the simulated device (simulated_cuda.py), without a card.

It also runs where the project is not installed, with torch, numpy, protobuf, h5py, OpenCV and lmdb:
PYTHONPATH=engine:python_layers:tools:prototxt python tests/gpu/check.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before caffe is imported, which reads it
    os.environ.setdefault("GLOG_minloglevel", "2")
sys.path.extend(
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", folder)
    for folder in ("gpu", "conformance", "bench/sides", "../python_layers")
)

import caffe
import check_correctness
import check_dhn
import check_speed
import numpy as np
import simulated_cuda
import torch

ROOT = Path(__file__).resolve().parents[2]
LATEST = 225  # seconds: a section that would start later is left out, and fails
SECTIONS: dict[str, Callable[[Report], None]] = {
    "environment": check_correctness.environment,
    "recorded": check_correctness.recorded,
    "resume": check_correctness.resume,
    "labels": check_correctness.labels,
    "transfers": check_correctness.transfers,
    "batches": check_correctness.batches,
    "commands": check_correctness.commands,
    "dhn": check_dhn.dhn,
    "speed": check_speed.speed,
    "feed": check_speed.feed,
}
SPEED = ("speed", "feed")  # they measure the card


class Report:
    """The checks so far. `simulated`: what was asked of the simulated device; None on a card."""

    def __init__(self, simulated: simulated_cuda.Simulation | None = None):
        self.simulated = simulated
        self.checks: list[dict[str, Any]] = []
        self.section = ""

    def check(self, name: str, ok: bool, **facts: object) -> None:
        """Note and print one check. facts: what was measured."""
        self.checks.append({"section": self.section, "name": name, "ok": bool(ok), **facts})
        words = " ".join(f"{key}={value}" for key, value in facts.items())
        print(f"{'ok  ' if ok else 'FAIL'} {self.section}: {name}  {words}".rstrip(), flush=True)

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(not check["ok"] for check in self.checks)


def commit() -> str:
    """The commit of the checkout, with + where files differ from it; "unknown" without git."""
    try:
        words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run(sections: list[str], report: Report) -> None:
    """Run `sections` one after the other. What one raises is a failed check of its own."""
    began = time.perf_counter()
    for name in sections:
        report.section = name
        start = time.perf_counter()
        if start - began > LATEST:
            report.check("in time", False, reason=f"not started: {start - began:.0f} s have passed")
            continue
        caffe.set_mode_gpu()
        caffe.set_precision("float32")
        caffe.set_deterministic(False)
        try:
            SECTIONS[name](report)
        except Exception as error:
            traceback.print_exc()
            report.check("ends", False, error=f"{type(error).__name__}: {error}"[:300])
        print(f"     {name}: {time.perf_counter() - start:.1f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--simulated", action="store_true", help="on the simulated device: correctness alone")
    parser.add_argument(
        "--json", default=str(ROOT / "build" / "gpu_check.json"), metavar="FILE", help="where the results go"
    )
    args = parser.parse_args(arguments)
    unknown = [name for name in args.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; expected of {', '.join(SECTIONS)}")
    if not args.simulated and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device; --simulated runs without one", file=sys.stderr)
        return 2
    sections = args.sections or [name for name in SECTIONS if not (args.simulated and name in SPEED)]
    began = time.perf_counter()
    with simulated_cuda.simulate() if args.simulated else contextlib.nullcontext() as simulation:
        report = Report(simulation)
        run(sections, report)
        card = torch.cuda.get_device_name(0)
    seconds = time.perf_counter() - began
    facts = {
        "card": card,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "commit": commit(),
        "seconds": round(seconds, 1),
    }
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps({**facts, "checks": report.checks}, indent=1, default=str) + "\n")
    print(f"{len(report.checks) - report.failed} ok, {report.failed} failed, {seconds:.0f} s, {card}")
    return 1 if report.failed or not report.checks else 0


if __name__ == "__main__":
    sys.exit(main())
