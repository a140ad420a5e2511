"""The memory that data layers make batches in, and a batch's way to the device ahead of its use."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caffe import device


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of `shape` on the host, with any values; in pinned memory where nets compute on a GPU."""
    device.activate()
    return torch.empty(*shape, dtype=dtype, pin_memory=device.current().type == "cuda")


class HostMemory:
    """The memory of a layer's batches, used again once nobody holds the batch that was in it.

    New memory comes from the system a page at a time: for images of 3x227x227 that takes longer than their mean does.
    (Pinned memory torch keeps itself, until its copies have ended.)
    """

    def __init__(self) -> None:
        self._kept: list[tuple[torch.Tensor, weakref.ref[np.ndarray]]] = []

    def take(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As `empty`."""
        if device.current().type == "cuda":
            return empty(shape, dtype)
        self._kept = [pair for pair in self._kept if (pair[0].shape, pair[0].dtype) == (tuple(shape), dtype)]
        free = (index for index, (_, held) in enumerate(self._kept) if held() is None)
        index = next(free, len(self._kept))
        memory = self._kept.pop(index)[0] if index < len(self._kept) else empty(shape, dtype)
        values = memory.numpy()  # the tensor made from this array, its views and its numpy views all hold the array
        self._kept.append((memory, weakref.ref(values)))
        return torch.from_numpy(values)


def copy(tensor: torch.Tensor, where: torch.device) -> torch.Tensor:
    """A host tensor on `where`, for the work that the current stream gets from now on; the host does not wait for the
    copy to a GPU."""
    return tensor.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else tensor


@dataclass(frozen=True)
class Sent:
    """Tensors where nets compute, or on their way there. ready: the event after the last copy; None: no copy runs."""

    tensors: list[torch.Tensor]
    ready: torch.cuda.Event | None

    def take(self) -> list[torch.Tensor]:
        """The tensors for the work that the current stream gets from now on. Only that work waits for the copies."""
        where = device.current()
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.tensors[0].device)
            stream.wait_event(self.ready)
            for tensor in self.tensors:
                tensor.record_stream(stream)  # its memory is free when this stream is done with it
        return [tensor.to(where, non_blocking=True) for tensor in self.tensors]


def send(tensors: Sequence[torch.Tensor], finish: Callable[..., list[torch.Tensor]] | None = None) -> Sent:
    """Start the copies of host tensors to the GPU that nets compute on, in a stream of their own. On a CPU: nothing.

    finish: finish(*tensors) gives what is wanted, computed where they have arrived, in that stream too.
    """
    where = device.current()
    if where.type != "cuda":
        return Sent(finish(*tensors) if finish else list(tensors), None)
    device.activate()
    stream = device.copy_stream(where)
    with torch.cuda.stream(stream):
        there = [copy(tensor, where) for tensor in tensors]
        return Sent(finish(*there) if finish else there, stream.record_event())
