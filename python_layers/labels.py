"""What labels mean: the one rule that the losses, the data layers and the tools read labels by.

- Label vectors (N, C): entries 0 or 1, 1 where an image carries the label; a row of -1 throughout: labels unknown.
- Class numbers (N,): whole numbers from 0; -1: class unknown. A vector of labels has two axes, so (N,) is never one.
- A column (N, 1) that holds a value other than 0, 1 and -1 is class numbers too. One that holds only these can mean
  either, and is refused unless it is declared.
- The number of classes is declared, or the largest class number + 1.

bool and float arrays with exactly these values count as whole numbers. Everything else is refused by row and value.
Numpy only, 1.19 and later: these files also run inside BVLC Caffe.
"""

from __future__ import annotations

import numpy as np

DECLARED = ("vectors", "classes")
MAX_CLASSES = 100_000  # more must be declared: a number of this size is an image's id or a slip rather than a class
MAX_CELLS = 1 << 32  # entries of the label vectors, 1 byte each


class LabelError(ValueError):
    """Labels that do not say what they mean. Names the row, what was expected, what was found, and the remedy."""


def vectors(array, declared: str | None = None, classes: int | None = None, where="labels") -> tuple[np.ndarray, str]:
    """Labels as label vectors, int8 (N, C) of 0 and 1 with rows of -1 where unknown, and a note on how they were read.

    array: label vectors (N, C) or class numbers (N,) or (N, 1). declared: `vectors` or `classes` where the array alone
    does not tell. classes: C. where: what the labels are of, for messages; or a function of the row, None for all rows.
    The note is empty for label vectors, else a sentence for the user. Raises LabelError.
    """
    if declared not in (None, *DECLARED):
        raise ValueError(f"declared must be None, {' or '.join(DECLARED)}; found {declared!r}")
    values, kind = _whole_numbers(array, where)
    if values.ndim not in (1, 2) or not values.size:
        raise LabelError(
            f"{_place(where)}: expected label vectors (N, C) or class numbers (N,) or (N, 1), at least "
            f"one row; found shape {values.shape}"
        )
    if _are_classes(values, kind, declared, classes, where):
        numbers, count = class_numbers(array, classes, where)
        table = np.zeros((len(numbers), count), np.int8)
        known = np.flatnonzero(numbers >= 0)
        table[known, numbers[known]] = 1
        table[numbers < 0] = -1
        span = f"{numbers[known].min()} to {numbers[known].max()} " if len(known) else ""
        unknown = f", {len(numbers) - len(known)} rows unknown (-1)" if len(known) < len(numbers) else ""
        note = (
            f"{_place(where)} {values.shape}: read as class numbers {span}of {count} class{'es' * (count > 1)}{unknown}"
        )
        return table, note
    if classes not in (None, values.shape[1]):
        raise LabelError(f"{_place(where)}: expected label vectors of {classes} labels, found {values.shape[1]}")
    _check_vectors(values, kind, where)
    return values.astype(np.int8), ""


def class_numbers(array, classes: int | None = None, where="labels") -> tuple[np.ndarray, int]:
    """Class numbers (N,) or (N, 1) as int64 (N,), -1 where unknown, and the number of classes. Raises LabelError."""
    values, kind = _whole_numbers(array, where)
    values = values.reshape(-1)
    largest, row = int(values.max()), int(values.argmax())
    if classes is None:
        if kind.kind == "u" and largest == np.iinfo(kind).max:
            raise LabelError(
                f"{_place(where, row)}: found class number {largest}, which is what -1 becomes in {kind}; "
                f"store unknown classes as -1 in a signed type, or say that there are {largest + 1} "
                f"classes"
            )
        if largest >= MAX_CLASSES:
            raise LabelError(
                f"{_place(where, row)}: found class number {largest}; above {MAX_CLASSES - 1} the number "
                f"of classes must be declared. Is it an image's id?"
            )
    numbers = values.astype(np.int64)
    count = max(largest + 1, 1) if classes is None else classes
    wrong = np.flatnonzero((numbers < -1) | (numbers >= count))
    if len(wrong):
        raise LabelError(_out_of_range(int(numbers[wrong[0]]), count, _place(where, int(wrong[0]))))
    if len(numbers) * count > MAX_CELLS:
        raise LabelError(
            f"{_place(where)}: {len(numbers)} rows of {count} classes need {len(numbers) * count >> 30} "
            f"GiB as label vectors, expected at most {MAX_CELLS >> 30}; number the classes without gaps"
        )
    return numbers, count


def one_hot(number: int, classes: int, where: str) -> np.ndarray:
    """The label vector float32 (classes,) of a class number; of -1 (unknown), -1 throughout. Raises LabelError."""
    if not -1 <= number < classes:
        raise LabelError(_out_of_range(number, classes, where))
    vector = np.full(classes, -1 if number == -1 else 0, np.float32)
    if number >= 0:
        vector[number] = 1
    return vector


def batch_shape(shape: tuple, layer: str, declared: str | None = None) -> tuple:
    """The shape of a loss layer's labels without the axes of 1 that 4-axis blobs have: (B, C), or (B,) or (B, 1).

    shape: that of bottom[1]: (B, C), (B, C, 1, 1) or (B, 1, 1, C). declared: the layer's key `labels`. Raises
    LabelError where it is not label vectors, or not what is declared; the message begins with `layer`.
    """
    axes = shape[:2] if len(shape) <= 2 else (shape[0], *[size for size in shape[1:] if size != 1])
    axes = axes if len(axes) > 1 or len(shape) == 1 else (*axes, 1)
    finding = f"found {_shape_text(shape)} in bottom[1]"
    if len(axes) > 2 or len(shape) == 0:
        raise LabelError(f"{layer}: expected label vectors (B, C) in bottom[1], {finding}")
    if declared == "classes":
        if len(axes) == 2 and axes[1] != 1:
            raise LabelError(
                f'{layer}: expected class numbers (B,) or (B, 1), as "labels": "classes" says; '
                f"{finding}; remove the key for label vectors"
            )
    elif len(axes) == 1 or (axes[1] == 1 and declared is None):
        what = "class numbers (B,)" if len(axes) == 1 else "one value an image"
        vectors_key = "" if len(axes) == 1 else ', {"labels": "vectors"} for label vectors of one label'
        raise LabelError(
            f"{layer}: expected label vectors (B, C) in bottom[1], found {what}: {_shape_text(shape)}. "
            f'Write param_str: \'{{"labels": "classes"}}\' to compare class numbers{vectors_key}, or '
            f"take label vectors from MultiLabelDataLayer (multilabel_data.py)"
        )
    return axes


def check_batch(labels: np.ndarray, layer: str, declared: str | None = None) -> np.ndarray:
    """The labels of a loss layer's batch as label vectors (B, C), in the dtype of the blob.

    labels: bottom[1].data; see `batch_shape` for its shape. declared: the layer's key `labels`: None, `vectors`, or
    `classes`, where each class of the batch becomes a column. Raises LabelError, which begins with `layer` and names
    the row, for entries other than 0 and 1 in a row that is not -1 throughout.
    """
    axes = batch_shape(labels.shape, layer, declared)
    values, where = labels.reshape(axes), f"{layer}: bottom[1]"
    if declared != "classes":
        _check_vectors(values, values.dtype, where)
        return values
    numbers = _whole_numbers(values, where)[0].reshape(-1)
    if (numbers < -1).any():
        row = int(np.flatnonzero(numbers < -1)[0])
        raise LabelError(
            f"{where}, row {row}: expected a class number from 0, or -1 for unknown; found {int(numbers[row])}"
        )
    present = np.unique(numbers[numbers >= 0])
    # 2 columns at least: the authors' rule takes images that share all C labels for an unknown pair
    table = np.zeros((len(numbers), max(len(present), 2)), labels.dtype)
    table[:, : len(present)] = numbers[:, None] == present
    table[numbers < 0] = -1
    return table


def _are_classes(values: np.ndarray, kind: np.dtype, declared: str | None, classes: int | None, where) -> bool:
    """Whether `values` (N,) or (N, C) are class numbers; LabelError where they can mean either."""
    shape, wide = values.shape, values.ndim == 2 and values.shape[1] > 1
    if wide and declared == "classes":
        raise LabelError(f"{_place(where)}: expected class numbers (N,) or (N, 1), as declared; found {shape}")
    if values.ndim == 1 and declared == "vectors":
        raise LabelError(
            f"{_place(where)}: expected label vectors (N, C), as declared; found {shape}; label vectors "
            f"of one label are (N, 1)"
        )
    if wide or declared:
        return declared == "classes"
    either = (values.ndim == 2 or kind.kind == "b") and ((values >= -1) & (values <= 1)).all()
    if either and (classes is None or classes < 2):
        raise LabelError(
            f"{_place(where)}: found {kind} {shape} of 0, 1 and -1 alone, which can be class numbers or "
            f"label vectors of one label; declare `classes` or `vectors`"
        )
    return True


def _whole_numbers(array, where) -> tuple[np.ndarray, np.dtype]:
    """(values as an integer array, dtype found). Raises LabelError for text, objects and broken numbers."""
    try:
        values = np.asarray(array)
    except (ValueError, OverflowError):
        raise LabelError(f"{_place(where)}: expected rows of one length; found rows of different lengths") from None
    kind = values.dtype
    if kind.kind not in "biuf":
        raise LabelError(
            f"{_place(where)}: expected whole numbers, found an array of {kind}"
            + ("; number the classes from 0" if kind.kind in "US" else "")
        )
    if kind.kind != "f":
        return values.astype(np.int8) if kind.kind == "b" else values, kind
    values = values.astype(np.float64)
    bounded = np.where(np.abs(values) < 2.0**62, values, 0.5)  # NaN and infinity are no whole numbers either
    wrong = np.flatnonzero(bounded != np.floor(bounded))
    if len(wrong):
        row = int(wrong[0]) // max(int(np.prod(values.shape[1:])), 1)
        raise LabelError(
            f"{_place(where, row)}: expected label vectors of 0 and 1 or whole class numbers, "
            f"found {values.reshape(-1)[wrong[0]]:g}"
        )
    return values.astype(np.int64), kind


def _check_vectors(values: np.ndarray, kind: np.dtype, where) -> None:
    """Raise LabelError unless each row of `values` (N, C), whose dtype was `kind`, holds 0 and 1, or -1 throughout."""
    binary = (values == 0) | (values == 1)
    if binary.all():
        return
    rows = np.flatnonzero(~(binary.all(axis=1) | (values == -1).all(axis=1)))
    if not len(rows):
        return
    place, row = _place(where, int(rows[0])), values[rows[0]]
    invalid = row[(row != 0) & (row != 1) & (row != -1)]
    if not len(invalid):
        raise LabelError(
            f"{place}: expected 0 and 1, or -1 throughout; found -1 among other labels. Write 0 where an "
            f"image does not carry a label, -1 throughout where its labels are unknown"
        )
    wrapped = kind.kind == "u" and invalid.max() == np.iinfo(kind).max
    raise LabelError(
        f"{place}: expected label vectors of 0 and 1, or -1 throughout; found {invalid[0]:g}"
        + (f" (what -1 becomes in {kind}: store the labels in a signed type)" if wrapped else "")
    )


def _out_of_range(number: int, classes: int, place: str) -> str:
    return f"{place}: expected a class number from 0 to {classes - 1}, or -1 for unknown; found {number}" + (
        "; number the classes from 0" if number == classes else ""
    )


def _shape_text(shape: tuple) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _place(where, row: int | None = None) -> str:
    if callable(where):
        return where(row)
    return where if row is None else f"{where}, row {row}"
