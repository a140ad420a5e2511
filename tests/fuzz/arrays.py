"""Other arrays in the place of those that a file holds: of another type, shape or content, or stored in another way.

For .npy, .npz, HDF5 and MATLAB files, which stay whole: their check sums are right.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator

import h5py
import numpy as np
import scipy.io
import scipy.sparse

_TYPES = (
    "?", "b", "B", ">i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8", "<g", "<c8", "S3", "U2",
    "M8[s]", "m8[s]", [("a", "<f4"), ("b", "<i4")], "V3",
)  # fmt: skip
_VALUES = (np.nan, np.inf, -1, 0, 0.5, 2, 1e30, 2**63)
_WAYS: list[Callable[[h5py.File, str, np.ndarray], object]] = [  # in which HDF5 stores an array, and other items of it
    lambda file, name, array: file.create_dataset(name, data=array, chunks=array.shape, compression="gzip"),
    lambda file, name, array: file.create_dataset(name, data=array, chunks=array.shape, compression="lzf"),
    lambda file, name, array: file.create_dataset(name, data=array, chunks=array.shape, fletcher32=True, shuffle=True),
    lambda file, name, array: file.create_dataset(name, data=array, maxshape=(None,) * array.ndim),
    lambda file, name, array: file.create_dataset(name, shape=array.shape, dtype=array.dtype, chunks=True),
    lambda file, name, array: file.create_dataset(name, data=h5py.Empty(array.dtype)),
    lambda file, name, array: file.create_dataset(name, data="text"),
    lambda file, name, array: file.create_dataset(name, data=["a", "bc"]),
    lambda file, name, array: file.create_dataset(name, (3,), h5py.vlen_dtype(np.float32)),
    lambda file, name, array: file.create_dataset(name, (3,), h5py.ref_dtype),
    lambda file, name, array: file.create_dataset(name, (3,), h5py.enum_dtype({"a": 1})),
    lambda file, name, array: file.create_dataset(name, (3,), np.dtype(("<f4", (8,)))),
    lambda file, name, array: file.create_dataset(name, (1 << 40, 8), "<f4", chunks=(1, 8)),
    lambda file, name, array: file.create_dataset(name, array.shape, array.dtype, external=[("nowhere", 0, 1 << 20)]),
    lambda file, name, array: file.create_group(name),
    lambda file, name, array: file.__setitem__(name, np.dtype("<f4")),
    lambda file, name, array: file.__setitem__(name, h5py.SoftLink("/nowhere")),
    lambda file, name, array: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
    lambda file, name, array: file.__setitem__(name, h5py.ExternalLink("nowhere.h5", "/x")),
]


def others(content: bytes) -> Iterator[bytes]:
    """The file with one of its arrays changed; nothing where it is none that holds arrays."""
    if content.startswith(b"\x93NUMPY"):
        yield from map(_npy, _others(np.load(io.BytesIO(content))))
        yield _pickled()
    elif content.startswith(b"PK") and all(name.endswith(".npy") for name in _members(content)):
        yield from _changed(dict(np.load(io.BytesIO(content))), _npz)
        yield from _zipped(_members(content))
    elif content.startswith(b"\x89HDF"):
        yield from _changed(_datasets(content), _hdf5)
        yield from _stored_otherwise(content)
    elif content.startswith(b"MATLAB"):
        arrays = {key: value for key, value in scipy.io.loadmat(io.BytesIO(content)).items() if key[0] != "_"}
        yield from _changed(arrays, _mat)
        yield from _of_matlab(arrays)


def _others(array: np.ndarray) -> Iterator[np.ndarray]:
    """Arrays of other types, shapes, orders and values."""
    for kind in _TYPES:
        with np.errstate(all="ignore"):
            try:
                yield array.astype(kind)
            except (ValueError, TypeError):
                yield np.zeros(array.shape, kind)
    shape = array.shape
    for new in ((), (0,), (1,), (0, *shape[1:]), (*shape[:-1], 0), (*shape, 1), (1, *shape), shape[::-1], shape[1:],
                (array.size,), (1,) * 33):  # fmt: skip
        yield np.resize(array, new) if 0 not in new else np.zeros(new, array.dtype)
    yield np.asfortranarray(array)
    yield from (np.concatenate([array, array]), array[1:], array[::-1]) if array.ndim else ()
    for value in _VALUES:
        for places in (slice(None), slice(-1, None), slice(0, 1)):
            changed = array.copy()
            with np.errstate(all="ignore"):
                try:
                    changed.reshape(-1)[places] = value
                except (OverflowError, ValueError, TypeError):
                    continue
            yield changed


def _changed(arrays: dict[str, np.ndarray], write: Callable[[dict], bytes]) -> Iterator[bytes]:
    """The files that lack one of the arrays, have it under another name or twice, or have another in its place."""
    for name, array in arrays.items():
        rest = {key: value for key, value in arrays.items() if key != name}
        yield write(rest)
        yield write({**rest, f"{name}2": array})
        yield write({**arrays, f"{name}2": array})
        for new in _others(np.asarray(array)):
            try:
                yield write({**arrays, name: new})
            except (TypeError, ValueError, NotImplementedError, OverflowError):  # what the format has no type for
                continue


def _datasets(content: bytes) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(note)
    return found


def _stored_otherwise(content: bytes) -> Iterator[bytes]:
    """The HDF5 file with one of its items stored in another way, or of a kind that only HDF5 has."""
    names: list[str] = []
    with h5py.File(io.BytesIO(content), "r") as file:
        file.visit(names.append)
    for name in names:
        for way in _WAYS:
            stream = io.BytesIO(content)
            with h5py.File(stream, "a") as file:
                item = file[name]
                array = item[()] if isinstance(item, h5py.Dataset) else np.zeros((2, 3), np.float32)
                del file[name]
                try:
                    way(file, name, np.asarray(array))
                except (ValueError, TypeError, OSError):  # a scalar has no chunks
                    continue
            yield stream.getvalue()


def _of_matlab(arrays: dict) -> Iterator[bytes]:
    """MATLAB's files with cells, structures, sparse, complex or text in the place of an array; version 4."""
    for name, array in arrays.items():
        cell = np.empty((1, 2), object)
        cell[0, 0], cell[0, 1] = array, "x"
        for new in (cell, {"a": array}, scipy.sparse.csc_matrix(array), array + 1j, "text", ["a", "bc"]):
            yield _mat({**arrays, name: new})
    stream = io.BytesIO()
    scipy.io.savemat(stream, {name: array.astype(float) for name, array in arrays.items()}, format="4")
    yield stream.getvalue()


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(members: dict[str, bytes]) -> Iterator[bytes]:
    """An .npz packed by other methods, with a folder in it, a member twice, one of text, one of objects."""
    first = next(iter(members))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED):
        yield _archive([*members.items()], method)
    for more in (("folder/", b""), (first, members[first]), ("x", b""), ("x.npy", b"text"), (first, _pickled()),
                 ("x.npy", _pickled()), ("../x.npy", members[first]), ("", b"")):  # fmt: skip
        yield _archive([*members.items(), more])
        yield _archive([more, *[*members.items()][1:]])


def _archive(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([None, {}], object), allow_pickle=True)
    return stream.getvalue()


def _npz(arrays: dict) -> bytes:
    return _archive([(f"{name}.npy", _npy(array)) for name, array in arrays.items()])


def _hdf5(arrays: dict) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


def _mat(arrays: dict) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays)
    return stream.getvalue()
