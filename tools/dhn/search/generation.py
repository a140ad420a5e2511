"""The files of an index: index.json, and the arrays of the generation that it names.

    INDEX/
      index.json     the facts, and of each file of the generation its type, shape, size and SHA-256; `sums` are
                     kernels.checksum of words and offsets, which the first search compares
      g-000003/      a generation: .npy files that open by memmap
        words.npy           (D, W) uint64    distinct binary codes: bit k is bit k % 64 of word k // 64
        offsets.npy         (D + 1,) int64   postings[offsets[d] : offsets[d + 1]] are the rows of the items of code d
        postings.npy        (N,) int64         in the order of their keys
        places.npy          (N,) int64         the place of each row among them
        codes.npy           (N, K) float32   real-valued codes in the order of the postings: a search reads those that
                                               tie one behind the other
        labels.npy          (N, C) uint8     0 and 1; int8 with rows of -1 where some are unknown
        keys.npy            (bytes,) uint8   names of the items in UTF-8, unique;
        key_offsets.npy     (N + 1,) int64     key i is keys[key_offsets[i] : key_offsets[i + 1]]
        key_order.npy       (N,) int64       rows in the order of their keys' bytes
        key_ranks.npy       (N,) int64       the place of each row in that order
        paths.npy, path_offsets.npy          paths of the pictures as the data set lists them, as keys.npy; "": none
        sources.npy         (N,) int64       where each picture is: which of index.json's `pictures`; -1: nowhere

A writer fills a new generation and then replaces index.json in one step. Files that a reader has open stay readable
for it when they are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import atomic_writes
import numpy as np
from atomic_writes import locks
from atomic_writes.folders import replacing_folder

from dhn.files import load_json, sha256, write_json
from dhn.kinds import damage
from dhn.search import bounds
from dhn.search.items import SearchError

FORMAT = 2
FACTS = "index.json"
LOCK = ".index.json.lock"  # there while a process writes, and where one was killed
ARRAYS: dict[str, tuple[type, ...]] = {  # and their types
    "words": (np.uint64,), "offsets": (np.int64,), "postings": (np.int64,), "places": (np.int64,),
    "codes": (np.float32,), "labels": (np.uint8, np.int8), "keys": (np.uint8,), "key_offsets": (np.int64,),
    "key_order": (np.int64,), "key_ranks": (np.int64,), "paths": (np.uint8,), "path_offsets": (np.int64,),
    "sources": (np.int64,),
}  # fmt: skip
DTYPE = re.compile(r"[<>|][iuf][1248]")  # as numpy writes what an index holds
HEADER = 10 + (1 << 16) - 1  # bytes that the header of an .npy of format 1.0 has at most
NUMBER, TEXT = (float, None), (str, None)
LOCATED = {"path": str, "relative": str}  # of places.located
FILE = LOCATED | {"sha256": str}
SIDE = range(1, 1 << 16)  # pixels
PREPARED = {
    "resize?": (SIDE, [SIDE, SIDE]), "gray?": bool, "upright?": bool, "mean_value?": (float, [float]),
    "mean_file?": str, "scale?": float,
}  # fmt: skip
SCORE = {
    "protocol": str, "R": (int, str), "map": NUMBER, "map_expected": NUMBER, "map_low": NUMBER, "map_high": NUMBER,
    "caveats": [str],
}  # fmt: skip
NET = {
    "blob": str, "prepared": PREPARED, "size?": ([SIDE, SIDE], None), "model": FILE, "weights": FILE,
    "mean_file?": FILE,
}  # fmt: skip
ABOUT = {  # what an index is of, wherever it is kept
    "bits": int, "report?": LOCATED, "label_names?": ([str], None), "dataset?": TEXT, "variant?": TEXT,
    "split?": ({"split?": TEXT, "form?": TEXT}, None), "score?": (SCORE, None), "net?": (NET, None),
}  # fmt: skip
KINDS = ABOUT | {  # of index.json
    "count": int, "distinct": int, "sums": {"words": object, "offsets": object},
    "files": {str: {"dtype": str, "shape": [int], "offset": int, "bytes": int, "sha256": str}},
    "pictures": [LOCATED | {"kind": str, "prefix": str}],
}  # fmt: skip


def read_facts(folder: Path) -> dict:
    """index.json of an index. Raises SearchError where there is none, it is damaged, or of another format."""
    path = folder / FACTS
    try:
        facts = load_json(path)
    except FileNotFoundError:
        found = "no such folder" if not folder.exists() else "no index.json in it"
        raise SearchError(f"{folder}: expected an index, found {found}; build it with build_index") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise SearchError(f"{path}: cannot be read ({reason}); build the index again") from None
    version = facts.get("format") if isinstance(facts, dict) else None
    if version != FORMAT:
        raise SearchError(f"{path}: expected an index of format {FORMAT}, found {version}; build it again")
    files = facts.get("files")
    names = {f"{name}.npy" for name in ARRAYS}
    if not isinstance(files, dict) or set(files) != names or not _is_generation(facts.get("generation")):
        raise SearchError(f"{path}: does not name the files of an index; build it again")
    if wrong := damage(facts, KINDS):
        raise SearchError(f"{path}: is damaged: {wrong}; build the index again")
    if min(facts[name] for name in ("count", "distinct", "bits")) < 0:
        raise SearchError(f"{path}: is damaged: a count below 0; build the index again")
    return facts


def _is_generation(name: object) -> bool:
    """True for the name of a generation's folder."""
    return isinstance(name, str) and name.startswith("g-") and name[2:].isdigit()


def open_arrays(folder: Path, facts: dict) -> dict[str, np.ndarray]:
    """The arrays of the generation that index.json names, by memmap; what the files hold is not looked at.

    Raises FileNotFoundError for one that is not there, SearchError for one that is not as index.json says.
    """
    count, distinct, bits = (facts[name] for name in ("count", "distinct", "bits"))
    expected = {
        "words": (distinct, -(-bits // 64)), "offsets": (distinct + 1,), "postings": (count,), "places": (count,),
        "codes": (count, bits), "labels": (count, None), "keys": (None,), "key_offsets": (count + 1,),
        "key_order": (count,), "key_ranks": (count,), "paths": (None,), "path_offsets": (count + 1,),
        "sources": (count,),
    }  # fmt: skip
    arrays = {}
    for name, kinds in ARRAYS.items():
        path = folder / facts["generation"] / f"{name}.npy"
        entry = facts["files"][path.name]
        arrays[name] = _map(path, entry)
        shape = arrays[name].shape
        fits = len(shape) == len(expected[name])
        fits = fits and all(size in (None, found) for size, found in zip(expected[name], shape, strict=True))
        if not fits or arrays[name].dtype not in kinds:
            raise SearchError(
                f"{path}: expected {np.dtype(kinds[0])} {expected[name]} as index.json says, found "
                f"{arrays[name].dtype} {shape}; build the index again"
            )
    bounds.check(folder / facts["generation"], arrays, len(facts["pictures"]))
    return arrays


def _map(path: Path, entry: dict) -> np.ndarray:
    """The array of an .npy file by memmap, by what index.json says of it; its header must say the same.

    Not by numpy.load: it parses the header by Python's compiler, which Python 3.11 cannot do in two threads at a time.
    """
    shape, offset, expected = tuple(entry["shape"]), entry["offset"], entry["bytes"]
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        header = stream.read(min(max(offset, 0), HEADER))
    kind = np.dtype(entry["dtype"]) if DTYPE.fullmatch(entry["dtype"]) else None  # numpy reads whole lists of types
    if kind is None or min(*shape, offset, expected) < 0 or expected != offset + kind.itemsize * math.prod(shape):
        raise SearchError(f"{path.parents[1] / FACTS}: does not say what {path.name} is; build the index again")
    if size != expected:
        raise SearchError(f"{path}: expected {expected:,} bytes, found {size:,}; build the index again")
    described = f"{{'descr': {entry['dtype']!r}, 'fortran_order': False, 'shape': {shape}, }}"  # as numpy writes it
    if described.encode() not in header:
        raise SearchError(f"{path}: expected an array of {kind} {shape}, as {FACTS} says, found another header; build "
                          "the index again")  # fmt: skip
    if 0 in shape:  # nothing to map
        array = np.empty(shape, kind)
        array.flags.writeable = False
        return array
    return np.asarray(np.memmap(path, kind, "r", offset, shape))


def verify(folder: Path, facts: dict) -> None:
    """Raise SearchError, naming the file, where one is not what was written; FileNotFoundError where one is missing."""
    for name, entry in facts["files"].items():
        path = folder / facts["generation"] / name
        found, expected = sha256(path), entry["sha256"]
        if found != expected:
            raise SearchError(
                f"{path}: is damaged (its SHA-256 is {found[:12]}..., index.json says {expected[:12]}...); "
                "build the index again"
            )


class _NotCommittedError(Exception):
    """A generation that was not committed."""


class Writer:
    """A generation that is being written into the folder `path`, under a name that nothing reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, dict] = {}
        self.facts: dict | None = None

    def write(self, name: str, shape: tuple[int, ...], chunks: Iterable[np.ndarray]) -> np.ndarray:
        """Write an array of ARRAYS, chunks of its rows one behind the other; returns it, opened by memmap."""
        path, digest = self.path / f"{name}.npy", hashlib.sha256()
        chunks = iter(chunks)
        first = next(chunks)
        with atomic_writes.naming(path), open(path, "wb") as stream:
            kind = np.lib.format.dtype_to_descr(first.dtype)
            np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
            offset = stream.tell()
            stream.flush()
            digest.update(path.read_bytes())
            for chunk in itertools.chain([first], chunks):
                data = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
                digest.update(data)
                stream.write(data)
            size = stream.tell()
        entry = {"dtype": kind, "shape": list(shape), "offset": offset, "bytes": size, "sha256": digest.hexdigest()}
        self.files[path.name] = entry
        return _map(path, entry)

    def commit(self, facts: dict) -> None:
        """The generation is complete, and these are its facts."""
        missing = {f"{name}.npy" for name in ARRAYS} - set(self.files)
        assert not missing, missing
        self.facts = {**facts, "format": FORMAT, "files": self.files}


@contextlib.contextmanager
def holding(folder: Path, output: Path) -> Iterator[None]:
    """Hold the lock of a part of an index. Raises SearchError, naming the holder, where another process does."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.hold(output))
        except locks.HeldError as error:
            raise SearchError(f"{folder}: is being written by {error.holder}; wait for it or stop it") from None
        yield


@contextlib.contextmanager
def writer(folder: Path) -> Iterator[Writer]:
    """Hold an index to write a generation of it; in the end index.json names it, and the others are removed.

    The folder is created where there is none. A generation that was not committed is removed. Raises SearchError,
    naming the holder, where another process writes.
    """
    atomic_writes.make_folder(folder)
    with holding(folder, folder / FACTS):
        numbers = [int(path.name[2:]) for path in folder.glob("g-*") if _is_generation(path.name)]
        name = f"g-{max(numbers, default=0) + 1:06d}"
        with contextlib.suppress(_NotCommittedError), replacing_folder(folder / name) as partial:
            generation = Writer(partial)
            yield generation
            if generation.facts is None:
                raise _NotCommittedError
        if generation.facts is None:
            return
        write_json(folder / FACTS, {**generation.facts, "generation": name})
        for other in folder.glob("g-*"):
            if other.name != name:
                shutil.rmtree(other)
