"""Query, training and database images: drawn by a recipe's rule, written as lists, checked before they are used.

A data set's folder holds query.txt, train.txt and database.txt, the lists that create_lmdb.py reads, and split.json:
the rule, the seed, and the lists' SHA-256.
"""

from __future__ import annotations

import collections
import json
import posixpath
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from download import sha256
from image_set import Images
from image_source import parse_list
from recipes import RecipeError, Split

LISTS = ("query", "train", "database")


class SplitError(ValueError):
    """Lists that are missing, were changed, or overlap. Names the file, and the image."""


def _draw(carried: np.ndarray, free: np.ndarray, amount: int | dict, random, what: str, names: list) -> np.ndarray:
    """Rows drawn from those that are free: `amount` among all, or for each label, rarest label first."""
    if isinstance(amount, int):
        rows = np.flatnonzero(free)
        if len(rows) < amount:
            raise RecipeError(f"the split needs {amount} {what} images, found {len(rows)} labelled ones left")
        return random.permutation(rows)[:amount]
    free = free.copy()
    drawn = []
    for label in np.argsort(carried.sum(0), kind="stable"):
        rows = np.flatnonzero(carried[:, label] & free)
        if len(rows) < amount["per_label"]:
            raise RecipeError(
                f"label {names[label]!r}: the split needs {amount['per_label']} {what} images of it, found {len(rows)} "
                "left"
            )
        drawn.append(random.permutation(rows)[: amount["per_label"]])
        free[drawn[-1]] = False
    return np.concatenate(drawn)


def draw(images: Images, split: Split, seed: int) -> dict[str, np.ndarray]:
    """The rows of query, train and database, each sorted, of the images that are there.

    Where a number is drawn for each label, the rarest label comes first, and an image is drawn once. Raises
    RecipeError where there are too few images.
    """
    carried = images.carries()
    labelled = carried.any(1)
    there = images.present & (labelled | split.keep_unlabelled)
    if split.database == "listed":
        if images.parts is None:
            raise RecipeError(f"split {split.name!r} takes the sets as listed, but its source does not list them")
        return {name: rows[there[rows]] for name, rows in images.parts.items()}
    random = np.random.RandomState(seed)  # its stream is the same in every numpy version
    free = there & labelled
    query = _draw(carried, free, split.query, random, "query", images.label_names)
    free[query] = False
    train = _draw(carried, free, split.train, random, "training", images.label_names)
    rest = there.copy()
    rest[query] = False
    if split.database != "rest and train":
        rest[train] = False
    database = train if split.database == "train" else np.flatnonzero(rest)
    return {"query": np.sort(query), "train": np.sort(train), "database": np.sort(database)}


def list_text(images: Images, rows: np.ndarray) -> str:
    """A list as create_lmdb.py reads it: `path label`, or `path l1 ... lC`."""
    if images.labels.ndim == 1:
        return "".join(f"{images.names[row]} {images.labels[row]}\n" for row in rows)
    return "".join(f"{images.names[row]} {' '.join(map(str, images.labels[row].tolist()))}\n" for row in rows)


def _names(path: Path) -> list[str]:
    """The images of a list that create_lmdb.py reads."""
    return [posixpath.normpath(name) for name in parse_list(path)[0]]


def check_disjoint(paths: Mapping[str, Path], trains_on_database: bool = False) -> dict[str, int]:
    """How many images each list has. Raises SplitError with the name of one that stands where it must not.

    paths: the lists by the names of LISTS. A query image may be in neither of the other two; a training image may be
    in the database only where the protocol says so.
    """
    names = {name: _names(path) for name, path in paths.items()}
    for name, found in names.items():
        if not found:
            raise SplitError(f"{paths[name]}: expected images, found none")
        if len(set(found)) < len(found):
            twice = collections.Counter(found).most_common(1)[0][0]
            raise SplitError(f"{paths[name]}: {twice} is listed twice")
    pairs = [("query", "train"), ("query", "database"), *([] if trains_on_database else [("train", "database")])]
    for one, other in pairs:
        if both := set(names[one]) & set(names[other]):
            more = f" and {len(both) - 1} others" if len(both) > 1 else ""
            raise SplitError(
                f"{min(both)}{more} stands in {paths[one]} and in {paths[other]}: the {one} images must not be in the "
                f"{other} set; make the lists anew"
            )
    return {name: len(found) for name, found in names.items()}


def verify(folder: Path) -> dict:
    """Check a data set's lists, and what its LMDBs were made from, before training or scoring.

    Returns what metrics.json keeps of the split: {"split", "seed", "R", "counts", "missing", "sha256"}. Raises
    SplitError where a list or split.json is missing, a list was changed since, the lists overlap, or an LMDB was made
    from another list.
    """
    again = f"run: make data DATASET={folder.name}"
    record = folder / "split.json"
    paths = {name: folder / f"{name}.txt" for name in LISTS}
    try:
        facts = json.loads(record.read_text())
        noted = {name: facts["sha256"][path.name] for name, path in paths.items()}
    except OSError:
        raise SplitError(f"{record} is missing; {again}") from None
    except (ValueError, KeyError):
        raise SplitError(f"{record} does not say what the lists were; {again}") from None
    for name, path in paths.items():
        if not path.exists():
            raise SplitError(f"{path} is missing; {again}")
        found = sha256(path)
        if found != noted[name]:
            raise SplitError(f"{path} is not the list that was drawn (SHA-256 {noted[name]}, found {found}); {again}")
        built = folder / f"{name}_lmdb" / "source.json"
        if built.exists() and json.loads(built.read_text())["recipe"]["inputs"].get("list") != found:
            raise SplitError(f"{built.parent} was not made from {path}; {again}")
    counts = check_disjoint(paths, facts.get("database", "rest") in ("rest and train", "train", "listed"))
    kept = {key: facts.get(key) for key in ("split", "seed", "R", "missing")}
    return {**kept, "counts": counts, "sha256": noted}
