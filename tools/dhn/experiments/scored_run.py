"""A run scored: its codes extracted, metrics.json and report.html written, what is there and fresh left as it is."""

from __future__ import annotations

from pathlib import Path

import net
import numpy as np
import run_settings
from atomic_writes import locks
from lmdb_files import open_lmdb
from rich import box
from rich.markup import escape
from rich.table import Table

from dhn.codes import files as codes
from dhn.codes.of_run import SIDES, bring_codes, extract
from dhn.datasets import splits
from dhn.experiments.metrics import score_files, write_metrics
from dhn.files import load_json, read_json, sha256
from dhn.layout import tool_command
from dhn.pages import report
from dhn.progress import console
from dhn.runs import facts, released
from dhn.runs.by_hand import HandRun
from dhn.runs.folder import Run, RunError, caveats
from dhn.runs.prototxts import settings_of
from dhn.scoring.retrieval import PROTOCOLS


def image_count(source: Path) -> int | None:
    """How many images an LMDB holds; None where there is none."""
    if not (source / "data.mdb").exists():
        return None
    with open_lmdb(str(source)) as environment:
        return environment.stat()["entries"]


def check_counts(run: HandRun, scores: dict) -> None:
    """Raise RunError where the codes in a folder are not as many as the images of the run's data set."""
    for side, items in zip(SIDES, ("queries", "database"), strict=True):
        if run.data is None:
            continue
        source = run.data / f"{side}_lmdb"
        images, rows = image_count(source), scores[items] + scores[f"{items}_unlabelled"]
        if images not in (None, rows):
            raise RunError(
                f"{run.name}/{side}.npz holds {rows:,} codes and {run.display_path(source)} {images:,} images: they "
                "are of other images; remove the file and its codes are extracted again, or score it with "
                "tools/score_map.py"
            )


def meaning_of_codes(run: Run | HandRun) -> str | None:
    """What the run's codes are declared to be: "sign" where our nets made them, else None, for the rule.

    Whole numbers in a folder that was filled by hand are no net's: somebody may have written 0 and 1.
    """
    if not isinstance(run, HandRun):
        return "sign"
    if run.variant is None:
        return None
    values = [codes.load(run.folder / f"{side}.npz")[0] for side in SIDES]
    return None if all((each == np.rint(each)).all() for each in values) else "sign"


def protocols(variant: str | None) -> list[str]:
    """The protocols a variant is scored under: all, for dhn_b those without binarization."""
    return [name for name, rules in PROTOCOLS.items() if rules.real or variant != "dhn_b"]


def weights_digest(run: Run | HandRun) -> str | None:
    """SHA-256 of the weights; None for a run made by hand that has none."""
    if not isinstance(run, HandRun):
        return run.record()["weights_sha256"]
    weights = run.weights()
    return None if weights is None else sha256(weights)


def saved_metrics(run: Run | HandRun, split: dict | None) -> dict | None:
    """metrics.json, if it is newer than the codes, of these weights and lists, and has every number; else None."""
    out = run.folder / "metrics.json"
    try:
        newest = max((run.folder / f"{side}.npz").stat().st_mtime_ns for side in SIDES)
        metrics = facts.read(out, facts.METRICS) if out.stat().st_mtime_ns >= newest else {}
        same = metrics["weights_sha256"] == weights_digest(run) and metrics["split"] == split
        same = same and metrics["read_as"]["codes"] == "sign" and "made_by_hand" in metrics
        same = same and (metrics.get("edited") or []) == run.edited()
        table(run, metrics)  # raises KeyError where a number is missing
        return metrics if same and set(protocols(run.variant)) <= set(metrics["protocols"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def table(run: Run | HandRun, metrics: dict) -> Table:
    """The results of a run as metrics.json holds them, a row a protocol; above it what makes them mean little."""
    seconds = metrics["seconds_per_step"]
    shared = [f"{metrics['precision_radius_2']:.4f}", "-" if seconds is None else f"{seconds:.3f}"]
    counts = f"{metrics['queries']:,} queries, {metrics['database']:,} database images"
    results = Table(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title_justify="left", caption_justify="left"
    )
    name = f"{metrics['dataset'] or 'unknown data set'}, {metrics['variant'] or 'unknown variant'}"
    own = run_settings.typed(metrics.get("settings") or {})
    title = [f"{name}: {counts}", *([f"set for this run: {own}"] if own else []), *caveats(metrics)]
    results.title = escape("\n".join(title))
    sides = [f"{metrics['codes'][side]['distinct']:,} of the {side}" for side in SIDES]
    results.caption = (
        "MAP: ties in database order; expected, low, high: over all orders of ties. "
        "P@r2: precision within Hamming radius 2. s/step: seconds an iteration of the training took. "
        f"Distinct codes: {', '.join(sides)}."
    )
    if metrics["queries_unlabelled"] or metrics["database_unlabelled"]:
        results.caption += (
            f" Left out, their labels being unknown: {metrics['queries_unlabelled']:,} queries, "
            f"{metrics['database_unlabelled']:,} database images."
        )
    results.add_column("protocol", no_wrap=True)
    for name in ("bits", "R", "MAP", "expected", "low", "high", "P@r2", "s/step"):
        results.add_column(name, justify="right", no_wrap=True)
    for protocol, each in metrics["protocols"].items():
        means = [each[key] for key in ("map", "map_expected", "map_low", "map_high")]
        values = ["-" if value is None else f"{value:.4f}" for value in means]
        results.add_row(protocol, str(metrics["bits"]), str(each["R"]), *values, *shared)
    return results


def own_rank(run: Run | HandRun, split: dict | None) -> tuple[str, int] | None:
    """The protocol and R to score at besides, where the split's R is not that of the released rules."""
    base = "dhn-caffe" if run.variant == "dhn_b" else "hash-caffe"
    top = split and split["R"]
    return (base, top) if isinstance(top, int) and top != PROTOCOLS[base].top else None


def split_of(run: Run | HandRun) -> dict | None:
    """The split of the run's data set, with its lists checked; None for a run made by hand of images without lists."""
    if run.data is None or (isinstance(run, HandRun) and not (run.data / "split.json").exists()):
        return None
    return facts.checked(splits.verify(run.data), facts.SPLIT, run.data / "split.json")


def net_name(dataset: str, name: str | None) -> str:
    """The name of a run's net; of the data set's default where it has none."""
    return net.recipe(dataset, name).net


def about(run: Run | HandRun, split: dict | None) -> dict:
    """What metrics.json says of a run besides its scores; None for what is not known."""
    record = run.record()
    known = {key: record.get(key) for key in ("iterations", "resumed_at", "seconds_per_step", "initial_weights_sha256")}
    known |= {"dataset": run.dataset, "variant": run.variant, "split": split, "made_by_hand": isinstance(run, HandRun)}
    known |= {"settings": record.get("settings", settings_of(run)), "edited": run.edited()}
    if isinstance(run, HandRun):
        known |= {"seed": run.seed, "net": None}
        return known if run.dataset is None or run.variant is None else known | {"net": net_name(run.dataset, run.net)}
    seed = run.solver().random_seed
    return known | {"seed": seed if seed >= 0 else None, "net": net_name(run.dataset, run.net)}


def score(
    run: Run | HandRun, gpu: int | None = None, codes_are: str | None = None, labels_are: str | None = None
) -> dict:
    """Extract, score, write metrics.json and report.html, print the table. Returns the metrics.

    What is there and fresh is left as it is. codes_are, labels_are: what the codes and labels in the folder of a run
    made by hand are declared to be.

    Raises RunError where the run is not trained or a folder made by hand lacks something, splits.SplitError where a
    query image is in the database, array_files.CodesError or ValueError where its codes cannot be scored, and
    locks.HeldError where another process scores it.
    """
    split = split_of(run)
    if isinstance(run, HandRun):
        if "baseline" in read_json(run.folder / "metrics.json"):
            raise RunError(f"{run.name} holds the codes of a baseline, which tools/baselines.py scores")
    else:
        if released.install(run):
            console.print(
                f"no training here: the released weights of {run.display_path(released.folder_of(run))} are scored"
            )
        if not run.is_trained():
            folder = run.display_path(run.folder)
            raise RunError(
                f"{folder} holds no finished training of this recipe; {run.make_command('train')}; or score what was "
                f"trained there by hand: {tool_command('score_run')} --run {folder}"
            )
    with locks.hold(run.folder / "metrics.json"):
        return _score(run, split, gpu, codes_are, labels_are)


def _score(
    run: Run | HandRun, split: dict | None, gpu: int | None, codes_are: str | None, labels_are: str | None
) -> dict:
    """As `score`, of a run whose files are there and whose folder is held."""
    if isinstance(run, HandRun):
        bring_codes(run, gpu)
    else:
        extract(run, gpu)
    out = run.folder / "metrics.json"
    metrics = saved_metrics(run, split) if codes_are is None and labels_are is None else None
    if metrics is not None:
        console.print(f"{run.display_path(out)}: already there and complete, newer than the codes")
    else:
        query, database = (str(run.folder / f"{side}.npz") for side in SIDES)
        meaning = codes_are or meaning_of_codes(run)
        with console.status("scoring"):
            scores = score_files(query, database, protocols(run.variant), codes_are=meaning, labels_are=labels_are)
            if own := own_rank(run, split):
                base, top = own
                again = score_files(query, database, [base], top, codes_are=meaning, labels_are=labels_are)
                scores += [{**each, "protocol": f"{base}@{top}"} for each in again]
        if isinstance(run, HandRun):
            check_counts(run, scores[0])
        write_metrics(out, scores, weights=run.weights(), **about(run, split))
        metrics = load_json(out)
        console.print(f"wrote {run.display_path(out)}")
    page = run.folder / "report.html"
    if page.exists() and page.stat().st_mtime_ns > out.stat().st_mtime_ns:
        console.print(f"{run.display_path(page)}: already there, newer than the scores")
    else:
        with console.status("writing the report"):
            report.write(run)
        console.print(f"wrote {run.display_path(page)}")
    console.print(table(run, metrics), soft_wrap=False)
    maps = {protocol: each["map"] for protocol, each in metrics["protocols"].items()}
    if sentence := released.comparison(run, maps):
        console.print(sentence)
    console.print(f"run folder: {run.display_path(run.folder)}/")
    return metrics
