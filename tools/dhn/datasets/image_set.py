"""The images of a data set before they are split into query, training and database images."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dhn.datasets.image_files import LeftOut, SourceError


class AbsentError(SourceError):
    """A source whose files are not there. Says what to put where."""


@dataclass
class Images:
    """N images with their labels.

    `names` (N): paths below `root`, or rows of `array`. `labels`: (N,) class numbers, -1 where unknown, or (N, C) int8
    vectors of 0 and 1, -1 throughout where unknown. `present` (N,) bool: False where the image is not there. `parts`:
    the rows of "query", "train" and "database" where the source lists them, and `listed`: how many lines it has for
    each. `form`: what the images were read from, where the source has several forms; one that ends in "copies" is not
    the original pixels. `facts`: what else split.json keeps of the source. `notes`: sentences for the user. `left_out`:
    what the images' folder holds besides.
    """

    names: list[str]
    labels: np.ndarray
    label_names: list[str]
    root: Path | None = None
    array: Path | None = None
    present: np.ndarray = field(default_factory=lambda: np.ones(0, bool))  # empty: all are
    parts: dict[str, np.ndarray] | None = None
    listed: dict[str, int] = field(default_factory=dict)
    form: str | None = None
    facts: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def __post_init__(self) -> None:
        if not len(self.present):
            self.present = np.ones(len(self.names), bool)

    def carries(self) -> np.ndarray:
        """Which image carries which label, (N, C) bool."""
        if self.labels.ndim == 2:
            return self.labels > 0
        return self.labels[:, None] == np.arange(len(self.label_names))

    def labelled(self) -> np.ndarray:
        """Which image carries a label, (N,) bool."""
        return np.asarray(self.carries().any(1))

    def keep_labels(self, wanted: int | Sequence[str]) -> None:
        """Leave only some of the labels: those named, in that order; or, of a number, those that most images carry, in
        the order they had (ties: the earlier one).

        Raises SourceError where there are fewer, or none of that name.
        """
        carried, unknown = self.carries(), self.unknown()
        if isinstance(wanted, int):
            if carried.shape[1] < wanted:
                raise SourceError(f"expected at least {wanted} labels to choose from, found {carried.shape[1]}")
            columns = np.sort(np.argsort(-carried.sum(0), kind="stable")[:wanted])
        else:
            if missing := [name for name in wanted if name not in self.label_names]:
                raise SourceError(f"labels: there is no {', '.join(map(repr, missing))}; the labels are "
                                  f"{', '.join(self.label_names)}")  # fmt: skip
            columns = np.array([self.label_names.index(name) for name in wanted])
        self.labels = carried[:, columns].astype(np.int8)
        self.labels[unknown] = -1
        self.label_names = [self.label_names[index] for index in columns]

    def unknown(self) -> np.ndarray:
        """Which image's labels are unknown, (N,) bool."""
        return self.labels.reshape(len(self.labels), -1)[:, 0] < 0


class Folder:
    """A folder of images, to find a listed image in. Links to files and folders are followed."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise AbsentError(f"{root}: expected the folder of the images, found none; put it there or name another")
        self.root = root
        self.unreadable: set[str] = set()  # folders
        self._entries: dict[str, bool] = {}  # which first parts of a path are there

    def notes(self) -> list[str]:
        """Sentences about the folders that cannot be read."""
        return [f"{place}: the folder cannot be read, its images count as missing" for place in sorted(self.unreadable)]

    def _is_file(self, path: str) -> bool:
        place = os.path.join(self.root, path)
        try:
            return stat.S_ISREG(os.stat(place).st_mode)
        except PermissionError:
            self.unreadable.add(os.path.dirname(place))
        except OSError:  # nothing of that name, a link that leads nowhere, a name that is too long
            pass
        return False

    def _starts_here(self, first: str) -> bool:
        if first not in self._entries:
            self._entries[first] = os.path.lexists(os.path.join(self.root, first))
        return self._entries[first]

    def find(self, listed: str, encoding: str = "utf-8") -> str | None:
        """The longest end of a listed path that is a file here, as a path below `root`; None: there is none.

        Slashes and backslashes separate folders. encoding: that of the list; file names in it are found too.
        """
        names = [listed] if "\\" not in listed else [listed, listed.replace("\\", "/")]
        if not listed.isascii():
            names += [os.fsdecode(name.encode(encoding, "surrogateescape")) for name in names]
        for name in names:
            parts = [part for part in posixpath.normpath(name).split("/") if part not in ("", ".", "..")]
            for start in range(len(parts)):
                if self._starts_here(parts[start]) and self._is_file(end := "/".join(parts[start:])):
                    return end
        return None

    def find_all(self, listed: list[str], encoding: str = "utf-8") -> tuple[list[str], np.ndarray]:
        """(names below the folder, as listed where missing; which of them are there) of listed paths.

        Raises SourceError where two lines stand for one image.
        """
        paths = [self.find(name, encoding) for name in listed]
        seen: dict[str, str] = {}
        for name, path in zip(listed, paths, strict=True):
            if path is not None and seen.setdefault(path, name) != name:
                raise SourceError(f"{name!r} and {seen[path]!r} are both listed for {self.root / path}")
        names = [name if path is None else path for name, path in zip(listed, paths, strict=True)]
        return names, np.array([path is not None for path in paths], bool)
