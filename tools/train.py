"""Train a variant of DHN on a data set with `caffe train`, into runs/<dataset>-<variant>-<bits>/.

    python tools/train.py fashion_mnist [--variant dhn] [--bits 48] [--resume]

Writes the nets and the solver (prototxt/net.py), runs `caffe train -solver`, keeps its whole log in train.log and
shows where it is. A finished training is left as it is; one that was cut off goes on from its newest whole snapshot
(--resume insists on one). What another recipe left in the folder is moved to `earlier-N/`, not overwritten.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from download import sha256
from progress import console, training
from run_folder import ROOT, Run, RunError, write_json
from train_log import SNAPSHOT, follow, parse_display, seconds_per_step

sys.path.insert(0, str(ROOT / "prototxt"))
import net

LINES = 10  # progress lines of a training whose output is not a terminal


def command(run: Run, snapshot: str | None) -> list[str]:
    """The `caffe train` of a run, to be started in the repository's root."""
    caffe = [sys.executable, "-m", "caffe.cli.main", "train"]
    return [
        *caffe,
        "-solver",
        run.shown(run.folder / "solver.prototxt"),
        *(["-snapshot", snapshot] if snapshot else []),
    ]


def launch(run: Run, snapshot: str | None, lock: int) -> int:
    """Run `caffe train`, its output appended to train.log; shows its progress. Returns its exit status."""
    layers = str(run.root / "python_layers")
    paths = [layers, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    total = run.solver().max_iter
    with open(run.log, "ab") as log:
        start = log.tell()
        child = subprocess.Popen(
            command(run, snapshot), stdout=log, stderr=log, cwd=run.root, env=environment, pass_fds=(lock,)
        )
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the child: a snapshot, then it stops
    try:
        shown = 0
        with training(run.name, total) as show:
            for line in follow(run.log, start, lambda: child.poll() is None):
                if display := parse_display(line):
                    show(display.iteration, display.loss)
                    if not console.is_terminal and display.iteration * LINES // total > shown:
                        shown = display.iteration * LINES // total
                        console.print(f"iteration {display.iteration:,} of {total:,}, loss = {display.loss:g}")
                elif match := SNAPSHOT.search(line):
                    console.print(f"wrote {match[1]}")
    finally:
        signal.signal(signal.SIGINT, interrupted)
    return child.wait()


def train(run: Run, resume: bool = False) -> None:
    """Bring a run to its final weights, from the start or from its newest snapshot.

    Raises RunError when the training fails, is stopped, or when `resume` is asked for and there is no snapshot.
    """
    with run.lock() as lock:
        net.write(run.dataset, run.variant, run.bits, str(run.folder))
        recipe, record, weights = run.recipe(), run.record(), run.weights()
        if run.is_trained():
            console.print(f"{run.shown(weights)}: already there and whole, trained by this recipe")
            return
        if record.get("recipe") != recipe and (aside := run.set_aside()):
            console.print(f"another recipe's files were moved to {run.shown(aside)}")
            record = {}
        snapshot = run.newest_snapshot()
        if resume and snapshot is None:
            raise RunError(f"{run.shown(run.folder)} holds no whole snapshot to resume from; {run.how('train')}")
        record = {"recipe": recipe, "resumed_at": record.get("resumed_at", [])}
        if snapshot is not None:
            record["resumed_at"].append(snapshot[0])
            console.print(f"{run.name}: going on from {run.shown(snapshot[1])}")
        write_json(run.folder / "training.json", record)
        console.print(f"{run.name}: {run.solver().max_iter:,} iterations; the whole log goes to {run.shown(run.log)}")
        status = launch(run, run.shown(snapshot[1]) if snapshot else None, lock)
        if status != 0:
            last = run.log.read_text(errors="replace").rstrip().splitlines()[-5:]
            raise RunError(
                f"caffe train ended with status {status}; {run.shown(run.log)} ends with\n" + "\n".join(last)
            )
        if not weights.exists():
            raise RunError(f"the training was stopped before its end; {run.how('resume')}")
        record |= {
            "weights": weights.name,
            "weights_sha256": sha256(weights),
            "iterations": run.solver().max_iter,
            "seconds_per_step": seconds_per_step(run.log),
        }
        write_json(run.folder / "training.json", record)


def run_parser(description: str) -> argparse.ArgumentParser:
    """A command line that names a run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("dataset", choices=sorted(net.DATASETS))
    parser.add_argument("--variant", choices=list(net.VARIANTS), default="dhn", help="default: dhn")
    parser.add_argument("--bits", type=int, default=48, help="length of the codes (default: 48)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = run_parser("Train a variant of DHN on a data set.")
    parser.add_argument("--resume", action="store_true", help="insist on a snapshot to go on from")
    options = parser.parse_args(arguments)
    try:
        train(Run(options.dataset, options.variant, options.bits), options.resume)
    except (RunError, ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
