"""Query, training and database images: drawn by a recipe's rule, written as lists, checked before they are used.

A data set's folder holds query.txt, train.txt and database.txt, the lists that create_lmdb.py reads, and split.json:
the rule, the seed, and the lists' SHA-256.
"""

from __future__ import annotations

import collections
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import image_lists
import numpy as np

from dhn.datasets.image_set import Images
from dhn.datasets.recipes import RecipeError, Split
from dhn.files import load_json, read_json, sha256
from dhn.kinds import damage, fits
from dhn.layout import option, target_command

LISTS = ("query", "train", "database")
TEXT, WHOLE = (str, None), (int, None)
RECORDED = {  # of split.json, where a program goes by it
    "sha256": {str: str}, "split?": TEXT, "seed?": WHOLE, "from?": TEXT, "missing?": WHOLE, "bad?": WHOLE,
    "R?": (int, str, None), "form?": TEXT, "note?": TEXT, "database?": (str, int, dict), "overlap?": ({str: int}, None),
    "facts?": (dict, None),
    "images?": {"root": TEXT, "array": TEXT, "classes": WHOLE, "encode": str},
}  # fmt: skip


def is_seed(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON file can be a seed of numpy's."""
    return type(value) is int and 0 <= value < 1 << 32


class SplitError(ValueError):
    """Lists that are missing, were changed, or overlap. Names the file, and the image."""


def _draw(
    carried: np.ndarray,
    free: np.ndarray,
    amount: int | dict | str,
    random: np.random.RandomState,
    what: str,
    names: list[str],
    place: str,
) -> np.ndarray:
    """Rows drawn from those that are free: `amount` among all, or for each label, rarest label first."""
    if isinstance(amount, int):
        rows = np.flatnonzero(free)
        if len(rows) < amount:
            raise RecipeError(place, f"the split needs {amount} {what} images, found {len(rows)} labelled ones left")
        return random.permutation(rows)[:amount]
    assert isinstance(amount, dict)  # else the source lists the sets
    free = free.copy()
    drawn = []
    for label in np.argsort(carried.sum(0), kind="stable"):
        rows = np.flatnonzero(carried[:, label] & free)
        if len(rows) < amount["per_label"]:
            raise RecipeError(
                place,
                f"label {names[label]!r}: the split needs {amount['per_label']} {what} images of it, found {len(rows)} "
                "left",
            )
        drawn.append(random.permutation(rows)[: amount["per_label"]])
        free[drawn[-1]] = False
    return np.concatenate(drawn)


def draw(images: Images, split: Split, seed: int) -> dict[str, np.ndarray]:
    """The rows of query, train and database, each sorted, of the images that are there.

    Where a number is drawn for each label, the rarest label comes first, and an image is drawn once. Raises
    RecipeError where there are too few images for a set, or none.
    """
    carried = images.carries()
    labelled = images.labelled()
    there = images.present & (labelled | split.keep_unlabelled)
    if split.database == "listed":
        if images.parts is None:
            raise RecipeError(split.place, "takes the sets as listed, but its source does not list them")
        return _none_empty({name: rows[there[rows]] for name, rows in images.parts.items()}, split.place)
    random = np.random.RandomState(seed)  # its stream is the same in every numpy version
    free = there & labelled
    query = _draw(carried, free, split.query, random, "query", images.label_names, split.place)
    free[query] = False
    train = _draw(carried, free, split.train, random, "training", images.label_names, split.place)
    rest = there.copy()
    rest[query] = False
    if split.database != "rest and train":
        rest[train] = False
    database = train if split.database == "train" else np.flatnonzero(rest)
    rows = {"query": np.sort(query), "train": np.sort(train), "database": np.sort(database)}
    return _none_empty(rows, split.place)


def _none_empty(rows: dict[str, np.ndarray], place: str) -> dict[str, np.ndarray]:
    for name, chosen in rows.items():
        if not len(chosen):
            raise RecipeError(place, f"{name}: expected images, found none left")
    return rows


def differences(images: Images, split: Split, rows: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """What became of the images of a "listed" split, for each list: its lines, the images kept, those that carry none
    of the labels, and how many were left out for which reason."""
    labelled = images.labelled()
    counts = {}
    for name, listed in (images.parts or {}).items():
        there = images.present[listed]
        unlabelled = int((there & ~labelled[listed]).sum())
        left_out = {
            "listed twice": images.listed.get(name, len(listed)) - len(listed),
            "missing or unreadable": int((~there).sum()),
            "without any of the labels": 0 if split.keep_unlabelled else unlabelled,
        }
        counts[name] = {
            "listed": images.listed.get(name, len(listed)),
            "kept": len(rows[name]),
            "unlabelled": unlabelled,
            "left_out": {reason: count for reason, count in left_out.items() if count},
        }
    return counts


def list_text(names: Sequence[str], labels: Sequence[Sequence[int]], place: object) -> str:
    """A list as create_lmdb.py reads it: `path label`, or `path l1 ... lC`, a line. place: of the images, for messages.

    Raises image_lists.ListError for a name that would be read as another one.
    """
    for name in names:
        if not image_lists.can_hold(name):
            raise image_lists.ListError(
                f"{place}: {name!r}: a line of a list cannot hold the name of this image, which ends in a blank or in "
                "a number after a blank, or has a line break; rename the file"
            )
    return "".join(f"{name} {' '.join(map(str, row))}\n" for name, row in zip(names, labels, strict=True))


def _names(path: Path) -> list[str]:
    """The images of a list that create_lmdb.py reads."""
    try:
        return [posixpath.normpath(name) for name in image_lists.read(path).names]
    except image_lists.ListError as error:
        raise SplitError(str(error)) from None


def check_disjoint(
    paths: Mapping[str, Path],
    trains_on_database: bool = False,
    allowed: Mapping[str, int] | None = None,
    place: str = "",
) -> tuple[dict[str, int], dict[str, int]]:
    """How many images each list has, and how many stand in two lists, such as {"query_in_database": 12}.

    paths: the lists by the names of LISTS. A query image may be in neither of the other two; a training image may be
    in the database only where the protocol says so. Raises SplitError with the name of one that stands where it must
    not, unless their numbers are those `allowed`; None allows any number. place: of a recipe, for messages.
    """
    start = f"{place}: " if place else ""
    names = {name: _names(path) for name, path in paths.items()}
    for name, images in names.items():
        if not images:
            raise SplitError(f"{paths[name]}: expected images, found none")
        if len(set(images)) < len(images):
            twice = collections.Counter(images).most_common(1)[0][0]
            raise SplitError(f"{start}{paths[name]}: {twice} is listed twice")
    pairs = [("query", "train"), ("query", "database"), *([] if trains_on_database else [("train", "database")])]
    overlap = {}
    for one, other in pairs:
        both = set(names[one]) & set(names[other])
        pair = f"{one}_in_{other}"
        if both:
            overlap[pair] = len(both)
        if allowed is not None and len(both) != allowed.get(pair, 0):
            if not both:
                raise SplitError(
                    f"{start}{paths[one]}: expected {allowed[pair]:,} images that {paths[other]} lists too, as "
                    "split.json says, found none; make the lists again"
                )
            more = f" and {len(both) - 1} others" if len(both) > 1 else ""
            raise SplitError(
                f"{start}{min(both)}{more} stands in {paths[one]} and in {paths[other]}: the {one} images must not be "
                f"in the {other} set; make the lists again, or use a published split as it is and have this recorded: "
                f"{option('allow-overlap')}"
            )
    return {name: len(images) for name, images in names.items()}, overlap


def verify(folder: Path) -> dict:
    """Check a data set's lists, and what its LMDBs were made from, before training or scoring.

    Returns what metrics.json keeps of the split: {"split", "seed", "R", "counts", "missing", "sha256"}, "form" where
    the images can be had in several, "bad" where images were left out that cannot be read, and "overlap" where a
    published split was knowingly taken whose lists overlap. Raises SplitError where a list or split.json is missing, a
    list was changed since, the lists overlap otherwise than recorded, or an LMDB was made from another list or other
    images.
    """
    again = f"run: {target_command('data', folder.name)}"
    record = folder / "split.json"
    paths = {name: folder / f"{name}.txt" for name in LISTS}
    try:
        facts = load_json(record)
    except OSError:
        raise SplitError(f"{record} is missing; {again}") from None
    except ValueError:
        facts = None
    if wrong := damage(facts, RECORDED | {"sha256": {path.name: str for path in paths.values()}}):
        raise SplitError(f"{record}: is damaged: {wrong}; {again}")
    top = facts.get("R")
    if top not in (None, "all") and not (isinstance(top, int) and top > 0):
        raise SplitError(f"{record}: is damaged: 'R' cannot be {top!r}; {again}")
    noted = {name: facts["sha256"][path.name] for name, path in paths.items()}
    allowed, images = facts.get("overlap") or {}, (facts.get("facts") or {}).get("images_sha256")
    for name, path in paths.items():
        if not path.exists():
            raise SplitError(f"{path} is missing; {again}")
        digest = sha256(path)
        if digest != noted[name]:
            raise SplitError(f"{path} is not the list that was drawn (SHA-256 {noted[name]}, found {digest}); {again}")
        built = folder / f"{name}_lmdb" / "source.json"
        if built.exists():
            inputs = _inputs(built)
            if inputs.get("list") != digest:
                raise SplitError(f"{built.parent} was not made from {path}; {again}")
            if images is not None and inputs.get("images") != images:
                raise SplitError(f"{built.parent} was not made from the images that {record} names; {again}")
    counts, overlap = check_disjoint(paths, facts.get("database") in ("rest and train", "train", "listed"), allowed)
    stated = {key: facts.get(key) for key in ("split", "seed", "R", "missing")}
    further = {"form": facts.get("form"), "bad": facts.get("bad"), "overlap": overlap}
    return {**stated, "counts": counts, "sha256": noted, **{key: value for key, value in further.items() if value}}


def _inputs(source: Path) -> dict:
    """What an LMDB's source.json says that it was made from: the SHA-256 of its list, and of its images' array."""
    facts = read_json(source)
    return facts["recipe"]["inputs"] if fits(facts, {"recipe": {"inputs": dict}}) else {}
