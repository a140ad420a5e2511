"""The files below a folder: links are followed, and what is not an image is left out and counted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# A file of one of these is meant as an image: one that cannot be decoded is an error. Any other file counts where
# OpenCV recognizes its first bytes.
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff",
            ".webp", ".gif", ".jp2"}  # fmt: skip
KINDS = {
    "hidden": "names that begin with a dot, or __MACOSX",
    "not_images": "not an image that OpenCV can read",
    "outside_classes": "in no class folder",
    "broken_links": "a link that leads nowhere",
    "repeated": "a link to an image that is taken already",
}


class SourceError(ValueError):
    """A list, folder or array that does not say which images carry which labels. Names the file, and the line."""


@dataclass
class LeftOut:
    """What a folder holds and a data set does not take: for each of KINDS how many, and the first."""

    kinds: dict[str, dict] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        self.kinds.setdefault(kind, {"count": 0, "first": name})["count"] += 1

    def sentences(self, folder: object) -> list[str]:
        """One line a kind."""
        return [
            f"{folder}: left out {entry['count']:,} ({KINDS[kind]}); the first is {entry['first']}"
            for kind, entry in self.kinds.items()
        ]


def is_hidden(name: str) -> bool:
    """True for what an operating system or an editor keeps for itself: .DS_Store, ._x.jpg, .ipynb_checkpoints."""
    return name.startswith(".") or name == "__MACOSX"


def natural_order(name: str) -> tuple[list, str]:
    """A key to sort names by the numbers in them: 2.jpg before 10.jpg."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)], name


def is_folder(entry: os.DirEntry) -> bool:
    """True for a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def walk(root: str | os.PathLike, skip: Callable[[str], bool] = lambda path: False) -> Iterator[str]:
    """The paths below `root`, with slashes and in order, of everything that is not a folder.

    Links to folders are followed; one that leads to a folder it lies in is not. skip(path): True for a path that is
    not entered or yielded. Raises SourceError for a folder that cannot be read.
    """

    def below(start: str, parents: tuple) -> Iterator[str]:
        place = os.path.join(root, start)
        try:
            facts = os.stat(place)
            with os.scandir(place) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(f"{place}: the folder cannot be read ({error.strerror})") from None
        identity = (facts.st_dev, facts.st_ino)
        if identity in parents:
            return
        for entry in ordered:
            path = f"{start}/{entry.name}" if start else entry.name
            if skip(path):
                continue
            if is_folder(entry):
                yield from below(path, (*parents, identity))
            else:
                yield path

    yield from below("", ())


def is_image(path: str | os.PathLike) -> bool:
    """True for a regular file whose suffix is one of SUFFIXES, or whose first bytes OpenCV recognizes."""
    name = os.fspath(path)
    if not os.path.isfile(name):
        return False
    if os.path.splitext(name)[1].lower() in SUFFIXES:
        return True
    import cv2

    raw: Any = os.fsencode(name)  # bytes: any name, not only UTF-8; OpenCV's types know of text alone
    return bool(cv2.haveImageReader(raw))


def images_below(root: str | os.PathLike, left_out: LeftOut) -> Iterator[str]:
    """The paths of the images below `root`; what is left out is counted in `left_out`."""

    def skip(path: str) -> bool:
        hidden = is_hidden(path.rsplit("/", 1)[-1])
        if hidden:
            left_out.add("hidden", path)
        return hidden

    for path in walk(root, skip):
        place = os.path.join(root, path)
        if not os.path.exists(place):
            left_out.add("broken_links", path)
        elif is_image(place):
            yield path
        else:
            left_out.add("not_images", path)
