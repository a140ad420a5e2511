"""Settings: what a run, or a data set's recipe, has otherwise than dataset_table.py. Their names, checks and places.

A name is a field of the solver (base_lr, momentum, ...) or one of NET. `--set base_lr=0.01` sets one for a run;
`make train` calls some of them by the shorter names of MAKE, and messages name those where there is a Makefile. A
recipe's sections "net", "solver" and "pretraining" set them for a data set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf.descriptor import FieldDescriptor as Field

# in a checkout settings are typed for make; the package that pip installs has the commands alone
BY_MAKE = (Path(__file__).resolve().parents[1] / "Makefile").is_file()
# name -> the variable of make
MAKE = {
    "max_iter": "ITERATIONS",
    "base_lr": "LR",
    "snapshot": "SNAPSHOT",
    "batch_size": "BATCH",
    "crop": "CROP",
    "resize": "RESIZE",
    "lambda": "LAMBDA",
    "similar_weight": "SIMILAR_WEIGHT",
}

# name -> (what it must be, least value). In the training's data layer: batch_size, mirror; in both data layers: resize,
# crop, mean_value, scale; of the losses: lambda, similar_weight
NET = {
    "batch_size": ("a whole number", 1),
    "mirror": ("true or false", None),
    "resize": ("a whole number", 1),
    "crop": ("a whole number", 1),
    "mean_value": ("numbers", None),
    "scale": ("a number", None),
    "lambda": ("a number", 0),
    "similar_weight": ('a number above 0, or "balanced"', None),
}
OF_LOSSES = ("lambda", "similar_weight")  # a classifier has neither
SECTIONS = ("net", "solver", "pretraining")  # of a recipe

# fields of the solver that a run needs as they are, or that have a name of their own (SEED, GPU, WEIGHTS)
KEPT = ("snapshot_prefix", "snapshot_format", "snapshot_after_train", "random_seed", "solver_type", "weights",
         "net", "train_net", "test_net", "device_id", "layer_wise_reduce")  # fmt: skip
SOLVER = {
    field.name: field
    for field in caffe_pb2.SolverParameter.DESCRIPTOR.fields
    if field.message_type is None and field.name not in KEPT
}
ORDER = (*SOLVER, *NET)
_LEAST = {
    "max_iter": 1,
    "test_interval": 1,
    "iter_size": 1,
    "stepsize": 1,
    "average_loss": 1,
    "clip_gradients": None,
}  # others: 0
_WORDS = {
    "lr_policy": ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"),
    "type": ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"),
    "regularization_type": ("L1", "L2"),
}
_PLAIN = re.compile(r"[\w.,+-]+")  # what a value is written with: a word for the shell, for make and for the prototxt


def parse(words: Iterable[str]) -> dict[str, Any]:
    """The settings of a command line, `base_lr=0.01` and so on, by name. Raises ValueError naming the word."""
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--set {word}: expected NAME=VALUE, as base_lr=0.01")
        if name in settings:
            raise ValueError(f"--set {word}: {name} is set twice")
        settings[name] = _value(name, text, f"--set {word}")
    return {name: settings[name] for name in ORDER if name in settings}


def check(where: str, sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of a recipe, JSON objects of settings by name, checked: "net" has the names of NET, "solver" and
    "pretraining" have fields of the solver. where: whose they are, for messages. Raises ValueError."""
    checked: dict[str, dict[str, Any]] = {}
    for section, entries in sections.items():
        if not isinstance(entries, dict):
            raise ValueError(f"{where}, {section}: expected an object of settings by name, found {entries!r}")
        names = NET if section == "net" else SOLVER
        read = {name: _value(name, _text(entries[name]), f"{where}, {section}, {name}", names) for name in entries}
        checked[section] = {name: read[name] for name in ORDER if name in read}
    return checked


def fit(variant: str, quantized: bool, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting that a variant has no place for. quantized: it has the quantization loss."""
    for name in OF_LOSSES:
        if name in settings and (variant == "pretraining" or (name == "lambda" and not quantized)):
            raise ValueError(f"{typed({name: settings[name]})}: {variant} has no such loss to weight; leave it out")


def words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as `parse` takes them, in one order."""
    return [f"{name}={_text(settings[name])}" for name in ORDER if name in settings]


def typed(settings: Mapping[str, Any]) -> str:
    """Settings as they are typed: `LR=0.01 SET="momentum=0.95"` for make, `--set base_lr=0.01 --set momentum=0.95`
    where there is no Makefile; "" for none."""
    if not BY_MAKE:
        return " ".join(f"--set {word}" for word in words(settings))
    short = [f"{MAKE[name]}={_text(settings[name])}" for name in MAKE if name in settings]
    others = words({name: value for name, value in settings.items() if name not in MAKE})
    return " ".join([*short, *([f'SET="{" ".join(others)}"'] if others else [])])


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """In words how settings changed; "" where they did not."""
    parts = []
    for name in ORDER:
        old, new = before.get(name), after.get(name)
        if old != new:
            was = "was not set" if old is None else f"was {_text(old)}"
            parts.append(f"{typed({name: new})} ({was})" if new is not None else f"{name} is not set any more ({was})")
    return ", ".join(parts)


def changed(solver: list, changes: Iterable) -> list:
    """A solver's fields with those of `changes` in their places; fields that it does not have come last, those whose
    value is None are left out."""
    by_field = {change[0]: change for change in changes}
    fields = [by_field.pop(entry[0], entry) for entry in solver] + list(by_field.values())
    return [entry for entry in fields if entry[1] is not None]


def applied(spec: Any, settings: Mapping[str, Any], pretraining: bool = False, by: str | None = None) -> Any:
    """A dataset_table.Dataset with settings in their places, each with a comment on where it comes from.

    pretraining: fields of the solver are those of the classifier. by: who set them, in words; None: what was typed.
    Raises ValueError for a crop that is larger than the images.
    """
    solver = {name: value for name, value in settings.items() if name in SOLVER}
    now = {entry[0]: entry[1] for entry in changed(spec.solver, spec.pretraining if pretraining else ())}
    changes = [
        (name, _text(value) if isinstance(value, bool) else value, _origin(name, value, now.get(name), by))
        for name, value in solver.items()
    ]
    field = "pretraining" if pretraining else "solver"
    spec = spec._replace(**{field: type(getattr(spec, field))(changed(list(getattr(spec, field)), changes))})
    return _applied_to_net(spec, {name: value for name, value in settings.items() if name in NET}, by)


def _applied_to_net(spec: Any, settings: Mapping[str, Any], by: str | None) -> Any:
    in_train = {name: settings[name] for name in ("batch_size", "mirror") if name in settings}
    in_both = {name: settings[name] for name in ("resize", "crop", "mean_value", "scale") if name in settings}
    now = {**spec.data, **spec.train, "lambda": spec.quantization_weight, "similar_weight": spec.similar_weight}
    notes = [_origin(name, settings[name], now.get(name), by) for name in NET if name in settings]
    data = {**spec.data, **in_both}
    channels, height, width = spec.image
    size = data.get("resize", min(height, width))
    if data.get("crop", 0) > size:
        raise ValueError(
            f"crop {data['crop']} is larger than the images that it is cut from, {size}x{size}; set resize too, "
            "or a smaller crop"
        )
    if in_both.keys() & {"resize", "crop"}:
        height = width = data.get("crop", size)
    return spec._replace(
        image=(channels, height, width),
        data=data,
        train={**spec.train, **in_train},
        quantization_weight=settings.get("lambda", spec.quantization_weight),
        similar_weight=settings.get("similar_weight", spec.similar_weight),
        notes=(*spec.notes, *notes),
    )


def _origin(name: str, value: Any, before: Any, by: str | None) -> str:
    """The comment on a setting."""
    origin = typed({name: value}) if by is None else f"{by}: {name} {_text(value)}"
    return f"set by {origin}; without: {'not set' if before is None else _text(before)}"


def _value(name: str, text: str, where: str, names: Iterable[str] = ORDER) -> Any:
    """The value that a text stands for, checked. Raises ValueError naming what was expected."""
    if name not in names:
        variables = MAKE if BY_MAKE else {}
        texts = {each: f"{each} ({variables[each]}=)" if each in variables else each for each in (*NET, *SOLVER)}
        expected = ", ".join(text for each, text in texts.items() if each in names)
        raise ValueError(f"{where}: there is no setting {name!r}; there are {expected}")
    kind, least = NET[name] if name in NET else kind_of(SOLVER[name])
    value = _read(text, kind)
    numbers = value if isinstance(value, list) else [value]
    small = least is not None and any(isinstance(each, (int, float)) and each < least for each in numbers)
    if value is None or small:
        raise ValueError(f"{where}: expected {kind}{f' of at least {least}' if small else ''}, found {text!r}")
    if name in SOLVER:
        try:
            caffe_pb2.SolverParameter(**{name: value})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
    return value


def kind_of(field: Field) -> tuple[str, int | None]:
    """What the values of a field of the solver must be, and their least."""
    if choices := (field.enum_type and field.enum_type.values_by_name) or _WORDS.get(field.name):
        return f"one of {', '.join(choices)}", None
    if field.cpp_type == Field.CPPTYPE_BOOL:
        return "true or false", None
    kind = "whole number" if field.cpp_type in (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64) else "number"
    many = hasattr(getattr(caffe_pb2.SolverParameter(), field.name), "append")
    return f"{kind}s" if many else f"a {kind}", _LEAST.get(field.name, 0)


def _read(text: str, kind: str) -> Any:
    """A text as a value of a kind; None where it is none."""
    if not _PLAIN.fullmatch(text):
        return None
    if kind.startswith("one of "):
        return text if text in kind[len("one of ") :].split(", ") else None
    if kind == "true or false":
        return {"true": True, "false": False}.get(text)
    if kind.endswith("numbers"):
        values = [_read(part, "a whole number" if kind.startswith("whole") else "a number") for part in text.split(",")]
        return None if None in values else values[0] if len(values) == 1 and kind == "numbers" else values
    if kind.endswith('"balanced"') and text == "balanced":
        return text
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or (kind.endswith('"balanced"') and value <= 0):
        return None
    if value.is_integer() and abs(value) < 2**53:
        return int(value)
    return None if kind == "a whole number" else value


def _text(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value)
