"""Layers written in Python by the user: type "Python", python_param { module layer param_str }.

The user's class derives from caffe.Layer and defines setup, reshape, forward and backward; `net.layers[i]` is the
user's own object.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from caffe import parallel
from caffe.blob import Blob, BlobVec
from caffe.layer import Layer, blobs_of, register
from caffe.proto import byte_strings, caffe_pb2


class _OldName:
    """What old scripts call param_str; a layer may use the name for something of its own."""

    def __get__(self, layer: PythonLayer | None, cls: type | None = None) -> object:
        return self if layer is None else layer.param_str


class UserClassError(AttributeError, TypeError, ValueError):
    """A module that has no such class, or a class that is no caffe.Layer."""


class PythonLayer(metaclass=ABCMeta):
    """The base of user-written layers: `caffe.Layer`.

    All names but these are the user's: the engine keeps its own state of the layer in a `UserLayer`.

    Attributes:
        param_str: python_param.param_str of the prototxt, from `setup` on.
        phase: caffe.TRAIN or caffe.TEST, from `setup` on.
        blobs: the layer's parameters; `self.blobs.add_blob(*shape)` adds one.
        type: "Python".

    A layer that reads data or draws random numbers may define two methods that BVLC Caffe never calls.
    `snapshot_state(self)` returns what it needs to go on, as bytes, for the solverstate. `restore_state(self, state)`
    takes them when a training is resumed, and raises ValueError where they do not fit. A layer without the two starts
    from the beginning then, as on BVLC Caffe.
    """

    __slots__ = ("__blobs", "__dict__", "__weakref__")
    param_str: str
    phase: int
    param_str_ = _OldName()

    def __new__(
        cls, layer_param: caffe_pb2.LayerParameter | None = None, *arguments: Any, **options: Any
    ) -> PythonLayer:
        """Make the parameters here: a class with an __init__ of its own need not call this one's."""
        layer = super().__new__(cls)
        object.__setattr__(layer, _BLOBS, blobs_of(getattr(layer_param, "blobs", ())))
        return layer

    def __init__(self, layer_param: caffe_pb2.LayerParameter):  # noqa: B027
        pass

    @property
    def blobs(self) -> BlobVec:
        return object.__getattribute__(self, _BLOBS)

    @property
    def type(self) -> str:
        return "Python"

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        raise NotImplementedError(_missing(self, "setup(self, bottom, top)"))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        raise NotImplementedError(_missing(self, "reshape(self, bottom, top)"))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        raise NotImplementedError(_missing(self, "forward(self, bottom, top)"))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        raise NotImplementedError(_missing(self, "backward(self, top, propagate_down, bottom)"))


_BLOBS = "_PythonLayer__blobs"
PythonLayer.register(Layer)  # as in BVLC Caffe every layer of a net is a caffe.Layer


class UserLayer(Layer):
    """The net's layer for an object of a user's class."""

    bottom_count = (0, None)
    top_count = (0, None)

    def __init__(self, layer_param: caffe_pb2.LayerParameter, cls: type[PythonLayer]):
        super().__init__(layer_param)
        self._object: Any = cls(layer_param)  # what else its class defines is the user's
        self.blobs = object.__getattribute__(self._object, _BLOBS)

    @property
    def public(self) -> PythonLayer:
        return self._object

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._object.param_str = self.layer_param.python_param.param_str
        self._object.phase = self.phase
        self._object.setup(bottom, top)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._object.reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._object.forward(bottom, top)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self._object.backward(top, propagate_down, bottom)

    def snapshot_state(self) -> bytes | None:
        snapshot, restore = (getattr(self._object, name, None) for name in ("snapshot_state", "restore_state"))
        return snapshot() if snapshot and _takes(snapshot) and _takes(restore, b"") else None

    def restore_state(self, state: bytes) -> None:
        self._object.restore_state(state)


def _takes(method: Any, *arguments: object) -> bool:
    """Whether `method` can be called so; a user's method of the same name may be of another kind."""
    try:
        inspect.signature(method).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


_prototxt: ContextVar[str | Path | None] = ContextVar("prototxt", default=None)


@contextlib.contextmanager
def python_layers_next_to(prototxt: str | Path | None) -> Iterator[None]:
    """While a net of this file is made, the modules of its Python layers are looked for in the file's folder too."""
    token = _prototxt.set(prototxt)
    try:
        yield
    finally:
        _prototxt.reset(token)


def _import(name: str) -> ModuleType:
    """The module `name`, from sys.path, the working directory or the prototxt's folder; the folder that has it stays
    on sys.path, for what the module imports later.

    Raises:
        ImportError: it is in none of them, or fails; the message says which, with the traceback where the module fails.
    """
    package = name.partition(".")[0]
    if not package:
        raise ImportError(f"cannot import Python module {name!r}: expected a name in python_param's module")
    prototxt = _prototxt.get()
    folders = [os.getcwd()] + ([os.path.dirname(os.path.abspath(byte_strings.path(prototxt)))] if prototxt else [])
    try:
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            importlib.invalidate_caches()
            having = [at for at in folders if importlib.machinery.PathFinder.find_spec(package, [at])]
            sys.path.extend(having[:1])
        return importlib.import_module(name)
    except Exception as error:
        looked = ""
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            places = dict.fromkeys([*(path or os.getcwd() for path in sys.path), *folders])
            looked = f" Put its folder on PYTHONPATH.\nLooked in: {', '.join(places)}"
        begun = any(
            frame.filename != __file__ and "importlib" not in frame.filename
            for frame in traceback.extract_tb(error.__traceback__)
        )
        where = f"\n{traceback.format_exc()}" if begun else ""
        raise ImportError(f"cannot import Python module {name!r}: {error}.{looked}{where}") from error


def _missing(layer: PythonLayer, method: str) -> str:
    return f"Python layer class {type(layer).__module__}.{type(layer).__qualname__} defines no {method}"


@register("Python")
def make(layer_param: caffe_pb2.LayerParameter) -> UserLayer:
    """The layer of the class that python_param names.

    Raises:
        ImportError: the module cannot be imported; the message says where it was looked for.
        AttributeError, TypeError: the module has no such class, or the class is no caffe.Layer.
    """
    param = layer_param.python_param
    if layer_param.phase == caffe_pb2.TRAIN and parallel.solver_count() > 1 and not parallel.multiprocess():
        raise RuntimeError(
            f"layer {layer_param.name!r}: Python layers train with several solvers only where each is a process of its "
            f"own: call caffe.set_multiprocess(True), or leave set_solver_count at 1 (found {parallel.solver_count()})"
        )
    try:
        module = _import(param.module)
    except ImportError as error:
        raise ImportError(f"layer {layer_param.name!r}: {error}") from error
    cls = getattr(module, param.layer, None)
    if cls is None:
        raise UserClassError(
            f"layer {layer_param.name!r}: module {param.module!r} ({module.__file__}) has no class {param.layer!r}"
        )
    if not (isinstance(cls, type) and PythonLayer in cls.__mro__):
        raise UserClassError(
            f"layer {layer_param.name!r}: {param.module}.{param.layer} must derive from caffe.Layer, found {cls!r}"
        )
    return UserLayer(layer_param, cls)
