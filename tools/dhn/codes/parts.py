"""Parts of a codes file: what several processes or machines extract of one source, and how the parts become one file.

A part holds contiguous rows, cut where one process would begin a batch: so each image is computed in the batch that it
has there, and machines of one kind give the same bits. A part is a codes file named part-3-of-16.npz (from 0) that also
holds `part`, a JSON object: shard, shards, items of the source, its first row, the recipe (digests of net, weights and
source, and how images are prepared), and the SHA-256 of its arrays. No process knows of another: whatever starts
processes may start these.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from atomic_writes import locks, make_folder

from dhn.codes import files
from dhn.codes.array_files import ArrayFile, CodesError, open_arrays
from dhn.codes.sources import ImageSource
from dhn.files import parse_json, sha256, write_atomic
from dhn.kinds import fits

PART = re.compile(r"part-(\d+)-of-(\d+)\.npz")
SAMPLES = 16  # images of a source whose pixels and labels its digest covers
CHUNK = 1 << 16  # rows whose digest is computed at a time


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`, from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of a text such as 3/16. Raises ValueError."""
        words = re.fullmatch(r"(\d+)/(\d+)", text)
        if words is None or not int(words[1]) < int(words[2]):
            raise ValueError(f"expected a shard I/N with I from 0 to N - 1, such as 0/16, found {text!r}")
        return cls(int(words[1]), int(words[2]))

    def rows(self, items: int, batch_size: int) -> range:
        """The rows of this shard, of `items` in batches: as many complete batches as each other shard has, or one more.

        Raises ValueError where there are fewer batches than shards.
        """
        batches = -(-items // batch_size)
        if batches < self.count:
            raise ValueError(
                f"--shard {self.index}/{self.count}: {items} images in batches of {batch_size} are {batches} batches; "
                f"expected at most as many shards"
            )
        first, end = (batches * index // self.count for index in (self.index, self.index + 1))
        return range(first * batch_size, min(end * batch_size, items))


@dataclass(frozen=True)
class Part:
    """A part to extract. folder: of the parts. recipe: what all parts of one codes file share, for JSON."""

    folder: str
    shard: Shard
    items: int
    batch_size: int
    recipe: dict

    @property
    def path(self) -> Path:
        """The part's file."""
        return Path(self.folder, f"part-{self.shard.index}-of-{self.shard.count}.npz")

    @property
    def rows(self) -> range:
        """The rows of the source that the part holds."""
        return self.shard.rows(self.items, self.batch_size)

    def is_complete(self) -> bool:
        """Whether its file is there and undamaged. Raises CodesError for a file of another recipe."""
        if not self.path.exists():
            return False
        try:
            stored = _Stored(self.path)
            for name in stored.names:
                stored.read(name)
        except CodesError:
            return False  # damaged: extracted again
        stored.expect(self.recipe, "this command", f"remove {self.folder} or name another folder")
        return stored.about["items"] == self.items and stored.rows == self.rows

    def save(self, codes: np.ndarray, labels: np.ndarray, names: Sequence[str] | None) -> None:
        """Write codes (n, K) and labels (n, C) of its n rows atomically. names: of all images of the source."""
        own = None if names is None else names[self.rows.start : self.rows.stop]
        arrays = files.arrays_of(codes, labels, own)
        about = {
            "shard": self.shard.index,
            "shards": self.shard.count,
            "items": self.items,
            "first": self.rows.start,
            "recipe": self.recipe,
            "sha256": {name: _digest(array) for name, array in arrays.items()},
        }
        arrays["part"] = np.array(json.dumps(about))
        write_atomic(self.path, lambda stream: np.savez(stream, **arrays))


def source_digest(source: ImageSource, paths: Sequence[str]) -> str:
    """SHA-256 of what a source lists: number and keys of its images, and pixels and labels of SAMPLES of them.

    A list's own bytes too, so that its labels count. paths: as the source was opened with. The same on every machine,
    wherever the source lies there.
    """
    digest, count = hashlib.sha256(), len(source)
    for index in range(count):
        digest.update(source.key(index).encode("utf-8", "surrogateescape") + b"\0")
    for index in sorted({sample * count // SAMPLES for sample in range(SAMPLES)}):
        image, labels = source.read(index)
        digest.update(repr(image.shape).encode() + image.tobytes() + np.asarray(labels, np.float32).tobytes())
    if len(paths) == 1 and os.path.isfile(paths[0]):
        digest.update(sha256(paths[0]).encode())
    return digest.hexdigest()


def merge(folder: str, out: str | os.PathLike) -> tuple[int, int]:
    """Write the codes file of a folder's parts, the bytes that one process would have written; returns (N, K).

    Holds one part in memory at a time. Raises CodesError where a part is missing, damaged or of another recipe.
    """
    parts = _all_parts(folder)
    first = parts[0]
    for part in parts:
        part.expect(first.about["recipe"], str(first.path), "extract both by the same command")
        if part.file.shapes["codes"][1:] != first.file.shapes["codes"][1:] or part.names != first.names:
            raise CodesError(
                f"{part.path}: expected codes and arrays as in {first.path}, found others; extract it again"
            )
    row = 0
    for part in parts:
        if (part.rows.start, part.about["items"]) != (row, first.about["items"]):
            raise CodesError(
                f"{part.path}: expected rows from {row} on of {first.about['items']}, found from "
                f"{part.rows.start} on of {part.about['items']}; extract all parts with one batch size"
            )
        row = part.rows.stop
    if row != first.about["items"]:
        raise CodesError(f"{parts[-1].path}: expected rows up to {first.about['items']}, found up to {row}")
    make_folder(Path(out).parent)
    with locks.hold(out):
        write_atomic(out, lambda stream: _write(stream, parts))
    return row, first.file.shapes["codes"][1]


def _all_parts(folder: str) -> list[_Stored]:
    """The parts of a folder in their order, all of them. Raises CodesError."""
    if not os.path.isdir(folder):
        raise CodesError(f"{folder}: expected a folder of parts, as extract_codes --shard writes them; there is none")
    shards = sorted((int(name[2]), int(name[1])) for each in os.listdir(folder) if (name := PART.fullmatch(each)))
    counts = sorted({count for count, _ in shards})
    if len(counts) != 1:
        content = " and ".join(f"parts of {count}" for count in counts) or "none"
        raise CodesError(f"{folder}: expected the parts part-I-of-N.npz of one N, found {content}")
    present = {index for _, index in shards}
    missing = [index for index in range(counts[0]) if index not in present]
    if missing:
        several = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CodesError(
            f"{folder}: expected {counts[0]} parts, part-{missing[0]}-of-{counts[0]}.npz{several} is missing; extract "
            f"it with --shard {missing[0]}/{counts[0]}"
        )
    return [_Stored(Path(folder, f"part-{index}-of-{counts[0]}.npz")) for index in range(counts[0])]


ABOUT = {"items": int, "first": int, "recipe": dict, "sha256": {str: str}}  # what a part says of itself


class _Stored:
    """A part as it is stored: what it says of itself, and its arrays, read one at a time."""

    def __init__(self, path: Path) -> None:
        """Read the part's header. Raises CodesError for a file that is damaged or no part."""
        self.path = path
        self.file: ArrayFile = open_arrays(path)
        try:
            self.about: dict[str, Any] = parse_json(str(self.file.load("part")))
            self.names = [name for name in self.file.shapes if name != "part"]
            complete = fits(self.about, ABOUT) and set(self.about["sha256"]) == set(self.names)
            rows = self.file.shapes["codes"][0]
        except (KeyError, IndexError, ValueError, zipfile.BadZipFile):
            complete = False
        if not complete:
            raise CodesError(f"{path}: expected a part as extract_codes --shard writes it, found another; remove it")
        self.rows = range(self.about["first"], self.about["first"] + rows)

    def read(self, name: str) -> np.ndarray:
        """An array, its digest compared. Raises CodesError."""
        try:
            array = self.file.load(name)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CodesError(f"{self.path}: {name} cannot be read ({error}); extract the part again") from None
        if _digest(array) != self.about["sha256"][name]:
            raise CodesError(f"{self.path}: the digest of {name} is another than when it was written; extract it again")
        return array

    def expect(self, recipe: dict, whose: str, remedy: str) -> None:
        """Raise CodesError, naming what differs, unless the part is of that recipe."""
        own = self.about["recipe"]
        other = [key for key in {**own, **recipe} if own.get(key) != recipe.get(key)]
        if other:
            raise CodesError(f"{self.path}: expected the {' and '.join(other)} of {whose}, found others; {remedy}")


def _digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    rows = np.atleast_1d(array)
    for begin in range(0, len(rows), CHUNK):
        digest.update(np.ascontiguousarray(rows[begin : begin + CHUNK]).tobytes())
    return digest.hexdigest()


def _write(stream: BinaryIO, parts: Sequence[_Stored]) -> None:
    """Write the arrays of all parts as numpy.savez writes one array of each name."""
    rows = parts[-1].rows.stop
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, shape in parts[0].file.shapes.items():
            if name == "part":
                continue
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not shape:  # labels_are
                    np.lib.format.write_array(member, parts[0].read(name), allow_pickle=False)
                    continue
                kind = _common_type([part.file.types[name] for part in parts])
                header = {"descr": kind.str, "fortran_order": False, "shape": (rows, *shape[1:])}
                np.lib.format.write_array_header_1_0(member, header)
                for part in parts:
                    member.write(part.read(name).astype(kind, copy=False).tobytes())


def _common_type(types: Sequence[np.dtype | str]) -> np.dtype:
    """The type of an array from those of its parts: the longest text; int8 where one part has labels of -1."""
    kinds = {np.dtype(kind) for kind in types}
    return (
        np.dtype(np.int8)
        if kinds == {np.dtype(np.int8), np.dtype(np.uint8)}
        else max(kinds, key=lambda kind: kind.itemsize)
    )
