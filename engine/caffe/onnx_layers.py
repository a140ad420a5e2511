"""What becomes of each layer type in an ONNX model: a function that adds the nodes of its formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from caffe.blob import Blob
from caffe.layer import Layer
from caffe.layer_types.batch_norm import BatchNorm, Bias, Scale
from caffe.layer_types.convolution import Convolution
from caffe.layer_types.inner_product import InnerProduct
from caffe.layer_types.neuron import Exp, Log
from caffe.layer_types.normalization import WITHIN_CHANNEL
from caffe.layer_types.pooling import AVE, MAX, Pooling
from caffe.layer_types.selection import ASUM, MEAN, SUM, SUMSQ, Crop, Tile
from caffe.layer_types.shape import PROD, Concat, Slice
from caffe.layer_types.shape import SUM as ELTWISE_SUM


class Graph:
    """Nodes and constants as they grow."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.names: set[str] = set()

    def unique(self, name: str) -> str:
        """`name`, or with a number behind it where the graph has that name."""
        candidate, number = name, 1
        while candidate in self.names:
            number += 1
            candidate = f"{name}/{number}"
        self.names.add(candidate)
        return candidate

    def add(self, place: str, op: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> list[str]:
        """Add a node of `count` outputs, called after `place` and the operation; returns the outputs' names."""
        outputs = [self.unique(f"{place}/{op}") for _ in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes))
        return outputs

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """Add a constant of that name, or nearly so, if it is taken; returns its name."""
        name = self.unique(name)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        return name

    def rename(self, old: str, new: str) -> str:
        """Call the value `old`, which only nodes made so far read, `new` (or nearly so, if that is taken)."""
        new = self.unique(new)
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        return new


@dataclass(frozen=True)
class LayerGraph:
    """The graph as one layer's function sees it.

    Attributes:
        name: the layer's.
        bottoms, tops: its blobs.
        inputs: the names of the bottoms' values.
        params: the names of the parameters' values.
    """

    whole: Graph
    name: str
    bottoms: list[Blob]
    tops: list[Blob]
    inputs: list[str]
    params: list[str]

    @property
    def x(self) -> str:
        """The first bottom's value."""
        return self.inputs[0]

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; returns the output's name."""
        return self.add_many(op, inputs, 1, **attributes)[0]

    def add_many(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node of `count` outputs; returns their names."""
        return self.whole.add(self.name, op, inputs, count, **attributes)

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """Add a constant; returns its name."""
        return self.whole.constant(f"{self.name}/constant", value, dtype)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` under another shape."""
        return self.add("Reshape", x, self.constant(list(shape), np.int64))

    def linear(self, x: str, scale: float, shift: float) -> str:
        """scale * x + shift."""
        if scale != 1:
            x = self.add("Mul", x, self.constant(scale))
        return self.add("Add", x, self.constant(shift)) if shift else x


# A function that adds the nodes of a layer of its types; it returns the name of each top's value.
Exporter = Callable[[LayerGraph, Any], list[str]]
_EXPORTERS: dict[str, Exporter] = {}


def exports(*types: str) -> Callable[[Exporter], Exporter]:
    """Decorator: the function is what these layer types become."""

    def add(function: Exporter) -> Exporter:
        _EXPORTERS.update(dict.fromkeys(types, function))
        return function

    return add


def add_layer(graph: LayerGraph, layer: Layer, blobs: list[str]) -> list[str]:
    """Add the layer's nodes; returns the name of each top's value: that of `blobs`, unless the layer passes a value on
    that was there before."""
    if layer.type not in _EXPORTERS:
        raise ValueError(
            f"layer {graph.name!r} ({layer.type}) has no ONNX form here; layers that have one: "
            f"{', '.join(sorted(_EXPORTERS))}. A deploy net, without losses, is what to export"
        )
    whole = graph.whole
    before = len(whole.nodes)
    values = _EXPORTERS[layer.type](graph, layer)
    own = {output for node in whole.nodes[before:] for output in node.output}
    return [whole.rename(value, blob) if value in own else value for value, blob in zip(values, blobs, strict=True)]


def _refuse(layer: Layer, why: str) -> NoReturn:
    layer.check(False, f"{why}, which has no ONNX form here")


# -- layers with weights


@exports("Convolution", "Deconvolution")
def _convolution(graph: LayerGraph, layer: Convolution) -> list[str]:
    if layer.axis != 1 or not layer.spatial:
        _refuse(layer, f"convolves {layer.spatial} axes after axis {layer.axis}")
    op = "Conv" if layer.type == "Convolution" else "ConvTranspose"
    return [
        graph.add(op, x, *graph.params, kernel_shape=layer.kernel, strides=layer.stride, pads=[*layer.pad, *layer.pad],
                  dilations=layer.dilation, group=layer.group)
        for x in graph.inputs
    ]  # fmt: skip


@exports("InnerProduct")
def _inner_product(graph: LayerGraph, layer: InnerProduct) -> list[str]:
    x = graph.add("Flatten", graph.x, axis=layer.axis)
    y = graph.add("Gemm", x, *graph.params, transB=1)
    return [y if layer.axis == 1 else graph.reshape(y, graph.tops[0].shape)]


@exports("Embed")
def _embed(graph: LayerGraph, layer: Layer) -> list[str]:
    y = graph.add("Gather", graph.params[0], graph.add("Cast", graph.x, to=TensorProto.INT64), axis=0)
    return [graph.add("Add", y, graph.params[1]) if graph.params[1:] else y]


@exports("PReLU")
def _prelu(graph: LayerGraph, layer: Layer) -> list[str]:
    shape = (-1, *(1,) * (graph.bottoms[0].num_axes - 2))
    return [graph.add("PRelu", graph.x, graph.reshape(graph.params[0], shape))]


@exports("BatchNorm")
def _batch_norm(graph: LayerGraph, layer: BatchNorm) -> list[str]:
    if not layer.use_global_stats:
        _refuse(layer, "use_global_stats: false, the batch's own statistics")
    one, zero = graph.constant(np.ones(layer.channels)), graph.constant(np.zeros(layer.channels))
    return [
        graph.add(
            "BatchNormalization",
            graph.x,
            one,
            zero,
            *graph.params,
            epsilon=layer.layer_param.batch_norm_param.eps,
        )
    ]


@exports("Scale", "Bias")
def _scale(graph: LayerGraph, layer: Scale | Bias) -> list[str]:
    terms = [graph.reshape(term, layer.view) for term in (*graph.inputs[1:], *graph.params)]
    if layer.type == "Bias":
        return [graph.add("Add", graph.x, terms[0])]
    y = graph.add("Mul", graph.x, terms[0])
    return [graph.add("Add", y, terms[1]) if terms[1:] else y]


@exports("Parameter")
def _parameter(graph: LayerGraph, layer: Layer) -> list[str]:
    return graph.params


# -- pooling and normalization


@exports("Pooling")
def _pooling(graph: LayerGraph, layer: Pooling) -> list[str]:
    pool = layer.layer_param.pooling_param.pool
    if pool not in (MAX, AVE) or len(graph.tops) > 1:
        _refuse(layer, "a top of maxima's places" if len(graph.tops) > 1 else "pool: STOCHASTIC")
    sizes, pooled = graph.bottoms[0].shape[2:], graph.tops[0].shape[2:]
    starts = [np.arange(count) * stride - pad for count, stride, pad in
              zip(pooled, layer.stride, layer.pad, strict=True)]  # fmt: skip
    if any(start[-1] >= size for start, size in zip(starts, sizes, strict=True)):
        _refuse(layer, "a window that lies wholly outside its bottom")
    # The padding is written out up to the last window's end: what ceil_mode means differs from runtime to runtime.
    window = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": [*layer.pad, *layer.beyond],
    }
    if pool == MAX:
        return [graph.add("MaxPool", graph.x, **window)]
    y = graph.add("AveragePool", graph.x, count_include_pad=1, **window)
    lengths = [np.minimum(start + kernel, size + pad) - start for start, kernel, size, pad in
               zip(starts, layer.kernel, sizes, layer.pad, strict=True)]  # fmt: skip
    counts = lengths[0][:, None] * lengths[1]
    values = math.prod(layer.kernel)
    return [y if (counts == values).all() else graph.add("Mul", y, graph.constant(values / counts))]


@exports("LRN")
def _lrn(graph: LayerGraph, layer: Layer) -> list[str]:
    param = layer.layer_param.lrn_param
    if param.norm_region != WITHIN_CHANNEL:
        return [graph.add("LRN", graph.x, size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)]
    size, pad = param.local_size, param.local_size // 2
    squares = graph.add("Mul", graph.x, graph.x)
    mean = graph.add("AveragePool", squares, kernel_shape=[size, size], pads=[pad] * 4, count_include_pad=1)
    base = graph.add("Add", graph.add("Mul", mean, graph.constant(param.alpha)), graph.constant(1))
    return [graph.add("Div", graph.x, graph.add("Pow", base, graph.constant(param.beta)))]


@exports("MVN")
def _mvn(graph: LayerGraph, layer: Layer) -> list[str]:
    param = layer.layer_param.mvn_param
    axes = [1, 2, 3] if param.across_channels else [2, 3]
    x = graph.x if graph.bottoms[0].shape == graph.tops[0].shape else graph.reshape(graph.x, graph.tops[0].shape)
    y = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes))
    if not param.normalize_variance:
        return [y]
    deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", y, y), axes=axes))
    return [graph.add("Div", y, graph.add("Add", deviation, graph.constant(param.eps)))]


@exports("Softmax")
def _softmax(graph: LayerGraph, layer: Layer) -> list[str]:
    return [graph.add("Softmax", graph.x, axis=graph.bottoms[0].axis(layer.layer_param.softmax_param.axis))]


# -- layers that act on each value


@exports("Sigmoid", "TanH", "AbsVal", "BNLL")
def _neuron(graph: LayerGraph, layer: Layer) -> list[str]:
    op = {"Sigmoid": "Sigmoid", "TanH": "Tanh", "AbsVal": "Abs", "BNLL": "Softplus"}[layer.type]
    return [graph.add(op, graph.x)]


@exports("ReLU")
def _relu(graph: LayerGraph, layer: Layer) -> list[str]:
    slope = layer.layer_param.relu_param.negative_slope
    return [graph.add("LeakyRelu", graph.x, alpha=slope) if slope else graph.add("Relu", graph.x)]


@exports("ELU")
def _elu(graph: LayerGraph, layer: Layer) -> list[str]:
    return [graph.add("Elu", graph.x, alpha=layer.layer_param.elu_param.alpha)]


@exports("Swish")
def _swish(graph: LayerGraph, layer: Layer) -> list[str]:
    scaled = graph.add("Mul", graph.x, graph.constant(layer.layer_param.swish_param.beta))
    return [graph.add("Mul", graph.x, graph.add("Sigmoid", scaled))]


@exports("Clip")
def _clip(graph: LayerGraph, layer: Layer) -> list[str]:
    param = layer.layer_param.clip_param
    return [graph.add("Clip", graph.x, graph.constant(param.min), graph.constant(param.max))]


@exports("Threshold")
def _threshold(graph: LayerGraph, layer: Layer) -> list[str]:
    above = graph.add("Greater", graph.x, graph.constant(layer.layer_param.threshold_param.threshold))
    return [graph.add("Cast", above, to=TensorProto.FLOAT)]


@exports("Power")
def _power(graph: LayerGraph, layer: Layer) -> list[str]:
    param = layer.layer_param.power_param
    y = graph.linear(graph.x, param.scale, param.shift)
    return [graph.add("Pow", y, graph.constant(param.power)) if param.power != 1 else y]


@exports("Exp", "Log")
def _exp(graph: LayerGraph, layer: Exp | Log) -> list[str]:
    if layer.type == "Log":
        param = layer.layer_param.log_param
        y = graph.add("Log", graph.linear(graph.x, param.scale, param.shift))
        return [graph.add("Div", y, graph.constant(layer.log_base)) if layer.log_base != 1 else y]
    param = layer.layer_param.exp_param
    return [graph.add("Exp", graph.linear(graph.x, param.scale * layer.log_base, param.shift * layer.log_base))]


# -- layers that pass values on, join, cut, choose or sum them up


@exports("Dropout", "Split", "Silence")
def _passed(graph: LayerGraph, layer: Layer) -> list[str]:
    return graph.inputs[:1] * len(graph.tops)


@exports("Flatten", "Reshape")
def _reshaped(graph: LayerGraph, layer: Layer) -> list[str]:
    return [graph.reshape(graph.x, graph.tops[0].shape)]


@exports("Concat")
def _concat(graph: LayerGraph, layer: Concat) -> list[str]:
    return [graph.add("Concat", *graph.inputs, axis=layer.axis)]


@exports("Slice")
def _slice(graph: LayerGraph, layer: Slice) -> list[str]:
    sizes = graph.constant(layer.sizes, np.int64)
    return graph.add_many("Split", [graph.x, sizes], len(graph.tops), axis=layer.axis)


@exports("Crop")
def _crop(graph: LayerGraph, layer: Crop) -> list[str]:
    axes, starts, sizes = np.array(layer.windows, np.int64).reshape(-1, 3).T
    bounds = [graph.constant(values, np.int64) for values in (starts, starts + sizes, axes)]
    return [graph.add("Slice", graph.x, *bounds)]


@exports("Tile")
def _tile(graph: LayerGraph, layer: Tile) -> list[str]:
    return [graph.add("Concat", *graph.inputs * layer.layer_param.tile_param.tiles, axis=layer.axis)]


@exports("Eltwise")
def _eltwise(graph: LayerGraph, layer: Layer) -> list[str]:
    param = layer.layer_param.eltwise_param
    if param.operation == ELTWISE_SUM:
        coeffs = param.coeff or [1.0] * len(graph.inputs)
        return [graph.add("Sum", *(graph.linear(x, coeff, 0) for x, coeff in zip(graph.inputs, coeffs, strict=True)))]
    if param.operation == PROD:
        y = graph.x
        for x in graph.inputs[1:]:
            y = graph.add("Mul", y, x)
        return [y]
    return [graph.add("Max", *graph.inputs)]


@exports("Reduction")
def _reduction(graph: LayerGraph, layer: Layer) -> list[str]:
    param = layer.layer_param.reduction_param
    x = graph.reshape(graph.x, (*graph.tops[0].shape, -1))
    op = {SUM: "ReduceSum", MEAN: "ReduceMean", ASUM: "ReduceL1", SUMSQ: "ReduceSumSquare"}[param.operation]
    last = len(graph.tops[0].shape)
    if op == "ReduceSum":  # the only one of them that takes its axes as an input at this opset
        y = graph.add(op, x, graph.constant([last], np.int64), keepdims=0)
    else:
        y = graph.add(op, x, axes=[last], keepdims=0)
    return [graph.linear(y, param.coeff, 0) if param.coeff != 1 else y]
