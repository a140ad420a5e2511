"""What an index is, as the page shows it."""

from __future__ import annotations

from pathlib import Path

from dhn.search import places
from dhn.search.index import Index


def about_of(index: Index) -> dict:
    """The facts of an index: where its codes come from, how many, how good."""
    about = index.about
    net, score, split = (about.get(name) or {} for name in ("net", "score", "split"))
    return {
        "dataset": about.get("dataset"),
        "form": about.get("form"),
        "split": split.get("split"),
        "net": about.get("net_name"),
        "weights_sha256": net.get("weights", {}).get("sha256"),
        "bits": index.bits,
        "count": len(index),
        "distinct": about["distinct"],
        "map": {"value": score["map"], "low": score["map_low"], "high": score["map_high"]} if score else None,
        "label_names": index.label_names,
        "pictures": bool(about["pictures"]),
        "report": report_of(index) is not None,
    }


def report_of(index: Index) -> Path | None:
    """report.html of the run whose codes an index holds; None where there is none."""
    entry = index.about.get("report")
    path = places.find(index.folder, entry) if entry else None
    return path if path is not None and path.is_file() else None
