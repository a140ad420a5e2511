"""Layers written in Python by the user: type "Python", python_param { module layer param_str }.

The user's class derives from caffe.Layer and defines setup, reshape, forward and backward; an object of that class is
itself the net's layer, so `net.layers[i]` is the user's own object.
"""

from __future__ import annotations

import importlib
import sys
import traceback

from caffe.layer import Layer, register
from caffe.proto import caffe_pb2


class PythonLayer(Layer):
    """The base of user-written layers: `caffe.Layer`.

    Attributes:
        param_str: python_param.param_str of the prototxt.
        phase: caffe.TRAIN or caffe.TEST.
        blobs: the layer's parameters; `self.blobs.add_blob(*shape)` adds one.
    """

    bottom_count = (0, None)
    top_count = (0, None)
    params = None  # a name that user layers like to set; the base's property would stand in their way

    def __init__(self, layer_param: caffe_pb2.LayerParameter):
        super().__init__(layer_param)
        self.param_str = layer_param.python_param.param_str
        self.param_str_ = self.param_str  # what old scripts call it

    def setup(self, bottom, top):
        raise NotImplementedError(_missing(self, "setup(self, bottom, top)"))

    def reshape(self, bottom, top):
        raise NotImplementedError(_missing(self, "reshape(self, bottom, top)"))

    def forward(self, bottom, top):
        raise NotImplementedError(_missing(self, "forward(self, bottom, top)"))

    def backward(self, top, propagate_down, bottom):
        raise NotImplementedError(_missing(self, "backward(self, top, propagate_down, bottom)"))


def _missing(layer: PythonLayer, method: str) -> str:
    return f"Python layer class {type(layer).__module__}.{type(layer).__qualname__} defines no {method}"


@register("Python")
def make(layer_param: caffe_pb2.LayerParameter) -> PythonLayer:
    """An object of the class that python_param names.

    Raises:
        ImportError: the module cannot be imported; the message says where it was looked for.
        AttributeError, TypeError: the module has no such class, or the class is no caffe.Layer.
    """
    param = layer_param.python_param
    try:
        module = importlib.import_module(param.module)
    except Exception as error:
        looked = (
            ""
            if not isinstance(error, ModuleNotFoundError)
            else "\nLooked in: " + ", ".join(path or "(the working directory)" for path in sys.path)
        )
        raise ImportError(
            f"layer {layer_param.name!r}: cannot import its Python module {param.module!r}: {error}. "
            f"Put its folder on PYTHONPATH.{looked}\n{traceback.format_exc()}"
        ) from error
    cls = getattr(module, param.layer, None)
    if cls is None:
        raise AttributeError(
            f"layer {layer_param.name!r}: module {param.module!r} ({module.__file__}) has no class {param.layer!r}"
        )
    if not (isinstance(cls, type) and issubclass(cls, PythonLayer)):
        raise TypeError(
            f"layer {layer_param.name!r}: {param.module}.{param.layer} must derive from caffe.Layer, found {cls!r}"
        )
    return cls(layer_param)
