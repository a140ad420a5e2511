"""Arrays of another type, shape or content in the place of those that a file holds: .npy, .npz, HDF5 and MATLAB files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator

import h5py
import numpy as np
import scipy.io

_TYPES = ("?", "b", "B", ">i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8", "<g", "<c8", "S3", "U2", "M8[s]",
          "m8[s]", [("a", "<f4"), ("b", "<i4")], "V3")  # fmt: skip
_VALUES = (np.nan, np.inf, -1, 0, 0.5, 2, 1e30, 2**63)


def others(content: bytes) -> Iterator[bytes]:
    """The file with one of its arrays changed; nothing where it is none that holds arrays."""
    if content.startswith(b"\x93NUMPY"):
        for array in _others(np.load(io.BytesIO(content))):
            yield _npy(array)
    elif content.startswith(b"PK") and all(name.endswith(".npy") for name in zipfile.ZipFile(io.BytesIO(content)).namelist()):
        yield from _changed(dict(np.load(io.BytesIO(content))), _npz)
    elif content.startswith(b"\x89HDF"):
        yield from _changed(_datasets(content), _hdf5)
    elif content.startswith(b"MATLAB"):
        arrays = {key: value for key, value in scipy.io.loadmat(io.BytesIO(content)).items() if key[0] != "_"}
        yield from _changed(arrays, _mat)


def _others(array: np.ndarray) -> Iterator[np.ndarray]:
    """Arrays of other types, shapes, orders and values."""
    for kind in _TYPES:
        with np.errstate(all="ignore"):
            try:
                yield array.astype(kind)
            except (ValueError, TypeError):
                yield np.zeros(array.shape, kind)
    shape = array.shape
    flat = array.reshape(-1)
    for new in ((), (0,), (1,), (0, *shape[1:]), (*shape[:-1], 0), (*shape, 1), (1, *shape), shape[::-1], shape[1:], (-1,), (1,) * 33):
        count = 1 if new == (-1,) else int(np.prod(new))
        yield flat if new == (-1,) else np.resize(array, new) if count else np.zeros(new, array.dtype)
    yield np.asfortranarray(array)
    yield from (np.concatenate([array, array]), array[1:], array[::-1]) if array.ndim else ()
    for value in _VALUES:
        for places in (slice(None), slice(-1, None), slice(0, 1)):
            new = array.copy()
            with np.errstate(all="ignore"):
                try:
                    new.reshape(-1)[places] = value
                except (OverflowError, ValueError, TypeError):
                    continue
            yield new


def _changed(arrays: dict[str, np.ndarray], write: Callable[[dict], bytes]) -> Iterator[bytes]:
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
    found = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _npz(arrays: dict) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy(array))
    return stream.getvalue()


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
