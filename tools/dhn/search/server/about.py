"""What an index is, as the page shows it."""

from __future__ import annotations

from pathlib import Path

from dhn import published
from dhn.search import places
from dhn.search.index import Index

SCORE = ("protocol", "R", "map", "map_expected", "map_low", "map_high", "caveats")


def about_of(index: Index) -> dict:
    """The facts of an index: where its codes come from, how many, how good."""
    about = index.about
    net, score, split = (about.get(name) or {} for name in ("net", "score", "split"))
    dataset = about.get("dataset")
    return {
        "dataset": None if dataset is None else published.title(dataset),
        "form": split.get("form"),
        "split": split.get("split"),
        "run": Path(net["model"]["path"]).parent.name if "model" in net else None,
        "weights_sha256": net.get("weights", {}).get("sha256"),
        "bits": index.bits,
        "count": len(index),
        "distinct": about["distinct"],
        "score": {name: score[name] for name in SCORE} if score else None,
        "label_names": index.label_names,
        "pictures": bool(about["pictures"]),
        "report": report_of(index) is not None,
    }


def report_of(index: Index) -> Path | None:
    """report.html of the run whose codes an index holds; None where there is none."""
    entry = index.about.get("report")
    path = places.find(index.folder, entry) if entry else None
    return path if path is not None and path.is_file() else None
