"""Build an LMDB of labelled images that Caffe's Data layer reads, with the whole label vector in each record.

    python tools/create_lmdb.py LIST OUT [--root DIR] [--images IMAGES.npy]   lines `path l1 ... lC` or `path label`
    python tools/create_lmdb.py FOLDER OUT                                    one folder per class
    python tools/create_lmdb.py ARRAYS.npz OUT                                arrays `images` and `labels`
    python tools/create_lmdb.py OUT --check                                   read an LMDB through and verify it

A record is a Datum: the image in `data` (raw pixels CHW, BGR; or an encoded jpg or png), the label vector in
`float_data` (one-hot for a class index), and the index of the first label in `label` (-1 for none). Its key is
`%08d_path`, the place in the list and the path, as convert_imageset writes it.

The LMDB is built in `OUT.partial` and renamed when it is whole: a build that is killed leaves nothing that could be
taken for one, and the next build clears it away. `OUT/source.json` says what it was built from; an output built
from the same inputs is left as it is.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import lmdb
import numpy as np
from image_source import BadImage, Source, SourceError, decode, from_arrays, from_folder, from_list
from progress import console, counter

BATCH_RECORDS, BATCH_BYTES = 1024, 32 << 20  # one transaction
FIRST_MAP = 4 * BATCH_BYTES  # the file takes what it holds; doubled whenever it is full
KEY_BYTES = 511  # LMDB's limit; a longer path is cut, the number in front keeps the key unique
CHUNK = 32  # images a worker thread takes at a time


class LmdbError(RuntimeError):
    """An LMDB that cannot be written, or is not what it should be."""


def _messages():
    """Caffe's messages without the rest of Caffe: `import caffe` takes two seconds, as long as 2,000 images."""
    caffe = importlib.util.find_spec("caffe")
    if caffe is None:
        raise ModuleNotFoundError("the package caffe is not installed: run `pip install -e .` in the project's folder")
    path = Path(caffe.origin).parent / "proto" / "caffe_pb2.py"
    spec = importlib.util.spec_from_file_location("caffe_messages", path)
    messages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(messages)
    return messages


Datum = _messages().Datum


def make_datum(pixels: np.ndarray, raw: bytes | None, labels: np.ndarray, first: int, encode: str) -> bytes:
    """A serialised Datum of an image, BGR (H, W, 3) or grey (H, W) uint8, and its label vector (C,).

    `encode`: raw, jpg or png; `raw` are the image file's own bytes where they may be stored as they are.
    """
    datum = Datum(label=first)
    datum.channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    datum.height, datum.width = pixels.shape[:2]
    datum.float_data.extend(labels.tolist())
    if encode == "raw":
        datum.data = pixels.tobytes() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).tobytes()
    else:
        datum.encoded = True
        datum.data = raw if raw is not None else cv2.imencode("." + encode, pixels)[1].tobytes()
    return datum.SerializeToString()


def _record(source: Source, index: int, resize: tuple[int, int] | None, gray: bool, encode: str) -> bytes:
    pixels, raw = source.read(index, gray)
    suffix = Path(source.names[index]).suffix.lower().replace("jpeg", "jpg")
    keep = raw is not None and resize is None and not gray and suffix == "." + encode
    if resize is not None and pixels.shape[:2] != tuple(resize):
        pixels = cv2.resize(pixels, (resize[1], resize[0]))  # bilinear, as convert_imageset
    return make_datum(pixels, raw if keep else None, source.vector(index), source.first(index), encode)


def _records(source: Source, order: np.ndarray, **how) -> Iterator[tuple[int, bytes | BadImage]]:
    """(place, record or what is wrong with the image) in the given order, made by parallel threads."""

    def make(start: int) -> list[tuple[int, bytes | BadImage]]:
        made: list[tuple[int, bytes | BadImage]] = []
        for place in range(start, min(start + CHUNK, len(order))):
            try:
                made.append((place, _record(source, int(order[place]), **how)))
            except BadImage as error:
                made.append((place, error))
        return made

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


def write_records(environment: lmdb.Environment, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Append (key, value) records, keys ascending, in transactions; the map doubles whenever it is full.

    Returns how many were written.
    """
    batch: list[tuple[bytes, bytes]] = []
    size = written = 0

    def commit() -> None:
        while batch:
            try:
                with environment.begin(write=True) as transaction:
                    for key, value in batch:
                        if not transaction.put(key, value, append=True):
                            raise LmdbError(f"the key {key!r} stands twice")
                return
            except lmdb.MapFullError:
                environment.set_mapsize(environment.info()["map_size"] * 2)

    for record in records:
        batch.append(record)
        size += len(record[1])
        written += 1
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
            commit()
            batch.clear()
            size = 0
    commit()
    return written


@contextlib.contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """An empty `out.partial`, held by this process alone; what a killed build left there is cleared first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LmdbError(f"{out} is being built by another process; wait for it or stop it") from None
        try:
            for left in partial.iterdir():
                left.unlink()
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def publish(partial: Path, out: Path) -> None:
    """Put the finished folder in its place; one that is there gives way only now."""
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.rename(out, old)
    os.rename(partial, out)
    handle = os.open(out.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    shutil.rmtree(old, ignore_errors=True)


def is_whole(out: Path, recipe: dict) -> bool:
    """True if `out` was built from this recipe and is complete."""
    try:
        facts = json.loads((out / "source.json").read_text())
        if facts["recipe"] != recipe or (out / "data.mdb").stat().st_size != facts["bytes"]:
            return False
        with lmdb.open(str(out), readonly=True, lock=False) as environment:
            return environment.stat()["entries"] == facts["records"]
    except (OSError, ValueError, KeyError, lmdb.Error):
        return False


def build(
    source: Source,
    out: str | os.PathLike,
    *,
    resize: tuple[int, int] | None = None,
    gray: bool = False,
    encode: str = "raw",
    shuffle: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
) -> tuple[int, int]:
    """Write the LMDB folder `out` from a source. Returns (records, images skipped as bad).

    resize: (height, width). Raises BadImage for an unreadable image unless `skip_bad`, LmdbError where `out` exists
    and was not built by this tool or where the disk is full. Leaves an output built from the same inputs as it is.
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
        "skip_bad": skip_bad,
    }
    if is_whole(out, recipe):
        facts = json.loads((out / "source.json").read_text())
        console.print(f"{out}: already there and whole ({facts['records']:,} records)")
        return facts["records"], facts["skipped"]
    if out.exists() and not (out / "source.json").exists():
        raise LmdbError(f"{out} exists and was not built by this tool (no source.json): remove it or name another")
    order = np.random.RandomState(seed).permutation(len(source)) if shuffle else np.arange(len(source))
    bad: list[str] = []
    with partial_folder(out) as partial, counter() as progress:
        task = progress.add_task(out.name, total=len(order))

        def records() -> Iterator[tuple[bytes, bytes]]:
            for place, record in _records(source, order, resize=resize, gray=gray, encode=encode):
                progress.advance(task)
                if isinstance(record, BadImage):
                    if not skip_bad:
                        raise record
                    bad.append(str(record))
                    continue
                name = source.names[order[place]]
                yield f"{place:08d}_{name}".encode(errors="surrogateescape")[:KEY_BYTES], record

        try:
            with lmdb.open(str(partial), map_size=FIRST_MAP, sync=False) as environment:
                written = write_records(environment, records())
                environment.sync(True)
        except lmdb.Error as error:
            raise LmdbError(f"{out}: cannot write the LMDB ({error}); is the disk full?") from None
        if not written:
            raise LmdbError(f"{out}: none of the {len(order)} images can be read; the first: {bad[0]}")
        if bad:
            (partial / "skipped.txt").write_text("\n".join(bad) + "\n", errors="surrogateescape")
        facts = {
            "recipe": recipe,
            "records": written,
            "skipped": len(bad),
            "bytes": (partial / "data.mdb").stat().st_size,
        }
        with open(partial / "source.json", "w") as stream:
            json.dump(facts, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        publish(partial, out)
    note = f", {len(bad):,} skipped as bad (skipped.txt names them)" if bad else ""
    console.print(f"{out}: wrote {written:,} records, {facts['bytes'] / 1e6:.1f} MB{note}")
    return written, len(bad)


def check(out: str | os.PathLike) -> dict:
    """Read an LMDB through: keys in order, each record a Datum, images decodable, label vectors of one length.

    Returns {"records", "shapes": {(C, H, W): count}, "labels": C}. Raises LmdbError naming the first record that
    is wrong, or if the number of records is not the one it was built with.
    """
    out = Path(out)
    if not (out / "data.mdb").exists():
        raise LmdbError(f"{out}: expected an LMDB (a folder with data.mdb), found none")
    shapes: collections.Counter = collections.Counter()
    length, found, last = None, 0, -1
    try:
        with (
            lmdb.open(str(out), readonly=True, lock=False) as environment,
            environment.begin() as transaction,
            counter() as progress,
        ):
            entries = environment.stat()["entries"]
            task = progress.add_task(f"check {out.name}", total=entries)
            for key, value in transaction.cursor():
                last = _check_key(out, key, last)
                shape, labels = _check_datum(f"{out}: record {key.decode(errors='replace')}", value)
                shapes[shape] += 1
                found += 1
                progress.advance(task)
                length = labels if length is None else length
                if labels != length:
                    raise LmdbError(
                        f"{out}: record {key.decode(errors='replace')}: expected {length} labels as in "
                        f"the first record, found {labels}"
                    )
    except lmdb.Error as error:
        raise LmdbError(f"{out}: not a whole LMDB ({error}); build it again") from None
    facts = json.loads((out / "source.json").read_text()) if (out / "source.json").exists() else {}
    expected = facts.get("records", entries)
    if found != expected or not expected:
        raise LmdbError(f"{out}: expected {expected or 'at least one'} records, found {found}; build it again")
    return {"records": found, "shapes": dict(shapes), "labels": length}


def _check_key(out: Path, key: bytes, last: int) -> int:
    digits, bar, _ = key.partition(b"_")
    if not bar or len(digits) < 8 or not digits.isdigit():
        raise LmdbError(f"{out}: expected keys such as 00000000_path, found {key!r}")
    if int(digits) <= last:
        raise LmdbError(f"{out}: key {key!r} follows number {last}: keys must ascend")
    return int(digits)


def _check_datum(name: str, value: bytes) -> tuple[tuple[int, int, int], int]:
    """The shape (C, H, W) and number of labels of a serialised Datum."""
    datum = Datum()
    try:
        datum.ParseFromString(value)
    except Exception as error:  # protobuf's DecodeError lives in a different module from version to version
        raise LmdbError(f"{name}: not a Datum ({error})") from None
    shape = (datum.channels, datum.height, datum.width)
    if datum.encoded:
        pixels = decode(datum.data, gray=datum.channels == 1)
        if pixels is None:
            raise LmdbError(f"{name}: its image cannot be decoded")
        found = (1 if pixels.ndim == 2 else pixels.shape[2], *pixels.shape[:2])
        if shape not in (found, (0, 0, 0)):
            raise LmdbError(f"{name}: its image is {found}, the Datum says {shape}")
        shape = found
    elif len(datum.data) != np.prod(shape) or not datum.data:
        raise LmdbError(f"{name}: expected {np.prod(shape)} bytes for an image of {shape}, found {len(datum.data)}")
    return shape, len(datum.float_data)


def open_source(path: str, root: str, images: str | None, classes: int | None) -> Source:
    """The source a command line names: a folder, an .npz file, or a list file."""
    if os.path.isdir(path):
        kind, unused = "a folder per class", {"--root": root, "--images": images, "--classes": classes}
        source = from_folder
    elif path.endswith(".npz"):
        kind, unused = "an .npz file", {"--root": root, "--images": images}
        source = from_arrays
    else:
        return from_list(path, root, images, classes)
    for option, value in unused.items():
        if value:
            raise SourceError(f"{option} does not go with {kind} ({path})")
    return source(path) if source is from_folder else source(path, classes)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build an LMDB of labelled images for Caffe, or check one.")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="SOURCE OUT, or only OUT with --check; SOURCE is a "
        "list file, a folder with a folder per class, or an .npz file (images, labels)",
    )
    parser.add_argument("--root", default="", help="folder that a list's paths start from")
    parser.add_argument("--images", help=".npy file of images; a list's paths are then its row numbers")
    parser.add_argument("--classes", type=int, help="number of classes (default: the highest class index + 1)")
    parser.add_argument("--resize", type=int, nargs=2, metavar=("H", "W"), help="resize every image to H x W")
    parser.add_argument("--gray", action="store_true", help="store one grey channel")
    parser.add_argument("--encode", choices=("jpg", "png", "raw"), default="raw", help="default: raw pixels")
    parser.add_argument("--shuffle", action="store_true", help="shuffle the order of the list")
    parser.add_argument("--seed", type=int, default=0, help="seed of --shuffle (default: 0)")
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable images out, and count them")
    parser.add_argument("--check", action="store_true", help="read OUT through and verify every record")
    options = parser.parse_args(arguments)
    if len(options.paths) > 2 or (len(options.paths) == 1 and not options.check):
        parser.error("expected SOURCE OUT, or OUT --check")
    if options.resize and min(options.resize) < 1:
        parser.error(f"--resize: expected a height and width of at least 1, found {options.resize}")
    out = options.paths[-1]
    try:
        if len(options.paths) == 2:
            source = open_source(options.paths[0], options.root, options.images, options.classes)
            build(
                source,
                out,
                resize=options.resize and tuple(options.resize),
                gray=options.gray,
                encode=options.encode,
                shuffle=options.shuffle,
                seed=options.seed,
                skip_bad=options.skip_bad,
            )
        if options.check:
            facts = check(out)
            shapes = ", ".join(f"{count:,} of {shape}" for shape, count in facts["shapes"].items())
            console.print(
                f"{out}: {facts['records']:,} records are whole; images (C, H, W): {shapes}; "
                f"{facts['labels']} labels each"
            )
    except (LmdbError, SourceError, BadImage, OSError) as error:
        print(f"create_lmdb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
