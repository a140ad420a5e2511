"""A scored run's report.html: its scores, curves, codes and nearest images, from the files in the run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from caffe.blob import proto_shape
from caffe.proto import caffe_pb2
from caffe.proto.text import read_binary, read_net
from caffe.proto.upgrade import upgrade_net
from google.protobuf.descriptor import FieldDescriptor
from markupsafe import Markup

from dhn import files, published
from dhn.codes import files as codes
from dhn.files import read_json
from dhn.layout import RECIPES, target_command
from dhn.pages import plots
from dhn.pages.gallery import GalleryError, gallery
from dhn.pages.page import environment
from dhn.runs import curves
from dhn.runs.by_hand import HandRun, trained_net
from dhn.runs.folder import Run, RunError, caveats, overlap
from dhn.runs.prototxts import as_typed
from dhn.scoring import retrieval

TEMPLATE = "report_template.html"
RANKS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]  # N of precision at N
FILES = ("train_val.prototxt", "deploy.prototxt", "solver.prototxt")
SIDES = ("train", "query", "database")
PATHS = ("net", "snapshot_prefix")  # of a solver: they say nothing of the training
SAME = 1e-9  # MAPs of the same codes agree this well


def write(run: Run) -> Path:
    """Write the report of a scored run; returns its path.

    Raises RunError where the run is not scored or its metrics.json is of other codes, CodesError where its codes
    cannot be read.
    """
    page = environment().get_template(TEMPLATE).render(**facts(run))
    out = run.folder / "report.html"
    files.write_atomic(out, lambda stream: stream.write(page.encode()))
    return out


def facts(run: Run) -> dict:
    """What the template shows of a run. Raises as `write`."""
    metrics = read_json(run.folder / "metrics.json")
    if not metrics.keys() >= {"protocol", "map", "protocols"}:
        raise RunError(f"{run.display_path(run.folder)} is not scored (no metrics.json); {run.make_command('score')}")
    sides = read_sides(run, metrics.get("read_as") or {})
    scores = retrieval.score(*sides["query"], *sides["database"], metrics["protocol"], at=RANKS)
    said, found = (np.nan if each["map"] is None else each["map"] for each in (metrics, scores))
    if not np.isclose(said, found, rtol=0, atol=SAME, equal_nan=True):
        raise RunError(
            f"{run.display_path(run.folder / 'metrics.json')} says MAP {said:.6f} and its codes give {found:.6f}: they "
            f"were extracted later; {run.make_command('score')}"
        )
    real, beside = retrieval.PROTOCOLS[metrics["protocol"]].real, comparison(run, metrics)
    return {
        "title": published.title(beside["dataset"]) if run.dataset else "an unknown data set",
        "method": method(run),
        "run": run,
        "metrics": metrics,
        "real": real,
        "scores": scores,
        "headline": retrieval.headline(scores)[0],
        "warnings": caveats({"notes": scores["notes"], **metrics}),
        "radius": retrieval.RADIUS,
        "net": net_summary(run),
        "training": training_summary(run),
        "setting": data_summary(run),
        "comparison": beside,
        "plots": draw_plots(curves.read(run.log), beside, scores, sides["database"][0]),
        "gallery": nearest_images(run, sides, real),
    }


def read_sides(run: Run, read_as: Mapping[str, str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Codes (N, K) and labels (N, C) of queries and database, taken for what metrics.json says they were taken for."""
    labels_are = "classes" if read_as.get("labels", "").startswith("class") else "vectors"
    files = str(run.folder / "query.npz"), str(run.folder / "database.npz")
    query, database = (codes.read(file, None, read_as.get("codes", "sign"), labels_are) for file in files)
    sides = codes.join(query, database, files)
    return {side: (each.codes, each.labels) for side, each in zip(SIDES[1:], sides, strict=True)}


def method(run: Run) -> str:
    """What the page calls the method: a variant as the paper does, a run whose variant is not known by its folder."""
    return published.method(run.variant) if run.variant else f"Run {run.name}"


def net_summary(run: Run) -> dict | None:
    """Name and layers of the net that makes the codes, and the losses it was trained with; None if it is not there."""
    paths = [run.folder / name for name in FILES[:2]]
    if isinstance(run, HandRun):
        paths[0] = trained_net(run) or paths[0]
    if not all(path.exists() for path in paths):
        return None
    trained, deployed = map(read_net, paths)
    return {
        "name": trained.name,
        "layers": [layer.name for layer in deployed.layer if layer.type != "Input"],
        "losses": [
            {
                "name": layer.name,
                "weight": format_number(layer.loss_weight[0]) if layer.loss_weight else None,
                "settings": layer.python_param.param_str,
            }
            for layer in trained.layer
            if layer.loss_weight or layer.type.endswith("Loss")
        ],
    }


def training_summary(run: Run) -> dict:
    """The training's record, its solver's settings as (name, value), and its weights, blob by blob."""
    record, solver, weights = run.record(), run.solver(), run.weights()
    settings = [] if solver is None else [each for each in solver.ListFields() if each[0].name not in PATHS]
    there = weights is not None and weights.exists()
    return {
        "record": {"iterations": None, "seconds_per_step": None, "resumed_at": None} | record,
        "solver": [(field.name, format_setting(field, value)) for field, value in settings],
        "seed": solver.random_seed if solver is not None and solver.random_seed >= 0 else None,
        "seed_known": solver is not None,
        "settings": as_typed(record.get("settings") or {}),
        "weights": weights.name if there else None,
        "written": modified_time(weights) if there else None,
        "layers": learned_layers(weights) if there else [],
    }


def format_setting(field: FieldDescriptor, value: Any) -> str:
    """A solver's value as its prototxt has it."""
    one = (lambda each: field.enum_type.values_by_number[each].name) if field.enum_type else format_number
    return ", ".join(map(one, value)) if not isinstance(value, str) and hasattr(value, "__len__") else one(value)


def format_number(value: object) -> str:
    """A number in the fewest digits that a float32 needs; text as it is."""
    return str(np.float32(value)) if isinstance(value, float) else str(value)


def modified_time(path: Path) -> str:
    """When a file was last written, in UTC."""
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def learned_layers(weights: Path) -> list[dict]:
    """Name, type, shapes of the blobs and number of values of each layer that learned, as a caffemodel has them.

    Empty for a file of another kind, as HDF5 weights.
    """
    try:
        model = upgrade_net(read_binary(weights, caffe_pb2.NetParameter()), str(weights))
    except ValueError:
        return []
    found = []
    for layer in model.layer:
        if layer.blobs:
            shapes = [proto_shape(blob) for blob in layer.blobs]
            size = sum(int(np.prod(shape)) for shape in shapes)
            sizes = " + ".join("x".join(map(str, shape)) for shape in shapes)
            found.append({"name": layer.name, "type": layer.type, "shapes": sizes, "size": size})
    return found


def data_summary(run: Run) -> dict:
    """The split (records and list's digest of each side, how it was drawn), the files' digests and texts."""
    sides = []
    for side in SIDES if run.data else ():
        source = read_json(run.data / f"{side}_lmdb" / "source.json")
        if source:
            digest = source["recipe"]["inputs"].get("list") if "recipe" in source else None
            sides.append({"name": side, "records": source["records"], "sha256": digest})
    names = [*FILES, "train.log", "query.npz", "database.npz", "metrics.json"]
    present = [run.folder / name for name in names if (run.folder / name).exists()]
    drawn = read_json(run.data / "split.json") if run.data else {}
    return {
        "sides": sides,
        "drawn": {"split": None, "seed": None, "note": None, "missing": None, "form": None} | drawn,
        "overlap": overlap(drawn),
        "digests": [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in present],
        "texts": [(path.name, path.read_text()) for path in present if path.name in FILES],
    }


def comparison(run: Run, metrics: dict) -> dict:
    """The published rows to read beside the run: of its data set, else of the one whose split it follows.

    `theirs`: DHN as the paper and later reruns have it; `others`: the paper's other methods. A row's `value` is the MAP
    at the run's number of bits, None where its source gives none.
    """
    split = read_json(run.data / "split.json").get("split") if run.data else None
    dataset = published.key(run.dataset, split)
    rows, near = published.rows(dataset) if dataset else [], None
    if dataset and not rows and (near := published.stand_in_for(dataset)):
        rows = published.rows(near[0])
    own = published.VARIANTS.get(run.variant)
    ordered = sorted(rows, key=lambda row: row.method != own)
    entries: list[dict[str, Any]] = [
        {
            "row": row,
            "value": row.maps.get(metrics["bits"]),
            "elsewhere": ", ".join(f"{value:.3f} at {bits}" for bits, value in row.maps.items()),
        }
        for row in ordered
    ]
    ours = set(published.VARIANTS.values())
    return {
        "dataset": dataset,
        "near": published.title(near[0]) if near else None,
        "why": near[1] if near else None,
        "theirs": [entry for entry in entries if entry["row"].method in ours],
        "others": [entry for entry in entries if entry["row"].method not in ours],
        "sources": list(dict.fromkeys((row.title, row.cite) for row in ordered)),
        "here": [(name, found) for name, found in metrics["protocols"].items() if found["map"] is not None],
    }


def draw_plots(record: curves.Curves, beside: dict, scores: dict, database: np.ndarray) -> dict[str, Markup | None]:
    """The plots by name; None for one that the run's files hold nothing for."""
    same = [] if beside["near"] else beside["theirs"]
    points = [(entry["row"].title, entry["value"]) for entry in same if entry["value"]]
    found: dict[str, Callable[[], str] | None] = {
        "map": (lambda: plots.map_ranges(beside["here"], points)) if beside["here"] else None,
        "precision_recall": lambda: plots.precision_recall(scores["precision_recall"], retrieval.RADIUS),
        "precision_at": lambda: plots.precision_at(scores["precision_at"]),
        "loss": (lambda: plots.loss(record)) if record.series("loss")[0] else None,
        "learning_rate": (lambda: plots.learning_rate(record)) if record.series("lr")[0] else None,
        "code_values": lambda: plots.code_values(database),
        "bit_balance": lambda: plots.bit_balance([float(np.mean(bit >= 0)) for bit in database.T]),
    }
    return {name: draw and Markup(draw()) for name, draw in found.items()}


def nearest_images(run: Run, sides: dict[str, tuple[np.ndarray, np.ndarray]], real: bool) -> dict:
    """The gallery's rows, how many neighbours are hits, names of the labels; or the reason why there are none."""
    if run.data is None:
        return {"rows": [], "missing": "the run's files do not say where its images are"}
    paths = (folder / "label_names.txt" for folder in (run.data, RECIPES / run.data.name))
    path = next((path for path in paths if path.exists()), None)
    names = path.read_text(encoding="utf-8").splitlines() if path else []
    columns = sides["query"][1].shape[1]
    if len(names) != columns:
        names = [f"label {column}" for column in range(columns)]
    folders = run.data / "query_lmdb", run.data / "database_lmdb"
    try:
        rows = gallery(sides["query"], sides["database"], folders, real=real)
    except GalleryError as error:
        remedy = f"; run: {target_command('data', run.dataset)}" if run.dataset else ""
        return {"rows": [], "missing": f"{error}{remedy}"}
    hits = sum(each.hit for row in rows for each in row.neighbours)
    return {
        "rows": rows,
        "missing": None,
        "hits": hits,
        "shown": sum(len(row.neighbours) for row in rows),
        "label": lambda labels: label_text(labels, names),
    }


def label_text(labels: np.ndarray, names: list[str]) -> str:
    """The names of the labels that a vector (C,) carries."""
    if (labels < 0).all():
        return "labels unknown"
    return ", ".join(name for name, label in zip(names, labels, strict=True) if label > 0) or "no label"
