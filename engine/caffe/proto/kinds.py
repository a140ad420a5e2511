"""What kind of file a path holds, told by its content, so that one given in the wrong place is answered with the right
one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import BinaryIO

from caffe.proto import byte_strings, wire

# kind: where it belongs
PLACES = {
    "a caffemodel": "give it with -weights (in Python net.copy_from, or weights= of caffe.Net)",
    "an HDF5 caffemodel": "give it with -weights (in Python net.copy_from, or weights= of caffe.Net)",
    "a solverstate": "give it with -snapshot (in Python solver.restore)",
    "an HDF5 solverstate": "give it with -snapshot (in Python solver.restore)",
    "a mean image (binaryproto)": "give it as mean_file of transform_param",
    "a net prototxt": "give it with -model (in Python to caffe.Net; in a solver prototxt as net)",
    "a solver prototxt": "give it with -solver (in Python to caffe.get_solver)",
    "an LMDB": "give it as source of a Data layer",
    "a LevelDB": "give it as source of a Data layer",
    "a Git LFS pointer": "the file itself is elsewhere: fetch it with git lfs pull",
    "an HTML page": "a download that failed: fetch the file again",
    "a compressed file": "unpack it first",
}
# what a reader takes: the kinds
TEXTS = {"NetParameter": "a net prototxt", "SolverParameter": "a solver prototxt"}
_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"\x1f\x8b", "a compressed file"),
    (b"PK\x03\x04", "a compressed file"),
    (b"BZh", "a compressed file"),
    (b"\xfd7zXZ", "a compressed file"),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SOLVER = {"net", "train_net", "test_net", "base_lr", "lr_policy", "max_iter", "solver_mode", "snapshot_prefix"}
_NET = {"layer", "layers", "input", "input_dim", "input_shape"}
_FIELDS = 64  # of a binary message that are looked at
# kind: (the fields' numbers: wire types, sets of numbers of which one must occur)
_MESSAGES = {
    "a caffemodel": ({1: "2", 2: "2", 3: "2", 4: "02", 5: "0", 6: "2", 7: "0", 8: "2", 100: "2"}, ("100", "1 2")),
    "a mean image (binaryproto)": (
        {1: "0", 2: "0", 3: "0", 4: "0", 5: "25", 6: "25", 7: "2", 8: "21", 9: "21"},
        ("1 5", "1 8", "7 5", "7 8"),
    ),
    "a solverstate": ({1: "0", 2: "2", 3: "2", 4: "0"}, ("1",)),
}


def kind(path: str | Path, *wanted: str) -> str | None:
    """What `path` holds, a key of PLACES, or None where it cannot be told (or cannot be read).

    Where a binary message fits several kinds it is one of those wanted.
    """
    path = Path(byte_strings.path(path))
    if path.is_dir():
        found = [name for name, file in (("an LMDB", "data.mdb"), ("a LevelDB", "CURRENT")) if (path / file).is_file()]
        return found[0] if found else None
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
            file.seek(0)
            if start.startswith(_HDF5):
                return _hdf5(path)
            for words, name in _STARTS:
                if start.lower().startswith(words.lower()):
                    return name
            return _text(start) or _binary(file, path.stat().st_size, wanted)
    except OSError:
        return None


def misplaced(path: str | Path, *wanted: str) -> str:
    """`found a caffemodel; give it with -weights ...`, where `path` holds a kind other than those wanted; else ``."""
    found = kind(path, *wanted)
    return "" if found is None or found in wanted else f"found {found}; {PLACES[found]}"


def check(path: str | Path, *wanted: str) -> None:
    """Raise ValueError where `path` holds a kind of file other than `wanted`, naming what it is and where it goes."""
    found = misplaced(path, *wanted)
    if found:
        raise ValueError(f"{path}: expected {wanted[0]}, {found}")


def is_hdf5(path: str | Path) -> bool:
    """Whether `path` is a file in HDF5: its signature stands at 0, or after a block of the user's at 512, 1024, 2048,
    ... (as h5py.is_hdf5 has it; h5py takes 0.1 s to import)."""
    path, offset = Path(byte_strings.path(path)), 0
    if not path.is_file():
        return False
    with path.open("rb") as file:
        while offset < path.stat().st_size:
            file.seek(offset)
            if file.read(len(_HDF5)) == _HDF5:
                return True
            offset = 2 * offset or 512
    return False


def _hdf5(path: Path) -> str | None:
    import h5py

    with h5py.File(path, "r") as file:
        if "iter" in file and "history" in file:
            return "an HDF5 solverstate"
        return "an HDF5 caffemodel" if isinstance(file.get("data"), h5py.Group) else None


def _text(start: bytes) -> str | None:
    """The kind of a prototxt, by the names that stand outside of braces; strings and comments hold any bytes."""
    text = start.decode("latin-1")
    text = re.sub(r"\"(\\.|[^\"\\\n])*\"|'(\\.|[^'\\\n])*'|#[^\n]*", " ", text)
    text = text.removeprefix("\xef\xbb\xbf")  # a byte order mark: a prototxt for sure, which its reader refuses
    if not re.fullmatch(r"[\t-\r -~]*", text) and len(start) < 1 << 16:
        return None
    names, depth = set(), 0
    for brace, name in re.findall(r"([{}])|([A-Za-z_]\w*)", text):
        if brace:
            depth += 1 if brace == "{" else -1
        elif depth == 0:
            names.add(name)
    if names & _SOLVER:
        return "a solver prototxt"
    return "a net prototxt" if names & _NET else None


def _binary(file: BinaryIO, size: int, wanted: tuple[str, ...]) -> str | None:
    """The kind of a binary message, by the numbers and wire types of the fields that BVLC Caffe defines for it.

    Forks add fields of any number and type: they say nothing of the kind. Where several kinds fit it is one of those
    wanted.
    """
    try:
        found = {(field.number, field.wire) for field in itertools.islice(wire.fields(file, size), _FIELDS)}
    except ValueError:
        return None
    fitting = [kind for kind, (schema, marks) in _MESSAGES.items() if _fits(found, schema, marks)]
    return next((kind for kind in fitting if kind in wanted), fitting[0] if fitting else None)


def _fits(found: set[tuple[int, int]], schema: dict[int, str], marks: tuple[str, ...]) -> bool:
    """Whether each number of the schema has one of its wire types where it occurs, and the marks occur."""
    if any(number in schema and str(kind) not in schema[number] for number, kind in found):
        return False
    present = {number for number, _ in found}
    return any(all(int(number) in present for number in mark.split()) for mark in marks)
