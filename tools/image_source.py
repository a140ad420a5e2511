"""Labelled images in the order they are listed, from a list file, a folder per class, or arrays.

Colour images are BGR (H, W, 3) and grey ones (H, W), uint8, as OpenCV and Caffe have them; arrays of colour images
are taken to be RGB, as data sets publish them, and are turned round.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from download import sha256

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


class SourceError(ValueError):
    """A list, folder or array that does not say which images carry which labels. Names the line."""


class BadImage(ValueError):
    """One image that cannot be read; says where it is listed."""


@dataclass
class Source:
    """N images with their labels.

    `names` (N): each image's path as listed, or its row number. `labels`: (N,) class indices below `classes`,
    or (N, C) label vectors of 0, 1 and -1 (unknown). `where(i)`: the place that lists image i, for errors.
    `read(i, gray)`: its pixels and, if it is a file, the file's bytes; raises BadImage. `identity`: what the
    images and labels were made from, to tell whether they changed.
    """

    names: Sequence[str]
    labels: np.ndarray
    classes: int
    where: Callable[[int], str]
    read: Callable[[int, bool], tuple[np.ndarray, bytes | None]]
    identity: dict

    def __len__(self) -> int:
        return len(self.names)

    def vector(self, index: int) -> np.ndarray:
        """The label vector (C,) of an image: one-hot for a class index, all -1 for the class index -1 (unknown)."""
        label = self.labels[index]
        if self.labels.ndim == 2:
            return label
        row = np.full(self.classes, -1 if label < 0 else 0, np.int8)
        if label >= 0:
            row[label] = 1
        return row

    def first(self, index: int) -> int:
        """The index of an image's first label, -1 where it carries none."""
        label = self.labels[index]
        if self.labels.ndim == 1:
            return int(label)
        present = np.flatnonzero(label > 0)
        return int(present[0]) if len(present) else -1


def _labels(rows: Sequence[Sequence[int]] | np.ndarray, classes: int | None, where: Callable[[int], str]):
    """Check labels of one length; returns them as (N,) indices or (N, C) vectors, with the number of classes."""
    if len(rows) == 0:
        raise SourceError(f"{where(0)}: no image is listed")
    try:
        table = np.asarray(rows, dtype=np.int64)
    except OverflowError:
        raise SourceError(f"{where(0)}: a label is out of range") from None
    if table.ndim == 1 or table.shape[1] == 1:
        table = table.reshape(-1)
        count = classes or int(table.max()) + 1
        wrong = np.flatnonzero((table < -1) | (table >= count))
        if count < 1 or len(wrong):
            line = int(wrong[0]) if len(wrong) else 0
            raise SourceError(f"{where(line)}: expected a class index of -1 to {count - 1}, found {table[line]}")
        return table.astype(np.int32), count
    if classes not in (None, table.shape[1]):
        raise SourceError(f"{where(0)}: expected {classes} labels, found {table.shape[1]}")
    wrong = np.flatnonzero(((table < -1) | (table > 1)).any(axis=1))
    if len(wrong):
        found = " ".join(map(str, table[wrong[0]]))
        raise SourceError(f"{where(int(wrong[0]))}: expected labels of 0, 1 or -1, found {found}")
    return table.astype(np.int8), table.shape[1]


def _is_integer(text: str) -> bool:
    return text.lstrip("+-").isdigit() and len(text) < 20


def parse_list(path: str | os.PathLike) -> tuple[list[str], list[list[int]], list[int]]:
    """Names, labels and line numbers of a list file: `path l1 ... lC` or `path label` a line, blank lines skipped.

    A path may hold spaces: the first line's last run of integers tells how many labels a line has. Raises
    SourceError with the file and line that has another number of labels.
    """
    names, labels, lines = [], [], []
    count = 0
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split()
            if not words:
                continue
            if not count:
                while count < len(words) - 1 and _is_integer(words[-1 - count]):
                    count += 1
            tail = words[-count:] if count else []
            if not count or len(words) <= count or not all(map(_is_integer, tail)):
                expected = f"a path and {count or 'one or more'} integer label{'s' * (count != 1)}"
                raise SourceError(f"{path}:{number}: expected {expected}, found {line.strip()!r}")
            names.append(line.strip().rsplit(None, count)[0])
            labels.append([int(word) for word in tail])
            lines.append(number)
            if count > 1 and len(words) > count + 1 and _is_integer(words[-1 - count]):
                raise SourceError(f"{path}:{number}: expected {count} labels as on the first line, found more")
    return names, labels, lines


def decode(raw: bytes, gray: bool) -> np.ndarray | None:
    """Pixels of an encoded image, BGR (H, W, 3) or grey (H, W); None if the bytes are not an image."""
    if not raw:
        return None
    try:
        return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def _file_reader(paths: Sequence[Path], where: Callable[[int], str]):
    def read(index: int, gray: bool) -> tuple[np.ndarray, bytes]:
        try:
            raw = paths[index].read_bytes()
        except OSError as error:
            raise BadImage(f"{where(index)}: cannot read {paths[index]} ({error.strerror})") from None
        pixels = decode(raw, gray)
        if pixels is None:
            raise BadImage(f"{where(index)}: {paths[index]} is not an image that OpenCV can decode")
        return pixels, raw

    return read


def _files_identity(paths: Sequence[Path]) -> str:
    """A digest of the files' paths, sizes and times of change."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            facts = path.stat()
            digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            digest.update(f"{path} missing\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _array_reader(images: np.ndarray, rows: Sequence[int]):
    def read(index: int, gray: bool) -> tuple[np.ndarray, None]:
        pixels = np.ascontiguousarray(images[rows[index]])
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        if pixels.ndim == 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY if gray else cv2.COLOR_RGB2BGR)
        return pixels, None

    return read


def _check_images(images: np.ndarray, path: Path) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        found = f"{images.dtype} {images.shape}"
        raise SourceError(f"{path}: expected uint8 images (N, H, W), (N, H, W, 1) or (N, H, W, 3), found {found}")
    return images


def from_list(
    path: str | os.PathLike,
    root: str | os.PathLike = "",
    images: str | os.PathLike | None = None,
    classes: int | None = None,
) -> Source:
    """The images of a list file, under `root`; with `images` (an .npy file) the paths are its row numbers."""
    path = Path(path)
    names, rows, lines = parse_list(path)

    def where(index: int) -> str:
        return f"{path}:{lines[index]}" if lines else str(path)

    labels, count = _labels(rows, classes, where)
    identity = {"list": sha256(path)}
    if images is None:
        paths = [Path(root) / name for name in names]
        identity["files"] = _files_identity(paths)
        return Source(names, labels, count, where, _file_reader(paths, where), identity)
    images = Path(images)
    array = _check_images(np.load(images, mmap_mode="r", allow_pickle=False), images)
    for index, name in enumerate(names):
        if not name.isdigit() or int(name) >= len(array):
            raise SourceError(f"{where(index)}: expected a row of {images} (0 to {len(array) - 1}), found {name!r}")
    identity["images"] = sha256(images)
    return Source(names, labels, count, where, _array_reader(array, [int(name) for name in names]), identity)


def from_folder(folder: str | os.PathLike) -> Source:
    """The images under a folder that holds one folder per class; classes are numbered in the order of their names."""
    folder = Path(folder)
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    names, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(
            str(file.relative_to(folder)) for file in (folder / name).rglob("*") if file.suffix.lower() in SUFFIXES
        )
        if not found:
            raise SourceError(f"{folder / name}: expected the images of a class, found none")
        names += found
        labels += [label] * len(found)
    if not classes:
        raise SourceError(f"{folder}: expected a folder per class, found none")
    paths = [folder / name for name in names]

    def where(index: int) -> str:
        return str(folder)

    identity = {"classes": classes, "files": _files_identity(paths)}
    return Source(names, np.asarray(labels, np.int32), len(classes), where, _file_reader(paths, where), identity)


def from_arrays(path: str | os.PathLike, classes: int | None = None) -> Source:
    """The images of an .npz file with `images` (N, H, W[, C]) and `labels` (N,) or (N, C)."""
    path = Path(path)
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"images", "labels"} - set(arrays.files)
        if missing:
            raise SourceError(f"{path}: expected the arrays images and labels, found {', '.join(arrays.files)}")
        images, rows = _check_images(arrays["images"], path), arrays["labels"]
    if rows.ndim not in (1, 2) or len(rows) != len(images) or rows.dtype.kind not in "iub":
        found = f"{rows.dtype} {rows.shape}"
        raise SourceError(f"{path}: expected integer labels ({len(images)},) or ({len(images)}, C), found {found}")

    def where(index: int) -> str:
        return f"{path} row {index}"

    labels, count = _labels(rows, classes, where)
    names = [str(index) for index in range(len(images))]
    return Source(names, labels, count, where, _array_reader(images, range(len(images))), {"arrays": sha256(path)})
