"""Compare two engines' answers to the cases.

The tolerance: no value may differ by more than 1e-4 of the largest magnitude in the reference's array (float32 sums in
another order reach some 1e-6); 1e-3 where the value's name begins with "after updates", for whole nets that have been
trained on. Texts and shapes are equal or not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
LATER, TOLERANCE_LATER = "after updates", 1e-3
NOTE = "note"  # the name of a value that is kept to be read (a message of BVLC's), not compared
FLOOR = 1e-8  # an array that is all zero in the reference must be zero: nothing above this passes
RECORDED = Path(__file__).resolve().parent / "recorded"

Answers = dict[str, dict[str, np.ndarray]]


def deviation(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference over the largest magnitude expected; inf for another shape or text, or a lone NaN."""
    if expected.shape != found.shape:
        return np.inf
    if expected.dtype.kind in "USb" or found.dtype.kind in "USb":
        return 0.0 if np.array_equal(expected, found) else np.inf
    if expected.size == 0:
        return 0.0
    if not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    expected, found = expected[finite].astype(np.float64), found[finite].astype(np.float64)
    difference = np.abs(expected - found).max()
    return 0.0 if difference <= FLOOR else float(difference / max(np.abs(expected).max(), FLOOR))


def tolerance(value: str) -> float:
    """The deviation that a value of this name may have."""
    return TOLERANCE_LATER if value.startswith(LATER) else TOLERANCE


def differences(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> tuple[float, list[str]]:
    """(worst deviation within the tolerance or not, one sentence a value that differs) for one case's answers."""
    if "error" in found and "error" not in expected:
        return np.inf, [str(found["error"])]
    worst, said = 0.0, []
    for value in sorted((expected.keys() | found.keys()) - {NOTE}):
        if value not in found or value not in expected:
            worst = np.inf
            said.append(f"{value}: answered only by {'the reference' if value in expected else 'the engine'}")
            continue
        mine, theirs = found[value], expected[value]
        off = deviation(theirs, mine)
        worst = max(worst, off)
        if off > tolerance(value):
            said.append(f"{value}: {describe(theirs, mine, off)}")
    return worst, said


def describe(expected: np.ndarray, found: np.ndarray, off: float) -> str:
    if expected.shape != found.shape and not (expected.dtype.kind == found.dtype.kind == "U"):
        return f"shape {expected.shape} expected, {found.shape} found"
    if expected.dtype.kind == "U" or np.isinf(off):
        return f"expected {shorten(expected)}, found {shorten(found)}"
    where = np.unravel_index(np.abs(expected.astype(np.float64) - found).argmax(), expected.shape)
    values = f"expected {expected[where]}, found {found[where]}"
    return f"differs by {off:.2g} of the largest value; at {tuple(map(int, where))} {values}"


def shorten(array: np.ndarray) -> str:
    text = " ".join(str(array.tolist()).split())
    return text if len(text) <= 600 else text[:600] + " ..."
