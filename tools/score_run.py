"""Score a trained run: codes of its query and database images, MAP under every protocol, metrics.json.

    python tools/score_run.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--gpu 0]

Writes query.npz, database.npz (tools/extract_codes.py), metrics.json (tools/score_map.py) and report.html
(tools/report.py) into the run's folder, and prints the table of results. Codes newer than the weights and the images
they come from are taken as they are, and so are metrics newer than the codes and a report newer than the metrics.
The variant dhn_b is scored under the protocols that rank by real-valued codes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import codes
import report
import splits
from progress import console
from retrieval import PROTOCOLS
from rich import box
from rich.table import Table
from run_folder import Run, RunError
from score_map import score_files, write_metrics
from train import net, run_of, run_parser

SIDES = ("query", "database")
EXTRACT = Path(__file__).with_name("extract_codes.py")


def is_fresh(out: Path, weights: Path, source: Path) -> bool:
    """True if a codes file is whole, newer than the weights and the LMDB, and has a code for each of its records."""
    facts = source / "source.json"
    if not out.exists() or out.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in (weights, facts)):
        return False
    try:
        return len(codes.load(out)[0]) == json.loads(facts.read_text())["records"]
    except codes.CodesError:
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
        paths = {"model": run.folder / "deploy.prototxt", "weights": weights, "source": source, "out": out}
        options = [word for name, path in paths.items() for word in (f"--{name}", run.shown(path))]
        options += ["--gpu", str(gpu)] if gpu is not None else []
        # a process of its own: it sets how much Caffe logs before it imports Caffe
        if subprocess.run([sys.executable, str(EXTRACT), *options], cwd=run.root, check=False).returncode:
            raise RunError(f"cannot extract the codes of {run.shown(source)}; the reason stands above")


def protocols(variant: str) -> list[str]:
    """The protocols a variant is scored under: all, for dhn_b those without binarization."""
    return [name for name, rules in PROTOCOLS.items() if rules.real or variant != "dhn_b"]


def saved_metrics(run: Run, split: dict) -> dict | None:
    """metrics.json, if it is newer than the codes, of these weights and lists, and has every protocol; else None."""
    out = run.folder / "metrics.json"
    try:
        newest = max((run.folder / f"{side}.npz").stat().st_mtime_ns for side in SIDES)
        facts = json.loads(out.read_text()) if out.stat().st_mtime_ns >= newest else {}
    except (OSError, ValueError):
        return None
    same = facts.get("weights_sha256") == run.record()["weights_sha256"] and facts.get("split") == split
    names = set(protocols(run.variant))
    return facts if same and names <= set(facts.get("protocols", {})) else None


def table(run: Run, metrics: dict) -> Table:
    """The results of a run as metrics.json holds them, a row a protocol."""
    seconds = metrics["seconds_per_step"]
    shared = [f"{metrics['precision_radius_2']:.4f}", "-" if seconds is None else f"{seconds:.3f}"]
    counts = f"{metrics['queries']:,} queries, {metrics['database']:,} database images"
    found = Table(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title_justify="left", caption_justify="left"
    )
    found.title = f"{run.dataset}, {run.variant}: {counts}"
    found.caption = (
        "MAP: ties in database order; expected, low, high: over all orders of ties. "
        "P@r2: precision within Hamming radius 2. s/step: seconds an iteration of the training took."
    )
    found.add_column("protocol", no_wrap=True)
    for name in ("bits", "R", "MAP", "expected", "low", "high", "P@r2", "s/step"):
        found.add_column(name, justify="right", no_wrap=True)
    for protocol, each in metrics["protocols"].items():
        means = [each[key] for key in ("map", "map_expected", "map_low", "map_high")]
        values = ["-" if value is None else f"{value:.4f}" for value in means]
        found.add_row(protocol, str(run.bits), str(each["R"]), *values, *shared)
    return found


def own_rank(run: Run, split: dict) -> tuple[str, int] | None:
    """The protocol and R to score at besides, where the split's R is not that of the released rules."""
    base = "dhn-caffe" if run.variant == "dhn_b" else "hash-caffe"
    known = not isinstance(split["R"], int) or split["R"] == PROTOCOLS[base].top
    return None if known else (base, split["R"])


def score(run: Run, gpu: int | None = None) -> dict:
    """Extract, score, write metrics.json and report.html, print the table. Returns the metrics.

    What is there and fresh is left as it is.

    Raises RunError where the run is not trained, splits.SplitError where a query image is in the database, and
    codes.CodesError or ValueError where its codes cannot be scored.
    """
    split = splits.verify(run.data)
    if not run.is_trained():
        raise RunError(f"{run.shown(run.folder)} holds no finished training of this recipe; {run.how('train')}")
    extract(run, gpu)
    out = run.folder / "metrics.json"
    metrics = saved_metrics(run, split)
    if metrics is not None:
        console.print(f"{run.shown(out)}: already there and whole, newer than the codes")
    else:
        files = [str(run.folder / f"{side}.npz") for side in SIDES]
        with console.status("scoring"):
            scores = score_files(*files, protocols(run.variant))
            if own := own_rank(run, split):
                base, top = own
                scores += [{**each, "protocol": f"{base}@{top}"} for each in score_files(*files, [base], top)]
        training = run.record()
        about = {key: training[key] for key in ("iterations", "resumed_at", "seconds_per_step")}
        about |= {"dataset": run.dataset, "variant": run.variant, "seed": run.solver().random_seed}
        about |= {"net": net.recipe(run.dataset, run.net).net, "split": split}
        about["initial_weights_sha256"] = training.get("initial_weights_sha256")
        write_metrics(out, scores, weights=run.weights(), **about)
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
    options = run_parser("Score a trained run.").parse_args(arguments)
    try:
        score(run_of(options), options.gpu)
    except (RunError, ValueError, OSError) as error:
        print(f"score_run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
