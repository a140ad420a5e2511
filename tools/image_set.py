"""The images of a data set before they are cut into query, training and database images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from image_source import SourceError


class AbsentError(SourceError):
    """A source whose files are not there. Says what to put where."""


@dataclass
class Images:
    """N images with their labels.

    `names` (N): paths below `root`, or rows of `array`. `labels`: (N,) class indices or (N, C) uint8 vectors of 0 and
    1. `present` (N,) bool: False where the image is not there. `parts`: the rows of "query", "train" and "database"
    where the source says them. `facts`: what else split.json should keep of the source.
    """

    names: list[str]
    labels: np.ndarray
    label_names: list[str]
    root: Path | None = None
    array: Path | None = None
    present: np.ndarray | None = None
    parts: dict[str, np.ndarray] | None = None
    facts: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.present is None:
            self.present = np.ones(len(self.names), bool)

    def carries(self) -> np.ndarray:
        """Which image carries which label, (N, C) bool."""
        if self.labels.ndim == 2:
            return self.labels > 0
        return self.labels[:, None] == np.arange(len(self.label_names))

    def keep_most_frequent(self, count: int) -> None:
        """Leave only the `count` labels that most images carry, in the order they had; ties: the earlier one.

        Raises SourceError where there are fewer.
        """
        carried = self.carries()
        if carried.shape[1] < count:
            raise SourceError(f"expected at least {count} labels to choose from, found {carried.shape[1]}")
        kept = np.sort(np.argsort(-carried.sum(0), kind="stable")[:count])
        self.labels = carried[:, kept].astype(np.uint8)
        self.label_names = [self.label_names[index] for index in kept]


class Folder:
    """The files below a folder, to find a listed image among."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise AbsentError(f"{root}: expected the folder of the images, found none; put it there or name another")
        self.root = root
        self._files = set()
        for folder, _, files in os.walk(root):
            start = os.path.relpath(folder, root).replace(os.sep, "/")
            self._files.update(files if start == "." else (f"{start}/{name}" for name in files))

    def find(self, listed: str) -> str | None:
        """The longest end of a listed path that is a file here, as a path below `root`; None: there is none."""
        parts = [part for part in PurePosixPath(listed.replace("\\", "/")).parts if part not in ("/", ".")]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self._files), None)

    def find_all(self, listed: list[str]) -> tuple[list[str], np.ndarray]:
        """(names below the folder, as listed where missing; which of them are there) of listed paths.

        Raises SourceError where two lines stand for one image.
        """
        found = [self.find(name) for name in listed]
        seen: dict[str, str] = {}
        for name, path in zip(listed, found, strict=True):
            if path is not None and seen.setdefault(path, name) != name:
                raise SourceError(f"{name!r} and {seen[path]!r} are both listed for {self.root / path}")
        names = [name if path is None else path for name, path in zip(listed, found, strict=True)]
        return names, np.array([path is not None for path in found], bool)
