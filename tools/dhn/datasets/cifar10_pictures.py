"""CIFAR-10 as picture files: `train/<class>/*` and `test/<class>/*`, or `<class>/*` alone, in a folder or an archive.

The rows of what is read: the training pictures, then the test pictures; in each the classes in CIFAR-10's label order,
and of a class the names in natural order (2.jpg before 10.jpg). They are not the rows of upstream's own files.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pictures

from dhn.datasets import archives
from dhn.datasets.archives import Member
from dhn.datasets.image_files import SUFFIXES, LeftOut, SourceError, is_hidden, natural_order, walk
from dhn.datasets.labelled_images import jpeg_frame
from dhn.progress import counter

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")  # by label
PER_CLASS = {"train": 5000, "test": 1000}  # pictures of each class
SIDE = 32  # pixels
FILE_BYTES = 1 << 17  # of one picture: 3,072 bytes of pixels, and what a camera's or an editor's notes may take
ALL_BYTES = 1 << 29  # of all of them: 60,000 files without compression have 200 MB
SHOWN = 10  # bad pictures or classes that an error names
LAYOUT = "pictures at train/<class>/ and test/<class>/, or at <class>/ alone"
REMEDY = "Get a complete copy; a part of CIFAR-10 is a data set of its own, with a recipe of kind `folder`"


def class_folders(names: Iterable[str]) -> dict[str, set[str]]:
    """The folders that hold CIFAR-10's class folders, or its train/ and test/, and which classes are there.

    names: the paths of the source's files.
    """
    roots: dict[str, set[str]] = {}
    for name in names:
        *folders, _ = name.split("/")
        if folders and folders[-1] in CLASSES:
            label = folders.pop()
            if folders and folders[-1] in PER_CLASS:
                folders.pop()
            roots.setdefault("/".join(folders), set()).add(label)
    return roots


def classes_in(folder: Path) -> int:
    """How many of CIFAR-10's class folders a folder, its train/ or its test/ holds, whichever holds most."""
    places = (folder, *(folder / part for part in PER_CLASS))
    return max(sum(os.path.isdir(place / label) for label in CLASSES) for place in places)


def files_below(folder: Path) -> list[Path]:
    """The picture files below a folder, in order."""
    names = walk(folder, lambda name: is_hidden(name.rsplit("/", 1)[-1]))
    return [folder / name for name in names if _is_picture(name)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


@contextlib.contextmanager
def opened(path: Path) -> Iterator[list[Member]]:
    """The files below a folder or in an archive. Raises archives.ArchiveError, SourceError."""
    if not path.is_dir():
        with archives.opened(path, ALL_BYTES) as members:
            yield members
        return
    names = [name for name in walk(path) if os.path.isfile(path / name)]
    yield [
        Member(path, name, os.path.getsize(path / name), functools.partial(io.FileIO, path / name)) for name in names
    ]


def _by_class(where: Path, members: Sequence[Member], left_out: LeftOut) -> dict[tuple[str, str], list[Member]]:
    """The pictures of each (part, class); part: "train" and "test", or "" throughout in the other layout."""
    roots = class_folders(member.name for member in members)
    if len(roots) != 1:
        places = ", ".join(f"{root or '.'}/" for root in sorted(roots)[:SHOWN]) or "none"
        raise SourceError(f"{where}: expected {LAYOUT}, found class folders in {places}. {REMEDY}")
    (root,) = roots
    start = f"{root}/" if root else ""
    in_parts = any(member.name.startswith(tuple(f"{start}{part}/" for part in PER_CLASS)) for member in members)
    by_class: dict[tuple[str, str], list[Member]] = {}
    for member in members:
        *folders, name = member.name.removeprefix(start).split("/")
        part = folders.pop(0) if in_parts and folders and folders[0] in PER_CLASS else ""
        if any(map(is_hidden, (*folders, name))):
            left_out.add("hidden", member.name)
        elif not _is_picture(name):
            left_out.add("not_images", member.name)
        elif in_parts and not part and not (folders and folders[0] in CLASSES):
            left_out.add("outside_classes", member.name)
        elif len(folders) != 1 or folders[0] not in CLASSES or (in_parts and not part):
            raise SourceError(
                f"{where}: expected {LAYOUT}, the classes being {', '.join(CLASSES)}; found {member.name}"
                f"{f' next to {start}train/ or {start}test/' if in_parts and not part else ''}. Move it away, or "
                "rename its folder"
            )
        else:
            by_class.setdefault((part, folders[0]), []).append(member)
    return by_class


def arrange(where: Path, members: Sequence[Member], left_out: LeftOut) -> tuple[list[Member], np.ndarray]:
    """The pictures of a source in the order of their rows, and their labels (N,) uint8.

    Files that are no pictures are counted in `left_out`. Raises SourceError, naming the file or folder, for a picture
    in no class's folder, for both layouts at once, and for a class of another size than CIFAR-10's.
    """
    by_class = _by_class(where, members, left_out)
    sizes = PER_CLASS if any(part for part, _ in by_class) else {"": sum(PER_CLASS.values())}
    order = [(part, label) for part in sizes for label in CLASSES]  # train before test, then by label
    counts = {key: len(by_class.get(key, ())) for key in order}
    wrong = [
        f"{'/'.join(filter(None, key))} has {count:,} and not {sizes[key[0]]:,}"
        for key, count in counts.items()
        if count != sizes[key[0]]
    ]
    if wrong:
        shown = "; ".join(wrong[:SHOWN]) + (f"; {len(wrong) - SHOWN} more classes" if len(wrong) > SHOWN else "")
        raise SourceError(f"{where}: expected CIFAR-10's {len(CLASSES) * sum(PER_CLASS.values()):,} pictures, found "
                          f"{sum(counts.values()):,}: {shown}. {REMEDY}")  # fmt: skip
    rows: list[Member] = []
    for key in order:
        rows += sorted(by_class[key], key=lambda member: natural_order(member.name))
    labels = np.repeat([CLASSES.index(label) for _, label in order], [*counts.values()])
    return rows, labels.astype(np.uint8)


def decode(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """The pixels (32, 32, 3) RGB of a JPEG or PNG, and which of the two it is.

    Its header is checked before a pixel is decoded. Raises pictures.PictureError for another size, for grey pictures,
    for more than 8 bits, for an alpha channel or a palette, for a damaged file.
    """
    expected = f"{name}: expected a JPEG or PNG of {SIDE} x {SIDE} pixels, RGB with 8 bits a channel"
    kind, frame = "JPEG", jpeg_frame(data)
    if frame is None and data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 26:
        width, height, bits, colours = struct.unpack_from(">IIBB", data, 16)
        kind, frame = "PNG", (bits, height, width, {2: 3, 4: 2, 6: 4}.get(colours, 1))  # 0: grey, 3: a palette
    if frame is None:
        raise pictures.PictureError(f"{expected}, found {len(data)} bytes that begin with {bytes(data[:8])!r}")
    if frame != (8, SIDE, SIDE, 3):
        bits, height, width, channels = frame
        size = f"{width} x {height}, {channels} channel{'s' * (channels != 1)} of {bits} bits"
        raise pictures.PictureError(f"{expected}, found a {kind} of {size}")
    pixels = pictures.decode(data, False, name)
    if pixels.shape != (SIDE, SIDE, 3):
        raise pictures.PictureError(f"{expected}, found {pixels.shape} once decoded")
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), kind


def read(path: Path, left_out: LeftOut) -> tuple[np.ndarray, np.ndarray, str]:
    """The images (N, 32, 32, 3) uint8 RGB and labels (N,) of a folder or archive, and what they are: "JPEG copies".

    An archive's files are not unpacked. Raises SourceError that names the pictures which cannot be taken.
    """
    kinds: Counter = Counter()
    bad: list[str] = []
    with opened(path) as members, counter() as progress:
        rows, labels = arrange(path, members, left_out)
        row_of = {member.name: row for row, member in enumerate(rows)}
        images = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
        task = progress.add_task(f"read {path.name}", total=len(rows))
        for member in members:  # in the order they lie there: a tar has no other
            row = row_of.get(member.name)
            if row is None:
                continue
            try:
                if member.size > FILE_BYTES:
                    raise pictures.PictureError(f"{member.name}: expected a picture of {SIDE} x {SIDE} pixels, found "
                                                f"{member.size:,} bytes")  # fmt: skip
                images[row], kind = decode(member.read(), member.name)
                kinds[kind] += 1
            except pictures.PictureError as error:
                bad.append(str(error))
            progress.advance(task)
    if bad:
        lines = [f"{path}: {len(bad):,} of {len(rows):,} pictures cannot be taken:", *bad[:SHOWN]]
        lines += [f"and {len(bad) - SHOWN:,} more"] * (len(bad) > SHOWN)
        raise SourceError("\n  ".join(lines) + f"\n{REMEDY}")
    return images, labels, f"{' and '.join(sorted(kinds))} copies"
