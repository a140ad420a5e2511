"""Keep a scored run under prototxt/ as released weights, from which `make score` works without a training.

    python tools/release_run.py cifar10 [--variant dhn] [--bits 48] [--net squeezenet] [--seed 1]

Copies nets, solver, weights and the training's record to prototxt/<dataset>/<net>/released/<variant>-<bits>/, with the
MAP of the run's metrics.json and the digests of the images it was trained on (tools/dhn/runs/released.py).
"""

from __future__ import annotations

import sys

import dhn  # first: it says so where the project is not installed

# isort: split
from dhn.runs import facts
from dhn.runs.command_line import run_of, run_parser
from dhn.runs.folder import RunError
from dhn.runs.released import release


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = run_parser("Keep a scored run under prototxt/ as released weights.", gpu=False)
    options = parser.parse_args(arguments)
    try:
        run = run_of(options)
        metrics = facts.read(run.folder / "metrics.json", facts.METRICS)
        if metrics.get("weights_sha256") != run.record().get("weights_sha256", ""):
            raise RunError(f"{run.name} has no scores of its weights; {run.make_command('score')}")
        folder = release(run, {protocol: each["map"] for protocol, each in metrics["protocols"].items()})
        print(f"wrote {run.display_path(folder)}/")
    except (RunError, ValueError, OSError) as error:
        print(f"release_run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
