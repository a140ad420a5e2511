"""Codes files, and the one rule for what codes and labels in a file mean.

The toolkit writes an .npz with `codes` (float32 N x K, real-valued) and `labels` (uint8 N x C). array_files.py reads
others too: FILE, FILE:VARIABLE, or codes in one file and labels in another.

Codes are signs around 0: at least 0 is +1. A file in which no code is negative says nothing by its signs, and is
refused unless it is declared what its codes are:

    sign          signs around 0 all the same
    01            bits: 0 is -1, 1 is +1; any other value is refused
    packed        bytes of 8 bits each, as numpy.packbits writes them, the highest first
    threshold=T   at least T is +1: the code minus T

Labels are read by python_layers/labels.py: label vectors of 0 and 1, class numbers where they are unambiguous or
declared (`classes`), a row of -1 where the labels of an item are unknown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from labels import DECLARED, LabelError, vectors

from dhn.codes.array_files import ArrayFile, CodesError, open_arrays, split
from dhn.files import write_atomic

MEANINGS = "sign, 01, packed or threshold=T"


@dataclass(frozen=True)
class Side:
    """Codes (N, K) float32, whose signs are the binary codes, and label vectors (N, C): uint8, or int8 if some are -1.

    are_classes: the labels were class numbers. notes: sentences on what was not read plainly.
    """

    codes: np.ndarray
    labels: np.ndarray
    are_classes: bool = False
    notes: list[str] = field(default_factory=list)


def load(
    path: str | os.PathLike, codes_are: str | None = "sign", labels_are: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, K) float32 and label vectors (N, C) of a file, as `read` gives them.

    Codes are taken as they are, being those of our own nets, unless declared otherwise or None. Raises CodesError.
    """
    side = read(path, codes_are=codes_are, labels_are=labels_are)
    return side.codes, side.labels


def read(
    path: str | os.PathLike,
    labels_path: str | os.PathLike | None = None,
    codes_are: str | None = None,
    labels_are: str | None = None,
) -> Side:
    """Codes and labels of the items of a file, or of one file each.

    path, labels_path: FILE or FILE:VARIABLE. codes_are: one of MEANINGS, None for signs of which some are negative.
    labels_are: `vectors` or `classes`, None where the array alone tells. Raises CodesError, one sentence with the file.
    """
    threshold = parse_meaning(codes_are)[1]  # a slip in it is said before anything is read
    if labels_are not in (None, *DECLARED):
        raise CodesError(f"labels are declared {' or '.join(DECLARED)}, found {labels_are!r}")
    file, name, label_file, label_name = _locate(path, labels_path)
    try:
        return _read(file, name, label_file, label_name, codes_are, threshold, labels_are)
    except MemoryError:
        paths = dict.fromkeys((file.path, label_file.path))
        raise CodesError(f"{' and '.join(paths)}: does not fit in memory") from None


def _read(
    file: ArrayFile,
    name: str,
    label_file: ArrayFile,
    label_name: str,
    codes_are: str | None,
    threshold: float,
    labels_are: str | None,
) -> Side:
    _check_shapes(file, name, label_file, label_name)
    if labels_are is None and label_file.form == "npz" and "labels_are" in label_file.shapes:
        labels_are = label_file.word("labels_are")
        if labels_are not in DECLARED:
            raise CodesError(f"{label_file.path}: labels_are: expected {' or '.join(DECLARED)}, found {labels_are!r}")
    values, labels = label_file.read(label_name, "labels"), None
    if label_file.form == "text" and values.shape[1] == 1:
        values = values[:, 0]  # a number a line is a class number
    try:
        labels, note = vectors(values, labels_are, where=f"{label_file.path}: labels")
    except LabelError as error:
        option = " with --labels" if "declare" in str(error) else ""
        raise CodesError(f"{error}{option}") from None
    codes, remark = signs(file.read(name, "codes"), codes_are, threshold, file.path)
    plain = labels if labels.min() < 0 else labels.view(np.uint8)
    return Side(codes, plain, bool(note), [text for text in (remark, note) if text])


def parse_meaning(codes_are: str | None) -> tuple[str | None, float]:
    """A declaration as (its word, T). Raises CodesError for what is none."""
    word, equals, number = (codes_are or "").partition("=")
    if codes_are is None or (word in ("sign", "01", "packed") and not equals):
        return codes_are, 0.0
    try:
        threshold = float(number) if word == "threshold" else np.nan
    except ValueError:
        threshold = np.nan
    if not np.isfinite(threshold):
        raise CodesError(f"codes are declared {MEANINGS}, found {codes_are!r}; T is a number, as in threshold=0.5")
    return word, threshold


def signs(values: np.ndarray, codes_are: str | None, threshold: float, where: str) -> tuple[np.ndarray, str]:
    """Codes (N, K) float32 whose signs are the binary codes, and a note where that is not what the file holds.

    values (N, K), packed (N, bytes): of any real type. codes_are, threshold: as of parse_meaning. Raises CodesError.
    """
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):
        bad = ~np.isfinite(values).all(1)
        raise CodesError(
            f"{where}: {bad.sum()} of {len(values)} codes are not finite, the first in row {bad.argmax()}; "
            "the training that made them diverged"
        )
    what = f"{values.dtype} {values.shape} of {low:g} to {high:g}" if values.dtype != bool else "bool"
    if codes_are is None and not low < 0:
        raise CodesError(
            f"{where}: no code is negative ({what}), so their signs say nothing{_guess(values, low, high)}; declare "
            f"what they are with --codes {MEANINGS}"
        )
    if codes_are is None and values.dtype == np.int8 and (low < -1 or high > 1):
        raise CodesError(
            f"{where}: codes {what} may be signs or packed bits; declare what they are with --codes {MEANINGS}"
        )
    word = codes_are.partition("=")[0] if codes_are else "sign"
    if word == "packed":
        return _unpack(values, low, high, what, where)
    if word == "01":
        other = (values != 0) & (values != 1)
        if other.any():
            row, bit = np.unravel_index(other.argmax(), other.shape)
            signed = "; codes of -1 and +1 need no declaration" if low == -1 else ""
            raise CodesError(
                f"{where}: expected codes of 0 and 1 as declared, found {values[row, bit]:g} in row {row}{signed}"
            )
        return values.astype(np.float32) * 2 - 1, f"{where}: codes {what}: read as bits, 0 as -1"
    if values.dtype == bool:
        raise CodesError(f"{where}: bool codes have no signs; declare them with --codes 01")
    if word == "threshold":
        # in their own precision: a code just below T must not be rounded up to it
        shifted = values - (values.dtype.type(threshold) if values.dtype.kind == "f" else threshold)
        return _to_float32(shifted, where), f"{where}: codes {what}: read as +1 from {threshold:g} on"
    return _to_float32(values, where), ""


def join(query: Side, database: Side, names: tuple[str, str]) -> tuple[Side, Side]:
    """Both sides with the same label columns: class numbers of one numbering, as many columns as the larger needs.

    names: the files, for messages. Raises CodesError where the sides do not fit each other, or no labels are known.
    """
    if query.codes.shape[1] != database.codes.shape[1]:
        raise CodesError(_mismatch(names, "bits", query.codes.shape[1], database.codes.shape[1]))
    for side, name in zip((query, database), names, strict=True):
        if (side.labels < 0).all():
            raise CodesError(f"{name}: the labels are unknown (-1) in all {len(side.labels)} rows: nothing to score")
    if query.are_classes != database.are_classes:
        classes, others = names if query.are_classes else names[::-1]
        raise CodesError(
            f"{classes} has class numbers and {others} label vectors: which column a class number means is not known; "
            "store both in one form"
        )
    widths = query.labels.shape[1], database.labels.shape[1]
    if not query.are_classes and widths[0] != widths[1]:
        raise CodesError(_mismatch(names, "label columns", *widths))
    if query.are_classes:
        (low, high), (first, last) = _class_range(query.labels), _class_range(database.labels)
        if abs(low - first) == abs(high - last) == 1 and min(low, first) == 0:
            raise CodesError(
                f"{names[0]} has classes {low} to {high} and {names[1]} {first} to {last}: one counts from 0, the "
                "other from 1; number both alike"
            )
    width = max(query.labels.shape[1], database.labels.shape[1])
    return _widened(query, width), _widened(database, width)


def _locate(path: str | os.PathLike, labels_path: str | os.PathLike | None) -> tuple[ArrayFile, str, ArrayFile, str]:
    """The file and the name in it of the codes, and of the labels."""
    path, variable = split(path)
    file = open_arrays(path)
    if labels_path is not None:
        labels_path, label_variable = split(labels_path)
        label_file = file if labels_path == path else open_arrays(labels_path)
        return file, file.name("codes", variable), label_file, label_file.name("labels", label_variable)
    remedy = "name the file of its labels with --query-labels or --database-labels"
    if variable is not None or "" in file.shapes:
        content = "a single array" if variable is None else f"{variable} alone"
        raise CodesError(f"{path}: expected the arrays codes and labels, found {content}; {remedy}")
    if not {"codes", "labels"} <= set(file.shapes):
        raise CodesError(
            f"{path}: expected the arrays codes and labels, found {file.listed}; name others as FILE:VARIABLE, the "
            "labels' with --query-labels or --database-labels"
        )
    return file, "codes", file, "labels"


def _check_shapes(file: ArrayFile, name: str, label_file: ArrayFile, label_name: str) -> None:
    """Raise CodesError unless these can be codes (N, K) and the labels of N items; nothing is read for it."""
    file.check(name, "codes")
    label_file.check(label_name, "labels")
    shape, label_shape = file.shapes[name], label_file.shapes[label_name]
    if len(shape) != 2:
        raise CodesError(f"{file.path}: expected codes (N, bits), a row an item, found {shape}; one code is (1, bits)")
    if shape[0] == label_shape[0]:
        return
    hint = ""
    if len(label_shape) == 2 and shape[1] == label_shape[1]:
        hint = "; are both transposed? A row is an item"
    elif shape[1] == label_shape[0]:
        hint = "; are the codes transposed? A row is an item"
    elif label_shape[-1] == shape[0]:
        hint = "; are the labels transposed? A row is an item"
    place = label_file.path if label_file.path == file.path else f"{label_file.path}, labels of {file.path}"
    raise CodesError(
        f"{place}: expected as many labels as codes, found {shape[0]} codes, {label_shape[0]} labels "
        f"(codes {shape}, labels {label_shape}){hint}"
    )


def _guess(values: np.ndarray, low: float, high: float) -> str:
    """What codes of which none is negative may be, as the end of a clause."""
    kind = values.dtype
    if low >= 0 and high <= 1 and ((values == 0) | (values == 1)).all():
        return ": they look like bits (01)"
    if high in (2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1) and ((values <= 1) | (values == high)).all():
        return f": {high:g} is what -1 becomes in a type without a sign, save the codes in a signed one"
    if kind == np.uint8:
        return ": they look like packed bits (packed)"
    return ": they look like outputs of a sigmoid (threshold=0.5)" if kind.kind == "f" and high <= 1 else ""


def _unpack(values: np.ndarray, low: float, high: float, what: str, where: str) -> tuple[np.ndarray, str]:
    """Packed bits (N, bytes) as codes (N, 8 * bytes), and the note."""
    packed = values.view(np.uint8) if values.dtype == np.int8 else values
    if values.dtype != np.int8 and (low < 0 or high > 255 or (values != np.floor(values)).any()):
        raise CodesError(f"{where}: expected packed bits, whole numbers from 0 to 255 as declared; found codes {what}")
    bits = np.unpackbits(packed.astype(np.uint8, copy=False), axis=1)
    return bits.astype(np.float32) * 2 - 1, f"{where}: codes {what}: read as packed bits, {bits.shape[1]} a code"


def _to_float32(values: np.ndarray, where: str) -> np.ndarray:
    """Real values as float32, each with its sign."""
    with np.errstate(over="ignore", under="ignore"):
        codes = values.astype(np.float32, copy=False)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        if not np.isfinite(codes).all():
            raise CodesError(f"{where}: codes up to {np.abs(values).max():g} are beyond the range of float32")
        lost = (codes == 0) & (values != 0)  # below the range of float32
        codes[lost] = np.copysign(np.finfo(np.float32).tiny, values[lost])
    return codes


def _mismatch(names: tuple[str, str], what: str, query: int, database: int) -> str:
    return (
        f"{names[0]} has {query} {what} and {names[1]} has {database}: extract both with the same net and from data "
        "with the same labels"
    )


def _class_range(labels: np.ndarray) -> tuple[int, int]:
    """The least and the greatest class that an item carries; (-1, -1) if none does."""
    columns = np.flatnonzero((labels == 1).any(0))
    return (int(columns[0]), int(columns[-1])) if len(columns) else (-1, -1)


def _widened(side: Side, width: int) -> Side:
    """A side with empty label columns up to `width`; rows of -1 stay so."""
    labels = side.labels
    if labels.shape[1] == width:
        return side
    wide = np.zeros((len(labels), width), labels.dtype)
    wide[:, : labels.shape[1]] = labels
    wide[(labels < 0).all(1)] = -1
    return replace(side, labels=wide)


def save(path: str | os.PathLike, codes: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Write codes (N, K) and label vectors (N, C) so that the file is complete or is not there.

    Labels are 0 and 1, or -1 throughout a row where they are unknown. names: of the images, for a reader.
    """
    arrays = arrays_of(codes, labels, names)
    write_atomic(path, lambda stream: np.savez(stream, **arrays))


def arrays_of(codes: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The arrays of a codes file by their names, from what `save` takes."""
    labels = np.asarray(labels)
    arrays: dict[str, Any] = {
        "codes": np.asarray(codes, np.float32),
        "labels": labels.astype(np.int8 if labels.min() < 0 else np.uint8),
    }
    if labels.shape[1] == 1:
        arrays["labels_are"] = np.array("vectors")  # a column of 0 and 1 alone could be class numbers too
    if names is not None:
        arrays["names"] = np.array(names, np.str_)
    return arrays
