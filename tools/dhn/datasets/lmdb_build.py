"""An LMDB of labelled images, built in `OUT.partial` and renamed when it is complete.

A build that is killed leaves nothing that could be taken for one, and the next build clears it away. `OUT/source.json`
says what it was built from; an output built from the same inputs is left as it is. lmdb_records.py says what a record
holds.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from atomic_writes import make_folder
from atomic_writes.folders import recover, replacing_folder
from lmdb_files import open_lmdb
from pictures import PictureError

from dhn import files
from dhn.datasets.labelled_images import Source, is_plain
from dhn.datasets.lmdb_records import BATCH_BYTES, LmdbError, make_datum, make_key, new_lmdb, write_records
from dhn.files import load_json
from dhn.kinds import fits
from dhn.progress import counter, say

FIRST_MAP = 4 * BATCH_BYTES  # the file takes what it holds; doubled whenever it is full
CHUNK = 32  # images a worker thread takes at a time
SHOWN = 10  # bad images named on the screen; a file names them all
FACTS = {"recipe": dict, "records": int, "skipped": int, "bytes": int}  # of source.json
FIRST_BYTES = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG"}
SUFFIXES = {"jpg": {".jpg", ".jpeg", ".jpe", ".jfif"}, "png": {".png"}}


class BadImages(ValueError):
    """Images that cannot be read, more than may be skipped. `bad`: (name, what is wrong) of each."""

    def __init__(self, message: str, bad: list[tuple[str, str]]):
        super().__init__(message)
        self.bad = bad


def describe_bad(bad: Sequence[tuple[str, str]], total: int, where: object, more: object) -> str:
    """What is wrong with which images, one a line, as many as can be read on a screen; the file `more` names them all.

    bad: (name, what is wrong) of each; total: images there are.
    """
    lines = [f"{where}: {len(bad):,} of {total:,} images cannot be read:"]
    lines += [f"  {message}" for _, message in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN:,} more; {more} names them all")
    return "\n".join(lines)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _record(source: Source, index: int, resize: tuple[int, int] | None, gray: bool, encode: str) -> tuple[bytes, bool]:
    """The record of an image, and whether a file of the wanted encoding had to be encoded again for its content."""
    pixels, data = source.read(index, gray)
    changed = False
    if resize is not None and pixels.shape[:2] != tuple(resize):
        import cv2

        pixels = cv2.resize(pixels, (resize[1], resize[0])).reshape(*resize, -1)  # bilinear, as convert_imageset
        data = None
    if data is not None:
        content = next((kind for kind, first in FIRST_BYTES.items() if data.startswith(first)), None)
        # a file of the wanted encoding by content or by name: many a .jpg of the web is a PNG
        wanted = encode in (content, *(kind for kind in SUFFIXES if _suffix(source.names[index]) in SUFFIXES[kind]))
        if not wanted or content is None or not is_plain(data, pixels):
            data, changed = None, wanted and not gray
    encode = "png" if changed else encode  # a second JPEG of a JPEG would be another image
    return make_datum(pixels, data, source.vector(index), source.first(index), encode), changed


def _records(source: Source, order: np.ndarray, **how: Any) -> Iterator[tuple[int, tuple[bytes, bool] | PictureError]]:
    """(place, record or what is wrong with the image) in the given order, made by parallel threads."""

    def make(start: int) -> list[tuple[int, tuple[bytes, bool] | PictureError]]:
        records: list[tuple[int, tuple[bytes, bool] | PictureError]] = []
        for place in range(start, min(start + CHUNK, len(order))):
            try:
                records.append((place, _record(source, int(order[place]), **how)))
            except PictureError as error:
                records.append((place, error))
        return records

    threads = os.cpu_count() or 1
    waiting: collections.deque = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(order), CHUNK):
                waiting.append(pool.submit(make, start))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read_facts(out: Path, recipe: dict) -> dict | None:
    """What source.json says of an LMDB that was built from this recipe and is complete; else None."""
    try:
        facts = load_json(out / "source.json")
        if not fits(facts, FACTS) or facts["recipe"] != recipe:
            return None
        if (out / "data.mdb").stat().st_size != facts["bytes"]:
            return None
        with open_lmdb(str(out)) as environment:
            return facts if environment.stat()["entries"] == facts["records"] else None
    except (OSError, ValueError, lmdb.Error):
        return None


def build(
    source: Source,
    out: str | os.PathLike,
    *,
    resize: tuple[int, int] | None = None,
    gray: bool = False,
    encode: str = "raw",
    shuffle: bool = False,
    seed: int = 0,
    skip_bad: float = 0,
) -> tuple[int, int]:
    """Write the LMDB folder `out` from a source. Returns (records, images skipped as bad).

    resize: (height, width). skip_bad: how many images may be skipped because they cannot be read. Raises BadImages
    where there are more, when all have been read; LmdbError where `out` exists and was not built by this tool, where no
    image can be read, or where the disk is full. Leaves an output built from the same inputs as it is.
    """
    out = Path(out)
    recipe = {
        "inputs": source.identity,
        "classes": source.classes,
        "resize": resize and list(resize),
        "gray": gray,
        "encode": encode,
        "shuffle": shuffle,
        "seed": seed if shuffle else None,
        "upright": True,
    }
    for sentence in (*source.notes, *source.left_out.sentences(source.where(None))):
        say(sentence)
    recover(out)
    facts = _read_facts(out, recipe)
    if facts is not None and facts["skipped"] <= skip_bad:
        say(f"{out}: already there and complete ({facts['records']:,} records)")
        return facts["records"], facts["skipped"]
    if out.exists() and not (out / "source.json").exists():
        raise LmdbError(f"{out} exists and was not built by this tool (no source.json): remove it or name another")
    order = np.random.RandomState(seed).permutation(len(source)) if shuffle else np.arange(len(source))
    bad: list[tuple[str, str]] = []
    encoded_again = 0
    named = out.with_name(out.name + ".bad.txt")  # names the bad images of a build that was refused
    make_folder(out.parent)
    with replacing_folder(out) as partial, counter() as progress:
        task = progress.add_task(out.name, total=len(order))

        def records() -> Iterator[tuple[bytes, bytes]]:
            nonlocal encoded_again
            for place, record in _records(source, order, resize=resize, gray=gray, encode=encode):
                progress.advance(task)
                name = source.names[order[place]]
                if isinstance(record, PictureError):
                    bad.append((name, str(record)))
                elif len(bad) <= skip_bad:  # else the rest is only looked through for bad ones
                    encoded_again += record[1]
                    yield make_key(place, name), record[0]

        with new_lmdb(partial, out, FIRST_MAP) as environment:
            written = write_records(environment, records())
        text = "".join(f"{message}\n" for _, message in bad).encode(errors="surrogateescape")
        if len(bad) > skip_bad:
            if len(bad) > SHOWN:
                files.write_atomic(named, lambda stream: stream.write(text))
            remedy = f"\nReplace them, or leave them out: --skip-bad {len(bad)}"
            raise BadImages(describe_bad(bad, len(order), out, named) + remedy, bad)
        if not written:
            raise LmdbError(f"{out}: none of the {len(order):,} images can be read; the first: {bad[0][1]}")
        if bad:
            (partial / "skipped.txt").write_bytes(text)
        facts = {
            "recipe": recipe,
            "records": written,
            "skipped": len(bad),
            "encoded_again": encoded_again,
            "left_out": source.left_out.kinds,
            "bytes": (partial / "data.mdb").stat().st_size,
        }
        (partial / "source.json").write_text(json.dumps(facts, indent=1))
    named.unlink(missing_ok=True)
    note = f", {len(bad):,} skipped as bad (skipped.txt names them)" if bad else ""
    if encoded_again:
        note += f", {encoded_again:,} stored as PNG (not every reader sees the same image in the file's own bytes)"
    say(f"{out}: wrote {written:,} records, {facts['bytes'] / 1e6:.1f} MB{note}")
    return written, len(bad)
