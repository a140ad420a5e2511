"""Kinds of values in a JSON file: what is read is checked against them, and used only where it fits.

A kind is a type (float also stands for whole numbers), a range of whole numbers, None, a tuple of kinds, [kind] for a
list, [kind, kind] for one of two values, {str: kind} for an object of any keys, or an object of kinds by key; a key
that ends in `?` may be left out, and others may be there.
"""

from __future__ import annotations

from typing import Any

LARGEST = 1e15  # no number here is larger, infinite, or none (NaN)


def fits(value: object, kind: Any) -> bool:
    """Whether a value of a JSON file is of a kind."""
    if kind is None:
        return value is None
    if isinstance(kind, tuple):
        return any(fits(value, each) for each in kind)
    if isinstance(kind, list):
        if not isinstance(value, list):
            return False
        kinds = kind if len(kind) > 1 else kind * len(value)
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if isinstance(kind, dict):
        return isinstance(value, dict) and _misfit(value, kind) is None
    if isinstance(kind, range):
        return type(value) is int and value in kind
    if kind in (int, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
        return number and (kind is float or isinstance(value, int))
    return isinstance(value, kind)


def _misfit(values: dict, kinds: dict) -> str | None:
    """The first key whose value is not of its kind, or is missing; None where all are."""
    named = dict.fromkeys(values, kinds[str]) if str in kinds else kinds
    for key, kind in named.items():
        name = key.removesuffix("?") if str not in kinds else key
        if name in values and fits(values[name], kind):
            continue
        if name in values or name == key:
            return name
    return None


def damage(values: object, *kinds: dict) -> str | None:
    """What is wrong with an object of a JSON file, in words: its first key of another kind. None where it fits one of
    the kinds; of several, the first one's key is named."""
    if not isinstance(values, dict):
        return "it is no JSON object"
    keys = [_misfit(values, each) for each in kinds]
    if None in keys or (key := keys[0]) is None:
        return None
    return f"{key!r} cannot be {repr(values[key])[:80] if key in values else 'nothing'}"
