"""A net as an ONNX model, layer by layer: each layer type has a function below that adds the nodes of its formula.

The model's inputs are the tops of the net's Input and data layers, its outputs the net's; values are called after their
blobs. Shapes are the net's at the time: for another batch, reshape the inputs and the net first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ImportError(
        f"exporting to ONNX needs the package onnx: pip install 'dhn-caffe-toolkit[export]' ({error})"
    ) from None

from caffe.atomic_files import write_atomic
from caffe.export import blob_names, state_dict
from caffe.layer_types.normalization import WITHIN_CHANNEL
from caffe.layer_types.pooling import AVE, MAX
from caffe.layer_types.selection import ASUM, MEAN, SUM, SUMSQ
from caffe.layer_types.shape import PROD
from caffe.layer_types.shape import SUM as ELTWISE_SUM
from caffe.proto import caffe_pb2
from caffe.weight_files import _PROTOBUF_LIMIT

if TYPE_CHECKING:
    from caffe.blob import Blob
    from caffe.layer import Layer
    from caffe.net import Net

OPSET = 17  # every runtime since 2022 reads it
IR_VERSION = 8

_EXPORTS: dict[str, Callable] = {}


def exports(*types: str):
    """Decorator: the function is what these layer types become. It takes the graph, the layer, its bottom and top
    blobs, and the names of the bottoms' values and of the parameters; it returns the name of each top's value."""

    def add(function):
        for name in types:
            _EXPORTS[name] = function
        return function

    return add


class Graph:
    """Nodes and constants as they grow. `layer` is the name that new ones get their names from."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.names: set[str] = set()
        self.layer = ""

    def unique(self, name: str) -> str:
        """`name`, or with a number behind it where the graph has that name."""
        found, number = name, 1
        while found in self.names:
            number += 1
            found = f"{name}/{number}"
        self.names.add(found)
        return found

    def add(self, op: str, *xs: str, **attributes) -> str:
        """Add a node of one output; returns the output's name."""
        return self.add_many(op, xs, 1, **attributes)[0]

    def add_many(self, op: str, xs: Sequence[str], count: int, **attributes) -> list[str]:
        """Add a node of `count` outputs; returns their names."""
        outputs = [self.unique(f"{self.layer}/{op}") for _ in range(count)]
        self.nodes.append(helper.make_node(op, list(xs), outputs, name=outputs[0], **attributes))
        return outputs

    def constant(self, value, name: str | None = None, dtype=np.float32) -> str:
        """Add a constant (or find the one of that name); returns its name."""
        if name is None or name not in self.constants:
            name = self.unique(name or f"{self.layer}/constant")
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` under another shape."""
        return self.add("Reshape", x, self.constant(list(shape), dtype=np.int64))

    def rename(self, old: str, new: str) -> str:
        """Call the value `old`, which only nodes made so far read, `new` (or nearly so, if that is taken)."""
        new = self.unique(new)
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        return new


def save_onnx(net: Net, path: str | Path) -> None:
    """Write `net` as an ONNX model, whole or not at all; see `model`.

    Raises:
        ImportError: the package onnx is not installed.
        ValueError: a layer has no ONNX form; the message names it.
    """
    write_atomic(path, model(net).SerializeToString())


def model(net: Net) -> onnx.ModelProto:
    """The ONNX model of `net`, checked by onnx.

    Raises:
        ValueError: the net is not in phase TEST, or a layer has no ONNX form; the message names it.
    """
    if net.phase != caffe_pb2.TEST:
        raise ValueError(
            f"net {net.name!r} is in phase TRAIN: expected caffe.TEST, the phase in which nothing is random"
        )
    size = sum(4 * blob.count for layer in net._layers for blob in layer.blobs)
    if size > _PROTOBUF_LIMIT:
        raise ValueError(
            f"net {net.name!r} has {size} bytes of parameters: an ONNX file holds at most {_PROTOBUF_LIMIT}"
        )
    graph, inputs = Graph(), []
    values: dict[int, str] = {}  # blob -> the value it holds now
    last = {i: index for index, tops in enumerate(net._top_vecs) for i in tops}  # blob -> the last layer to write it
    params = _params(net, graph)
    for index, (name, layer) in enumerate(zip(net._layer_names, net._layers, strict=True)):
        graph.layer = name
        tops = net._top_vecs[index]
        if not layer.layer_param.bottom and layer.type != "Parameter":
            for i in tops:
                values[i] = graph.unique(net._blob_names[i])
                inputs.append(_value_info(values[i], net._blobs[i]))
            continue
        if layer.type not in _EXPORTS:
            raise ValueError(
                f"layer {name!r} ({layer.type}) has no ONNX form here; layers that have one: "
                f"{', '.join(sorted(_EXPORTS))}. A deploy net, without losses, is what to export"
            )
        xs = [values[i] for i in net._bottom_vecs[index]]
        before = len(graph.nodes)
        found = _EXPORTS[layer.type](graph, layer, net._bottoms(index), net._tops(index), xs, params[index])
        own = {output for node in graph.nodes[before:] for output in node.output}
        for i, value in zip(tops, found, strict=True):
            if value in own:  # not a value that the layer passes on
                blob = net._blob_names[i]
                value = graph.rename(value, blob if last[i] == index else f"{blob}/{name}")
            values[i] = value
    outputs = [_output(graph, net, i, values[i], {value.name for value in inputs}) for i in net._outputs]
    whole = helper.make_graph(graph.nodes, net.name or "net", inputs, outputs, list(graph.constants.values()))
    made_model = helper.make_model(
        whole, producer_name="caffe", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(made_model)
    return made_model


def _params(net: Net, graph: Graph) -> list[list[str]]:
    """For each layer the names of its parameters, which become constants: those of `export.state_dict`."""
    found, owners = [], {}
    values = state_dict(net)
    for name, layer in zip(net._layer_names, net._layers, strict=True):
        names = ["running_mean", "running_var"] if layer.type == "BatchNorm" else blob_names(layer)
        held = []
        for blob, key in zip(layer.blobs, names, strict=False):
            value = values[f"{name}.{key}"]
            same = (id(blob.data_memory), tuple(value.shape), layer.type)
            if same not in owners:
                owners[same] = graph.constant(value.numpy(), f"{name}.{key}")
            held.append(owners[same])
        found.append(held)
    return found


def _value_info(name: str, blob: Blob) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(blob.shape))


def _output(graph: Graph, net: Net, i: int, value: str, inputs: set[str]) -> onnx.ValueInfoProto:
    """The graph's output for blob `i`: a value of its own, even where the net only passes another one on."""
    name = net._blob_names[i]
    if value != name or value in inputs or value in graph.constants:
        graph.layer = name
        name = graph.rename(graph.add("Identity", value), name)
    return _value_info(name, net._blobs[i])


def _refuse(layer: Layer, why: str) -> None:
    layer.check(False, f"{why}, which has no ONNX form here")


# -- layers with weights


@exports("Convolution", "Deconvolution")
def _convolution(graph, layer, bottoms, tops, xs, params):
    if layer.axis != 1 or not layer.spatial:
        _refuse(layer, f"convolves {layer.spatial} axes after axis {layer.axis}")
    op = "Conv" if layer.type == "Convolution" else "ConvTranspose"
    return [
        graph.add(op, x, *params, kernel_shape=layer.kernel, strides=layer.stride, pads=[*layer.pad, *layer.pad],
                  dilations=layer.dilation, group=layer.group)
        for x in xs
    ]  # fmt: skip


@exports("InnerProduct")
def _inner_product(graph, layer, bottoms, tops, xs, params):
    x = graph.add("Flatten", xs[0], axis=layer.axis)
    y = graph.add("Gemm", x, *params, transB=1)
    return [y if layer.axis == 1 else graph.reshape(y, tops[0].shape)]


@exports("Embed")
def _embed(graph, layer, bottoms, tops, xs, params):
    y = graph.add("Gather", params[0], graph.add("Cast", xs[0], to=TensorProto.INT64), axis=0)
    return [graph.add("Add", y, params[1]) if params[1:] else y]


@exports("PReLU")
def _prelu(graph, layer, bottoms, tops, xs, params):
    shape = (-1, *(1,) * (bottoms[0].num_axes - 2))
    return [graph.add("PRelu", xs[0], graph.reshape(params[0], shape))]


@exports("BatchNorm")
def _batch_norm(graph, layer, bottoms, tops, xs, params):
    if not layer.use_global_stats:
        _refuse(layer, "use_global_stats: false, the batch's own statistics")
    one, zero = graph.constant(np.ones(layer.channels)), graph.constant(np.zeros(layer.channels))
    return [graph.add("BatchNormalization", xs[0], one, zero, *params, epsilon=layer.layer_param.batch_norm_param.eps)]


@exports("Scale", "Bias")
def _scale(graph, layer, bottoms, tops, xs, params):
    terms = [graph.reshape(term, layer.view) for term in (*xs[1:], *params)]
    if layer.type == "Bias":
        return [graph.add("Add", xs[0], terms[0])]
    y = graph.add("Mul", xs[0], terms[0])
    return [graph.add("Add", y, terms[1]) if terms[1:] else y]


@exports("Parameter")
def _parameter(graph, layer, bottoms, tops, xs, params):
    return params


# -- pooling and normalization


@exports("Pooling")
def _pooling(graph, layer, bottoms, tops, xs, params):
    pool = layer.layer_param.pooling_param.pool
    if pool not in (MAX, AVE) or len(tops) > 1:
        _refuse(layer, "a top of maxima's places" if len(tops) > 1 else "pool: STOCHASTIC")
    sizes, pooled = bottoms[0].shape[2:], tops[0].shape[2:]
    starts = [np.arange(count) * stride - pad for count, stride, pad in
              zip(pooled, layer.stride, layer.pad, strict=True)]  # fmt: skip
    if any(start[-1] >= size for start, size in zip(starts, sizes, strict=True)):
        _refuse(layer, "a window that lies wholly outside its bottom")
    # The padding is written out up to the last window's end: what ceil_mode means differs from runtime to runtime.
    window = {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": [*layer.pad, *layer.beyond]}
    if pool == MAX:
        return [graph.add("MaxPool", xs[0], **window)]
    y = graph.add("AveragePool", xs[0], count_include_pad=1, **window)
    lengths = [np.minimum(start + kernel, size + pad) - start for start, kernel, size, pad in
               zip(starts, layer.kernel, sizes, layer.pad, strict=True)]  # fmt: skip
    counts = lengths[0][:, None] * lengths[1]
    whole = math.prod(layer.kernel)
    return [y if (counts == whole).all() else graph.add("Mul", y, graph.constant(whole / counts))]


@exports("LRN")
def _lrn(graph, layer, bottoms, tops, xs, params):
    param = layer.layer_param.lrn_param
    if param.norm_region != WITHIN_CHANNEL:
        return [graph.add("LRN", xs[0], size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)]
    size, pad = param.local_size, param.local_size // 2
    squares = graph.add("Mul", xs[0], xs[0])
    mean = graph.add("AveragePool", squares, kernel_shape=[size, size], pads=[pad] * 4, count_include_pad=1)
    base = graph.add("Add", graph.add("Mul", mean, graph.constant(param.alpha)), graph.constant(1))
    return [graph.add("Div", xs[0], graph.add("Pow", base, graph.constant(param.beta)))]


@exports("MVN")
def _mvn(graph, layer, bottoms, tops, xs, params):
    param = layer.layer_param.mvn_param
    axes = [1, 2, 3] if param.across_channels else [2, 3]
    x = xs[0] if bottoms[0].shape == tops[0].shape else graph.reshape(xs[0], tops[0].shape)
    y = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes))
    if not param.normalize_variance:
        return [y]
    deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", y, y), axes=axes))
    return [graph.add("Div", y, graph.add("Add", deviation, graph.constant(param.eps)))]


@exports("Softmax")
def _softmax(graph, layer, bottoms, tops, xs, params):
    return [graph.add("Softmax", xs[0], axis=bottoms[0].axis(layer.layer_param.softmax_param.axis))]


# -- layers that act on each value


@exports("Sigmoid", "TanH", "AbsVal", "BNLL")
def _neuron(graph, layer, bottoms, tops, xs, params):
    op = {"Sigmoid": "Sigmoid", "TanH": "Tanh", "AbsVal": "Abs", "BNLL": "Softplus"}[layer.type]
    return [graph.add(op, xs[0])]


@exports("ReLU")
def _relu(graph, layer, bottoms, tops, xs, params):
    slope = layer.layer_param.relu_param.negative_slope
    return [graph.add("LeakyRelu", xs[0], alpha=slope) if slope else graph.add("Relu", xs[0])]


@exports("ELU")
def _elu(graph, layer, bottoms, tops, xs, params):
    return [graph.add("Elu", xs[0], alpha=layer.layer_param.elu_param.alpha)]


@exports("Swish")
def _swish(graph, layer, bottoms, tops, xs, params):
    scaled = graph.add("Mul", xs[0], graph.constant(layer.layer_param.swish_param.beta))
    return [graph.add("Mul", xs[0], graph.add("Sigmoid", scaled))]


@exports("Clip")
def _clip(graph, layer, bottoms, tops, xs, params):
    param = layer.layer_param.clip_param
    return [graph.add("Clip", xs[0], graph.constant(param.min), graph.constant(param.max))]


@exports("Threshold")
def _threshold(graph, layer, bottoms, tops, xs, params):
    above = graph.add("Greater", xs[0], graph.constant(layer.layer_param.threshold_param.threshold))
    return [graph.add("Cast", above, to=TensorProto.FLOAT)]


def _linear(graph: Graph, x: str, scale: float, shift: float) -> str:
    """scale * x + shift."""
    if scale != 1:
        x = graph.add("Mul", x, graph.constant(scale))
    return graph.add("Add", x, graph.constant(shift)) if shift else x


@exports("Power")
def _power(graph, layer, bottoms, tops, xs, params):
    param = layer.layer_param.power_param
    y = _linear(graph, xs[0], param.scale, param.shift)
    return [graph.add("Pow", y, graph.constant(param.power)) if param.power != 1 else y]


@exports("Exp", "Log")
def _exp(graph, layer, bottoms, tops, xs, params):
    if layer.type == "Log":
        param = layer.layer_param.log_param
        y = graph.add("Log", _linear(graph, xs[0], param.scale, param.shift))
        return [graph.add("Div", y, graph.constant(layer.log_base)) if layer.log_base != 1 else y]
    param = layer.layer_param.exp_param
    return [graph.add("Exp", _linear(graph, xs[0], param.scale * layer.log_base, param.shift * layer.log_base))]


# -- layers that pass values on, join, cut, choose or sum them up


@exports("Dropout", "Split", "Silence")
def _passed(graph, layer, bottoms, tops, xs, params):
    return xs[:1] * len(tops)


@exports("Flatten", "Reshape")
def _reshaped(graph, layer, bottoms, tops, xs, params):
    return [graph.reshape(xs[0], tops[0].shape)]


@exports("Concat")
def _concat(graph, layer, bottoms, tops, xs, params):
    return [graph.add("Concat", *xs, axis=layer.axis)]


@exports("Slice")
def _slice(graph, layer, bottoms, tops, xs, params):
    sizes = graph.constant(layer.sizes, dtype=np.int64)
    return graph.add_many("Split", [xs[0], sizes], len(tops), axis=layer.axis)


@exports("Crop")
def _crop(graph, layer, bottoms, tops, xs, params):
    axes, starts, sizes = np.array(layer.windows, np.int64).reshape(-1, 3).T
    bounds = [graph.constant(values, dtype=np.int64) for values in (starts, starts + sizes, axes)]
    return [graph.add("Slice", xs[0], *bounds)]


@exports("Tile")
def _tile(graph, layer, bottoms, tops, xs, params):
    return [graph.add("Concat", *xs * layer.layer_param.tile_param.tiles, axis=layer.axis)]


@exports("Eltwise")
def _eltwise(graph, layer, bottoms, tops, xs, params):
    param = layer.layer_param.eltwise_param
    if param.operation == ELTWISE_SUM:
        coeffs = param.coeff or [1.0] * len(xs)
        return [graph.add("Sum", *(_linear(graph, x, coeff, 0) for x, coeff in zip(xs, coeffs, strict=True)))]
    if param.operation == PROD:
        y = xs[0]
        for x in xs[1:]:
            y = graph.add("Mul", y, x)
        return [y]
    return [graph.add("Max", *xs)]


@exports("Reduction")
def _reduction(graph, layer, bottoms, tops, xs, params):
    param = layer.layer_param.reduction_param
    x = graph.reshape(xs[0], (*tops[0].shape, -1))
    op = {SUM: "ReduceSum", MEAN: "ReduceMean", ASUM: "ReduceL1", SUMSQ: "ReduceSumSquare"}[param.operation]
    last = len(tops[0].shape)
    if op == "ReduceSum":  # the only one of them that takes its axes as an input at this opset
        y = graph.add(op, x, graph.constant([last], dtype=np.int64), keepdims=0)
    else:
        y = graph.add(op, x, axes=[last], keepdims=0)
    return [_linear(graph, y, param.coeff, 0) if param.coeff != 1 else y]
