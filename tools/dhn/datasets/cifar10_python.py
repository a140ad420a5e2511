"""CIFAR-10's Python version read without unpickling: its files are pickles, and a pickle can run any code.

A pickle is a program for a small machine. pickletools lists its instructions and carries none out. Of a batch three of
them matter: the name "labels" with the list of numbers after it, and the one string as long as the batch's pixels.
"""

from __future__ import annotations

import pickletools
import struct
from pathlib import Path

import numpy as np

from dhn.datasets.image_files import SourceError

FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
PIXELS = 3 * 32 * 32  # bytes of an image: the red, the green and the blue plane, rows first
NUMBERS = ("BININT1", "BININT", "BININT2", "INT")
WITHIN = ("EMPTY_LIST", "LIST", "MARK", "APPENDS", "APPEND", "BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE")  # of a list


def read_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, 32, 32, 3) uint8 RGB and labels (N,) uint8 of a batch. Nothing in it is carried out.

    Raises SourceError where it is not one of upstream's.
    """
    labels: list[int] = []
    pixels = [b""]
    in_labels = False
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if in_labels and opcode.name in NUMBERS and argument is not None:
                labels.append(int(argument))
            elif opcode.name not in WITHIN:
                in_labels = argument in ("labels", b"labels")
            if isinstance(argument, (str, bytes)) and len(argument) >= PIXELS:
                pixels.append(argument.encode("latin-1") if isinstance(argument, str) else argument)
    except (ValueError, LookupError, OverflowError, struct.error) as error:
        raise SourceError(f"{where}: expected a batch of CIFAR-10's Python version, found {error}") from None
    sizes = [len(each) for each in pixels[1:]]
    if not labels or sizes != [len(labels) * PIXELS] or not 0 <= min(labels) <= max(labels) < 10:
        raise SourceError(
            f"{where}: expected a batch of CIFAR-10's Python version, labels below 10, {PIXELS:,} bytes of pixels for "
            f"each; found {len(labels):,} labels and long strings of {sizes or 'no'} bytes"
        )
    images = np.frombuffer(pixels[1], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(labels, np.uint8)


def read(path: Path, files: dict[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, 32, 32, 3) and labels (N,) of the six files of an archive or folder, in the binary version's
    order."""
    batches = [read_batch(files[name], f"{path}: {name}") for name in FILES]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)
