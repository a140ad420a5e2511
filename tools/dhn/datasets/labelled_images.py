"""Labelled images in the order they are listed, from a list file, a folder per class, or arrays.

Images are uint8 (H, W, C), grey (C = 1) or BGR (C = 3), as OpenCV and Caffe have them; arrays of colour images are
taken to be RGB, as data sets publish them, and are converted. What labels, lists and image files mean is decided in
python_layers/: labels.py, image_lists.py, pictures.py.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import image_lists
import labels as label_rule
import numpy as np
import pictures
from numpy.typing import ArrayLike

from dhn.datasets.image_files import LeftOut, SourceError, images_below, is_folder, is_hidden
from dhn.files import reading_arrays, sha256

# folders of these names alone are parts of a data set, not classes
Reader = Callable[[int, bool], tuple[np.ndarray, bytes | None]]  # (image, grey) -> pixels, and a file's bytes
PART_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing", "query", "database", "gallery"}


@dataclass
class Source:
    """N images with their labels.

    `names` (N): each image's path as listed, or its row number. `labels`: (N,) class numbers below `classes`, -1 where
    unknown, or (N, C) label vectors of 0 and 1, -1 throughout where unknown. `where(i)`: the place that lists image i,
    for errors. `read(i, gray)`: its pixels and, if it is a file, the file's bytes; raises pictures.PictureError.
    `identity`: what the images and labels were made from, to tell whether they changed. `notes`: how the labels were
    read, in sentences. `left_out`: what the folder holds besides.
    """

    names: Sequence[str]
    labels: np.ndarray
    classes: int
    where: Callable[[int | None], str]
    read: Reader
    identity: dict
    notes: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return len(self.names)

    def vector(self, index: int) -> np.ndarray:
        """The label vector (C,) of an image: one-hot for a class number, -1 throughout where it is unknown."""
        label = self.labels[index]
        if self.labels.ndim == 2:
            return label
        return label_rule.one_hot(int(label), self.classes, self.where(index))

    def first(self, index: int) -> int:
        """The index of an image's first label, -1 where it carries none."""
        label = self.labels[index]
        if self.labels.ndim == 1:
            return int(label)
        present = np.flatnonzero(label > 0)
        return int(present[0]) if len(present) else -1


def read_labels(
    table: ArrayLike,
    where: Callable[[int | None], str],
    classes: int | None = None,
    declared: str | None = None,
    first_class: int | None = None,
) -> tuple[np.ndarray, int, list[str]]:
    """Labels as class numbers (N,) or label vectors (N, C) by the rule of labels.py, C, and sentences about them.

    declared: `classes` or `vectors`, where the table does not tell. first_class: the number of the first class; None:
    0, and an image must be of it unless `classes` says how many there are. Raises LabelError, SourceError.
    """
    if first_class is not None and declared == "vectors":
        raise SourceError(f"{where(None)}: a first class ({first_class}) does not go with label vectors")
    if first_class is None and declared is None:
        vectors, note = label_rule.vectors(table, None, classes, where)
        if not note:
            return vectors, vectors.shape[1], []
    elif declared == "vectors":
        vectors, _ = label_rule.vectors(table, "vectors", classes, where)
        return vectors, vectors.shape[1], []
    elif np.ndim(table) > 1 and np.shape(table)[1] != 1:
        raise SourceError(f"{where(None)}: expected class numbers, one an image, as declared; found {np.shape(table)}")
    start = first_class or 0
    numbers, count = label_rule.class_numbers(table, classes and classes + start, where)
    wrong = np.flatnonzero((numbers >= 0) & (numbers < start))
    if len(wrong):
        row = int(wrong[0])
        raise SourceError(f"{where(row)}: expected class numbers from {start} (the first class), found {numbers[row]}")
    numbers = np.where(numbers < 0, -1, numbers - start).astype(np.int32)
    count = max(count - start, 1)
    if classes is not None:
        return numbers, classes, []
    present = np.unique(numbers[numbers >= 0])
    if not len(present):
        raise SourceError(f"{where(None)}: expected class numbers, found -1 (unknown) alone; declare how many classes "
                          "there are")  # fmt: skip
    if first_class is None and present[0] > 0:
        raise SourceError(
            f"{where(None)}: the class numbers are {present[0]} to {present[-1]}, and class 0 has no image. Say which "
            f'number the first class has: --first-class {present[0]} (in a recipe\'s source "first_class": '
            f"{present[0]}), or 0 if it has none"
        )
    classes_text = f"{count:,} class{'es' * (count > 1)}"
    notes = [f"{where(None)}: read as class numbers {start} to {start + count - 1}: {classes_text}"]
    if empty := np.setdiff1d(np.arange(count), present).tolist():
        shown = ", ".join(str(start + number) for number in empty[:10]) + (", ..." if len(empty) > 10 else "")
        notes.append(f"{where(None)}: {len(empty):,} of {classes_text} have no image: {shown}")
    return numbers, count, notes


def _file_reader(paths: Sequence[Path], where: Callable[[int], str]) -> Reader:
    def read(index: int, gray: bool) -> tuple[np.ndarray, bytes]:
        name = f"{where(index)}: {paths[index]}"
        try:
            data = paths[index].read_bytes()
        except OSError as error:
            raise pictures.PictureError(f"{name}: cannot be read ({error.strerror})") from None
        return pictures.decode(data, gray, name), data

    return read


def jpeg_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """(bits, height, width, components) of a JPEG as its frame header has them; None for any other file.

    Components: 1 grey, 3 colour, 4 CMYK.
    """
    place = 2 if data[:2] == b"\xff\xd8" else len(data)
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header
            return struct.unpack_from(">BHHB", data, place + 4)
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def is_plain(data: bytes, pixels: np.ndarray) -> bool:
    """True if an image file shows `pixels` (H, W, C) also to a reader that knows no EXIF orientation, bit depth, grey
    images among colour ones or alpha: Caffe's Data layer, for one."""
    if pictures.orientation(data) != 1:
        return False
    frame = jpeg_frame(data)
    if frame is not None and (frame[0], frame[3]) == (8, pixels.shape[2]):  # in a hundredth of the time
        return True
    import cv2

    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint8:
        return False
    stored = stored.reshape(*stored.shape[:2], -1)
    return stored.shape == pixels.shape and bool((stored == pixels).all())


def files_identity(paths: Sequence[Path], root: Path | None = None) -> str:
    """A digest of the files' paths (below `root`, if it is given), sizes and times of change."""
    digest = hashlib.sha256()
    for path in paths:
        name = path.relative_to(root) if root else path
        try:
            facts = path.stat()
            digest.update(f"{name} {facts.st_size} {facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            digest.update(f"{name} missing\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _array_reader(images: np.ndarray, rows: Sequence[int]) -> Reader:
    import cv2

    def read(index: int, gray: bool) -> tuple[np.ndarray, None]:
        pixels = np.ascontiguousarray(images[rows[index]])
        if pixels.ndim == 3 and pixels.shape[2] == 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY if gray else cv2.COLOR_RGB2BGR)
        return pixels.reshape(*pixels.shape[:2], -1), None

    return read


def _load_arrays(path: Path, **how: Any) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, or that of an .npy file as "images". Raises SourceError, OSError."""
    try:
        with reading_arrays(path):
            loaded = np.load(path, allow_pickle=False, **how)
            if isinstance(loaded, np.ndarray):
                return {"images": loaded}
            with loaded as arrays:
                return {name: arrays[name] for name in ("images", "labels") if name in arrays.files}
    except ValueError as error:
        raise SourceError(str(error)) from None


def _check_images(images: np.ndarray, path: Path) -> np.ndarray:
    fits = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3)))
    if not fits or not images.size:
        content = f"{images.dtype} {images.shape}"
        raise SourceError(f"{path}: expected uint8 images (N, H, W), (N, H, W, 1) or (N, H, W, 3), found {content}")
    return images


def from_list(
    path: str | os.PathLike,
    root: str | os.PathLike = "",
    images: str | os.PathLike | None = None,
    classes: int | None = None,
    encoding: str = "utf-8",
    first_class: int | None = None,
) -> Source:
    """The images of a list file, under `root`; with `images` (an .npy file) the paths are its row numbers.

    One number a line is a class number; see read_labels. Raises ListError, LabelError, SourceError, OSError.
    """
    path = Path(path)
    names, rows, lines = image_lists.read(path, encoding)

    def where(index: int | None) -> str:
        return str(path) if index is None else f"{path}:{lines[index]}"

    declared = "classes" if len(rows[0]) == 1 else None
    labels, count, notes = read_labels(rows, where, classes, declared, first_class)
    identity = {"list": sha256(path)}
    if images is None:
        paths = [Path(image_lists.locate(root, name)) for name in names]
        identity["files"] = files_identity(paths)
        return Source(names, labels, count, where, _file_reader(paths, where), identity, notes)
    images = Path(images)
    array = _check_images(_load_arrays(images, mmap_mode="r").get("images", np.empty(0)), images)
    for index, name in enumerate(names):
        if not (name.isascii() and name.isdigit() and len(name) < 19 and int(name) < len(array)):
            raise SourceError(f"{where(index)}: expected a row of {images} (0 to {len(array) - 1}), found {name!r}")
    identity["images"] = sha256(images)
    reader = _array_reader(array, [int(name) for name in names])
    return Source(names, labels, count, where, reader, identity, notes)


def class_folders(folder: Path, left_out: LeftOut) -> dict[str, list[str]]:
    """The images of each class folder, both in the order of their names, as paths below `folder`.

    Raises SourceError where a class has no image, and where what looks like class folders are not.
    """
    with os.scandir(folder) as entries:
        paths = [entry.name for entry in entries if is_folder(entry) and not is_hidden(entry.name)]
    classes: dict[str, list[str]] = {name: [] for name in paths}
    files: dict[tuple[int, int], str] = {}
    for path in images_below(folder, left_out):
        name, _, below = path.partition("/")
        if not below:
            left_out.add("outside_classes", path)
            continue
        facts = os.stat(folder / path)
        first = files.setdefault((facts.st_dev, facts.st_ino), path)
        if first == path:
            classes[name].append(path)
        elif first.partition("/")[0] == name:
            left_out.add("repeated", path)
        else:
            raise SourceError(f"{folder}: {first} and {path} are links to one file, in two classes. Remove one "
                              "of them, or write a list with label vectors")  # fmt: skip
    remedy = "Name the folder that holds the class folders, or write a list of the images (a recipe of kind `lists`)"
    if not classes:
        raise SourceError(f"{folder}: expected a folder per class, found none")
    for name, paths in classes.items():
        if not paths:
            raise SourceError(f"{folder / name}: expected the images of a class, found none that OpenCV can read")
        if all(path.count("/") > 1 for path in paths):
            raise SourceError(f"{folder / name}: expected the images of a class, found only folders, which hold "
                              f"{paths[0]} and others. {remedy}")  # fmt: skip
    if len(classes) > 1 and {name.lower() for name in classes} <= PART_NAMES:
        raise SourceError(f"{folder}: expected a folder per class, found the parts of a data set: "
                          f"{', '.join(sorted(classes))}. {remedy}")  # fmt: skip
    return {name: sorted(classes[name]) for name in sorted(classes)}


def from_folder(folder: str | os.PathLike) -> Source:
    """The images under a folder that holds one folder per class; classes are numbered in the order of their names."""
    folder, left_out = Path(folder), LeftOut()
    classes = class_folders(folder, left_out)
    names = [name for of_class in classes.values() for name in of_class]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(of_class) for of_class in classes.values()])
    paths = [folder / name for name in names]

    def where(index: int | None) -> str:
        return str(folder)

    identity = {"classes": list(classes), "files": files_identity(paths)}
    reader = _file_reader(paths, where)
    return Source(names, labels, len(classes), where, reader, identity, left_out=left_out)


def from_arrays(
    path: str | os.PathLike, classes: int | None = None, declared: str | None = None, first_class: int | None = None
) -> Source:
    """The images of an .npz file with `images` (N, H, W[, C]) and `labels`, as read_labels takes them."""
    path = Path(path)
    arrays = _load_arrays(path)
    if missing := [name for name in ("images", "labels") if name not in arrays]:
        raise SourceError(f"{path}: expected the arrays images and labels, found no {' and no '.join(missing)}")
    images, rows = _check_images(arrays["images"], path), arrays["labels"]

    def where(index: int | None) -> str:
        return f"{path}, labels {rows.shape}" if index is None else f"{path}, row {index}"

    if rows.ndim not in (1, 2) or len(rows) != len(images):
        raise SourceError(f"{path}: expected labels ({len(images)},) or ({len(images)}, C), found {rows.shape}")
    labels, count, notes = read_labels(rows, where, classes, declared, first_class)
    names = [str(index) for index in range(len(images))]
    reader = _array_reader(images, range(len(images)))
    return Source(names, labels, count, where, reader, {"arrays": sha256(path)}, notes)
