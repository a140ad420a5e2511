"""What was run, for a report: the net, the training and the data of a run, from the files in its folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import run_settings
from caffe.blob_proto import proto_shape
from caffe.proto import caffe_pb2
from caffe.proto.text import read_binary, read_net
from caffe.proto.upgrade import upgrade_net
from google.protobuf.descriptor import FieldDescriptor

from dhn.files import read_json
from dhn.runs import facts
from dhn.runs.by_hand import HandRun, trained_net
from dhn.runs.folder import AnyRun, overlap

PROTOTXTS = ("train_val.prototxt", "deploy.prototxt", "solver.prototxt")
SIDES = ("train", "query", "database")
PATHS = ("net", "snapshot_prefix")  # of a solver: they say nothing of the training


@dataclass(frozen=True)
class Loss:
    """A loss layer of the trained net; `weight` None where the prototxt names none, `settings` its param_str."""

    name: str
    weight: str | None
    settings: str


@dataclass(frozen=True)
class NetSummary:
    """The net that makes the codes: its name, its layers' names, and the losses it was trained with."""

    name: str
    layers: list[str]
    losses: list[Loss]


@dataclass(frozen=True)
class LearnedLayer:
    """A layer with parameters, as a caffemodel has it: the blobs' shapes as text, and the number of values."""

    name: str
    type: str
    shapes: str
    size: int


@dataclass(frozen=True)
class Weights:
    """A caffemodel: its file name, when it was written, and its layers (none of a file of another kind, as HDF5)."""

    name: str
    written: str
    layers: list[LearnedLayer]


@dataclass(frozen=True)
class TrainingSummary:
    """A training as training.json, solver.prototxt and the final weights have it; None for what is not known.

    solver: the fields of the solver and their values as text; None where there is no solver.prototxt. seed: None also
    where the solver names none. settings: what was set for this run, as typed.
    """

    iterations: int | None
    seconds_per_step: float | None
    resumed_at: list[int]
    recipe: str | None
    initial_weights: str | None  # file name
    initial_weights_sha256: str | None
    solver: list[tuple[str, str]] | None
    seed: int | None
    settings: str
    weights: Weights | None


@dataclass(frozen=True)
class Side:
    """One set of the split: its LMDB's number of records, and its list's SHA-256 where it was made from a list."""

    name: str
    records: int
    sha256: str | None


@dataclass(frozen=True)
class DataSummary:
    """The split and the files of a run; None for what split.json does not say.

    overlap: in words, "" for none. digests: name and SHA-256 of the run's files. texts: name and text of its prototxts.
    """

    sides: list[Side]
    split: str | None
    seed: int | None
    missing: int | None
    form: str | None
    note: str | None
    overlap: str
    digests: list[tuple[str, str]]
    texts: list[tuple[str, str]]


def net_summary(run: AnyRun) -> NetSummary | None:
    """The net of a run; None where its prototxts are not there."""
    paths = [run.folder / name for name in PROTOTXTS[:2]]
    if isinstance(run, HandRun):
        paths[0] = trained_net(run) or paths[0]
    if not all(path.exists() for path in paths):
        return None
    trained, deployed = map(read_net, paths)
    losses = [
        Loss(
            layer.name,
            format_number(layer.loss_weight[0]) if layer.loss_weight else None,
            layer.python_param.param_str,
        )
        for layer in trained.layer
        if layer.loss_weight or layer.type.endswith("Loss")
    ]
    return NetSummary(trained.name, [layer.name for layer in deployed.layer if layer.type != "Input"], losses)


def training_summary(run: AnyRun) -> TrainingSummary:
    """The training of a run. Raises RunError as run.solver()."""
    record, solver = run.record(), run.solver()
    initial = record.get("initial_weights")
    return TrainingSummary(
        iterations=record.get("iterations"),
        seconds_per_step=record.get("seconds_per_step"),
        resumed_at=record.get("resumed_at") or [],
        recipe=record.get("recipe"),
        initial_weights=initial and Path(initial).name,
        initial_weights_sha256=record.get("initial_weights_sha256"),
        solver=None if solver is None else solver_fields(solver),
        seed=solver.random_seed if solver is not None and solver.random_seed >= 0 else None,
        settings=run_settings.typed(record.get("settings") or {}),
        weights=weights_summary(run.weights()),
    )


def solver_fields(solver: caffe_pb2.SolverParameter) -> list[tuple[str, str]]:
    """The fields of a solver that say something of the training, with their values as text."""
    fields = [(field, value) for field, value in solver.ListFields() if field.name not in PATHS]
    return [(field.name, format_setting(field, value)) for field, value in fields]


def format_setting(field: FieldDescriptor, value: Any) -> str:
    """A solver's value as its prototxt has it."""
    one = (lambda each: field.enum_type.values_by_number[each].name) if field.enum_type else format_number
    return ", ".join(map(one, value)) if not isinstance(value, str) and hasattr(value, "__len__") else one(value)


def format_number(value: object) -> str:
    """A number in the fewest digits that a float32 needs; text as it is."""
    return str(np.float32(value)) if isinstance(value, float) else str(value)


def weights_summary(path: Path | None) -> Weights | None:
    """The weights of a run; None where they are not there."""
    if path is None or not path.exists():
        return None
    written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return Weights(path.name, written, learned_layers(path))


def learned_layers(weights: Path) -> list[LearnedLayer]:
    """The layers of a caffemodel that learned; none for a file of another kind, as HDF5 weights."""
    try:
        model = upgrade_net(read_binary(weights, caffe_pb2.NetParameter()), str(weights))
    except ValueError:
        return []
    layers = []
    for layer in model.layer:
        if layer.blobs:
            shapes = [proto_shape(blob) for blob in layer.blobs]
            text = " + ".join("x".join(map(str, shape)) for shape in shapes)
            layers.append(LearnedLayer(layer.name, layer.type, text, sum(int(np.prod(shape)) for shape in shapes)))
    return layers


def data_summary(run: AnyRun) -> DataSummary:
    """The data of a run: records and list of each set, how the split was drawn, digests and texts of the files."""
    names = [*PROTOTXTS, "train.log", "query.npz", "database.npz", "metrics.json"]
    present = [run.folder / name for name in names if (run.folder / name).exists()]
    split = read_json(run.data / "split.json") if run.data else {}
    return DataSummary(
        sides=sides_of(run.data) if run.data else [],
        split=split.get("split"),
        seed=split.get("seed"),
        missing=split.get("missing"),
        form=split.get("form"),
        note=split.get("note"),
        overlap=overlap(split),
        digests=[(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in present],
        texts=[(path.name, path.read_text("utf-8", "replace")) for path in present if path.name in PROTOTXTS],
    )


SOURCE = {"records": int, "recipe?": {"inputs?": {"list?": (str, None)}}}  # of source.json


def sides_of(data: Path) -> list[Side]:
    """The sets of a data folder that have an LMDB."""
    sides = []
    for name in SIDES:
        path = data / f"{name}_lmdb" / "source.json"
        source = facts.read(path, SOURCE)
        if source:
            digest = source.get("recipe", {}).get("inputs", {}).get("list")
            sides.append(Side(name, source["records"], digest))
    return sides
