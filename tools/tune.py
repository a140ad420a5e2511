"""Choose learning rate and lambda of a recipe on held-out training images. No query image is looked at.

    python tools/tune.py fashion_mnist [--variant dhn] [--bits 48] [--grid ours|paper|"lr=0.001,0.003 lambda=0.1,1"]
        [--net alexnet] [--weights W.caffemodel] [--seed 1] [--gpu 0] [--set max_iter=200 --set crop=64 ...]

A tenth of the training images become validation queries, another tenth their database (images that the net was trained
on would be too easy to retrieve); the net is trained on the rest. Two passes: learning rates with the recipe's lambda,
then lambdas with the learning rate that was best. The MAP is that of tools/ablation.py, over the entire validation
database.

GRIDS:
  paper  learning rates 1e-5 to 1e-2, lambdas 1e-5 to 100 by factors of 10: the paper's ranges. Its step of the learning
         rate is sqrt(10) here; texts of the paper read 10 or sqrt(10), and the finer one holds both. The paper's loss
         and penalty are sums over pairs and over images, a recipe's lambda weighs its own normalisation of them
         (prototxt/net.py), so its values need not mean the same.
  ours   around the recipe: learning rate x 0.1, 0.316, 1, 3.16, lambda x 0.01, 0.1, 1, 10.
  lr=..., lambda=...  these values; what is left out has the recipe's.

--set is that of tools/train.py, for every cell (not for a pretraining that they start from).

Writes runs/<run>-tune/: data/ (the parts of the training images), a folder a cell, tune.csv, tune.json. A finished cell
is not run again; its weights are removed, its prototxt files, log and codes stay.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dhn  # first: it says so where the project is not installed

# isort: split
import lmdb
import net
import numpy as np
import run_settings
from atomic_writes import locks, make_folder
from atomic_writes.folders import replacing_folder
from caffe.proto import caffe_pb2
from dhn.codes.of_run import extract
from dhn.datasets import splits
from dhn.datasets.lmdb_records import LmdbError, new_lmdb
from dhn.experiments.measure import MEASURED, is_measured, measure, quoted
from dhn.files import load_json, parse_json, read_json, sha256, write_csv, write_json, write_text
from dhn.kinds import fits
from dhn.layout import option, target_command
from dhn.pages.page import terminal
from dhn.progress import console
from dhn.runs import training
from dhn.runs.command_line import add_settings, run_of, run_parser, settings_typed
from dhn.runs.folder import Run, RunError, copies
from dhn.runs.prototxts import Settings, net_texts, write_nets
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from lmdb_files import LmdbFileError, open_lmdb

COUNTS = {"query": int, "database": int, "train": int}  # of the parts' split.json
HELD_OUT = 0.1  # of the training images, for each of validation queries and their database
GRIDS = {
    "paper": (
        tuple(float(f"{10 ** (power / 2):.3g}") for power in range(-10, -3)),
        tuple(10.0**power for power in range(-5, 3)),
    ),
    "ours": ((0.1, 0.316, 1, 3.16), (0.01, 0.1, 1, 10)),  # times the recipe's values
}


@dataclass(frozen=True)
class Trial(Run):
    """A cell: the recipe of the run named `of` with another learning rate and lambda, on a part of its training images.

    rate None: the pretraining that the cells start from, as its recipe says.
    """

    of: str = field(kw_only=True)
    rate: float | None = field(kw_only=True, default=None)
    penalty: float | None = field(kw_only=True, default=None)  # lambda; None for a variant without
    others: Settings = field(kw_only=True, default_factory=dict)  # what else the cells have otherwise than the recipe

    @property
    def name(self) -> str:
        if self.rate is None:
            return f"{self.of}-tune/{self.variant}"
        penalty = "" if self.penalty is None else f"-lambda{self.penalty:g}"
        short = f"-{self.others['max_iter']}" if "max_iter" in self.others else ""
        return f"{self.of}-tune/lr{self.rate:g}{penalty}{short}"

    @property
    def settings(self) -> dict:
        """All that the cell has otherwise than the recipe, by name; {} for the pretraining."""
        if self.rate is None:
            return {}
        penalty = {} if self.penalty is None else {"lambda": self.penalty}
        return {**self.others, "base_lr": self.rate, **penalty}

    @property
    def data(self) -> Path:
        return self.folder.parent / "data"

    def make_command(self, target: str) -> str:
        return super().make_command("tune")


def hold_out(run: Run, folder: Path) -> dict:
    """Cut the run's training LMDB into the three LMDBs of a data folder, with lists and split.json.

    The parts are drawn with the run's seed. Left as they are where they were made so from the same LMDB. Returns how
    many images each has. Raises RunError where the training LMDB is missing or too small.
    """
    built = run.data / "train_lmdb"
    if not (built / "source.json").exists():
        raise RunError(f"{run.display_path(built)} is missing; run: {target_command('data', run.dataset)}")
    of = {"train_lmdb": sha256(built / "source.json"), "seed": run.seed, "held_out": HELD_OUT}
    form = read_json(run.data / "split.json").get("form")  # "JPEG copies": what the images are read from
    record = folder / "split.json"
    facts: dict[str, Any] = read_json(record)
    if facts.get("of") == of and facts.get("form") == form and fits(facts.get("counts"), COUNTS):
        return facts["counts"]
    try:
        with open_lmdb(str(built)) as source, source.begin() as transaction:
            records = list(transaction.cursor())
    except (lmdb.Error, LmdbFileError) as error:
        raise RunError(
            f"{run.display_path(built)}: not a complete LMDB ({error}); run: {target_command('data', run.dataset)}"
        ) from None
    held = int(HELD_OUT * len(records))
    if held < 2:
        raise RunError(
            f"{run.display_path(built)} has {len(records)} images; tuning holds out two tenths, at least 4 images"
        )
    rows = np.random.RandomState(run.seed).permutation(len(records))
    parts = dict(zip(("query", "database", "train"), np.split(rows, [held, 2 * held]), strict=True))
    facts = {"split": "held out of the training images", "seed": run.seed, "R": "all", "of": of, "sha256": {}}
    facts |= {"form": form} if form else {}
    for name, part in parts.items():
        out, listed = folder / f"{name}_lmdb", folder / f"{name}.txt"
        try:
            facts["sha256"][listed.name] = write_part([records[row] for row in np.sort(part)], out, listed)
        except LmdbError as error:
            raise LmdbError(f"{run.display_path(built)}: {error}") from None
    facts["counts"] = {name: len(part) for name, part in parts.items()}
    write_json(record, facts)
    return facts["counts"]


def write_part(records: Sequence[tuple[bytes, bytes]], out: Path, listed: Path) -> str:
    """Write records as an LMDB and its list of `key l1 ... lC` or `key class`; returns the list's SHA-256."""
    named = [(key.decode(errors="replace"), value) for key, value in records]
    names, labels = [name for name, _ in named], [_labels(name, value) for name, value in named]
    write_text(listed, splits.list_text(names, labels, listed))
    size, digest = sum(len(key) + len(value) for key, value in records), sha256(listed)
    with replacing_folder(out) as folder:
        with new_lmdb(folder, out, 4 * size + (64 << 20)) as target, target.begin(write=True) as transaction:
            for key, value in records:
                transaction.put(key, value, append=True)
        write_json(folder / "source.json", {"recipe": {"inputs": {"list": digest}}, "records": len(records)})
    return digest


def _labels(name: str, value: bytes) -> list[int]:
    """The label vector or the class number of a record. Raises LmdbError where it has neither."""
    try:
        datum = caffe_pb2.Datum.FromString(value)
    except DecodeError as error:
        raise LmdbError(f"record {name}: expected a Datum, found damaged bytes ({error}); build it again") from None
    if datum.float_data and all(map(float.is_integer, datum.float_data)):
        return [int(label) for label in datum.float_data]
    if datum.float_data or not datum.HasField("label"):
        found = "other numbers" if datum.float_data else "neither"
        raise LmdbError(f"record {name}: expected a label vector in float_data or a class number, found {found}")
    return [datum.label]


def trial_texts(trial: Trial) -> dict[str, str]:
    """A cell's prototxt files: those of the recipe, with the cell's data and settings."""
    texts = net_texts(trial, trial.settings)
    counts = load_json(trial.data / "split.json")["counts"]
    message = text_format.Parse(texts["train_val.prototxt"], caffe_pb2.NetParameter())
    for layer in message.layer:
        if layer.type == "Python" and layer.python_param.module == "multilabel_data":
            settings = parse_json(layer.python_param.param_str)
            part = "query" if caffe_pb2.TEST in [rule.phase for rule in layer.include] else "train"
            settings["source"] = trial.display_path(trial.data / f"{part}_lmdb")
            layer.python_param.param_str = json.dumps(settings)
            if part == "query":
                batches = -(-counts[part] // settings["batch_size"])
    solver = text_format.Parse(texts["solver.prototxt"], caffe_pb2.SolverParameter())
    solver.test_iter[0] = batches
    solver.snapshot = 0  # but for the end: a cell's weights are removed when it is scored
    changed = {"train_val.prototxt": message, "solver.prototxt": solver}
    return texts | {name: text_format.MessageToString(each) for name, each in changed.items()}


def result(trial: Trial, weights: str | None, gpu: int | None) -> dict:
    """The measure of a cell, trained and scored unless it is finished. Returns the keys of MEASURED.

    Raises RunError or ValueError where that fails.
    """
    path = trial.folder / "trial.json"
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_nets(trial, trial_texts(trial), run_settings.typed(trial.settings))
    recipe = trial.recipe(sha256(Path(weights)) if weights else None)
    facts = read_json(path)
    if facts.get("recipe") == recipe and is_measured(facts):
        console.print(f"{trial.display_path(path)}: already there, of this recipe")
        remove_weights(trial)  # it may have been killed before it had
        return {key: facts[key] for key in MEASURED}
    training.train(trial, weights=weights, gpu=gpu, texts=lambda cell, settings: trial_texts(trial))
    extract(trial, gpu)
    facts = measure(trial.folder, trial.variant == "dhn_b", None)
    write_json(path, {**facts, "recipe": recipe})
    remove_weights(trial)
    return facts


def remove_weights(trial: Trial) -> None:
    """Remove the weights of a cell that is scored."""
    for path in (*trial.folder.glob("*.caffemodel"), *trial.folder.glob("*.solverstate")):
        path.unlink()


def one_pass(
    what: str, values: Sequence[float], trial_of: Callable[[float], Trial], grid: str, measured: Callable[[Trial], dict]
) -> tuple[list[dict], float]:
    """A row for each value, and the value with the greatest MAP to quote, the first of equal ones.

    That is the expected value where the order of ties decides the MAP: collapsed codes must not win by their order.

    Raises RunError where all of them failed.
    """
    rows = []
    for value in values:
        trial = trial_of(value)
        console.rule(trial.name)
        row = {"pass": what, "learning_rate": trial.rate, "lambda": trial.penalty, "grid": grid}
        try:
            row |= measured(trial)
        except (RunError, ValueError) as error:  # a learning rate may be too high: the others count
            console.print(f"{trial.name} failed: {dhn.sentence(error)}")
            row |= dict.fromkeys(MEASURED)
        rows.append(row)
    scored = [(mean, value) for row, value in zip(rows, values, strict=True) if (mean := quoted(row)) is not None]
    if not scored:
        raise RunError(f"no {what} of the grid {grid} could be trained; the reasons stand above")
    return rows, max(scored, key=lambda pair: pair[0])[1]


def recipe_values(run: Run, settings: Settings = MappingProxyType({})) -> tuple[float, float | None]:
    """Learning rate and lambda of a run's recipe with settings; None for a variant without the quantization loss."""
    spec = run_settings.applied(net.recipe(run.dataset, run.net), settings)
    rate = next(value for name, value, _ in spec.solver if name == "base_lr")
    return rate, spec.quantization_weight if net.VARIANTS[run.variant][1] else None


def values_of(grid: str, rate: float, penalty: float | None) -> tuple[list[float], list[float]]:
    """Learning rates and lambdas of a grid, one of GRIDS or values as text; none of the latter for a variant without.

    Raises ValueError for a grid that is neither.
    """
    if grid not in GRIDS:
        lists = _parse_grid(grid)
        return lists.get("lr", [rate]), [] if penalty is None else lists.get("lambda", [])
    rates, penalties = map(list, GRIDS[grid])
    if grid == "ours":
        rates = [float(f"{rate * factor:.3g}") for factor in rates]
        penalties = [float(f"{(penalty or 0) * factor:.3g}") for factor in penalties]
    return rates, [] if penalty is None else penalties


def _parse_grid(grid: str) -> dict[str, list[float]]:
    """The values of a grid like "lr=0.001,0.003 lambda=0.1,1". Raises ValueError."""
    lists = {}
    for word in grid.split():
        name, _, texts = word.partition("=")
        try:
            values = [float(text) for text in texts.split(",")]
        except ValueError:
            values = []
        if name not in ("lr", "lambda") or not values or not all(0 <= value < math.inf for value in values):
            raise ValueError(
                f'--grid {grid}: expected {", ".join(GRIDS)}, or values as "lr=0.001,0.003 lambda=0.1"; found {word!r}'
            )
        lists[name] = values
    return lists


def tune(
    run: Run,
    grid: str,
    weights: str | None,
    gpu: int | None,
    others: Settings,
    measure_cell: Callable[[Trial, str | None, int | None], dict] = result,
) -> tuple[list[dict], dict]:
    """Both passes; returns the rows and the choice, {"learning_rate", "lambda"}. Raises RunError, ValueError.

    others: what all cells have otherwise than the recipe; a learning rate and lambda in it are the grid's middle.
    """
    rate, penalty = recipe_values(run, others)
    rates, penalties = values_of(grid, rate, penalty)
    measures: dict[tuple, dict] = {}
    cell = partial(Trial, run.dataset, root=run.root, net=run.net, seed=run.seed, of=run.name)

    def trial_of(rate: float, penalty: float | None) -> Trial:
        return cell(run.variant, run.bits, rate=rate, penalty=penalty, others=others)

    hold_out(run, trial_of(rate, penalty).data)
    if training.needs_pretraining(run, weights):
        first = cell(net.PRETRAINING, 0)  # it sees no held-out image either
        training.train(first, weights=weights, gpu=gpu, texts=lambda cell, settings: trial_texts(first))
        weights = str(first.weights())

    def once(trial: Trial) -> dict:
        key = trial.rate, trial.penalty
        if key not in measures:
            measures[key] = measure_cell(trial, weights, gpu)
        return measures[key]

    rows, best = one_pass("learning rate", rates, lambda value: trial_of(value, penalty), grid, once)
    if penalties:
        more, penalty = one_pass("lambda", penalties, lambda value: trial_of(best, value), grid, once)
        rows += more
    else:
        console.print(f"{run.variant} has no quantization loss, so there is no lambda to choose")
    return rows, {"learning_rate": best, "lambda": penalty}


def write(run: Run, rows: Sequence[dict], chosen: dict, grid: str) -> None:
    """Write tune.csv and tune.json, print the table and the choice."""
    folder = run.root / "runs" / f"{run.name}-tune"
    rate, penalty = recipe_values(run)
    write_csv(folder / "tune.csv", rows)
    about = {"run": run.name, "grid": grid, "recipe": {"learning_rate": rate, "lambda": penalty}, "chosen": chosen}
    write_json(folder / "tune.json", {**about, "rows": list(rows)})
    texts = []
    for row in rows:
        best = row["learning_rate"] == chosen["learning_rate"] and row["lambda"] == chosen["lambda"]
        keys = ("map", "map_expected", "map_low", "map_high")
        means = ["-" if row[key] is None else f"{row[key]:.4f}" for key in keys]
        penalty_text = "-" if row["lambda"] is None else f"{row['lambda']:g}"
        texts.append([row["pass"], f"{row['learning_rate']:g}", penalty_text, *means, "chosen" if best else ""])
    source = {"paper": "the paper's grid", "ours": "our grid, around the recipe's values (not the paper's)"}.get(
        grid, grid
    )
    caption = f"{source}; MAP over held-out training images, no query image was looked at. expected: over tie orders."
    form = copies(read_json(run.data / "split.json"))
    caption += f" The images are {form}, not the originals." if form else ""
    columns = ["pass", "learning rate", "lambda", "MAP", "expected", "low", "high", ""]
    console.print(terminal(f"tuning of {run.name}", caption, columns, texts))
    for row in rows:
        if row["note"]:
            penalty_text = "" if row["lambda"] is None else f", lambda {row['lambda']:g}"
            console.print(f"learning rate {row['learning_rate']:g}{penalty_text}: {row['note']}", markup=False)
    choice = f"learning rate {chosen['learning_rate']:g}"
    choice += "" if chosen["lambda"] is None else f", lambda {chosen['lambda']:g}"
    recipe = f"learning rate {rate:g}" + ("" if penalty is None else f", lambda {penalty:g}")
    console.print(f"chosen: {choice} (the recipe in prototxt/net.py has {recipe})")
    console.print(f"wrote {run.display_path(folder)}/: tune.csv, tune.json")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = run_parser("Choose learning rate and lambda on held-out training images.")
    parser.add_argument(
        "--grid", default="ours", help='ours (around the recipe), paper, or "lr=0.001,0.003 lambda=0.1"'
    )
    add_settings(parser)
    parser.add_argument("--weights", metavar="W.caffemodel", help="weights to start from")
    options = parser.parse_args(arguments)
    try:
        if options.weights and not Path(options.weights).is_file():
            raise ValueError(f"{option('weights', options.weights)}: there is no such file")
        run, settings = run_of(options), settings_typed(options) or {}
        folder = run.root / "runs" / f"{run.name}-tune"
        make_folder(folder)
        with locks.hold(folder / "tune.json"):
            rows, chosen = tune(run, options.grid, options.weights, options.gpu, settings)
            write(run, rows, chosen, options.grid)
    except (RunError, LmdbError, ValueError, OSError) as error:
        print(f"tune: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
