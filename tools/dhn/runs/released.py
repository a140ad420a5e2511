"""Released weights: what a trained run needs to be scored again, kept under prototxt/ with the MAP that it had.

    prototxt/<dataset>/<net>/released/<variant>-<bits>/
        train_val.prototxt  solver.prototxt  deploy.prototxt  written.json     as the run had them
        <variant>_iter_N.caffemodel                                            the weights
        training.json       the training's record; of paths only the files' names
        released.json       {"images": {list of the split: digests}, "map": {protocol: MAP}}

`make score` of a run without a training puts these files into its folder, and tells whether the MAP is the same.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import net
from atomic_writes import make_folder
from atomic_writes.folders import replacing_folder

from dhn.files import read_json, sha256, write_atomic, write_json
from dhn.kinds import fits
from dhn.layout import PROTOTXT, target_command
from dhn.runs import facts
from dhn.runs.folder import RECIPE, WRITTEN, AnyRun, Run, RunError

FACTS = "released.json"
SIDES = ("query", "train", "database")
_FACTS = {"images": dict.fromkeys(SIDES, dict), "map": {str: facts.NUMBER}}
_RECORD = {**facts.RECORD, "weights": str, "weights_sha256": str}
TOLERANCE = 1e-4  # of a MAP that another machine of the same kind computes


def folder_of(run: Run) -> Path:
    """Where the released weights of a run are, or would be."""
    name = net.recipe(run.dataset, run.net).net
    seed = f"-seed{run.seed}" if run.seed != 1 else ""
    return PROTOTXT / run.dataset / name / "released" / f"{run.variant}-{run.bits}{seed}"


def digests_of_images(data: Path) -> dict[str, dict]:
    """What the LMDBs of a data set were built from, {"query": {"list": SHA-256, "images": SHA-256}, ...}.

    Raises RunError where one is missing.
    """
    digests = {}
    for side in SIDES:
        source = read_json(data / f"{side}_lmdb" / "source.json")
        if not fits(source, {"recipe": {"inputs": dict}}) or not (inputs := source["recipe"]["inputs"]):
            raise RunError(f"{data}/{side}_lmdb is missing; run: {target_command('data', data.name)}")
        digests[side] = inputs
    return digests


def _names_only(facts: Mapping) -> dict:
    """A training's record with the names of files in place of their paths."""
    record: dict = {key: _names_only(value) if isinstance(value, dict) else value for key, value in facts.items()}
    if "initial_weights" in record:
        record["initial_weights"] = Path(record["initial_weights"]).name
    return record


def release(run: Run, maps: Mapping[str, float]) -> Path:
    """Copy a trained run's files to `folder_of(run)`; maps: its MAP by protocol. Returns the folder.

    Raises RunError where the training is not complete or a prototxt was edited.
    """
    if not run.is_trained():
        raise RunError(
            f"{run.display_path(run.folder)} holds no finished training of this recipe; {run.make_command('train')}"
        )
    if edited := run.edited():
        raise RunError(f"{run.name}: {', '.join(edited)} was edited by hand; a release is what the tables say")
    folder, images = folder_of(run), digests_of_images(run.data)
    make_folder(folder.parent)
    with replacing_folder(folder) as partial:
        for path in (*(run.folder / name for name in (*RECIPE, "deploy.prototxt", WRITTEN)), run.weights()):
            shutil.copyfile(path, partial / path.name)
        write_json(partial / "training.json", _names_only(run.record()))
        write_json(partial / FACTS, {"images": images, "map": dict(maps)})
    return folder


def _read(path: Path, kinds: Mapping) -> dict:
    """A JSON file of a release. Raises RunError where it is missing or damaged, facts.FactsError naming the key."""
    content = facts.read(path, dict(kinds))
    if not content:
        raise RunError(f"{path} is missing or damaged: expected a JSON object; get the released weights again")
    return content


def _copy(path: Path, stream: BinaryIO) -> None:
    with open(path, "rb") as source:
        shutil.copyfileobj(source, stream)


def install(run: Run) -> bool:
    """Put the released weights of a run into its folder. False where none are released, or where the folder has a
    training, or prototxt files that are not the released ones.

    Raises RunError where they were trained on other images than the data set has here, or a file is damaged.
    """
    folder = folder_of(run)
    if not folder.is_dir() or (run.folder / "training.json").exists() or next(run.folder.glob("*.solverstate"), None):
        return False
    released, record = _read(folder / FACTS, _FACTS), _read(folder / "training.json", _RECORD)
    prototxts = [folder / name for name in (*RECIPE, "deploy.prototxt", WRITTEN)]
    if any((copy := run.folder / path.name).exists() and sha256(copy) != sha256(path) for path in prototxts):
        return False
    different = [side for side, digests in digests_of_images(run.data).items() if digests != released["images"][side]]
    if different:
        raise RunError(
            f"{run.display_path(folder)}: released weights, trained on other images than {run.display_path(run.data)} "
            f"has ({', '.join(different)}); {run.make_command('train')}"
        )
    weights = folder / record["weights"]
    if weights.parent != folder:
        raise RunError(
            f"{run.display_path(folder / 'training.json')} is damaged: {record['weights']!r} is no file's name"
        )
    if not weights.is_file() or sha256(weights) != record["weights_sha256"]:
        raise RunError(
            f"{run.display_path(weights)} is missing or damaged: its SHA-256 is not {record['weights_sha256']}"
        )
    with run.lock():
        for path in (*prototxts, weights):
            write_atomic(run.folder / path.name, functools.partial(_copy, path))
        initial = record.get("initial_weights_sha256")
        own = {"recipe": run.recipe(initial), "released": {"folder": run.display_path(folder), "map": released["map"]}}
        write_json(run.folder / "training.json", record | own)
    return True


def comparison(run: AnyRun, maps: Mapping[str, float]) -> str:
    """How a run's MAP by protocol compares with the released one, in a sentence; "" for a run trained here."""
    expected = run.record().get("released", {}).get("map")
    if not expected:
        return ""
    differences = {
        protocol: abs(maps[protocol] - value)
        for protocol, value in expected.items()
        if value is not None and maps.get(protocol) is not None
    }
    if not differences:
        return ""
    largest = max(differences, key=lambda protocol: differences[protocol])
    difference = differences[largest]
    if difference <= TOLERANCE:
        return f"released weights: every MAP is the released one to {TOLERANCE:g}"
    return (
        f"released weights: MAP of {largest} is {maps[largest]:.4f} here, {expected[largest]:.4f} when released; other "
        "hardware rounds otherwise, which turns bits near 0"
    )
