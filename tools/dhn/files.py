"""Files that are written atomically, and digests of files."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import atomic_writes
import numpy as np

CHUNK = 1 << 18  # bytes read at a time


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill the file `path`, which appears when it is complete; its folder is made if need be.

    Raises OSError, which names the file; `path` is as it was then.
    """
    with atomic_writes.naming(path):
        atomic_writes.make_folder(Path(path).parent)
    atomic_writes.write_atomic(path, write)


@contextlib.contextmanager
def reading_arrays(path: str | os.PathLike) -> Iterator[None]:
    """Raise ValueError, which names the file, where numpy finds an .npy or .npz file damaged or something else."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception:  # of a damaged header numpy raises nearly everything: TokenError, SyntaxError, struct.error, ...
        raise ValueError(
            f"{path}: expected arrays of numbers as numpy saves them (.npy, .npz), found another file, one that is "
            "cut short, or arrays of objects"
        ) from None


def load_array(path: str | os.PathLike, **options: Any) -> Any:
    """What numpy.load gives of an .npy or .npz file, without Python objects. options: numpy.load's.

    Raises ValueError as reading_arrays; OSError where there is no file. The members of an .npz file are read later:
    within reading_arrays.
    """
    with reading_arrays(path):
        return np.load(path, allow_pickle=False, **options)


def write_json(path: Path, facts: dict) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, lambda stream: stream.write((json.dumps(facts, indent=1) + "\n").encode()))


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What a text in JSON says. options: json.loads's.

    Raises ValueError for what is no JSON, is nested too deeply for Python's parser, or has the half of a character in
    a string; a byte of a file's name that is not UTF-8 is none (surrogateescape).
    """
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise ValueError("expected JSON, found brackets within brackets without end") from None
    if isinstance(text, bytes) or "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise ValueError(f"expected text in a string, found {half}, the half of a character") from None
    return value


def load_json(path: Path) -> Any:
    """What a JSON file says. Raises OSError, and ValueError for what is no JSON in UTF-8."""
    return parse_json(path.read_text(encoding="utf-8"))


def read_json(path: Path) -> dict:
    """The object in a JSON file; {} where there is none, or none that is complete."""
    try:
        facts = load_json(path)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically; with the bytes of files' names that are not UTF-8."""
    write_atomic(path, lambda stream: stream.write(text.encode(errors="surrogateescape")))


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Write rows with the first one's keys as a CSV file, atomically; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, lambda stream: stream.write(text.getvalue().encode(errors="surrogateescape")))


def digests_of(path: str | os.PathLike, names: Iterable[str], gunzip: bool = False) -> dict[str, str]:
    """Digests of a file in hex by their names, in one pass; with `gunzip`, of what the .gz holds.

    `git` is the id that git has for the file. Raises OSError where there is no file, EOFError for a .gz cut short.
    """
    digests = {name: hashlib.new("sha1" if name == "git" else name, usedforsecurity=False) for name in names}
    if "git" in digests:
        digests["git"].update(b"blob %d\0" % os.path.getsize(path))
    with (gzip.open if gunzip else open)(path, "rb") as stream:
        while block := stream.read(CHUNK):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def digest_of(path: str | os.PathLike, name: str, gunzip: bool) -> str:
    """One digest of a file, as `digests_of` has it."""
    return digests_of(path, [name], gunzip)[name]


def sha256(path: str | os.PathLike, gunzip: bool = False) -> str:
    """SHA-256 of a file in hex; with `gunzip`, of what the .gz holds (equal however it was compressed).

    Raises OSError or EOFError where the file is missing, is not gzip or is cut short.
    """
    return digest_of(path, "sha256", gunzip)
