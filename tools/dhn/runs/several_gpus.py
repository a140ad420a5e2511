"""A run on several GPUs: a process on each, which takes its part of every batch of the recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from caffe.proto import caffe_pb2
from caffe.proto.text import read_net, to_text

from dhn.files import parse_json, write_text
from dhn.kinds import fits
from dhn.runs.folder import Run, RunError


def solver_name(count: int) -> str:
    """The file in a run's folder that `count` processes train by."""
    return f"solver_of_{count}.prototxt"


def write_solver(run: Run, count: int) -> str:
    """Write the solver that `count` processes train by: the run's own, its net in it, with batches of a part of the
    recipe's size. `caffe train` gives each process a whole batch of its prototxt, so together they have the recipe's.

    The run's own files stay as they are: it is the same recipe, and any number of GPUs can go on with it. Returns a
    sentence on it. Raises RunError for a batch that cannot be divided.
    """
    solver, path = run.solver(), run.folder / "solver.prototxt"
    if solver is None or not solver.HasField("net"):
        raise RunError(f"{run.display_path(path)}: expected a field `net`, which several GPUs divide the batch of")
    solver.net_param.CopyFrom(read_net(run.root / solver.net))
    solver.ClearField("net")
    sizes = [_divide(part, count, run) for part in _batches(solver.net_param)]
    if not sizes:
        raise RunError(f"{run.display_path(path)}: found no layer with a batch_size in the training net to divide")
    text = f"# Written by: make train GPUS=, from solver.prototxt and its net, for {count} processes\n"
    write_text(run.folder / solver_name(count), text + to_text(solver))
    each = ", ".join(dict.fromkeys(f"{size // count} of the recipe's {size}" for size in sizes))
    return f"{run.name}: {count} processes with {each} images a batch each, {_difference(solver.net_param)}"


def _difference(net: caffe_pb2.NetParameter) -> str:
    """What dividing the batch changes: nothing but where a layer computes with statistics of the batch."""
    names = [
        layer.name
        for layer in _training_layers(net)
        if layer.type == "BatchNorm" and not layer.batch_norm_param.use_global_stats
    ]
    if not names:
        return "so the objective is the recipe's"
    return (
        f"and the loss over the pairs of all; but {', '.join(names)} (BatchNorm) subtracts the mean and divides by the "
        "standard deviation of each process's own images, where the recipe takes those of the whole batch, and the "
        "weights' file has the running ones of the first process: the numbers differ from one GPU's"
    )


def _training_layers(net: caffe_pb2.NetParameter) -> Iterator[caffe_pb2.LayerParameter]:
    for layer in net.layer:
        phases = [rule.phase for rule in layer.include if rule.HasField("phase")]
        if not phases or caffe_pb2.TRAIN in phases:
            yield layer


def _batches(net: caffe_pb2.NetParameter) -> Iterator[Any]:
    """The messages of the training net's layers that have a batch_size; of Python layers the python_param."""
    for layer in _training_layers(net):
        if '"batch_size"' in layer.python_param.param_str:
            yield layer.python_param
        for field, value in layer.ListFields():
            if field.message_type and "batch_size" in field.message_type.fields_by_name:
                yield value


def _settings(text: str, run: Run) -> dict:
    """The settings of a Python layer that has a batch_size. Raises RunError where that is no number of images."""
    try:
        settings = parse_json(text)
    except ValueError:
        settings = None
    if not fits(settings, {"batch_size": range(1, 1 << 31)}):
        raise RunError(
            f"{run.display_path(run.folder / 'train_val.prototxt')}: expected a JSON object with a whole number "
            f"batch_size in param_str, found {text[:80]!r}"
        )
    return settings


def _divide(part: Any, count: int, run: Run) -> int:
    """Divide the batch_size in a message of `_batches`; returns what it was."""
    of_python = part.DESCRIPTOR.name == "PythonParameter"
    settings = _settings(part.param_str, run) if of_python else {}
    size = int(settings["batch_size"] if of_python else part.batch_size)
    if size % count:
        fitting = ", ".join(str(each) for each in range(2, size + 1) if size % each == 0)
        raise RunError(
            f"{run.name}: a batch of {size} images cannot be divided among {count} GPUs; name a number of GPUs that "
            f"divides it ({fitting or 'none does'}), or another batch size"
        )
    if of_python:
        part.param_str = json.dumps({**settings, "batch_size": size // count})
    else:
        part.batch_size = size // count
    return size
