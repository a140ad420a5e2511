"""The training of a run: its nets written, `caffe train` run and watched, resumed from its newest complete snapshot."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import atomic_writes
import net
import run_settings
from atomic_writes import ending

from dhn.datasets import splits
from dhn.files import read_json, sha256, write_json
from dhn.layout import PYTHON_LAYERS, option
from dhn.progress import console, training
from dhn.runs import divergence, several_gpus
from dhn.runs.code_watch import CodeWatch
from dhn.runs.curves import Recorder
from dhn.runs.divergence import Divergence, LossWatch
from dhn.runs.facts import INITIAL
from dhn.runs.folder import Run, RunError
from dhn.runs.log import SNAPSHOT, Pace, follow, parse_display, seconds_per_step
from dhn.runs.prototxts import Settings, net_texts, settings_of, write_nets
from dhn.weights import report as weights_report

Gpus = int | Sequence[int] | None  # the GPU that computes, several, or none
EVERY = 10  # seconds between progress lines where the output is not a terminal


@dataclass(frozen=True)
class Done:
    """The run's final weights are there, trained by its recipe."""


@dataclass(frozen=True)
class Resume:
    """Go on from a snapshot (a .solverstate) of an iteration."""

    iteration: int
    snapshot: Path


@dataclass(frozen=True)
class Start:
    """Begin at iteration 0, from weights; None: as the net's fillers have it."""

    weights: Path | None


def command(run: Run, snapshot: str | None, weights: str | None = None, gpu: Gpus = None) -> list[str]:
    """The `caffe train` of a run, to be started in the root of data/ and runs/: from a snapshot, or from weights."""
    caffe = [sys.executable, "-m", "caffe.cli.main", "train"]
    gpus = [] if gpu is None else [gpu] if isinstance(gpu, int) else gpu
    solver = several_gpus.solver_name(len(gpus)) if len(gpus) > 1 else "solver.prototxt"
    return [
        *caffe,
        "-solver",
        run.display_path(run.folder / solver),
        *(["-snapshot", snapshot] if snapshot else ["-weights", weights] if weights else []),
        *(["-gpu", ",".join(map(str, gpus))] if gpus else []),
    ]


def launch(
    run: Run, snapshot: str | None, lock: int, weights: str | None = None, gpu: Gpus = None
) -> tuple[int, Divergence | None]:
    """Run `caffe train`, its output appended to train.log; shows its progress.

    Returns its exit status, and where its loss was no longer finite: it is ended there without another snapshot. Raises
    KeyboardInterrupt where ^C stopped it.
    """
    paths = [str(PYTHON_LAYERS), *filter(None, [os.environ.get("PYTHONPATH")])]
    # its log goes into train.log, not into files of its own in /tmp too
    environment = {"GLOG_logtostderr": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    total = run.solver().max_iter
    curves, watch, codes = Recorder(run.log), LossWatch(), CodeWatch(run.bits)  # the recorder knows the lines of before
    with open(run.log, "ab") as log:
        start = log.tell()
        child = subprocess.Popen(
            command(run, snapshot, weights, gpu),
            stdout=log,
            stderr=log,
            cwd=run.root,
            env=environment,
            pass_fds=(lock,) if lock >= 0 else (),
            preexec_fn=functools.partial(ending.end_with, os.getpid()),
        )
    came: list[int] = []  # ^C reaches the child too: a snapshot, then it stops
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        printed_at, pace, told = -math.inf, Pace(total), False
        with training(run.name, total) as show, curves:
            for line in follow(run.log, start, lambda: child.poll() is None):
                curves.feed(line)
                if watch.feed(line) and not told:
                    told = True  # a second signal would come while the child cleans up
                    child.terminate()
                if sentence := codes.feed(line):
                    console.print(f"{run.name}: {sentence}", markup=False)
                if display := parse_display(line):
                    show(display.iteration, display.loss)
                    first = pace.feed(display)
                    if console.is_terminal and first:
                        console.print(f"{run.name}: {pace.left()}")
                    elif not console.is_terminal and (first or time.monotonic() - printed_at >= EVERY):
                        printed_at, left = time.monotonic(), pace.left()
                        left = f"; {left}" if left else ""
                        console.print(f"iteration {display.iteration:,} of {total:,}, loss = {display.loss:g}{left}")
                elif match := SNAPSHOT.search(line):
                    console.print(f"wrote {match[1]}")
    except BaseException:  # SIGTERM and SIGHUP come here alone
        child.terminate()
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, interrupted)
    status = child.wait()
    atomic_writes.clear_killed(run.folder)  # of a snapshot that was being written
    if came and not run.weights().exists():
        console.print(f"the training was stopped before its end; {run.make_command('resume')}")
        raise KeyboardInterrupt
    return status, watch.divergence


def _initial(run: Run, path: str | None) -> dict:
    """The weights to start from, for training.json: those named, or those that the run began with; {} for none."""
    record = run.record()
    if path is None:
        return {key: record[key] for key in INITIAL if key in record}
    file = Path(path).resolve()
    if not file.is_file():
        raise RunError(f"{option('weights', path)}: there is no such file")
    return {"initial_weights": str(file), "initial_weights_sha256": sha256(file)}


def _readable(run: Run, initial: dict) -> Path | None:
    """The path of the weights to start from, checked to be the same file still; None for none."""
    if not initial:
        return None
    path = Path(initial["initial_weights"])
    if not path.is_file() or sha256(path) != initial["initial_weights_sha256"]:
        raise RunError(
            f"this run starts from {path}, which is not there any more; {run.make_command('train')} "
            f"{option('weights', '...')}"
        )
    return path


def needs_pretraining(run: Run, weights: str | None) -> bool:
    """True where a variant starts from the data set's pretraining: one exists, and no weights are named, or weights
    without the BatchNorm statistics of the net, which its pretraining begins with."""
    if run.variant == net.PRETRAINING or not net.recipe(run.dataset, run.net).pretraining:
        return False
    if weights is None:
        return True
    layers = net.deploy(run.dataset, run.bits, run.net).layer
    statistics = {layer.name for layer in layers if layer.type == "BatchNorm"}
    return bool(statistics) and Path(weights).is_file() and not statistics <= weights_report.learned_layers(weights)


def _pretrained(run: Run, weights: str | None, gpu: Gpus, resume: bool) -> str | None:
    """The weights that a run starts from: `weights`, or those of the data set's pretraining where one is needed, which
    is trained first where it is not. None: none, or those that the run began with.

    resume: go on with a pretraining that diverged too.
    """
    if not needs_pretraining(run, weights):
        return weights
    first = replace(run, variant=net.PRETRAINING, bits=0)
    began = run.record().get("initial_weights")
    if weights is None and began is not None and Path(began).parent != first.folder:
        return None
    train(first, resume and "diverged" in first.record(), weights, gpu)
    return str(first.weights())


def _origin(initial: dict) -> dict:
    """For training.json: what the pretraining began with whose weights a run starts from; {} for other weights."""
    record = read_json(Path(initial["initial_weights"]).parent / "training.json") if initial else {}
    if not record or record.get("weights_sha256") != initial["initial_weights_sha256"]:
        return {}
    return {"pretraining": {key: record[key] for key in INITIAL if key in record}}


def _choose_settings(
    run: Run, settings: Settings | None, texts: Callable[[Run, Settings], dict[str, str]]
) -> dict[str, Any]:
    """Write the run's prototxt files with these settings, or, where they are None, with those that it has; say what is
    not as before or not as prototxt/net.py writes it. Returns the settings. Raises RunError as write_nets."""
    before = settings_of(run)
    chosen = dict(before if settings is None else settings)
    former = texts(run, before) if chosen != before else None
    edited = write_nets(run, texts(run, chosen), run_settings.typed(settings or {}), former)
    solver = run.display_path(run.folder / "solver.prototxt")
    if settings is None and before:
        words = run_settings.typed(before)
        console.print(f"{run.name}: {words}, as before ({solver} says so; to train without, remove it)")
    elif (run.folder / "training.json").exists() and (differ := run_settings.differences(before, chosen)):
        console.print(f"{run.name}: other settings than before: {differ}", markup=False)
    for sentence in edited:
        console.print(f"{sentence}. It is trained as it stands; remove it to have it written again", markup=False)
    return chosen


def _recorded(run: Run, recipe: str) -> dict[str, Any]:
    """What training.json says of a training by this recipe; another recipe's files are moved out of the way."""
    record = run.record()
    if record.get("recipe") != recipe and (archive := run.archive_stale_files()):
        console.print(f"another recipe's files were moved to {run.display_path(archive)}")
        return {}
    return record


def plan(run: Run, recipe: str, record: dict, initial: dict, resume: bool) -> Done | Resume | Start:
    """What is to be done for the run's final weights. Changes nothing.

    record: training.json's, of this recipe. initial: the weights to start from, as _initial gives them. resume: insist
    on a snapshot. Raises RunError where there is none, where the training diverged and `resume` does not say to go on,
    and where the weights are not there any more.
    """
    if record.get("recipe") == recipe and run.is_trained():
        return Done()
    snapshot = run.newest_snapshot()
    if "diverged" in record and not resume:
        raise RunError(_diverged(run, Divergence.of(record["diverged"]), snapshot))
    if snapshot is not None:
        return Resume(*snapshot)
    if resume:
        raise RunError(
            f"{run.display_path(run.folder)} holds no complete snapshot to resume from; {run.make_command('train')}"
        )
    return Start(_readable(run, initial))


def _check_start(run: Run, start: Start) -> None:
    """Say what a training starts from. Raises RunError where the weights do not fit the net."""
    if start.weights is not None:
        console.print(f"{run.name}: fine-tuning from {run.display_path(start.weights)}")
        file = "train_val.prototxt" if run.variant == net.PRETRAINING else "deploy.prototxt"
        if misfits := weights_report.show(str(start.weights), run.folder / file).layers(weights_report.MISMATCHED):
            raise RunError(f"{start.weights} does not fit the net in {', '.join(misfits)}; see the table above")
    elif net.recipe(run.dataset, run.net).net in net.FINE_TUNED:
        console.print(
            f"{run.name}: no weights are named ({option('weights', '...')}), so it learns from scratch; "
            "the paper fine-tunes"
        )


def train(
    run: Run,
    resume: bool = False,
    weights: str | None = None,
    gpu: Gpus = None,
    texts: Callable[[Run, Settings], dict[str, str]] = net_texts,
    settings: Settings | None = None,
) -> None:
    """Bring a run to its final weights, from the start (from `weights` where they are named) or its newest snapshot.

    gpu: several train in a process each, with a part of the recipe's batch. texts: the prototxt files of a run with
    settings. settings: all that the run has otherwise than the tables (prototxt/run_settings.py); None: those that it
    has already. Files that were edited by hand are trained as they are.
    Raises RunError when the training fails, diverges, is stopped, when `resume` is asked for and there is no snapshot,
    or where settings and an edited file contradict each other, and splits.SplitError where the lists overlap.
    """
    split = splits.verify(run.data)
    pretrained = _pretrained(run, weights, gpu, resume)
    with run.lock() as lock:
        settings = _choose_settings(run, settings, texts)
        initial = _initial(run, pretrained)
        recipe = run.recipe(initial.get("initial_weights_sha256"))
        record = _recorded(run, recipe)
        step = plan(run, recipe, record, initial, resume)
        if isinstance(step, Done):
            console.print(f"{run.display_path(run.weights())}: already there and complete, trained by this recipe")
            return
        record = {
            "recipe": recipe,
            "resumed_at": record.get("resumed_at", []),
            **initial,
            **_origin(initial),
            "settings": settings,
            "edited": run.edited(),
            "split": split,
        }
        snapshot = start = None
        if isinstance(step, Resume):
            record["resumed_at"].append(step.iteration)
            snapshot = run.display_path(step.snapshot)
            console.print(f"{run.name}: going on from {snapshot}")
        else:
            _check_start(run, step)
            start = str(step.weights) if step.weights else None
        if isinstance(gpu, Sequence) and len(gpu) > 1:
            console.print(several_gpus.write_solver(run, len(gpu)))
            record["processes"] = len(gpu)
        write_json(run.folder / "training.json", record)
        console.print(
            f"{run.name}: {run.solver().max_iter:,} iterations; the whole log goes to {run.display_path(run.log)}"
        )
        status, diverged = launch(run, snapshot, lock, start, gpu)
        _finish(run, record, status, diverged)


def _finish(run: Run, record: dict[str, Any], status: int, diverged: Divergence | None) -> None:
    """Write into training.json what became of a training, from launch's result. Raises RunError unless it is done."""
    final = run.weights()
    if diverged is None and status != 0:
        last = run.log.read_text(errors="replace").rstrip().splitlines()[-5:]
        raise RunError(
            f"caffe train ended with status {status}; {run.display_path(run.log)} ends with\n" + "\n".join(last)
        )
    if diverged is None and not final.exists():
        raise RunError(f"the training was stopped before its end; {run.make_command('resume')}")
    if diverged is None and not divergence.is_finite(final.with_suffix(".solverstate")):
        diverged = Divergence(run.solver().max_iter, "the weights are not finite")
    if diverged is not None:
        record["diverged"] = diverged.facts()
        write_json(run.folder / "training.json", record)
        removed = divergence.remove_spoiled(final.parent / run.variant, diverged.iteration)
        if removed:
            console.print(f"removed what is not good any more: {', '.join(map(run.display_path, removed))}")
        raise RunError(_diverged(run, diverged, run.newest_snapshot()))
    record |= {
        "weights": final.name,
        "weights_sha256": sha256(final),
        "iterations": run.solver().max_iter,
        "seconds_per_step": seconds_per_step(run.log),
    }
    write_json(run.folder / "training.json", record)


def _diverged(run: Run, diverged: Divergence, snapshot: tuple[int, Path] | None) -> str:
    """What to say of a training whose loss is not finite."""
    solver = run.folder / "solver.prototxt"
    good = f"The last good snapshot is {run.display_path(snapshot[1])}. " if snapshot else "There is no good snapshot. "
    again = f" To go on from the snapshot as it is, {run.own_command('resume')}." if snapshot else ""
    lower = {**settings_of(run), "base_lr": float(f"{run.solver().base_lr / 10:.3g}")}
    return (
        f"{diverged}; the training was stopped (log: {run.display_path(run.log)}). {good}"
        f"The usual cause is a learning rate that is too high: {divergence.rate_line(solver)} "
        f"{run.display_path(solver)}; {run.own_command('train')} {run_settings.typed(lower)}, "
        f"which begins again.{again}"
    )
