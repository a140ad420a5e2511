"""Reading a Python layer's `param_str`: JSON, with the keys, types and defaults each layer declares in a table."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple


class Param(NamedTuple):
    """One key of a `param_str`: what it must be, its default, and (if the set is closed) its choices."""

    kind: str
    default: Any = None
    required: bool = False
    choices: tuple = ()


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_KINDS = {
    "a string": lambda v: isinstance(v, str),
    "true or false": lambda v: isinstance(v, bool),
    "an integer from 0 to 4294967295": lambda v: _is_int(v) and 0 <= v < 1 << 32,  # a seed of numpy
    "an integer from 1 to 2147483647": lambda v: _is_int(v) and 1 <= v < 1 << 31,
    "a number": _is_number,
    'a number above 0, or "balanced"': lambda v: v == "balanced" or (_is_number(v) and 0 < v < math.inf),
    "a number or a list of numbers": lambda v: (
        _is_number(v) or (isinstance(v, list) and len(v) > 0 and all(map(_is_number, v)))
    ),
    "an integer from 1 to 65535 or a pair [height, width] of them": lambda v: all(
        _is_int(x) and 1 <= x < 1 << 16 for x in (v if isinstance(v, list) and len(v) == 2 else [v])
    ),
}


def read_param_str(text: str, layer: str, params: dict[str, Param]) -> dict[str, Any]:
    """The settings in a `param_str`, checked, with defaults filled in.

    text: the JSON object (an empty text is an empty object); layer: the layer's class name, for messages;
    params: key -> Param. Raises ValueError naming the layer, the key, what was expected and what was found.
    """
    example = "param_str: '{" + ", ".join(f'"{k}": ...' for k in list(params)[:2]) + "}'"
    try:
        values = json.loads(text) if text.strip() else {}
    except RecursionError:
        raise ValueError(f"{layer}: param_str must be JSON, e.g. {example}; found one nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{layer}: param_str must be JSON, e.g. {example}; found {text[:200]!r} ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{layer}: param_str must be a JSON object, e.g. {example}; found {text[:200]!r}")
    unknown = sorted(set(values) - set(params))
    if unknown:
        raise ValueError(
            f"{layer}: param_str has the unknown key {', '.join(map(repr, unknown))}; "
            f"the keys are {', '.join(sorted(params))}"
        )
    settings = {}
    for key, param in params.items():
        if key not in values:
            if param.required:
                raise ValueError(f"{layer}: param_str needs the key {key!r} ({param.kind}); found {text!r}")
            settings[key] = param.default
            continue
        value = values[key]
        if not _KINDS[param.kind](value):
            raise ValueError(f"{layer}: param_str key {key!r} must be {param.kind}; found {json.dumps(value)}")
        if param.choices and value not in param.choices:
            raise ValueError(
                f"{layer}: param_str key {key!r} must be one of {', '.join(param.choices)}; found {value!r}"
            )
        settings[key] = value
    return settings
