"""Where a recipe's images and labels come from: the kinds of source, and what each of them gives.

    {"kind": "folder", "path": P}                                 a folder per class
    {"kind": "list", "path": P, "root": D}                        a list, lines `path l1 ... lC` or `path label`
    {"kind": "lists", "query": P, "train": P, "database": P, "root": D}
                                                                  lists that say which images are which
    {"kind": "cifar10" or "nus_wide" or "mirflickr", ...}         see benchmark_sources.py

P of `lists` may be a pattern (parallel/test*.txt). `root` is the folder of the images (default: the recipe's). A path
in a list stands for the longest end of it that is a file there, so lists with the absolute paths of another machine, or
with Windows' backslashes, can be used as they are. `labels`: the names of a list's labels, in order.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import benchmark_sources
import numpy as np
from image_set import AbsentError, Folder, Images
from image_source import SourceError, from_folder, parse_list

PARTS = ("query", "train", "database")


@dataclass(frozen=True)
class Kind:
    """A kind of source: its reader (declaration, base, out) -> Images, and the keys of its declaration."""

    read: Callable[[dict, Path, Path], Images]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


def folder(given: dict, base: Path, out: Path) -> Images:
    """A folder per class; classes are numbered in the order of their names."""
    root = base / given["path"]
    if not root.is_dir():
        raise AbsentError(f"{root}: expected a folder with a folder per class, found none")
    source = from_folder(root)
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    return Images(list(source.names), source.labels.astype(np.int64), names, root=root)


def _labels(where: str, rows: Sequence[Sequence[int]], names: list | None) -> tuple[np.ndarray, list[str]]:
    """Labels as indices (N,) or vectors (N, C), and the labels' names (their numbers where none are given)."""
    if len({len(row) for row in rows}) > 1:
        raise SourceError(f"{where}: expected lists with the same number of labels a line, found several")
    table = np.asarray(rows, np.int64)
    if table.shape[1] == 1:
        table = table[:, 0]
        if table.min() < 0:
            raise SourceError(f"{where}: expected class indices of at least 0, found {table.min()}")
        count = int(table.max()) + 1
    else:
        if not np.isin(table, (0, 1)).all():
            raise SourceError(f"{where}: expected labels of 0 or 1, found {table.min()} to {table.max()}")
        count, table = table.shape[1], table.astype(np.uint8)
    if names is None:
        return table, [str(label) for label in range(count)]
    if len(names) < count or (table.ndim == 2 and len(names) > count) or len(set(names)) < len(names):
        raise SourceError(f"{where}: expected the different names of {count} labels, found {', '.join(names)}")
    return table, list(names)


def _not_ours(path: Path, out: Path) -> Path:
    """`path`, unless the data set's own lists will be written there."""
    if path.resolve() in [(out / f"{part}.txt").resolve() for part in PARTS]:
        raise SourceError(f"{path}: the lists that are made of it would be written there too; move it to a subfolder")
    return path


def one_list(given: dict, base: Path, out: Path) -> Images:
    """The images of one list."""
    path = _not_ours(base / given["path"], out)
    if not path.is_file():
        raise AbsentError(f"{path}: expected an image list, found none; put it there")
    listed, rows, _ = parse_list(path)
    if not listed:
        raise SourceError(f"{path}: expected lines `path l1 ... lC` or `path label`, found none")
    root = Folder(base / given.get("root", "."))
    names, present = root.find_all(listed)
    labels, label_names = _labels(str(path), rows, given.get("labels"))
    if len(set(names)) < len(names):
        twice = collections.Counter(names).most_common(1)[0][0]
        raise SourceError(f"{path}: {twice} is listed twice")
    return Images(names, labels, label_names, root=root.root, present=present)


def _matching(base: Path, pattern: str) -> list[Path]:
    """The files of a pattern, in the order of the numbers in their names (test2.txt before test10.txt)."""

    def order(path: Path) -> list:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    start = Path(pattern).anchor
    found = sorted(Path(start).glob(pattern[len(start) :]) if start else base.glob(pattern), key=order)
    if not found:
        raise AbsentError(f"{base / pattern}: expected an image list, found none; put it there")
    return found


def lists(given: dict, base: Path, out: Path) -> Images:
    """The images of ready lists of query, training and database images. An image may stand in several."""
    row_of: dict[str, int] = {}
    rows: list[list[int]] = []
    parts = {}
    for part in PARTS:
        found = []
        for path in _matching(base, given[part]):
            listed, labels, lines = parse_list(_not_ours(path, out))
            for name, row, line in zip(listed, labels, lines, strict=True):
                index = row_of.setdefault(name, len(rows))
                if index == len(rows):
                    rows.append(row)
                elif rows[index] != row:
                    raise SourceError(f"{path}:{line}: {name} has other labels here than where it was listed before")
                found.append(index)
        parts[part] = np.unique(np.array(found, np.int64))
    root = Folder(base / given.get("root", "."))
    names, present = root.find_all(list(row_of))
    labels, label_names = _labels(str(base / given["train"]), rows, given.get("labels"))
    return Images(names, labels, label_names, root=root.root, present=present, parts=parts)


KINDS = {
    "folder": Kind(folder, ("path",)),
    "list": Kind(one_list, ("path",), ("root", "labels")),
    "lists": Kind(lists, PARTS, ("root", "labels")),
    "cifar10": Kind(benchmark_sources.cifar10, ("archive",), ("urls", "sha256")),
    "nus_wide": Kind(benchmark_sources.nus_wide, ("images", "labels", "list")),
    "mirflickr": Kind(benchmark_sources.mirflickr, ("images", "annotations"), ("urls", "images_md5")),
}


def check(given: object, where: str = "source") -> Kind:
    """The kind of a declaration. Raises SourceError for an unknown kind or key, a missing key, a wrong type."""
    kind = given.get("kind") if isinstance(given, dict) else None
    if kind not in KINDS:
        raise SourceError(f"{where}: expected an object with a 'kind' of {', '.join(KINDS)}, found {given!r}")
    known = KINDS[kind]
    for key in known.required:
        if key not in given:
            raise SourceError(f"{where}: a source of kind {kind!r} needs the key {key!r}")
    for key, value in given.items():
        if key not in ("kind", *known.required, *known.optional):
            expected = ", ".join((*known.required, *known.optional))
            raise SourceError(f"{where}: unknown key {key!r} in a source of kind {kind!r}; known are {expected}")
        listed = key == "urls" or (key == "labels" and kind in ("list", "lists"))
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not (texts if listed else isinstance(value, str)):
            expected = "a list of texts" if listed else "text"
            raise SourceError(f"{where}, {key}: expected {expected}, found {value!r}")
    return known


def read(given: dict, base: Path, out: Path) -> Images:
    """The images that a declaration names. `base`: where its paths start; `out`: where unpacked files go."""
    return check(given).read(given, base, out)
