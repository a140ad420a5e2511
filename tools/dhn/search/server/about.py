"""What an index is, as the page shows it."""

from __future__ import annotations

from pathlib import Path

from dhn.search.index import Index


def about_of(index: Index) -> dict:
    """The facts of an index: where its codes come from, how many, how good."""
    about = index.about
    return {
        "dataset": about.get("dataset"),
        "form": about.get("form"),
        "split": about.get("split"),
        "net": about.get("net"),
        "weights_sha256": about.get("weights_sha256"),
        "bits": index.bits,
        "count": len(index),
        "distinct": about["distinct"],
        "map": about.get("map"),
        "label_names": index.label_names,
        "pictures": about.get("pictures") is not None,
        "report": report_of(index) is not None,
    }


def report_of(index: Index) -> Path | None:
    """report.html of the run whose codes an index holds; None where there is none."""
    run = index.about.get("run")
    path = Path(run, "report.html") if run else None
    return path if path is not None and path.is_file() else None
