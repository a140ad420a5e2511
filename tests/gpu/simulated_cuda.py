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

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from caffe import device, precision
from simulated_tensor import CUDA, SimulatedTensor, Simulation, counting, is_cuda, move, simulation
from torch.autograd.graph import _engine_run_backward

FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "tensor", "zeros")


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
            tensor = move(tensor, where, non_blocking)
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
    return tensor if simulation().is_pinned(tensor) else simulation().pin(tensor.clone())


def _factory(real: Callable) -> Callable:
    """torch.empty or a sibling, which knows the simulated device and pinned memory."""

    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        pinned, where = kwargs.pop("pin_memory", False), kwargs.get("device")
        if is_cuda(where):
            kwargs["device"] = "cpu"
            if real.__name__ == "tensor":
                simulation().note("to device, blocking")
            return SimulatedTensor(real(*args, **kwargs))
        tensor = real(*args, **kwargs)
        return simulation().pin(tensor) if pinned else tensor

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
        generator.where = CUDA if is_cuda(device) else torch.device("cpu")
        return generator


class Stream:
    """A stream, which is done with everything at once."""

    def __init__(self, *_: Any):
        pass

    def record_event(self) -> str:
        return "event"

    def wait_event(self, event: str) -> None:
        simulation().note("waits")

    def synchronize(self) -> None:
        simulation().note("sync")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def _torch_cuda(counts: Simulation) -> dict[str, Any]:
    """torch.cuda's functions by name."""

    def synchronize(where: Any = None) -> None:
        counts.note("sync")
        counts.synchronized.append(where)

    def set_device(where: Any) -> None:
        counts.current = where if isinstance(where, int) else torch.device(where).index

    properties = SimpleNamespace(major=9, minor=0, name="simulated", total_memory=1 << 34, multi_processor_count=1)
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: properties.name,
        "get_device_capability": lambda *_: (properties.major, properties.minor),
        "get_device_properties": lambda *_: properties,
        "current_device": lambda: counts.current,
        "set_device": set_device,
        "synchronize": synchronize,
        "Stream": Stream,
        "stream": lambda stream: stream,
        "current_stream": lambda *_: Stream(),
    }


@contextlib.contextmanager
def simulate() -> Iterator[Simulation]:
    """Put one simulated device, cuda:0, in torch's place for CUDA. What uses it must end before this does."""
    counts = Simulation()
    replacements = [(torch.cuda, name, value) for name, value in _torch_cuda(counts).items()]
    replacements += [(torch, name, _factory(getattr(torch, name))) for name in FACTORIES]
    replacements += [
        (torch, "Generator", SimulatedGenerator),
        (torch.autograd, "grad", _grad),
        (torch.Tensor, "to", _to(torch.Tensor.to)),
        (torch.Tensor, "set_", _set(torch.Tensor.set_)),
        (torch.Tensor, "cuda", lambda tensor, *_, non_blocking=False: move(tensor, CUDA, non_blocking)),
        (torch.Tensor, "pin_memory", _pin_memory),
        (torch.Tensor, "is_pinned", lambda tensor: counts.is_pinned(tensor)),
        (torch.Tensor, "record_stream", lambda tensor, stream: None),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in replacements:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(engine_as_it_was())
        stack.enter_context(counting(counts))
        yield counts


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
