"""Undamaged files where memory or the disk is short: an answer is the right one, and all else is one sentence."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz import Reader

PAGE = 4096


def judge(reader: Reader, name: str, expected: str, rng: random.Random) -> str:
    """How a kind's command ends with 64 to 512 MB of memory, or with 4 KB to 1 MB of the disk, beyond what is there.

    expected: the digest of the right answer. Returns "right", "sentence" or what is wrong. A sentence need not name the
    file that is read: what cannot be written is another one.
    """
    if rng.random() < 0.5:
        result, digest = reader.read(name, None, memory=int(2 ** rng.uniform(26, 29)))
    else:
        part = reader.folder / "good" / reader.kinds[name].file.partition("/")[0]
        with _disk(reader.folder / "work", _pages(part) * PAGE + int(2 ** rng.uniform(12, 20))):
            result, digest = reader.read(name, None)
    if result == "right" and reader.kinds[name].repeats and digest != expected:
        return "another answer"
    return "sentence" if result == "sentence without a name" else result


@contextlib.contextmanager
def _disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at a place."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
    try:
        yield
    finally:
        os.chdir(place.parent)
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _pages(folder: Path) -> int:
    """What the files of a folder take."""
    return sum(1 - -path.stat().st_size // PAGE if path.is_file() else 1 for path in folder.rglob("*"))
