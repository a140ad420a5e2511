"""HDF5 files opened to be read; what is damaged in one is said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe import memory_limit

if TYPE_CHECKING:
    import h5py  # imported where it is used: it takes 0.1 s, and few trainings have to do with HDF5


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[h5py.File]:
    """The open HDF5 file `path`.

    Raises:
        ValueError: it is damaged; or as it is raised within, where it names the file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise
    # h5py has no exception of its own: a damaged file raises whatever its code comes upon
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"{path}: expected {expected}, found a damaged HDF5 file ({reason}); copy or write it again"
        ) from None


def values(dataset: Any, name: str) -> np.ndarray:
    """The numbers of a dataset, float32. Raises ValueError, without the file, where it holds something else."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise ValueError(f"expected numbers in {name}")
    if not memory_limit.fits(4 * dataset.size):
        raise ValueError(f"{name} of shape {dataset.shape} takes more memory than there is")
    return np.asarray(dataset[...], np.float32)
