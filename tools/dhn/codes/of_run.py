"""The codes of a run's query and database images, extracted where they are not there or older than the weights."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from atomic_writes import ending

from dhn.codes import files as codes
from dhn.codes.array_files import CodesError
from dhn.files import read_json
from dhn.layout import target_command, tool_command
from dhn.progress import console
from dhn.runs.by_hand import HandRun, trained_net
from dhn.runs.folder import AnyRun, Run, RunError

SIDES = ("query", "database")
# the command, in a process of its own: it sets how much Caffe logs before it imports Caffe
EXTRACT = [sys.executable, "-m", "dhn", "extract-codes"]


def run_extraction(words: Sequence[str], root: Path) -> int:
    """Run extract_codes in the folder `root`; returns its exit status. It ends with this process."""
    bind = functools.partial(ending.end_with, os.getpid())
    return subprocess.run([*EXTRACT, *words], cwd=root, check=False, preexec_fn=bind).returncode


def is_fresh(out: Path, weights: Path, source: Path) -> bool:
    """True if a codes file is complete, newer than the weights and the LMDB, and has a code for each of its records."""
    facts = source / "source.json"
    if not out.exists() or out.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in (weights, facts)):
        return False
    try:
        return len(codes.load(out)[0]) == read_json(facts).get("records")
    except CodesError:
        return False


def extract(run: Run, gpu: int | None = None) -> None:
    """Write the codes of the run's query and database images, unless they are there and fresh."""
    weights = run.weights()
    for side in SIDES:
        out, source = run.folder / f"{side}.npz", run.data / f"{side}_lmdb"
        if not (source / "source.json").exists():
            raise RunError(f"{run.display_path(source)} is missing; run: {target_command('data', run.dataset)}")
        if is_fresh(out, weights, source):
            console.print(f"{run.display_path(out)}: already there and complete, newer than the weights")
            continue
        extract_side(run, weights, source, out, gpu)


def extract_side(
    run: AnyRun, weights: Path, source: Path, out: Path, gpu: int | None, like: Path | None = None
) -> None:
    """Write the codes of an LMDB's images. like: the net whose data layer prepares them; default: extract_codes' own.

    Raises RunError where that fails.
    """
    paths = {"model": run.folder / "deploy.prototxt", "weights": weights, "source": source, "out": out}
    paths |= {"like": like} if like is not None else {}
    options = [word for name, path in paths.items() for word in (f"--{name}", run.display_path(path))]
    options += ["--gpu", str(gpu)] if gpu is not None else []
    if run_extraction(options, run.root):
        raise RunError(f"cannot extract the codes of {run.display_path(source)}; the reason stands above")


def bring_codes(run: HandRun, gpu: int | None = None) -> None:
    """Ensure the codes of a run made by hand: those in its folder, unless older than the weights, else extracted.

    Raises RunError, with the remedy, where they are not there and something to extract them with is missing.
    """
    weights = run.weights()
    for side in SIDES:
        out = run.folder / f"{side}.npz"
        stale = out.exists() and weights is not None and out.stat().st_mtime_ns < weights.stat().st_mtime_ns
        if out.exists() and not stale:
            console.print(f"{run.display_path(out)}: already there, taken as it is")
            continue
        lacks, net_file = missing_for_codes(run, weights, side), trained_net(run)
        if lacks or weights is None or net_file is None or run.data is None:  # without lacks, all are there
            problem = f"{out.name} is older than {weights.name}" if stale and weights else f"it holds no {out.name}"
            raise RunError(f"{run.name}: {problem}, and to extract the codes {lacks}")
        like = net_file if net_file.parent != run.folder else None
        console.print(f"weights: {run.display_path(weights)}")
        extract_side(run, weights, run.data / f"{side}_lmdb", out, gpu, like)


def missing_for_codes(run: HandRun, weights: Path | None, side: str) -> str | None:
    """What a run made by hand lacks for the codes of a side, and the remedy; None if nothing."""
    if weights is None:
        return f"there is no .caffemodel; {run.make_command('train')}"
    if not (run.folder / "deploy.prototxt").exists():
        return (
            "there is no deploy.prototxt, the net from image to codes; copy the one that goes with train_val.prototxt "
            f"into it: {tool_command('net')} {run.dataset or 'DATASET'} --bits {run.bits or 'K'} --out ELSEWHERE"
        )
    if run.data is None:
        words = f"--model {run.quoted('deploy.prototxt')} --weights {shlex.quote(run.display_path(weights))}"
        return (
            "there is no net that names a data set's LMDBs (query_lmdb and database_lmdb in one folder); extract them "
            f"by hand: {tool_command('extract_codes')} {words} --source LMDB --out {run.quoted(f'{side}.npz')}"
        )
    source = run.data / f"{side}_lmdb"
    if not (source / "data.mdb").exists():
        again = (
            f"run: {target_command('data', run.dataset)}" if run.dataset else f"build it: {tool_command('create_lmdb')}"
        )
        return f"{run.display_path(source)} is missing; {again}"
    return None
