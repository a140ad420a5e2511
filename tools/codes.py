"""Codes files: an .npz with `codes` (float32 N x K, real-valued) and `labels` (uint8 N x C)."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np


class CodesError(ValueError):
    """A codes file that is missing, damaged, or not what a codes file holds."""


def load(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read codes (N, K) float32 and labels (N, C) uint8, 1 where an item carries a label.

    Codes of another float or integer type are converted, labels of another integer type or bool too.
    Raises CodesError, one sentence naming the file.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise CodesError(f"{path}: expected an .npz with the arrays codes and labels, found a single array")
        with loaded as arrays:
            missing = {"codes", "labels"} - set(arrays.files)
            if missing:
                found = ", ".join(arrays.files) or "none"
                raise CodesError(f"{path}: expected the arrays codes and labels, found {found}")
            codes, labels = arrays["codes"], arrays["labels"]
    except OSError as error:
        raise CodesError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        if isinstance(error, CodesError):
            raise
        raise CodesError(f"{path}: is not a whole .npz file ({error}); extract the codes again") from None
    for name, array, kinds in (("codes", codes, "fiu"), ("labels", labels, "iub")):
        if array.dtype.kind not in kinds or array.ndim != 2 or 0 in array.shape:
            expected = "real numbers (N, bits)" if name == "codes" else "integers (N, C), one column a label"
            raise CodesError(f"{path}: expected {name} to be {expected}, found {array.dtype} {array.shape}")
    if len(codes) != len(labels):
        raise CodesError(f"{path}: expected as many labels as codes, found {len(codes)} codes, {len(labels)} labels")
    bad = ~np.isfinite(codes).all(1)
    if bad.any():
        raise CodesError(
            f"{path}: {bad.sum()} of {len(codes)} codes are not finite, the first in row {bad.argmax()}; "
            "the training that made them diverged"
        )
    return codes.astype(np.float32, copy=False), (labels > 0).astype(np.uint8)


def save(path: str | os.PathLike, codes: np.ndarray, labels: np.ndarray) -> None:
    """Write codes (N, K) and labels (N, C) so that the file is whole or is not there."""
    arrays = {"codes": np.asarray(codes, np.float32), "labels": np.asarray(labels, np.uint8)}
    write_whole(path, lambda stream: np.savez(stream, **arrays))


def write_whole(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill `path` + ".partial", then put it in the place of `path` in one step.

    Killed half-way, it leaves `path` as it was and a .partial that the next write replaces.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
