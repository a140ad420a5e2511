"""A CUDA device simulated on a CPU, for tests where there is no card.

    with simulated_cuda.simulate() as gpu:
        caffe.set_mode_gpu()
        ...
        assert gpu.counts["to host"] == 0

Its tensors say that they are on cuda:0 and hold their values in host memory. They refuse what CUDA's refuse: operands
on two devices, numpy(), a generator of the other device. Where several values are scattered to one place, the first one
stays, not the last one as on a CPU: CUDA may take any. Copies between the two memories and waits for the device are
counted. All work is done when it is asked for: streams, races and what a kernel rounds are not simulated.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from caffe import device, precision
from torch.autograd.graph import _engine_run_backward

CUDA = torch.device("cuda", 0)
FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "tensor", "zeros")
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


_current: Simulation | None = None


def _simulation() -> Simulation:
    assert _current is not None, "a tensor of a simulated device outlived the simulation"
    return _current


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
            _simulation().note("sync")
            return getattr(first.values, func.__name__)()
        if ours and func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if ours and func is torch.Tensor.cpu:
            return _move(first, torch.device("cpu"), non_blocking=False)
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
        name, simulation = func._schema.name.removeprefix("aten::"), _simulation()
        if simulation.record_operations:
            simulation.operations[name] += 1
        tensors = list(_tensors(args)) + list(_tensors(kwargs.values()))
        arrays = [each for each in tensors if not isinstance(each, SimulatedTensor) and each.dim() > 0]
        if name == "copy_":
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            if not isinstance(args[0], SimulatedTensor):
                simulation.note_copy("to host", args[0], non_blocking)
            elif not isinstance(args[1], SimulatedTensor):
                simulation.note_copy("to device", args[1], non_blocking)
        elif arrays and not (name.startswith("index") and isinstance(args[0], SimulatedTensor)):
            shapes = [tuple(each.shape) for each in arrays]
            raise RuntimeError(f"Expected all tensors to be on the same device: {func} with {shapes} on the CPU")
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in SYNCS or any(mask is not None and mask.dtype in (torch.bool, torch.uint8) for mask in masks):
            simulation.note("sync")
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


def _is_cuda(where: Any) -> bool:
    return where is not None and (isinstance(where, int) or torch.device(where).type == "cuda")


def _move(tensor: torch.Tensor, where: torch.device, non_blocking: bool) -> torch.Tensor:
    """A copy of `tensor` on the other side; `tensor` itself where it is there already."""
    ours = isinstance(tensor, SimulatedTensor)
    if _is_cuda(where) == ours:
        return tensor
    if ours:
        _simulation().note("to host, blocking")
        return tensor.detach().values.clone()
    _simulation().note_copy("to device", tensor, non_blocking)
    return SimulatedTensor(tensor.detach().clone())


def _to(real: Callable) -> Callable:
    """torch.Tensor.to, which knows the simulated device."""

    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        where, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        non_blocking, copy = kwargs.pop("non_blocking", False), kwargs.pop("copy", False)
        for each in args:
            if isinstance(each, torch.dtype):
                dtype = each
            elif isinstance(each, torch.Tensor):
                where, dtype = each.device, each.dtype
            else:
                where = torch.device(each)
        same = tensor
        if dtype is not None and dtype != tensor.dtype:
            with torch._C.DisableTorchFunctionSubclass():
                tensor = real(tensor, dtype, **kwargs)
        if where is not None:
            tensor = _move(tensor, where, non_blocking)
        return tensor.clone() if copy and tensor is same else tensor

    return to


def _set(real: Callable) -> Callable:
    """torch.Tensor.set_, for which torch does not ask a subclass: a new tensor of the device over that storage."""

    def set_(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        return (
            SimulatedTensor(real(tensor.values, *args)) if isinstance(tensor, SimulatedTensor) else real(tensor, *args)
        )

    return set_


def _pin_memory(tensor: torch.Tensor) -> torch.Tensor:
    """torch.Tensor.pin_memory."""
    if isinstance(tensor, SimulatedTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    return tensor if _simulation().is_pinned(tensor) else _simulation().pin(tensor.clone())


def _factory(real: Callable) -> Callable:
    """torch.empty or a sibling, which knows the simulated device and pinned memory."""

    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        pinned, where = kwargs.pop("pin_memory", False), kwargs.get("device")
        if _is_cuda(where):
            kwargs["device"] = "cpu"
            if real.__name__ == "tensor":
                _simulation().note("to device, blocking")
            return SimulatedTensor(real(*args, **kwargs))
        tensor = real(*args, **kwargs)
        return _simulation().pin(tensor) if pinned else tensor

    return make


def _grad(
    outputs: Any, inputs: Any, grad_outputs: Any, retain_graph: bool = False, allow_unused: bool = False
) -> tuple[torch.Tensor | None, ...]:
    """torch.autograd.grad for gradient edges. The real one, given tensors of a subclass, switches the subclass off
    until it returns: the engine's own gradients would take them for tensors of the CPU."""
    return _engine_run_backward(
        tuple(outputs), tuple(grad_outputs), retain_graph, False, tuple(inputs), allow_unused, accumulate_grad=False
    )


class SimulatedGenerator(torch.Generator):
    """A generator that may say it is the simulated device's; `where` is its device."""

    where: torch.device

    def __new__(cls, device: Any = "cpu") -> SimulatedGenerator:
        generator = super().__new__(cls, "cpu")
        generator.where = CUDA if _is_cuda(device) else torch.device("cpu")
        return generator


class Stream:
    """A stream, which is done with everything at once."""

    def __init__(self, *_: Any):
        pass

    def record_event(self) -> str:
        return "event"

    def wait_event(self, event: str) -> None:
        _simulation().note("waits")

    def synchronize(self) -> None:
        _simulation().note("sync")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def _torch_cuda(simulation: Simulation) -> dict[str, Any]:
    """torch.cuda's functions by name."""

    def synchronize(where: Any = None) -> None:
        simulation.note("sync")
        simulation.synchronized.append(where)

    def set_device(where: Any) -> None:
        simulation.current = where if isinstance(where, int) else torch.device(where).index

    properties = SimpleNamespace(major=9, minor=0, name="simulated", total_memory=1 << 34, multi_processor_count=1)
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: properties.name,
        "get_device_capability": lambda *_: (properties.major, properties.minor),
        "get_device_properties": lambda *_: properties,
        "current_device": lambda: simulation.current,
        "set_device": set_device,
        "synchronize": synchronize,
        "Stream": Stream,
        "stream": lambda stream: stream,
        "current_stream": lambda *_: Stream(),
    }


@contextlib.contextmanager
def simulate() -> Iterator[Simulation]:
    """Put one simulated device, cuda:0, in torch's place for CUDA. What uses it must end before this does."""
    global _current
    simulation = Simulation()
    replacements = [(torch.cuda, name, value) for name, value in _torch_cuda(simulation).items()]
    replacements += [(torch, name, _factory(getattr(torch, name))) for name in FACTORIES]
    replacements += [
        (torch, "Generator", SimulatedGenerator),
        (torch.autograd, "grad", _grad),
        (torch.Tensor, "to", _to(torch.Tensor.to)),
        (torch.Tensor, "set_", _set(torch.Tensor.set_)),
        (torch.Tensor, "cuda", lambda tensor, *_, non_blocking=False: _move(tensor, CUDA, non_blocking)),
        (torch.Tensor, "pin_memory", _pin_memory),
        (torch.Tensor, "is_pinned", lambda tensor: simulation.is_pinned(tensor)),
        (torch.Tensor, "record_stream", lambda tensor, stream: None),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in replacements:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(engine_as_it_was())
        _current = simulation
        try:
            yield simulation
        finally:
            _current = None


@contextlib.contextmanager
def engine_as_it_was() -> Iterator[None]:
    """The engine's device, its generators and its precision are afterwards what they were before."""
    names = ("_mode", "_device_id", "_seed")
    before = {name: getattr(device, name) for name in names}
    generators = dict(device._generators)
    try:
        yield
    finally:
        precision.set_precision("float32")
        device.set_deterministic(False)
        for name, value in before.items():
            setattr(device, name, value)
        device._generators.clear()
        device._generators.update(generators)
        device._copy_streams.clear()
