"""Arrays of numbers in the files that codes and labels are kept in: .npz, .npy, .mat, .h5, .txt, .csv.

The content tells what a file is, not its name. Nothing in a file is executed: no pickle, no MATLAB object. Shapes and
types are read first, so that an array that cannot be used is refused before memory is allocated for it.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from array import array as number_array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from dhn.codes import matlab_tags
from dhn.zip_files import check_directory

HDF5 = b"\x89HDF\r\n\x1a\n"
MATLAB = b"MATLAB "  # of versions 5 and 7.3, followed by the version
VARIABLES = "name one with FILE:VARIABLE"
MATLAB_TYPES = {"double": "f8", "single": "f4", "logical": "?"} | {
    f"{sign}int{bits}": f"{sign[:1] or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


class CodesError(ValueError):
    """A file of codes or labels that is missing, damaged, or does not hold what it should. One sentence."""


@dataclass(frozen=True)
class ArrayFile:
    """A file and the arrays in it.

    path; form: npz, npy, mat, hdf5 or text. shapes: of each array by name; a single array without a name has "".
    types: the dtype of each, or in words what it is instead of an array of numbers. load: name -> ndarray.
    """

    path: str
    form: str
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, np.dtype | str]
    load: Callable[[str], np.ndarray]

    @property
    def listed(self) -> str:
        """The names of its arrays, for a sentence; what a terminal would obey, in a damaged file, as escapes."""
        return ", ".join(name if name.isprintable() else ascii(name[:40]) for name in self.shapes) or "none"

    def name(self, wanted: str, variable: str | None = None) -> str:
        """The name of the array to read: `variable` if one is named, else the only one, else `wanted`."""
        names = list(self.shapes)
        if variable is not None:
            if variable not in names:
                raise CodesError(f"{self.path}: expected the array {variable}, found {self.listed}")
            return variable
        if len(names) == 1:
            return names[0]
        if wanted not in names:
            raise CodesError(f"{self.path}: expected the array {wanted}, found {self.listed}; {VARIABLES}")
        return wanted

    def check(self, name: str, what: str) -> None:
        """Raise CodesError unless the array of that name can be `what`: numbers, one or two axes, not too many."""
        kind, shape = self.types[name], self.shapes[name]
        words = kind if isinstance(kind, str) else _no_numbers(kind)
        if words:
            raise CodesError(f"{self.path}: expected {what} to be an array of numbers, found {words}")
        if not 1 <= len(shape) <= 2 or 0 in shape:
            raise CodesError(f"{self.path}: expected {what} to be rows by columns, at least one of each; found {shape}")
        size, memory = np.dtype(kind).itemsize * shape[0] * (shape[1:] or (1,))[0], _memory()
        if size > memory:
            raise CodesError(
                f"{self.path}: {what} {shape} would take {size / 1e9:,.0f} GB, this machine has {memory / 1e9:,.0f}: "
                "is the file damaged?"
            )

    def word(self, name: str) -> str:
        """The array of that name, a single text. Raises CodesError."""
        with _reading(self.path, self.form):
            kind = self.types[name]
            if isinstance(kind, str) or kind.kind != "U" or self.shapes[name] != ():
                raise CodesError(f"{self.path}: expected {name} to be one text, found {kind} {self.shapes[name]}")
            return str(self.load(name))

    def read(self, name: str, what: str) -> np.ndarray:
        """The array of that name (N,) or (N, M), of numbers. Raises CodesError."""
        self.check(name, what)
        with _reading(self.path, self.form):
            values = self.load(name)
        words = _no_numbers(values.dtype)
        if words:
            raise CodesError(f"{self.path}: expected {what} to be an array of numbers, found {words}")
        return values


def split(reference: str | os.PathLike) -> tuple[str, str | None]:
    """FILE:VARIABLE as (FILE, VARIABLE), FILE as (FILE, None). A file of the entire name comes first."""
    text = os.fspath(reference)
    path, colon, variable = text.rpartition(":")
    if not colon or not path or not variable or _exists(text) or not _exists(path):
        return text, None
    return path, variable


def open_arrays(path: str | os.PathLike) -> ArrayFile:
    """What arrays a file holds. Raises CodesError."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            head = stream.read(520)
    except ValueError:
        raise CodesError(f"{path!r}: cannot be read (a file's name holds no NUL)") from None
    except OSError as error:
        raise CodesError(f"{path}: cannot be read ({error.strerror or error})") from None
    form = _form(head, Path(path).suffix.lower())
    if form is None:
        raise CodesError(f"{path}: expected .npz, .npy, .mat, .h5 or a text of numbers, found {_describe(head)}")
    with _reading(path, form):
        return {"npz": _npz, "npy": _npy, "mat": _mat, "hdf5": _hdf5, "text": _text}[form](path)


def _form(head: bytes, suffix: str) -> str | None:
    """What a file is, by its first bytes; where these say nothing, by its suffix. None: nothing that is read here."""
    if head.startswith(b"PK"):
        return "npz"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(HDF5) or head[512:].startswith(HDF5):
        return "hdf5"
    if head.startswith(MATLAB) or suffix == ".mat":
        return "mat"
    if suffix in (".npz", ".npy"):
        return suffix[1:]
    if suffix in (".h5", ".hdf5"):
        return "hdf5"
    return None if b"\0" in head or head.startswith(b"\x80") else "text"


def _describe(head: bytes) -> str:
    return "Python objects (a pickle), which are not loaded here" if head.startswith(b"\x80") else "none of these"


@contextmanager
def _reading(path: str, form: str) -> Iterator[None]:
    """Turn what the readers raise into a CodesError. Their own texts are left out: some advise unsafe loading."""
    try:
        yield
    except CodesError:
        raise
    except MemoryError:
        raise CodesError(f"{path}: does not fit in memory") from None
    except Exception as error:  # of a damaged file the readers raise nearly everything: struct.error, TypeError, ...
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        kind = {"npz": "an .npz", "npy": "an .npy", "mat": "a .mat", "hdf5": "an HDF5", "text": "a text"}[form]
        raise CodesError(f"{path}: is not {kind} file, or not a complete one{reason}; write it again") from None


def _npz(path: str) -> ArrayFile:
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, np.dtype | str] = {}
    with zipfile.ZipFile(path) as archive:
        check_directory(archive)
        members = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}
        for name, info in members.items():
            with archive.open(info) as stream:
                shapes[name], types[name] = _npy_header(stream, info.file_size)

    def load(name: str) -> np.ndarray:
        with zipfile.ZipFile(path) as archive, archive.open(members[name]) as stream:
            values = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read()  # to the end, where the checksum is compared
            return values

    return ArrayFile(path, "npz", shapes, types, load)


def _npy(path: str) -> ArrayFile:
    with open(path, "rb") as stream:
        shape, kind = _npy_header(stream, os.path.getsize(path))

    def load(name: str) -> np.ndarray:
        with open(path, "rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return ArrayFile(path, "npy", {"": shape}, {"": kind}, load)


def _npy_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an .npy of `size` bytes, which must be what they need."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    data = kind.itemsize
    for length in shape:
        data *= length
    if not kind.hasobject and stream.tell() + data != size:
        raise ValueError("the size is not that of the array")
    return shape, kind


def _mat(path: str) -> ArrayFile:
    """MATLAB up to version 7.2."""
    import scipy.io  # slow to import, rarely needed

    def quiet(function: Callable, *arguments: str, **more: object) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(path, *arguments, appendmat=False, **more)

    entries = quiet(scipy.io.whosmat)
    shapes = {name: tuple(shape) for name, shape, _ in entries}
    types = {name: _matlab_type(kind) for name, _, kind in entries}

    def load(name: str) -> np.ndarray:
        matlab_tags.check(path)
        return quiet(scipy.io.loadmat, variable_names=[name])[name]

    return ArrayFile(path, "mat", shapes, types, load)


def _hdf5(path: str) -> ArrayFile:
    """HDF5, and MATLAB from version 7.3 on, whose arrays stand there with their axes reversed."""
    import h5py

    shapes, types = {}, {}
    with open(path, "rb") as stream:
        reverse = stream.read(len(MATLAB)) == MATLAB

    def note(name: str, entry: h5py.Dataset | h5py.Group) -> None:
        kind = entry.attrs.get("MATLAB_class")
        is_array = isinstance(entry, h5py.Dataset)
        if name.startswith("#") or not (is_array or kind is not None):
            return
        shape = (entry.shape or ()) if is_array else ()
        shapes[name] = (0, 0) if "MATLAB_empty" in entry.attrs else shape[::-1] if reverse else shape
        if kind is None:
            types[name] = entry.dtype
        else:
            kind = kind.decode() if isinstance(kind, bytes) else str(kind)
            types[name] = _matlab_type("sparse" if "MATLAB_sparse" in entry.attrs else kind)
            if is_array and not isinstance(types[name], str) and entry.dtype.kind == "V":
                types[name] = entry.dtype

    with h5py.File(path, "r") as file:
        file.visititems(note)

    def load(name: str) -> np.ndarray:
        with h5py.File(path, "r") as file:
            values = file[name][()]
        return values.T if reverse else values

    return ArrayFile(path, "hdf5", shapes, types, load)


def _text(path: str) -> ArrayFile:
    """Numbers separated by blanks, tabs or commas, a row a line; empty lines and lines from # on are skipped."""
    values, columns = number_array("d"), 0
    with open(path, "rb") as stream:
        for line, text in enumerate(stream, 1):
            text = text.removeprefix(b"\xef\xbb\xbf").strip() if line == 1 else text.strip()
            if not text or text.startswith(b"#"):
                continue
            fields = text.split(b",") if b"," in text else text.split()
            try:
                if b"_" in text:  # Python reads 1_0 as 10
                    raise ValueError
                values.extend(map(float, fields))
            except ValueError:
                field = next(field for field in fields if b"_" in field or not _is_number(field))
                content = repr(field[:40].decode(errors="replace").strip()) if field.strip() else "an empty field"
                raise CodesError(
                    f"{path}:{line}: expected numbers separated by blanks, tabs or commas; found {content}"
                ) from None
            columns = columns or len(fields)
            if len(fields) != columns:
                raise CodesError(f"{path}:{line}: expected {columns} numbers as in the first row, found {len(fields)}")
    if not values:
        raise CodesError(f"{path}: expected numbers, found none")
    rows = np.frombuffer(values).reshape(-1, columns)
    return ArrayFile(path, "text", {"": rows.shape}, {"": rows.dtype}, lambda name: rows)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _matlab_type(kind: str) -> np.dtype | str:
    """The dtype of a MATLAB class, or what it is in words."""
    if kind in MATLAB_TYPES:
        return np.dtype(MATLAB_TYPES[kind])
    remedy = "; save full(...) of it" if kind == "sparse" else ""
    return f"a MATLAB {kind}{' matrix' if kind == 'sparse' else ''}{remedy}"


def _no_numbers(kind: np.dtype) -> str:
    """What an array of that dtype holds if it is not real numbers; "" if it is."""
    if kind.kind in "biuf":
        return ""
    words = {"O": "Python objects, which are not loaded here", "U": "text", "S": "text", "c": "complex numbers"}
    return words.get(kind.kind, "records") + f" ({kind})" * (kind.kind in "cV")


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a NUL in the path
        return False


def _memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
