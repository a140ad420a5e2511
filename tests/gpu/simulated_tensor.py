"""Tensors of the simulated CUDA device (simulated_cuda.py), and what is counted of it."""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

CUDA = torch.device("cuda", 0)
# Operations whose result is in host memory, or of a size that the values decide: they wait for the device.
SYNCS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "bincount",
    "repeat_interleave",
}  # fmt: skip
# CUDA adds in any order here.
NONDETERMINISTIC = {"max_pool2d_with_indices_backward"}
# Methods that give a value of Python's.
READERS = {
    getattr(torch.Tensor, name) for name in ("tolist", "item", "__bool__", "__float__", "__int__", "__index__")
}  # fmt: skip
PROPERTIES = {
    torch.Tensor.device.__get__: lambda tensor: CUDA,
    torch.Tensor.is_cuda.__get__: lambda tensor: True,
    torch.Tensor.is_cpu.__get__: lambda tensor: False,
    torch.Tensor.is_meta.__get__: lambda tensor: False,
    torch.Tensor.get_device: lambda tensor: 0,
    torch.Tensor.data_ptr: lambda tensor: tensor.values.data_ptr(),
    torch.Tensor.untyped_storage: lambda tensor: tensor.values.untyped_storage(),
    torch.Tensor.storage_offset: lambda tensor: tensor.values.storage_offset(),
    torch.Tensor.__len__: lambda tensor: tensor.values.size(0),
}


class Simulation:
    """What was asked of the device.

    Attributes:
        counts: what crossed between the memories, and waits for the device, by the thread that simulates.
            "to device", "to host": copies that the host does not wait for.
            "to device, blocking", "to host, blocking": copies from or to unpinned memory, or without non_blocking.
            "sync": values that Python reads, results of a size that the values decide, synchronize().
            "waits": of a stream for an event.
        ahead: the same by all other threads: batches that are sent before they are needed.
        sites: `counts` by the line of the engine that asked: (what, "layer.py:10") -> number.
        operations: the operations by name (a kernel or more each), where `record_operations` is true.
        current: the number of the current device (torch.cuda.set_device).
        synchronized: the devices that torch.cuda.synchronize waited for.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.ahead: collections.Counter[str] = collections.Counter()
        self.sites: collections.Counter[tuple[str, str]] = collections.Counter()
        self.operations: collections.Counter[str] = collections.Counter()
        self.record_operations = False
        self.current = 0
        self.synchronized: list[Any] = []  # the devices that were waited for
        self._thread = threading.get_ident()
        self._pinned: dict[int, torch.UntypedStorage] = {}  # they stay, so that no other memory gets their address

    def clear(self) -> None:
        """Count from zero."""
        for counter in (self.counts, self.ahead, self.sites, self.operations):
            counter.clear()

    def note(self, what: str) -> None:
        """Count one `what`."""
        if threading.get_ident() != self._thread:
            self.ahead[what] += 1
            return
        self.counts[what] += 1
        self.sites[what, _site()] += 1

    def note_copy(self, way: str, host: torch.Tensor, non_blocking: bool) -> None:
        """Count a copy; way: "to device" or "to host"; host: the tensor in host memory."""
        self.note(way if non_blocking and self.is_pinned(host) else f"{way}, blocking")

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` itself, its memory taken as pinned from now on."""
        storage = tensor.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is in pinned memory of the host."""
        return not isinstance(tensor, SimulatedTensor) and tensor.untyped_storage().data_ptr() in self._pinned


def _site() -> str:
    """The innermost line of the engine that runs now."""
    frame = sys._getframe(1)
    while frame is not None and "/caffe/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.split('/caffe/')[-1]}:{frame.f_lineno}" if frame else "tests"


_running: list[Simulation] = []  # at most one


def simulation() -> Simulation:
    """The one that runs."""
    assert _running, "a tensor of a simulated device outlived the simulation"
    return _running[0]


@contextlib.contextmanager
def counting(counts: Simulation) -> Iterator[None]:
    """While entered, `simulation` is this one."""
    assert not _running
    _running.append(counts)
    try:
        yield
    finally:
        _running.clear()


class SimulatedTensor(torch.Tensor):
    """A tensor that says it is on cuda:0; `values` holds its values, on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> SimulatedTensor:
        assert not isinstance(values, SimulatedTensor)
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device="cpu", requires_grad=False,
        )  # fmt: skip
        tensor.values = values
        return tensor

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"SimulatedTensor({self.values})"

    @classmethod
    def __torch_function__(cls, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        """What Python asks of such a tensor before autograd sees it: where it is, values, methods of the host."""
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        ours = isinstance(first, SimulatedTensor)
        if ours and func in PROPERTIES:
            return PROPERTIES[func](first)
        if ours and func in READERS:
            simulation().note("sync")
            return getattr(first.values, func.__name__)()
        if ours and func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if ours and func is torch.Tensor.cpu:
            return move(first, torch.device("cpu"), non_blocking=False)
        if ours and func is torch.Tensor.__setitem__ and not isinstance(args[2], torch.Tensor):
            first.values[_mapped(_unwrapped, args[1])] = args[2]
            return None
        generator = kwargs.get("generator")
        if generator is not None and getattr(generator, "where", None) != CUDA:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if "device" in kwargs and kwargs.pop("device") not in (None, CUDA):
            raise RuntimeError(f"{func.__name__}: the simulated device makes tensors of its own only")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        """An operation below autograd: on the values, and counted where it crosses between the memories."""
        kwargs = dict(kwargs or {})
        name, counts = func._schema.name.removeprefix("aten::"), simulation()
        if counts.record_operations:
            counts.operations[name] += 1
        tensors = list(_tensors(args)) + list(_tensors(kwargs.values()))
        arrays = [each for each in tensors if not isinstance(each, SimulatedTensor) and each.dim() > 0]
        if name == "copy_":
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            if not isinstance(args[0], SimulatedTensor):
                counts.note_copy("to host", args[0], non_blocking)
            elif not isinstance(args[1], SimulatedTensor):
                counts.note_copy("to device", args[1], non_blocking)
        elif arrays and not (name.startswith("index") and isinstance(args[0], SimulatedTensor)):
            shapes = [tuple(each.shape) for each in arrays]
            raise RuntimeError(f"Expected all tensors to be on the same device: {func} with {shapes} on the CPU")
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in SYNCS or any(mask is not None and mask.dtype in (torch.bool, torch.uint8) for mask in masks):
            counts.note("sync")
        if name == "scatter" and isinstance(args[-1], torch.Tensor):  # any of several values for one place may stay
            first, axis, *others = args
            args = (first, axis, *(each.flip(axis) for each in others))
        if name in NONDETERMINISTIC and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(f"{name} does not have a deterministic implementation")
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        wrappers = {id(each.values): each for each in tensors if isinstance(each, SimulatedTensor)}
        result = func(*_mapped(_unwrapped, args), **_mapped(_unwrapped, kwargs))
        if name == "copy_" and not isinstance(args[0], SimulatedTensor):
            return args[0]
        return _mapped(lambda each: _wrapped(each, wrappers), result)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among the arguments of an operation, in lists too."""
    for each in values:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _tensors(each)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """`change` of each value in tuples, lists and dicts. (torch.utils._pytree takes longer than small operations.)"""
    if isinstance(value, (list, tuple)):
        return type(value)([_mapped(change, each) for each in value])
    if isinstance(value, dict):
        return {key: _mapped(change, each) for key, each in value.items()}
    return change(value)


def _unwrapped(each: Any) -> Any:
    return each.values if isinstance(each, SimulatedTensor) else each


def _wrapped(each: Any, wrappers: dict[int, SimulatedTensor]) -> Any:
    """A result as a tensor of the device: the wrapper that an operation in place was given, or a new one."""
    if not isinstance(each, torch.Tensor) or isinstance(each, SimulatedTensor):
        return each
    return wrappers[id(each)] if id(each) in wrappers else SimulatedTensor(each)


def is_cuda(where: Any) -> bool:
    return where is not None and (isinstance(where, int) or torch.device(where).type == "cuda")


def move(tensor: torch.Tensor, where: torch.device, non_blocking: bool) -> torch.Tensor:
    """A copy of `tensor` on the other side; `tensor` itself where it is there already."""
    ours = isinstance(tensor, SimulatedTensor)
    if is_cuda(where) == ours:
        return tensor
    if ours:
        simulation().note("to host, blocking")
        return tensor.detach().values.clone()
    simulation().note_copy("to device", tensor, non_blocking)
    return SimulatedTensor(tensor.detach().clone())
