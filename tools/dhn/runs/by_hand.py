"""A run's folder however it was made: by `make train`, or by hand with prototxt/net.py and `caffe train`.

What is known of a run made by hand comes from its own files, and what they do not say stays None:

  train_val.prototxt   the data set: the folder that holds the LMDBs which it reads. Variant, net and seed, where it is
                       what the `prototxt/net.py` of its first line writes today
  solver.prototxt      how the weights are called, the seed, iterations; train_val.prototxt where the folder has none
  *.caffemodel         the weights: those that the solver ends with, else the newest
  deploy.prototxt      the net that turns images into codes
  train.log            seconds an iteration took
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import net
from caffe.proto import caffe_pb2
from caffe.proto.text import read_net, read_solver

from dhn.files import parse_json, sha256
from dhn.layout import tool_command
from dhn.runs.folder import ROOT, AnyRun, Run, RunError
from dhn.runs.log import seconds_per_step
from dhn.runs.prototxts import written_with

LMDBS = {f"{side}{suffix}" for side in ("train", "query", "database") for suffix in ("_lmdb", ".txt")}
ITERATION = re.compile(r"_iter_(\d+)\.caffemodel(\.h5)?$")


@dataclass(frozen=True)
class HandRun(AnyRun):
    """A run in a folder of its own, `path`.

    images: the folder of the LMDBs that the net was trained on (query_lmdb, database_lmdb), None where it is not known.
    """

    path: Path = field(kw_only=True)
    images: Path | None = field(kw_only=True, default=None)

    @property
    def name(self) -> str:
        return self.display_path(self.path)

    @property
    def folder(self) -> Path:
        return self.path

    @property
    def data(self) -> Path | None:
        return self.images

    def make_command(self, target: str) -> str:
        """The command that makes what is missing."""
        if target in ("score", "report"):
            command = tool_command({"score": "score_run", "report": "report"}[target])
            return f"run: {command} --run {self.quoted()}"
        return f"run: caffe train -solver {self.quoted('solver.prototxt')}"

    def quoted(self, name: str = "") -> str:
        """The folder, or a file in it, as a word of a command."""
        return shlex.quote(self.display_path(self.path / name))

    @cached_property
    def settings(self) -> caffe_pb2.SolverParameter | None:
        """solver.prototxt; None where the folder has none."""
        path = self.path / "solver.prototxt"
        return read_solver(path) if path.exists() else None

    def solver(self) -> caffe_pb2.SolverParameter | None:
        return self.settings

    def weights(self) -> Path | None:
        """The caffemodel that the solver ends with, else the newest of its snapshots, else the newest in the folder.

        None where there is none.
        """
        last, snapshots = "", []
        if self.settings is not None and self.settings.snapshot_prefix:
            prefix = self.root / self.settings.snapshot_prefix
            last = f"{prefix.name}_iter_{self.settings.max_iter}.caffemodel"
            folders = {self.path, absolute(prefix.parent, self.root)}
            snapshots = [path for folder in folders for path in models(folder, f"{prefix.name}_iter_")]

        def rank(path: Path) -> tuple:
            return path.name.removesuffix(".h5") == last, path.stat().st_mtime_ns, iteration(path) or 0

        return max(snapshots or models(self.path), key=rank, default=None)

    @cached_property
    def facts(self) -> dict:
        """What training.json says, where it is of these weights; else what weights and train.log tell."""
        weights, record = self.weights(), super().record()
        if weights is not None and record.get("weights_sha256") == sha256(weights):
            return record
        values: dict[str, float | None] = {"iterations": None if weights is None else iteration(weights)}
        if self.log.exists():
            values["seconds_per_step"] = seconds_per_step(self.log)
        return {key: value for key, value in values.items() if value is not None}

    def record(self) -> dict:
        return self.facts


def models(folder: Path, prefix: str = "") -> list[Path]:
    """The caffemodels in a folder whose names begin so."""
    names = (".caffemodel", ".caffemodel.h5")
    if not os.path.isdir(folder):  # not there, or a name that no folder can have
        return []
    return [path for path in folder.glob("*") if path.name.startswith(prefix) and path.name.endswith(names)]


def iteration(weights: Path) -> int | None:
    """The iteration that a snapshot's name says."""
    match = ITERATION.search(weights.name)
    return int(match[1]) if match else None


def open_run(folder: Path, root: Path = ROOT) -> Run | HandRun:
    """The run in a folder: as `make train` knows it where it finished it there, else a HandRun.

    Raises RunError where there is no such folder, PrototxtError where its prototxt files cannot be read.
    """
    folder = absolute(folder, root)
    if not folder.is_dir():
        raise RunError(f"--run {folder}: expected a run's folder, found {'a file' if folder.exists() else 'nothing'}")
    run = HandRun(None, None, None, root, seed=None, path=folder)
    path = trained_net(run)
    images = data_folder(path, root) if path else None
    dataset = images.name if images is not None and images.parent == root / "data" else None
    origin = written_by(path) if path else {}
    if origin and origin["dataset"] == dataset:
        regular = Run(**origin, root=root)
        if regular.folder == folder and is_finished(regular):
            return regular
    else:
        origin = {}
    seed = run.settings.random_seed if run.settings is not None and run.settings.random_seed >= 0 else None
    variant, bits, net_name = (origin.get(key) for key in ("variant", "bits", "net"))
    return HandRun(dataset, variant, bits, root, net_name, seed, path=folder, images=images)


def absolute(path: Path, root: Path) -> Path:
    """A path from the file system's root, through the links that lie in `root`, so that it can be shown from there."""
    path = Path(os.path.abspath(path))
    return path if path.is_relative_to(root) else path.resolve()


def is_finished(run: Run) -> bool:
    """True if `make train` brought the run to its end, and what it was made of is still there."""
    try:
        return run.is_trained()
    except RunError:
        return False


def trained_net(run: HandRun) -> Path | None:
    """The net that was trained: train_val.prototxt, else what the solver names; None where neither is there."""
    paths = [run.path / "train_val.prototxt"]
    if run.settings is not None:
        paths += [run.root / name for name in (run.settings.net, run.settings.train_net) if name]
    return next((path for path in paths if path.is_file()), None)


def data_folder(path: Path, root: Path) -> Path | None:
    """The folder of the LMDBs or lists (LMDBS) that a net's data layers read; None for a net that reads others.

    Their paths are those that `caffe train` took, in the repository's root or in the folder of the net.
    """
    bases = (root, path.parent)
    paths = [absolute(base / source, root) for source in sources(read_net(path)) for base in bases]
    paths = [images for images in paths if images.name in LMDBS and images.parent.is_dir()]
    # `make clean` removes LMDBs, but not the folder that they were in
    return max(paths, key=Path.exists).parent if paths else None


def sources(message: caffe_pb2.NetParameter) -> list[str]:
    """What the data layers of a net read: LMDBs, lists, HDF5 files."""
    paths = []
    for layer in message.layer:
        if layer.bottom:
            continue
        paths += [layer.data_param.source, layer.image_data_param.source, layer.hdf5_data_param.source]
        paths.append(layer.multi_label_data_param.source)
        if layer.type == "Python" and layer.python_param.param_str:
            try:
                settings = parse_json(layer.python_param.param_str)
            except ValueError:
                continue
            paths.append(settings.get("source") if isinstance(settings, dict) else None)
    return [source for source in paths if isinstance(source, str) and source]


def written_by(path: Path) -> dict:
    """Dataset, variant, bits, net and seed of a train_val.prototxt that still is what the command of its first line
    writes, as the deploy.prototxt beside it is but for its input's shape; {} for any other."""
    words = written_with(path)
    if not words or not words["bits"]:
        return {}
    beside = path.with_name("deploy.prototxt")
    try:
        same = net.train_val(**words) == read_net(path)
        if same and beside.exists():
            expected = net.deploy(words["dataset"], words["bits"], words["net"], words["settings"])
            same = behind_input(expected) == behind_input(read_net(beside))
    except (ValueError, KeyError):  # a data set, net, variant or setting that is not known here
        return {}
    del words["settings"]
    return words if same else {}


def behind_input(message: caffe_pb2.NetParameter) -> list[caffe_pb2.LayerParameter]:
    """The layers of a deploy net that compute something."""
    return [layer for layer in message.layer if layer.type != "Input"]
