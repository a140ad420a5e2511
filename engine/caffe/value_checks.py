"""Checks of what a layer's input holds: of labels, of indices.

On a CPU they run at once. Reading GPU memory synchronizes: the CPU waits for all queued kernels. So there the first
wrong value is noted on the GPU, and raised where something is read from it anyway: a displayed loss, a net's outputs,
a snapshot, the end of a training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from caffe import synced_memory

if TYPE_CHECKING:
    from caffe.layer import Layer

Message = Callable[[int, float], str]

# layer -> (whether a value was wrong, its place, the value), on the device; what to say of it
_noted: WeakKeyDictionary[Layer, tuple[torch.Tensor, Message]] = WeakKeyDictionary()


def check(layer: Layer, wrong: torch.Tensor, values: torch.Tensor, message: Message) -> None:
    """Raise ValueError, naming `layer`, with message(place, value) of the first of `values` where the mask `wrong`
    holds. On a GPU `raise_noted` does, and the layer goes on: its results must not depend on wrong values' being right.
    """
    if synced_memory.shares_host_memory(values.device):
        if wrong.any():
            _raise(layer, _first(wrong, values), message)
        return
    note = _first(wrong, values)
    if layer in _noted:
        before, _ = _noted[layer]
        note = torch.where(before[:1] > 0, before, note)
    _noted[layer] = note, message


def raise_noted(layers: Iterable[Layer]) -> None:
    """Raise what was noted of one of `layers`, and forget what was noted of any."""
    noted = [(layer, *_noted.pop(layer)) for layer in layers if layer in _noted]
    if noted:
        for (layer, _, message), note in zip(noted, torch.stack([one[1] for one in noted]).cpu(), strict=True):
            if note[0]:
                _raise(layer, note, message)


def _first(wrong: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    place = wrong.reshape(-1).to(torch.uint8).argmax()
    return torch.stack([wrong.take(place).double(), place.double(), values.take(place).double()])


def _raise(layer: Layer, note: torch.Tensor, message: Message) -> None:
    _, place, value = note.tolist()
    layer.check(False, message(int(place), value))
