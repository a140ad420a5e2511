"""A run's folder, runs/<dataset>-<variant>-<bits>/: where its files are, what is complete, which recipe made it.

With another net than the data set's default, or another seed than 1, the folder's name says so:
runs/cifar10-dhn-48-caffenet-seed2/.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atomic_writes import locks, make_folder
from caffe.proto import caffe_pb2
from caffe.proto.text import read_solver
from google.protobuf.message import DecodeError

from dhn.files import read_json, sha256
from dhn.layout import ROOT, target_command
from dhn.runs import facts

RECIPE = ("train_val.prototxt", "solver.prototxt")
WRITTEN = "written.json"  # SHA-256 of the prototxt files as they were written, to tell whether somebody edited them


class RunError(RuntimeError):
    """A run that cannot go on; says what to do."""


def overlap(split: Mapping | None) -> str:
    """In words which images of a split stand in two of its sets, as --allow-overlap leaves them; "" where none do."""
    shared = (split or {}).get("overlap") or {}
    parts = []
    for sets, count in shared.items():
        if count:
            one, _, other = sets.partition("_in_")
            parts.append(f"{count:,} {one} image{' is' if count == 1 else 's are'} also in the {other} set")
    return ", ".join(parts)


def copies(split: Mapping | None) -> str:
    """What the images of a split are, where they are not the original pixels: "JPEG copies"; "" where they are."""
    form = (split or {}).get("form") or ""
    return form if form.endswith("copies") else ""


def split_caveat(split: Mapping | None) -> str:
    """What belongs next to every number of a split, in words: images that are copies, an overlap; "" for nothing."""
    form = copies(split)
    return "; ".join(filter(None, [form and f"the images are {form}, not the originals", overlap(split)]))


def caveats(metrics: Mapping) -> list[str]:
    """What belongs next to every number of a metrics.json, in words: copies of images, an overlap of its split,
    prototxt files that were edited by hand, collapsed codes, ties."""
    edited = metrics.get("edited") or []
    sentences = [split_caveat(metrics.get("split")), edited and f"edited by hand: {', '.join(edited)}"]
    return [*filter(None, sentences), *(metrics.get("notes") or [])]


@dataclass(frozen=True)
class AnyRun:
    """The folder of one training, whoever made it: a Run, or a HandRun (by_hand.py). Paths are absolute.

    dataset, variant, bits, seed: None where the folder's files do not say.
    """

    dataset: str | None
    variant: str | None
    bits: int | None
    root: Path = ROOT
    net: str | None = None
    seed: int | None = 1

    @property
    def name(self) -> str:
        """What the run is called in tables."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where its files are."""
        raise NotImplementedError

    @property
    def data(self) -> Path | None:
        """The folder of its data set; None where it is not known."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    def display_path(self, path: Path) -> str:
        """A path as a person reads it: from the root of data/ and runs/ where it lies below."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def solver(self) -> caffe_pb2.SolverParameter | None:
        """The solver as solver.prototxt has it; None where there is none."""
        raise NotImplementedError

    def make_command(self, target: str) -> str:
        """The command that makes what is missing."""
        raise NotImplementedError

    def weights(self) -> Path | None:
        """The caffemodel that the training ends with; None where it is not known."""
        raise NotImplementedError

    def record(self) -> dict:
        """training.json: the recipe, and once the training is over, its weights and their SHA-256. {} if none.

        Raises facts.FactsError where it is damaged.
        """
        path = self.folder / "training.json"
        record = facts.read(path, facts.RECORD)
        if len(given := [key for key in facts.INITIAL if key in record]) == 1:
            both = " and ".join(facts.INITIAL)
            raise facts.FactsError(
                f"{path}: is damaged: of {both} it has {given[0]} alone; remove it and make it again"
            )
        return record

    def edited(self) -> list[str]:
        """The prototxt files that are not as they were written: somebody edited them."""
        written = read_json(self.folder / WRITTEN)
        paths = {name: self.folder / name for name in sorted(written)}
        return [name for name, path in paths.items() if os.path.isfile(path) and sha256(path) != written[name]]


@dataclass(frozen=True)
class Run(AnyRun):
    """One training of a variant of DHN on a data set, with codes of `bits` bits.

    net: None for the data set's default net. seed: of weights, dropout, and of the images' order, crops and mirrors.
    """

    dataset: str
    variant: str
    bits: int
    seed: int = 1

    @property
    def name(self) -> str:
        others: list[object] = [self.bits] if self.bits else []  # the pretraining has no codes
        others += [self.net] if self.net else []
        others += [f"seed{self.seed}"] if self.seed != 1 else []
        return "-".join(map(str, (self.dataset, self.variant, *others)))

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.name

    @property
    def data(self) -> Path:
        return self.root / "data" / self.dataset

    def solver(self) -> caffe_pb2.SolverParameter:
        """The solver as solver.prototxt has it. Raises RunError where there is none."""
        path = self.folder / "solver.prototxt"
        if not path.exists():
            raise RunError(
                f"{self.display_path(self.folder)} holds no training (no solver.prototxt); {self.make_command('train')}"
            )
        return read_solver(path)

    def make_command(self, target: str) -> str:
        """The command that makes what is missing. (A training of a variant goes on with the pretraining by itself.)"""
        return self.own_command(target) if self.bits else "run: " + self._target_command("train")

    def own_command(self, target: str) -> str:
        """The command for this training alone, a pretraining too."""
        return "run: " + self._target_command(target, variant=self.variant, bits=self.bits or None)

    def _target_command(self, target: str, **options: object) -> str:
        seed = None if self.seed == 1 else self.seed
        return target_command(target, self.dataset, **options, net=self.net, seed=seed)

    def weights(self) -> Path:
        """The caffemodel that the training ends with. Raises RunError where no file can have that name."""
        solver = self.solver()
        path = self.root / f"{solver.snapshot_prefix}_iter_{solver.max_iter}.caffemodel"
        try:
            path.exists()
        except OSError as error:
            place = self.display_path(self.folder / "solver.prototxt")
            raise RunError(f"{place}: snapshot_prefix: {error.strerror}; shorten it") from None
        return path

    def recipe(self, initial: str | None = None) -> str:
        """A digest of what determines the weights: net, solver, and what the training LMDB was made from.

        initial: SHA-256 of the weights that the training starts from, if any.
        """
        digest = hashlib.sha256()
        for path in (*(self.folder / name for name in RECIPE), self.data / "train_lmdb" / "source.json"):
            if not path.exists():
                data = target_command("data", self.dataset)
                raise RunError(f"{self.display_path(path)} is missing; run: {data}")
            digest.update(path.read_bytes())
        if initial is not None:
            digest.update(initial.encode())
        return digest.hexdigest()

    def is_trained(self) -> bool:
        """True if the final weights are there, complete, and made by the recipe that stands in the folder."""
        record = self.record()
        weights = self.weights()
        return (
            "weights_sha256" in record
            and record.get("recipe") == self.recipe(record.get("initial_weights_sha256"))
            and weights.exists()
            and sha256(weights) == record["weights_sha256"]
        )

    def newest_snapshot(self) -> tuple[int, Path] | None:
        """Iteration and solverstate of the newest snapshot that is complete, its caffemodel included."""
        pattern = re.compile(r"_iter_(\d+)\.solverstate$")
        snapshots = [(int(match[1]), path) for path in self.folder.iterdir() if (match := pattern.search(path.name))]
        for iteration, path in sorted(snapshots, reverse=True):
            if self._is_complete_snapshot(iteration, path):
                return iteration, path
        return None

    def _is_complete_snapshot(self, iteration: int, path: Path) -> bool:
        try:
            state = caffe_pb2.SolverState.FromString(path.read_bytes())
            model = caffe_pb2.NetParameter.FromString(path.with_suffix(".caffemodel").read_bytes())
        except (OSError, DecodeError):
            return False
        return state.iter == iteration and len(model.layer) > 0

    def archive_stale_files(self) -> Path | None:
        """Move what another recipe left in the folder to `earlier-N/`. Returns that folder, None if none.

        They are collected in `earlier.partial/`: where that is interrupted, the next time collects the rest.
        """
        keep = (*RECIPE, "deploy.prototxt", WRITTEN)
        old = [
            path
            for path in self.folder.iterdir()
            if path.name not in keep and not path.name.startswith(".") and not path.is_dir()
        ]
        partial = self.folder / "earlier.partial"
        if not old and not partial.exists():
            return None
        partial.mkdir(exist_ok=True)
        for path in old:
            os.rename(path, partial / path.name)
        number = 1
        while (target := self.folder / f"earlier-{number}").exists():
            number += 1
        os.rename(partial, target)
        return target

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the folder; yields a file descriptor that a child process may inherit, to hold it in its turn, or -1.

        Raises RunError where another process trains the run.
        """
        make_folder(self.folder)
        with contextlib.ExitStack() as held:
            try:
                handle = held.enter_context(locks.hold(self.log))
            except locks.HeldError as error:
                where = self.display_path(self.folder)
                raise RunError(f"{where} is being trained by {error.holder}; wait for it or stop it") from None
            yield handle
