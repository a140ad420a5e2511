"""Where a recipe's images and labels come from: the kinds of source, and what each of them gives.

    {"kind": "folder", "path": P}                                 a folder per class
    {"kind": "list", "path": P, "root": D}                        a list, lines `path l1 ... lC` or `path label`
    {"kind": "lists", "query": P, "train": P, "database": P, "root": D}
                                                                  lists that say which images are which
    {"kind": "cifar10", ...}                                      see cifar10.py
    {"kind": "nus_wide" or "mirflickr", ...}                      see benchmarks.py

P of `lists` may be a pattern (parallel/test*.txt). `root` is the folder of the images (default: the recipe's). A path
in a list stands for the longest end of it that is a file there, so lists with the absolute paths of another machine, or
with Windows' backslashes, can be used as they are. Also of a list:

labels       the names of its labels, in order
encoding     of the list: "latin-1", "gbk", ... (default: UTF-8)
first_class  the number of the first class, for lists `path label` (default: 0, and an image must be of it)
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import image_lists
import numpy as np

from dhn.datasets import benchmarks, cifar10
from dhn.datasets.image_files import SourceError, is_hidden, natural_order
from dhn.datasets.image_set import AbsentError, Folder, Images
from dhn.datasets.labelled_images import from_folder, read_labels
from dhn.datasets.recipes import shown

PARTS = ("query", "train", "database")
Where = Callable[[int | None], str]  # the place of a row of labels, or of them all


@dataclass(frozen=True)
class Kind:
    """A kind of source: its reader (declaration, base, out) -> Images, and the keys of its declaration.

    base_may_be_file: whether `base` may be one of the data set's files instead of their folder.
    """

    read: Callable[[dict, Path, Path], Images]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    base_may_be_file: bool = False


def folder(entry: dict, base: Path, out: Path) -> Images:
    """A folder per class; classes are numbered in the order of their names."""
    root = base / entry["path"]
    if not root.is_dir():
        raise AbsentError(f"{root}: expected a folder with a folder per class, found none")
    source = from_folder(root)
    names = source.identity["classes"]
    return Images(list(source.names), source.labels.astype(np.int64), names, root=root, left_out=source.left_out)


def _labels(entry: dict, where: Where, rows: list) -> tuple[np.ndarray, list[str], list[str]]:
    """Labels as class numbers (N,) or vectors (N, C), their names (their numbers where none are declared), and
    sentences about how they were read."""
    declared = "classes" if len(rows[0]) == 1 else None
    first, names = entry.get("first_class"), entry.get("labels")
    table, count, notes = read_labels(rows, where, None, declared, first)
    if names is None:
        return table, [str(label + (first or 0)) for label in range(count)], notes
    if len(names) < count or (table.ndim == 2 and len(names) > count) or len(set(names)) < len(names):
        raise SourceError(f"{where(None)}: expected the different names of {count} labels, found {', '.join(names)}")
    return table, list(names), notes


def _not_ours(path: Path, out: Path) -> Path:
    """`path`, a list that is not one of those that are made of it."""
    if path.resolve() in {(out / f"{part}.txt").resolve() for part in PARTS}:
        raise SourceError(f"{path}: the lists that are made of it would be written there too; move it to a subfolder")
    return path


def one_list(entry: dict, base: Path, out: Path) -> Images:
    """The images of one list."""
    path, encoding = _not_ours(base / entry["path"], out), entry.get("encoding", "utf-8")
    if not path.is_file():
        raise AbsentError(f"{path}: expected an image list, found none; put it there")
    listed, rows, lines = image_lists.read(path, encoding)
    root = Folder(base / entry.get("root", "."))
    names, present = root.find_all(listed, encoding)
    where = lambda row: str(path) if row is None else f"{path}:{lines[row]}"  # noqa: E731
    labels, label_names, notes = _labels(entry, where, rows)
    if len(set(names)) < len(names):
        twice = collections.Counter(names).most_common(1)[0][0]
        raise SourceError(f"{path}: {twice} is listed twice")
    return Images(names, labels, label_names, root=root.root, present=present, notes=notes + root.notes())


def _matching(base: Path, pattern: str) -> list[Path]:
    """The files of a pattern, in the order of the numbers in their names (test2.txt before test10.txt)."""
    start = Path(pattern).anchor
    try:
        paths = list(Path(start).glob(pattern[len(start) :]) if start else base.glob(pattern))
    except (ValueError, NotImplementedError, IndexError) as error:
        raise AbsentError(f"{pattern}: expected a path or a pattern of paths ({error})") from None
    # `**` at the end is for folders; from Python 3.13 on it finds files too
    paths = [path for path in paths if path.is_file() and not is_hidden(path.name) and Path(pattern).name != "**"]
    if not paths:
        raise AbsentError(f"{base / pattern}: expected an image list, found none; put it there")
    return sorted(paths, key=lambda path: natural_order(path.name))


def lists(entry: dict, base: Path, out: Path) -> Images:
    """The images of ready lists of query, training and database images. An image may stand in several."""
    root, encoding = Folder(base / entry.get("root", ".")), entry.get("encoding", "utf-8")
    row_of: dict[str, int] = {}  # by the file, or by the name as listed where there is none
    rows: list[list[int]] = []
    places: list[str] = []
    present: list[bool] = []
    parts, count = {}, {}
    for part in PARTS:
        listed: list[int] = []
        for path in _matching(base, entry[part]):
            for name, row, line in zip(*image_lists.read(_not_ours(path, out), encoding), strict=True):
                file = root.find(name, encoding)
                index = row_of.setdefault(name if file is None else file, len(rows))
                if index == len(rows):
                    rows.append(row)
                    places.append(f"{path}:{line}")
                    present.append(file is not None)
                elif rows[index] != row:
                    raise SourceError(f"{path}:{line}: {name} has other labels than in {places[index]}")
                if len(row) != len(rows[0]):
                    raise SourceError(f"{path}:{line}: expected {len(rows[0])} labels as in {places[0]}, "
                                      f"found {len(row)}")  # fmt: skip
                listed.append(index)
        parts[part], count[part] = np.unique(np.array(listed, np.int64)), len(listed)
    where = lambda row: str(base / entry["train"]) if row is None else places[row]  # noqa: E731
    labels, label_names, notes = _labels(entry, where, rows)
    return Images(list(row_of), labels, label_names, root=root.root, present=np.array(present), parts=parts,
                  listed=count, notes=notes + root.notes())  # fmt: skip


KINDS = {
    "folder": Kind(folder, ("path",)),
    "list": Kind(one_list, ("path",), ("root", "labels", "encoding", "first_class")),
    "lists": Kind(lists, PARTS, ("root", "labels", "encoding", "first_class")),
    "cifar10": Kind(cifar10.cifar10, ("archive",), ("urls", "sha256", "python_archive", "python_sha256"), True),
    "nus_wide": Kind(benchmarks.nus_wide, ("images", "labels", "list")),
    "mirflickr": Kind(benchmarks.mirflickr, ("images", "annotations"), ("urls", "images_md5")),
}


def _is_text(value: object) -> bool:
    """True for text that can be a path or a name: one line, and bytes of a file name."""
    try:
        return isinstance(value, str) and not re.search(r"[\0\n\r]", value) and bool(os.fsencode(value))
    except UnicodeEncodeError:
        return False


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def check(entry: object, where: str = "source") -> Kind:
    """The kind of a declaration. Raises SourceError for an unknown kind or key, a missing key, a wrong type."""
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(kind, str) or kind not in KINDS:
        raise SourceError(f"{where}: expected an object with a 'kind' of {', '.join(KINDS)}, found {shown(entry)}")
    rules = KINDS[kind]
    for key in rules.required:
        if key not in entry:
            raise SourceError(f"{where}: a source of kind {kind!r} needs the key {key!r}")
    for key, value in entry.items():
        if key not in ("kind", *rules.required, *rules.optional):
            expected = ", ".join((*rules.required, *rules.optional))
            raise SourceError(f"{where}: unknown key {key!r} in a source of kind {kind!r}; known are {expected}")
        if key == "first_class":
            expected, fits = "a whole number of at least 0", type(value) is int and value >= 0
        elif key == "urls" or (key == "labels" and kind in ("list", "lists")):
            expected, fits = "a list of texts", _is_texts(value)
        else:
            expected, fits = "text", _is_text(value)
        if not fits:
            raise SourceError(f"{where}, {key}: expected {expected}, found {shown(value)}")
    return rules


def read(entry: dict, base: Path, out: Path, where: str = "source") -> Images:
    """The images that a declaration names. `base`: where its paths start; `out`: where unpacked files go; `where`: what
    the declaration is called in errors."""
    kind = check(entry, where)
    if base.is_file() and not kind.base_may_be_file:
        raise SourceError(f"{base}: expected the folder of the data set's files, found a file; name its folder")
    return kind.read(entry, base, out)
