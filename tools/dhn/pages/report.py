"""A scored run's report.html: its scores, curves, codes and nearest images, from the files in the run's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from atomic_writes import locks
from markupsafe import Markup

from dhn import files, published
from dhn.codes import files as codes
from dhn.codes.array_files import CodesError
from dhn.layout import RECIPES, target_command
from dhn.pages import gallery, plots
from dhn.pages.comparison import Comparison, compare_with_published
from dhn.pages.page import environment
from dhn.pages.run_summary import (
    SIDES,
    DataSummary,
    NetSummary,
    TrainingSummary,
    data_summary,
    net_summary,
    training_summary,
)
from dhn.runs import curves, facts
from dhn.runs.by_hand import HandRun
from dhn.runs.folder import AnyRun, Run, RunError, caveats
from dhn.scoring import retrieval

TEMPLATE = "report_template.html"
RANKS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]  # N of precision at N
SAME = 1e-9  # MAPs of the same codes agree this well

Sides = dict[str, tuple[np.ndarray, np.ndarray]]  # side -> codes (N, K) and labels (N, C)


@dataclass(frozen=True)
class NearestImages:
    """The gallery: queries with their nearest images, and what the labels are called.

    missing: why there are no rows; "" where there are.
    """

    rows: list[gallery.Row] = field(default_factory=list)
    label_names: list[str] = field(default_factory=list)
    missing: str = ""

    @property
    def neighbours(self) -> list[gallery.Neighbour]:
        """The nearest images of all queries."""
        return [neighbour for row in self.rows for neighbour in row.neighbours]

    def label(self, labels: np.ndarray) -> str:
        """The names of the labels that a vector (C,) carries."""
        if (labels < 0).all():
            return "labels unknown"
        names = zip(self.label_names, labels, strict=True)
        return ", ".join(name for name, label in names if label > 0) or "no label"


@dataclass(frozen=True)
class Page:
    """What the template shows of a run, by the names that it has there.

    metrics: the run's metrics.json. scores: those of retrieval.score under the first protocol, of which `headline` is
    the one to quote. real: it ranks by real-valued codes. radius: the Hamming radius of precision within a ball.
    """

    title: str
    method: str
    run: AnyRun
    metrics: dict
    real: bool
    scores: dict
    headline: str
    warnings: list[str]
    net: NetSummary | None
    training: TrainingSummary
    data: DataSummary
    comparison: Comparison
    plots: dict[str, Markup]
    gallery: NearestImages
    radius: int = retrieval.RADIUS


def write(run: Run | HandRun) -> Path:
    """Write the report of a scored run; returns its path.

    Raises RunError where the run is not scored or its metrics.json is of other codes, CodesError where its codes
    cannot be read.
    """
    out = run.folder / "report.html"
    with locks.hold(out) if run.folder.is_dir() else contextlib.nullcontext():  # page_of says that it is not there
        page = environment().get_template(TEMPLATE).render(vars(page_of(run)))
        files.write_atomic(out, lambda stream: stream.write(page.encode(errors="backslashreplace")))
    return out


def page_of(run: Run | HandRun) -> Page:
    """What the template shows of a run. Raises as `write`."""
    metrics = files.read_json(run.folder / "metrics.json")
    if not metrics.keys() >= {"protocol", "map", "protocols"}:
        raise RunError(f"{run.display_path(run.folder)} is not scored (no metrics.json); {run.make_command('score')}")
    metrics = facts.read(run.folder / "metrics.json", facts.METRICS)
    if metrics["protocol"] not in retrieval.PROTOCOLS:
        name = run.display_path(run.folder / "metrics.json")
        raise RunError(f"{name} is of no protocol that is known, {metrics['protocol']!r}; {run.make_command('score')}")
    read_as = metrics.get("read_as") or {}
    try:
        codes.parse_meaning(read_as.get("codes"))
    except CodesError as error:
        raise RunError(f"{run.display_path(run.folder / 'metrics.json')}, read_as: {error}") from None
    sides = read_sides(run, read_as)
    scores = retrieval.score(*sides["query"], *sides["database"], metrics["protocol"], at=RANKS)
    check_metrics(run, metrics, scores)
    real = retrieval.PROTOCOLS[metrics["protocol"]].real
    comparison = compare_with_published(run, metrics)
    return Page(
        title=published.title(comparison.dataset) if comparison.dataset else "an unknown data set",
        method=published.method(run.variant) if run.variant else f"Run {run.name}",
        run=run,
        metrics=metrics,
        real=real,
        scores=scores,
        headline=retrieval.headline(scores)[0],
        warnings=caveats({"notes": scores["notes"], **metrics}),
        net=net_summary(run),
        training=training_summary(run),
        data=data_summary(run),
        comparison=comparison,
        plots=draw_plots(curves.read(run.log), comparison, scores, sides["database"][0]),
        gallery=nearest_images(run, sides, real),
    )


def read_sides(run: AnyRun, read_as: Mapping[str, str]) -> Sides:
    """Codes and labels of queries and database, taken for what metrics.json says they were taken for."""
    labels_are = "classes" if read_as.get("labels", "").startswith("class") else "vectors"
    paths = str(run.folder / "query.npz"), str(run.folder / "database.npz")
    query, database = (codes.read(path, None, read_as.get("codes", "sign"), labels_are) for path in paths)
    sides = codes.join(query, database, paths)
    return {side: (each.codes, each.labels) for side, each in zip(SIDES[1:], sides, strict=True)}


def check_metrics(run: AnyRun, metrics: dict, scores: dict) -> None:
    """Raise RunError where metrics.json is not of the codes in the folder."""
    recorded, computed = (np.nan if each["map"] is None else each["map"] for each in (metrics, scores))
    if not np.isclose(recorded, computed, rtol=0, atol=SAME, equal_nan=True):
        raise RunError(
            f"{run.display_path(run.folder / 'metrics.json')} says MAP {recorded:.6f} and its codes give "
            f"{computed:.6f}: they were extracted later; {run.make_command('score')}"
        )


def draw_plots(
    training: curves.Curves, comparison: Comparison, scores: dict, database: np.ndarray
) -> dict[str, Markup]:
    """The plots by name, without those that the run's files hold nothing for. database: codes (N, K)."""
    rows = [] if comparison.near else comparison.dhn
    points = [(entry.row.title, entry.value) for entry in rows if entry.value]
    drawings = {
        "precision_recall": plots.precision_recall(scores["precision_recall"], retrieval.RADIUS),
        "precision_at": plots.precision_at(scores["precision_at"]),
        "code_values": plots.code_values(database),
        "bit_balance": plots.bit_balance([float(np.mean(bit >= 0)) for bit in database.T]),
    }
    if comparison.protocols:
        drawings["map"] = plots.map_ranges(comparison.protocols, points)
    if training.series("loss")[0]:
        drawings["loss"] = plots.loss(training)
    if training.series("lr")[0]:
        drawings["learning_rate"] = plots.learning_rate(training)
    return {name: Markup(svg) for name, svg in drawings.items()}


def nearest_images(run: AnyRun, sides: Sides, real: bool) -> NearestImages:
    """The gallery of a run; without rows, and with the reason, where its images are not to be had."""
    if run.data is None:
        return NearestImages(missing="the run's files do not say where its images are")
    folders = run.data / "query_lmdb", run.data / "database_lmdb"
    try:
        rows = gallery.gallery(sides["query"], sides["database"], folders, real=real)
    except gallery.GalleryError as error:
        remedy = f"; run: {target_command('data', run.dataset)}" if run.dataset else ""
        return NearestImages(missing=f"{error}{remedy}")
    return NearestImages(rows, read_label_names(run.data, sides["query"][1].shape[1]))


def read_label_names(data: Path, columns: int) -> list[str]:
    """What the labels of a data folder are called; by their numbers where no file has as many names."""
    paths = (folder / "label_names.txt" for folder in (data, RECIPES / data.name))
    path = next((path for path in paths if path.exists()), None)
    names = path.read_text("utf-8", "replace").splitlines() if path else []
    return names if len(names) == columns else [f"label {column}" for column in range(columns)]
