"""The buffers that a layer's tops and gradients held before, for its next ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from caffe.synced_memory import Memory


class OutputBuffers:
    """Buffers between two runs of a layer.

    It is apart from its layer because the nodes of autograd's graph hold it until backward: the layer holds that graph,
    and a node that held the layer would close a cycle through C++, which Python's garbage collector cannot free.
    """

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []

    def take(self, memories: Iterable[Memory], reuse: bool) -> None:
        """Take from blobs the buffers they hold; with `reuse`, for `new_output` to hand out again."""
        self._free = [tensor for memory in memories if (tensor := memory.forget()) is not None]
        if not reuse:
            self._free.clear()

    def offer(self, tensor: torch.Tensor) -> None:
        """Let `new_output` hand out the memory of `tensor`, which nobody reads any more."""
        self._free.append(tensor.reshape(-1))

    def clear(self) -> None:
        """Let go of the buffers that nobody wanted."""
        self._free.clear()

    def new_output(self, like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """An uninitialized tensor for compute, or a gradient, to fill, of the type and device of `like`.

        It reuses the buffer that the blob held before, where that fits.
        """
        count = math.prod(shape)
        for index, old in enumerate(self._free):
            if (old.numel(), old.dtype, old.device) == (count, like.dtype, like.device):
                storage = self._free.pop(index).untyped_storage()
                return like.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]  # strides are optional
        return like.new_empty(shape)
