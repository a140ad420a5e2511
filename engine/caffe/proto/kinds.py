"""What kind of file a path holds, told by its content, so that one given in the wrong place is answered with the right
one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

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


class _Form(NamedTuple):
    """What tells a binary message of one kind: the fields that BVLC Caffe defines for it, by number."""

    allowed: dict[int, set[int]]  # number of a field: the wire types that it may have
    required: tuple[set[int], ...]  # sets of numbers: all of one of the sets must occur


_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types; repeated numbers may be packed, as bytes
_MESSAGES = {
    "a caffemodel": _Form(  # NetParameter
        allowed={
            1: {_BYTES},  # name
            2: {_BYTES},  # layers, of V1
            3: {_BYTES},  # input
            4: {_VARINT, _BYTES},  # input_dim
            5: {_VARINT},  # force_backward
            6: {_BYTES},  # state
            7: {_VARINT},  # debug_info
            8: {_BYTES},  # input_shape
            100: {_BYTES},  # layer
        },
        required=({100}, {1, 2}),
    ),
    "a mean image (binaryproto)": _Form(  # BlobProto
        allowed={
            1: {_VARINT},  # num
            2: {_VARINT},  # channels
            3: {_VARINT},  # height
            4: {_VARINT},  # width
            5: {_BYTES, _FOUR_BYTES},  # data
            6: {_BYTES, _FOUR_BYTES},  # diff
            7: {_BYTES},  # shape
            8: {_BYTES, _EIGHT_BYTES},  # double_data
            9: {_BYTES, _EIGHT_BYTES},  # double_diff
        },
        required=({1, 5}, {1, 8}, {7, 5}, {7, 8}),
    ),
    "a solverstate": _Form(  # SolverState
        allowed={
            1: {_VARINT},  # iter
            2: {_BYTES},  # learned_net
            3: {_BYTES},  # history
            4: {_VARINT},  # current_step
        },
        required=({1},),
    ),
}


def kind(path: str | Path, *wanted: str) -> str | None:
    """What `path` holds, a key of PLACES, or None where it cannot be told (or cannot be read).

    Where a binary message fits several kinds it is one of those wanted.
    """
    path = Path(byte_strings.path(path))
    if path.is_dir():
        databases = [
            name for name, file in (("an LMDB", "data.mdb"), ("a LevelDB", "CURRENT")) if (path / file).is_file()
        ]
        return databases[0] if databases else None
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
    actual = kind(path, *wanted)
    return "" if actual is None or actual in wanted else f"found {actual}; {PLACES[actual]}"


def check(path: str | Path, *wanted: str) -> None:
    """Raise ValueError where `path` holds a kind of file other than `wanted`, naming what it is and where it goes."""
    finding = misplaced(path, *wanted)
    if finding:
        raise ValueError(f"{path}: expected {wanted[0]}, {finding}")


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

    try:
        with h5py.File(path, "r") as file:
            if "iter" in file and "history" in file:
                return "an HDF5 solverstate"
            return "an HDF5 caffemodel" if isinstance(file.get("data"), h5py.Group) else None
    except Exception:  # a damaged file, of which h5py raises whatever its code comes upon: its reader says so
        return None


def _text(start: bytes) -> str | None:
    """The kind of a prototxt, by the names that stand outside of braces; strings and comments hold any bytes."""
    text = start.decode("latin-1")
    text = re.sub(r"\"(\\.|[^\"\\\n])*\"|'(\\.|[^'\\\n])*'|#[^\n]*", " ", text)
    text = text.removeprefix("\xef\xbb\xbf")  # a byte order mark: a prototxt for sure, which its reader refuses
    text = re.sub(r"[\"'#][^\n]*\Z", "", text)  # a string or comment that goes on after what was read
    if not re.fullmatch(r"[\t-\r -~]*", text):
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
        fields = {(field.number, field.wire) for field in itertools.islice(wire.fields(file, size), _FIELDS)}
    except ValueError:
        return None
    fitting = [kind for kind, form in _MESSAGES.items() if _fits(fields, form)]
    return next((kind for kind in fitting if kind in wanted), fitting[0] if fitting else None)


def _fits(fields: set[tuple[int, int]], form: _Form) -> bool:
    """Whether fields (number, wire type) are those of a form; fields that it does not name may be there too."""
    if any(wire_type not in form.allowed.get(number, {wire_type}) for number, wire_type in fields):
        return False
    present = {number for number, _ in fields}
    return any(numbers <= present for numbers in form.required)
