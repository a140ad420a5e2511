"""Recipes: what a data set is made of, in one small JSON file. `data/<dataset>/recipe.json`, or one of your own.

    {"name": "birds",
     "source": {"kind": "folder", "path": "photos"},
     "splits": {"mine": {"query": {"per_label": 10}, "train": {"per_label": 50}, "database": "rest", "R": "all"}}}

name     letters, digits, - and _, 100 at most; its files land in data/<name>/. Default: the file's name, or for a
         recipe.json its folder's
source   where images and labels come from: a kind of sources.py with its keys. Paths are relative to the
         recipe's folder. Or `sources`: several by name, of which a split names one
splits   by name, the first is the default. Of each:
  query, train  how many images: a number, drawn among all; {"per_label": N}, N drawn for each label; or "listed", where
                the source says which images they are
  database      "rest": all others; "rest and train": those and the training images; "train": the training images;
                "listed"
  R             ranks that MAP looks at: a number, "all", or "not stated" (then it is scored as "all")
  labels        which labels are kept: a list of their names, or how many, the most frequent ones (default: all)
  keep_unlabelled  true: images without any of the labels stay in the database (and in a "listed" split in the sets that
                list them); false: they are left out, and counted. Default: true for a "listed" split, else false
  source        which of `sources`
  note          a sentence about the split, kept in split.json
net, solver, pretraining  how it is trained, where prototxt/dataset_table.py has it otherwise; may be left out:
         {"crop": 64}, {"base_lr": 0.01}; names: prototxt/run_settings.py. `pretraining` is the classifier's solver
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhn.files import load_json, parse_json
from dhn.layout import INSTALLED, RECIPES, ROOT

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # part of the names of folders, which have 255 bytes
TRAINING = ("net", "solver", "pretraining")  # the sections that prototxt/run_settings.py reads
DATABASES = ("rest", "rest and train", "train", "listed")


class RecipeError(ValueError):
    """A recipe that cannot be read or carried out. place: its file and, where there is one, the key."""

    def __init__(self, place: object, problem: str):
        super().__init__(f"{place}: {problem}")


@dataclass(frozen=True)
class Split:
    """How the images of a data set are cut; the keys are those of the module's docstring. place: for messages."""

    name: str
    place: str
    source: dict
    query: int | dict | str
    train: int | dict | str
    database: str
    R: int | str
    labels: int | list[str] | None = None
    keep_unlabelled: bool = False
    note: str | None = None

    def facts(self) -> dict:
        """The split as split.json has it."""
        return {
            "split": self.name,
            **{key: getattr(self, key) for key in ("query", "train", "database", "R", "labels", "note")},
            "keep_unlabelled": self.keep_unlabelled,
            "source": self.source,
        }


@dataclass(frozen=True)
class Recipe:
    """A data set's declaration: its name, where it stands, its splits by name (the default first), and by section
    (TRAINING) the settings it is trained with otherwise than the tables of prototxt/."""

    name: str
    path: Path
    splits: dict[str, Split]
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def is_built_in(self) -> bool:
        """True for a recipe of this repository."""
        return self.path.resolve() == RECIPES / self.name / "recipe.json"

    def base(self) -> Path:
        """Where the paths of its sources start: its folder, for a built-in one that of its data set in data/."""
        return ROOT / "data" / self.name if self.is_built_in() else self.path.parent

    def split(self, name: str | None) -> Split:
        """The split of this name, the default for None. Raises RecipeError."""
        if name is None:
            return next(iter(self.splits.values()))
        if name not in self.splits:
            raise RecipeError(self.path, f"has no split {name!r}; its splits are {', '.join(self.splits)}")
        return self.splits[name]


def _keys(where: str, entry: object, required: tuple, optional: tuple = ()) -> dict:
    """`entry`, a JSON object with the required keys and no others but the optional ones."""
    if not isinstance(entry, dict):
        raise RecipeError(where, f"expected an object, found {shown(entry)}")
    for key in required:
        if key not in entry:
            raise RecipeError(where, f"the key {key!r} is missing")
    for key in entry:
        if key not in (*required, *optional):
            raise RecipeError(where, f"unknown key {key!r}; known are {', '.join((*required, *optional))}")
    return entry


def _load(path: Path) -> object:
    """What a JSON file holds; a key that stands twice in an object is refused. Raises RecipeError."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        keys = [key for key, _ in pairs]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise RecipeError(path, f"the key {twice[0]!r} stands twice in one object; remove one of them")
        return dict(pairs)

    try:
        return parse_json(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except OSError as error:
        raise RecipeError(path, f"cannot read the recipe ({error.strerror})") from None
    except RecipeError:
        raise
    except ValueError as error:
        said = str(error)
        raise RecipeError(path, said if said.startswith("expected") else f"expected JSON: {said}") from None


def shown(value: object) -> str:
    """A value of a recipe as an error message quotes it."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "JSON that is nested too deeply"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check(where: str, fits: bool, expected: str, value: object) -> None:
    if not fits:
        raise RecipeError(where, f"expected {expected}, found {shown(value)}")


def _split(where: str, name: str, entry: object, sources: dict) -> Split:
    optional = ("labels", "keep_unlabelled", "source", "note")
    entry = dict(_keys(where, entry, ("query", "train", "database", "R"), optional))
    for key in ("query", "train"):
        value = entry[key]
        per_label = isinstance(value, dict) and list(value) == ["per_label"] and _is_count(value["per_label"])
        expected = 'a number of at least 1, {"per_label": number}, or "listed"'
        _check(f"{where}, {key}", _is_count(value) or per_label or value == "listed", expected, value)
    _check(f"{where}, database", entry["database"] in DATABASES, f"one of {', '.join(DATABASES)}", entry["database"])
    listed = [entry[key] == "listed" for key in ("query", "train", "database")]
    if any(listed) != all(listed):
        raise RecipeError(where, 'expected "listed" for all of query, train and database, or for none')
    top = entry["R"]
    _check(f"{where}, R", _is_count(top) or top in ("all", "not stated"), 'a number, "all" or "not stated"', top)
    labels = entry.get("labels")
    names = isinstance(labels, list) and bool(labels) and all(isinstance(name, str) for name in labels)
    fits = labels is None or _is_count(labels) or (names and len({*labels}) == len(labels))
    _check(f"{where}, labels", fits, "a number of at least 1, or a list of different names", labels)
    keep = entry.setdefault("keep_unlabelled", all(listed))
    _check(f"{where}, keep_unlabelled", isinstance(keep, bool), "true or false", keep)
    note = entry.get("note")
    _check(f"{where}, note", note is None or isinstance(note, str), "a sentence", note)
    source = entry.pop("source", next(iter(sources)) if len(sources) == 1 else None)
    _check(f"{where}, source", isinstance(source, str) and source in sources, f"one of {', '.join(sources)}", source)
    return Split(name, where, sources[source], **entry)


def read(path: str | os.PathLike) -> Recipe:
    """The recipe in a JSON file. Raises RecipeError, or ValueError for its settings, naming file and key."""
    path = Path(path)
    entry = _keys(str(path), _load(path), ("splits",), ("name", "source", "sources", *TRAINING))
    stem = path.resolve().parent.name if path.name == "recipe.json" else path.stem
    name = entry.get("name", stem)
    fits = isinstance(name, str) and NAME.fullmatch(name) is not None
    _check(f"{path}, name", fits, "letters, digits, - and _, 100 at most", name)
    if ("source" in entry) == ("sources" in entry):
        raise RecipeError(path, "expected either the key 'source' or the key 'sources'")
    sources = entry.get("sources", {"source": entry.get("source")})
    _check(f"{path}, sources", isinstance(sources, dict) and bool(sources), "sources by name", sources)
    _check(f"{path}, splits", isinstance(entry["splits"], dict) and bool(entry["splits"]), "splits by name",
           entry["splits"])  # fmt: skip
    splits = {}
    for key, value in entry["splits"].items():
        splits[key] = _split(f"{path}, splits, {key}", key, value, sources)
    return Recipe(name, path, splits, _training(str(path), {key: entry[key] for key in TRAINING if key in entry}))


def _training(where: str, sections: dict) -> Mapping[str, Mapping[str, Any]]:
    if not sections:
        return {}
    import run_settings  # and Caffe, which takes two seconds: for those alone that have such sections

    return run_settings.check(where, sections)


def _made_before(folder: Path) -> Path | None:
    """The recipe that a data set's folder was made by, if it was one of your own."""
    try:
        made_by = load_json(folder / "split.json")["recipe"]
        return made_by and Path(made_by)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find(dataset: str, root: Path = ROOT) -> Recipe:
    """The recipe that a command line names: `cifar10` for data/cifar10/recipe.json, or the path of one.

    One of your own goes by its name too, once `make data` has carried it out.

    Raises RecipeError where there is none, and for one of your own that takes a built-in data set's name.
    """
    folder = RECIPES if INSTALLED else root / "data"
    built_in = {path.parent.name: path for path in sorted(folder.glob("*/recipe.json"))}
    if dataset in built_in:
        return read(built_in[dataset])
    path = Path(dataset)
    path = path / "recipe.json" if path.is_dir() else path
    if NAME.fullmatch(dataset) and not path.is_file():
        path = _made_before(root / "data" / dataset) or path
    if not path.is_file():
        raise RecipeError(
            f"there is no data set {dataset!r}",
            f"expected one of {', '.join(built_in)}, or the path of a recipe (a JSON file that says where the images "
            "are; see tools/dhn/datasets/recipes.py)",
        )
    recipe = read(path)
    taken = built_in.get(recipe.name)
    if taken is not None and not taken.samefile(path):
        raise RecipeError(path, f"the name {recipe.name!r} is that of {taken}; give the recipe another one")
    return recipe
