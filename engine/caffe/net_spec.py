"""Writing nets in Python (pycaffe's NetSpec).

    from caffe import layers as L, params as P
    net = caffe.NetSpec()
    net.data = L.Input(shape=dict(dim=[1, 3, 32, 32]))
    net.conv1 = L.Convolution(net.data, kernel_size=3, num_output=16, weight_filler=dict(type="xavier"))
    net.pool1 = L.Pooling(net.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    print(net.to_proto())

A keyword of a layer is a field of its own parameter message (`kernel_size`), or, ending in `param` or unknown there,
a field of LayerParameter (`param`, `transform_param`, `loss_weight`, `include`). `ntop` is the number of tops
(default 1), `in_place=True` writes the tops over the bottoms. Tops without a name get the type and a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from caffe.proto import caffe_pb2


def param_name_dict() -> dict[str, str]:
    """From the name of a parameter message to its field in LayerParameter: {"Convolution": "convolution", ...}."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in fields
        if field.name.endswith("_param")
    }


def assign_proto(proto: Message, name: str, val: Any) -> None:
    """Put a Python value into the field `name` of `proto`.

    A dict fills a message, a list or tuple a repeated field; a single value for a repeated field is its only element.

    Raises:
        AttributeError: no such field.
        TypeError: a value of another kind than the field's.
    """
    field = proto.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        fields = ", ".join(each.name for each in proto.DESCRIPTOR.fields)
        raise AttributeError(f"{proto.DESCRIPTOR.name} has no field {name!r}; its fields: {fields}")
    target = getattr(proto, name)
    repeated = hasattr(target, "extend")
    for value in val if repeated and isinstance(val, (list, tuple)) else [val]:
        if isinstance(value, dict) and field.message_type is not None:
            _assign_all(target.add() if repeated else target, value)
            continue
        try:
            if repeated:
                target.extend([value])
            else:
                setattr(proto, name, value)
        except (TypeError, ValueError, AttributeError) as error:
            raise TypeError(f"{proto.DESCRIPTOR.name}.{name} cannot be {value!r}: {error}") from None


def _assign_all(proto: Message, values: dict) -> None:
    for name, value in values.items():
        assign_proto(proto, name, value)


class Top:
    """One output of a layer: number `n` of the tops of `fn`."""

    def __init__(self, fn: Function, n: int):
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net of all layers that this top needs, named automatically."""
        return to_proto(self)


class Function:
    """A layer: its type, its inputs (Tops of other layers) and its parameters.

    Raises:
        TypeError: an input is not a Top.
    """

    def __init__(self, type_name: str, inputs: tuple, params: dict[str, Any]):
        for index, each in enumerate(inputs):
            if not isinstance(each, Top):
                # a tuple is what a layer with several tops gives: its elements are Tops; BVLC's sentence to its end
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(each)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(params)
        self.ntop = self.params.pop("ntop", 1)
        self.in_place = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def layer(self, name: str, bottoms: list[str], tops: list[str]) -> caffe_pb2.LayerParameter:
        """The layer's message."""
        layer = caffe_pb2.LayerParameter(type=self.type_name, name=name, bottom=bottoms, top=tops)
        own = param_name_dict().get(self.type_name)
        for key, value in self.params.items():
            target = layer
            if own is not None and not key.endswith("param"):
                descriptor = layer.DESCRIPTOR.fields_by_name[f"{own}_param"].message_type
                if key in descriptor.fields_by_name:
                    target = getattr(layer, f"{own}_param")
                elif key not in layer.DESCRIPTOR.fields_by_name:
                    raise AttributeError(
                        f"{self.type_name} has no parameter {key!r}: neither {descriptor.name} nor LayerParameter "
                        "has such a field"
                    )
            assign_proto(target, key, value)
        return layer


class _Writer:
    """Lays layers out in the order in which they need each other."""

    def __init__(self, names: dict[Top | Function, str]):
        self.names = names
        self.counts: Counter[str] = Counter()
        self.layers: dict[Function, caffe_pb2.LayerParameter] = {}

    def add(self, fn: Function) -> None:
        """Append the layers that `fn` needs, then `fn`, each once."""
        if fn in self.layers:
            return
        bottoms = []
        for each in fn.inputs:
            self.add(each.fn)
            bottoms.append(self.layers[each.fn].top[each.n])
        tops = bottoms if fn.in_place else [self._name(top, fn) for top in fn.tops]
        name = self._name(fn.tops[0] if fn.tops else fn, fn)
        self.layers[fn] = fn.layer(name, bottoms, tops)

    def _name(self, key: Top | Function, fn: Function) -> str:
        if key not in self.names:
            self.counts[fn.type_name] += 1
            self.names[key] = f"{fn.type_name}{self.counts[fn.type_name]}"
        return self.names[key]

    def net(self) -> caffe_pb2.NetParameter:
        return caffe_pb2.NetParameter(layer=self.layers.values())


def to_proto(*tops: Top | Function) -> caffe_pb2.NetParameter:
    """The net of all layers that `tops` need, named automatically."""
    writer = _Writer({})
    for top in tops:
        writer.add(_function(top))
    return writer.net()


def _function(top: Top | Function) -> Function:
    return top.fn if isinstance(top, Top) else top


class _NoTop(KeyError, AttributeError):
    """No top of that name: a KeyError, as in pycaffe, and what getattr and hasattr expect."""

    def __str__(self) -> str:
        return self.args[0]


class NetSpec:
    """A net: what is assigned to its attributes (or items) is a top under that name; its layer takes the name too.

    Raises:
        TypeError: what is assigned is neither a Top nor a layer with ntop=0.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        if not isinstance(value, (Top, Function)):
            hint = ": assign each top of a layer with several to a name" if isinstance(value, tuple) else ""
            raise TypeError(f"{name} is not a Top (type is {type(value)}){hint}")
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        """The Top of that name; the Function of a layer without tops."""
        if name == "tops" or name not in self.tops:  # without `tops` there is no instance yet: copy, pickle
            tops = "" if name == "tops" else f"; its tops: {', '.join(self.tops) or 'none'}"
            raise _NoTop(f"the net has no top {name!r}{tops}")
        return self.tops[name]

    def __setitem__(self, name: str, value: Top | Function) -> None:
        setattr(self, name, value)

    def __getitem__(self, name: str) -> Any:
        return self.__getattr__(name)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net of all layers that the assigned tops need."""
        writer = _Writer({top: name for name, top in self.tops.items()})
        for top in self.tops.values():
            writer.add(_function(top))
        return writer.net()


class Layers:
    """`Layers().Convolution(bottom, kernel_size=3)` makes a layer and gives its top: a Top; a tuple of them with `ntop`
    above 1; the Function itself with ntop=0."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def make(*inputs: Top, **params: Any) -> Top | tuple[Top, ...] | Function:
            fn = Function(name, inputs, params)
            return fn if fn.ntop == 0 else fn.tops[0] if fn.ntop == 1 else fn.tops

        return make


class Parameters:
    """`Parameters().Pooling.MAX` is the constant MAX of PoolingParameter."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(caffe_pb2, name + "Parameter")


layers = Layers()
params = Parameters()
