"""Score a trained run: codes of its query and database images, MAP under every protocol, metrics.json.

    python tools/score_run.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--gpu 0]
    python tools/score_run.py --run FOLDER [--codes sign|01|packed|threshold=T] [--labels vectors|classes] [--gpu 0]

Writes query.npz, database.npz (tools/extract_codes.py), metrics.json (tools/score_map.py) and report.html
(tools/report.py) into the run's folder, and prints the table of results. Codes newer than the weights and the images
they come from are taken as they are, and so are metrics newer than the codes and a report newer than the metrics.
The variant dhn_b is scored under the protocols that rank by real-valued codes.

--run takes a folder that was filled by hand too (tools/dhn/runs/by_hand.py): what its files do not say is null in
metrics.json. Codes and labels that stand there are read by the rule of tools/dhn/codes/files.py; --codes and --labels declare
what they are.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import lmdb
import net
import numpy as np
from dhn.codes import array_files
from dhn.codes import files as codes
from dhn.datasets import splits
from dhn.experiments.metrics import score_files, write_metrics
from dhn.files import read_json, sha256
from dhn.pages import report
from dhn.progress import console
from dhn.runs.by_hand import HandRun, trained_net
from dhn.runs.command_line import parser_of_scored_runs, run_named
from dhn.runs.folder import Run, RunError, caveats
from dhn.scoring.retrieval import PROTOCOLS
from rich import box
from rich.markup import escape
from rich.table import Table

SIDES = ("query", "database")
EXTRACT = Path(__file__).with_name("extract_codes.py")


def is_fresh(out: Path, weights: Path, source: Path) -> bool:
    """True if a codes file is whole, newer than the weights and the LMDB, and has a code for each of its records."""
    facts = source / "source.json"
    if not out.exists() or out.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in (weights, facts)):
        return False
    try:
        return len(codes.load(out)[0]) == json.loads(facts.read_text())["records"]
    except array_files.CodesError:
        return False


def extract(run: Run, gpu: int | None = None) -> None:
    """Write the codes of the run's query and database images, unless they are there and fresh."""
    weights = run.weights()
    for side in SIDES:
        out, source = run.folder / f"{side}.npz", run.data / f"{side}_lmdb"
        if not (source / "source.json").exists():
            raise RunError(f"{run.shown(source)} is missing; run: make data DATASET={run.dataset}")
        if is_fresh(out, weights, source):
            console.print(f"{run.shown(out)}: already there and whole, newer than the weights")
            continue
        extract_side(run, weights, source, out, gpu)


def extract_side(run: Run, weights: Path, source: Path, out: Path, gpu: int | None, like: Path | None = None) -> None:
    """Write the codes of an LMDB's images. like: the net whose data layer prepares them, if not beside deploy.prototxt.

    Raises RunError where that fails.
    """
    paths = {"model": run.folder / "deploy.prototxt", "weights": weights, "source": source, "out": out}
    paths |= {"like": like} if like is not None else {}
    options = [word for name, path in paths.items() for word in (f"--{name}", run.shown(path))]
    options += ["--gpu", str(gpu)] if gpu is not None else []
    # a process of its own: it sets how much Caffe logs before it imports Caffe
    if subprocess.run([sys.executable, str(EXTRACT), *options], cwd=run.root, check=False).returncode:
        raise RunError(f"cannot extract the codes of {run.shown(source)}; the reason stands above")


def bring_codes(run: HandRun, gpu: int | None = None) -> None:
    """Ensure the codes of a run made by hand: those in its folder, unless older than the weights, else extracted.

    Raises RunError, with the remedy, where they are not there and something to extract them with is missing.
    """
    weights = run.weights()
    for side in SIDES:
        out = run.folder / f"{side}.npz"
        stale = out.exists() and weights is not None and out.stat().st_mtime_ns < weights.stat().st_mtime_ns
        if out.exists() and not stale:
            console.print(f"{run.shown(out)}: already there, taken as it is")
            continue
        if lacks := missing_for_codes(run, weights, side):
            found = f"{out.name} is older than {weights.name}" if stale else f"it holds no {out.name}"
            raise RunError(f"{run.name}: {found}, and to extract the codes {lacks}")
        net_file = trained_net(run)
        like = net_file if net_file.parent != run.folder else None
        console.print(f"weights: {run.shown(weights)}")
        extract_side(run, weights, run.data / f"{side}_lmdb", out, gpu, like)


def missing_for_codes(run: HandRun, weights: Path | None, side: str) -> str | None:
    """What a run made by hand lacks for the codes of a side, and the remedy; None if nothing."""
    if weights is None:
        return f"there is no .caffemodel; {run.how('train')}"
    if not (run.folder / "deploy.prototxt").exists():
        return (
            "there is no deploy.prototxt, the net from image to codes; copy the one that goes with train_val.prototxt "
            f"into it: python prototxt/net.py {run.dataset or 'DATASET'} --bits {run.bits or 'K'} --out ELSEWHERE"
        )
    if run.data is None:
        words = f"--model {run.quoted('deploy.prototxt')} --weights {shlex.quote(run.shown(weights))}"
        return (
            "there is no net that names a data set's LMDBs (query_lmdb and database_lmdb in one folder); extract them "
            f"by hand: python tools/extract_codes.py {words} --source LMDB --out {run.quoted(f'{side}.npz')}"
        )
    source = run.data / f"{side}_lmdb"
    if not (source / "data.mdb").exists():
        again = f"run: make data DATASET={run.dataset}" if run.dataset else "build it with tools/create_lmdb.py"
        return f"{run.shown(source)} is missing; {again}"
    return None


def image_count(source: Path) -> int | None:
    """How many images an LMDB holds; None where there is none."""
    if not (source / "data.mdb").exists():
        return None
    with lmdb.open(str(source), readonly=True, lock=False) as environment:
        return environment.stat()["entries"]


def check_counts(run: HandRun, scores: dict) -> None:
    """Raise RunError where the codes in a folder are not as many as the images of the run's data set."""
    for side, items in zip(SIDES, ("queries", "database"), strict=True):
        source = run.data and run.data / f"{side}_lmdb"
        images = source and image_count(source)
        rows = scores[items] + scores[f"{items}_unlabelled"]
        if images not in (None, rows):
            raise RunError(
                f"{run.name}/{side}.npz holds {rows:,} codes and {run.shown(source)} {images:,} images: they are of "
                "other images; remove the file and its codes are extracted again, or score it with tools/score_map.py"
            )


def meaning_of_codes(run: Run) -> str | None:
    """What the run's codes are declared to be: "sign" where our nets made them, else None, for the rule.

    Whole numbers in a folder that was filled by hand are no net's: somebody may have written 0 and 1.
    """
    if not isinstance(run, HandRun):
        return "sign"
    if run.variant is None:
        return None
    values = [codes.load(run.folder / f"{side}.npz")[0] for side in SIDES]
    return None if all((each == np.rint(each)).all() for each in values) else "sign"


def protocols(variant: str) -> list[str]:
    """The protocols a variant is scored under: all, for dhn_b those without binarization."""
    return [name for name, rules in PROTOCOLS.items() if rules.real or variant != "dhn_b"]


def weights_digest(run: Run) -> str | None:
    """SHA-256 of the weights; None for a run made by hand that has none."""
    if not isinstance(run, HandRun):
        return run.record()["weights_sha256"]
    weights = run.weights()
    return weights and sha256(weights)


def saved_metrics(run: Run, split: dict | None) -> dict | None:
    """metrics.json, if it is newer than the codes, of these weights and lists, and has every number; else None."""
    out = run.folder / "metrics.json"
    try:
        newest = max((run.folder / f"{side}.npz").stat().st_mtime_ns for side in SIDES)
        facts = json.loads(out.read_text()) if out.stat().st_mtime_ns >= newest else {}
        same = facts["weights_sha256"] == weights_digest(run) and facts["split"] == split
        same = same and facts["read_as"]["codes"] == "sign" and "made_by_hand" in facts
        return facts if same and set(protocols(run.variant)) <= set(facts["protocols"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def table(run: Run, metrics: dict) -> Table:
    """The results of a run as metrics.json holds them, a row a protocol; above it what makes them mean little."""
    seconds = metrics["seconds_per_step"]
    shared = [f"{metrics['precision_radius_2']:.4f}", "-" if seconds is None else f"{seconds:.3f}"]
    counts = f"{metrics['queries']:,} queries, {metrics['database']:,} database images"
    found = Table(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title_justify="left", caption_justify="left"
    )
    name = f"{metrics['dataset'] or 'unknown data set'}, {metrics['variant'] or 'unknown variant'}"
    title = [f"{name}: {counts}", *caveats(metrics)]
    found.title = escape("\n".join(title))
    sides = [f"{metrics['codes'][side]['distinct']:,} of the {side}" for side in SIDES]
    found.caption = (
        "MAP: ties in database order; expected, low, high: over all orders of ties. "
        "P@r2: precision within Hamming radius 2. s/step: seconds an iteration of the training took. "
        f"Distinct codes: {', '.join(sides)}."
    )
    if metrics["queries_unlabelled"] or metrics["database_unlabelled"]:
        found.caption += (
            f" Left out, their labels being unknown: {metrics['queries_unlabelled']:,} queries, "
            f"{metrics['database_unlabelled']:,} database images."
        )
    found.add_column("protocol", no_wrap=True)
    for name in ("bits", "R", "MAP", "expected", "low", "high", "P@r2", "s/step"):
        found.add_column(name, justify="right", no_wrap=True)
    for protocol, each in metrics["protocols"].items():
        means = [each[key] for key in ("map", "map_expected", "map_low", "map_high")]
        values = ["-" if value is None else f"{value:.4f}" for value in means]
        found.add_row(protocol, str(metrics["bits"]), str(each["R"]), *values, *shared)
    return found


def own_rank(run: Run, split: dict | None) -> tuple[str, int] | None:
    """The protocol and R to score at besides, where the split's R is not that of the released rules."""
    base = "dhn-caffe" if run.variant == "dhn_b" else "hash-caffe"
    top = split and split["R"]
    return (base, top) if isinstance(top, int) and top != PROTOCOLS[base].top else None


def split_of(run: Run) -> dict | None:
    """The split of the run's data set, its lists checked; None for a run made by hand of images without lists."""
    if isinstance(run, HandRun) and (run.data is None or not (run.data / "split.json").exists()):
        return None
    return splits.verify(run.data)


def about(run: Run, split: dict | None) -> dict:
    """What metrics.json says of a run besides its scores; None for what is not known."""
    record = run.record()
    facts = {key: record.get(key) for key in ("iterations", "resumed_at", "seconds_per_step", "initial_weights_sha256")}
    facts |= {"dataset": run.dataset, "variant": run.variant, "split": split, "made_by_hand": isinstance(run, HandRun)}
    if isinstance(run, HandRun):
        known = run.variant is not None
        return facts | {"seed": run.seed, "net": net.recipe(run.dataset, run.net).net if known else None}
    seed = run.solver().random_seed
    return facts | {"seed": seed if seed >= 0 else None, "net": net.recipe(run.dataset, run.net).net}


def score(run: Run, gpu: int | None = None, codes_are: str | None = None, labels_are: str | None = None) -> dict:
    """Extract, score, write metrics.json and report.html, print the table. Returns the metrics.

    What is there and fresh is left as it is. codes_are, labels_are: what the codes and labels in the folder of a run
    made by hand are declared to be.

    Raises RunError where the run is not trained or a folder made by hand lacks something, splits.SplitError where a
    query image is in the database, and array_files.CodesError or ValueError where its codes cannot be scored.
    """
    split = split_of(run)
    if isinstance(run, HandRun):
        if "baseline" in read_json(run.folder / "metrics.json"):
            raise RunError(f"{run.name} holds the codes of a baseline, which tools/baselines.py scores")
        bring_codes(run, gpu)
    elif not run.is_trained():
        folder = run.shown(run.folder)
        raise RunError(
            f"{folder} holds no finished training of this recipe; {run.how('train')}; or score what was trained there "
            f"by hand: python tools/score_run.py --run {folder}"
        )
    else:
        extract(run, gpu)
    out = run.folder / "metrics.json"
    metrics = saved_metrics(run, split) if codes_are is None and labels_are is None else None
    if metrics is not None:
        console.print(f"{run.shown(out)}: already there and whole, newer than the codes")
    else:
        files = [str(run.folder / f"{side}.npz") for side in SIDES]
        declared = {"codes_are": codes_are or meaning_of_codes(run), "labels_are": labels_are}
        with console.status("scoring"):
            scores = score_files(*files, protocols(run.variant), **declared)
            if own := own_rank(run, split):
                base, top = own
                again = score_files(*files, [base], top, **declared)
                scores += [{**each, "protocol": f"{base}@{top}"} for each in again]
        if isinstance(run, HandRun):
            check_counts(run, scores[0])
        write_metrics(out, scores, weights=run.weights(), **about(run, split))
        metrics = json.loads(out.read_text())
        console.print(f"wrote {run.shown(out)}")
    page = run.folder / "report.html"
    if page.exists() and page.stat().st_mtime_ns > out.stat().st_mtime_ns:
        console.print(f"{run.shown(page)}: already there, newer than the scores")
    else:
        with console.status("writing the report"):
            report.write(run)
        console.print(f"wrote {run.shown(page)}")
    console.print(table(run, metrics), soft_wrap=False)
    console.print(f"run folder: {run.shown(run.folder)}/")
    return metrics


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = parser_of_scored_runs("Score a trained run.")
    parser.add_argument("--codes", metavar="MEANING", help=f"what the codes in FOLDER are: {codes.MEANINGS}")
    parser.add_argument("--labels", choices=codes.DECLARED, help="what the labels in FOLDER are")
    try:
        options, run = run_named(parser, arguments)
        if options.run is None and (options.codes is not None or options.labels is not None):
            parser.error("--codes and --labels go with --run FOLDER")
        codes.parse_meaning(options.codes)
        score(run, options.gpu, options.codes, options.labels)
    except (RunError, ValueError, OSError) as error:
        print(f"score_run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
