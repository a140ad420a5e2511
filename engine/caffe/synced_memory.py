"""SyncedMemory, as Caffe calls it: one buffer, a flat torch tensor on the device and a flat numpy array on the host.

On a CPU the two are the same memory. On a GPU the host copy is made when asked for and kept in step lazily.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

# References to a host array that are ours: Memory.host and the argument of getrefcount.
_OWN_REFERENCES = 2


def shares_host_memory(where: torch.device) -> bool:
    """True where a tensor and its numpy view are the same memory."""
    return where.type == "cpu"


class Memory:
    """One flat float32 buffer. `head` says which side is current: "host", "device" or "synced".

    A buffer that nothing was written to yet is zero and takes no memory. One that was cleared is filled with zeros only
    when somebody looks.
    """

    __slots__ = ("_tensor", "_to_clear", "count", "head", "host", "where")

    def __init__(self, count: int, where: torch.device):
        self.count = count
        self.where = where
        self.host: np.ndarray | None = None
        self.head = "synced"
        self._tensor: torch.Tensor | None = None
        self._to_clear = False

    @property
    def tensor(self) -> torch.Tensor:
        """The device tensor, whichever side is current."""
        tensor = self._tensor
        if tensor is None:
            return self._place(torch.zeros(self.count, dtype=torch.float32, device=self.where))
        if self._to_clear:
            self._to_clear = False
            tensor.data.zero_()
        return tensor

    def to_overwrite(self) -> torch.Tensor:
        """The device tensor for writing every value into; what it holds before is anything."""
        tensor = self._tensor
        if tensor is None:
            tensor = self._place(torch.empty(self.count, dtype=torch.float32, device=self.where))
        self._to_clear = False
        return tensor.data

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take `tensor` as the device's side, and return it."""
        self._tensor, self.count, self.where = tensor, tensor.numel(), tensor.device
        if self.shared:
            self.host = tensor.numpy()
        return tensor

    @property
    def shared(self) -> bool:
        """Whether host array and device tensor are the same memory."""
        return shares_host_memory(self.where)

    @property
    def exposed(self) -> bool:
        """Whether somebody outside holds a numpy view of this buffer."""
        return self.host is not None and sys.getrefcount(self.host) > _OWN_REFERENCES

    @property
    def is_zero(self) -> bool:
        """Whether the buffer is known to be zero: nothing was written since it was made, cleared or forgotten."""
        return self._tensor is None or self._to_clear

    def clear(self) -> None:
        """Set every value to zero, at once where a numpy view is out."""
        if self._tensor is not None:
            self._to_clear, self.head = True, "synced" if self.shared else "device"
            if self.exposed:
                self.to_device()
                self.written()

    def forget(self) -> torch.Tensor | None:
        """Give the memory back, unless a numpy view is out; the values are zeros then. Returns the flat tensor that the
        buffer was, for whoever has a use for it."""
        if self.exposed:
            return None
        tensor, self._tensor, self._to_clear, self.host, self.head = self._tensor, None, False, None, "synced"
        return tensor

    @property
    def writable(self) -> torch.Tensor:
        """The device tensor for writing into. Autograd does not count these writes: as in Caffe, a backward
        pass uses what the blobs hold when it runs."""
        return self.tensor.data

    def grow(self, count: int) -> None:
        """Make room for `count` values; what is there stays at the front, arrays handed out stay as they were."""
        if count <= self.count:
            return
        if self._tensor is None:
            self.count = count
            return
        self.to_device()
        tensor = torch.zeros(count, dtype=torch.float32, device=self.where)
        tensor[: self.count] = self.tensor
        self.host, self.head = None, "device"
        self._place(tensor)

    def move(self, where: torch.device) -> None:
        """Compute on `where` from now on. Numpy views that are out stay live: their array remains the host's side."""
        if self.where == where:
            return
        if self._tensor is None:
            self.where = where
            return
        tensor, host = self.to_device(), self.host if self.exposed else None
        if host is None:
            moved = tensor.to(where)
        elif shares_host_memory(where):
            moved = torch.from_numpy(host)
            moved.copy_(tensor)
        else:  # a copy, also where a test keeps the two memories apart on one device
            moved = tensor.to(where, copy=True)
        self.host, self.head = None, "device"
        self._place(moved)
        if host is not None:
            self.host, self.head = host, "synced"

    def to_host(self) -> np.ndarray:
        """The host array, current, and taken as written to: the caller may change it."""
        tensor, host = self.tensor, self.host
        if host is None:  # never where the two sides are the same memory
            host = self.host = _host_array(self.count, self.where)
            self.head = "device"
        if self.shared:
            return host
        if self.head == "device":
            torch.from_numpy(host).copy_(tensor)
        self.head = "host"
        return host

    def to_device(self) -> torch.Tensor:
        """The device tensor, current. A host array that somebody holds may have been written to: it is sent again."""
        if not self.shared and (self.head == "host" or (self.head == "synced" and self.exposed)):
            self.writable.copy_(torch.from_numpy(self.host))
            self.head = "synced"
        return self.tensor

    def written(self) -> None:
        """Note that the device tensor holds new values; arrays handed out earlier show them."""
        if self.shared:
            return
        self.head = "device"
        if self.exposed:
            torch.from_numpy(self.host).copy_(self.tensor)
            self.head = "synced"

    def adopt(self, tensor: torch.Tensor) -> bool:
        """Take `tensor` (contiguous, of this buffer's exact size) as the buffer, unless a numpy view is out."""
        if self.exposed or tensor.numel() != self.count:
            return False
        self._to_clear, self.host, self.head = False, None, "device"
        self._place(tensor.reshape(-1))
        return True


def _host_array(count: int, where: torch.device) -> np.ndarray:
    """A flat float32 array, with any values, next to a buffer on `where`: pinned for a GPU, which copies it faster."""
    if where.type == "cuda":
        return torch.empty(count, dtype=torch.float32, pin_memory=True).numpy()
    return np.empty(count, np.float32)
