"""A net as an ONNX model, layer by layer: onnx_layers.py has a function for each layer type.

The model's inputs are the tops of the net's Input and data layers, its outputs the net's; values are called after their
blobs. Shapes are the net's at the time: for another batch, reshape the inputs and the net first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

try:
    import onnx
    from onnx import TensorProto, helper
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"exporting to ONNX needs the package onnx: pip install 'dhn-caffe-toolkit[export]' ({error})"
    ) from None

from caffe.atomic_files import write_atomic
from caffe.export import blob_names, state_dict
from caffe.onnx_layers import Graph, LayerGraph, add_layer
from caffe.proto import caffe_pb2
from caffe.weight_files import _PROTOBUF_LIMIT

if TYPE_CHECKING:
    from caffe.blob import Blob
    from caffe.layer import Layer
    from caffe.net import Net

OPSET = 17  # every runtime since 2022 reads it
IR_VERSION = 8


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
        ValueError: the net is not in phase TEST, or a layer or the net has no ONNX form; the message names it.
    """
    _check(net)
    graph = Graph()
    inputs: list[onnx.ValueInfoProto] = []
    values: dict[int, str] = {}  # blob -> the value it holds now
    last = {i: index for index, tops in enumerate(net._top_vecs) for i in tops}  # blob -> the last layer to write it
    params = _params(net, graph)
    for index, layer in enumerate(net._layers):
        tops = net._top_vecs[index]
        if not layer.layer_param.bottom and layer.type != "Parameter":
            for i in tops:
                values[i] = graph.unique(net._blob_names[i])
                inputs.append(_value_info(values[i], net._blobs[i]))
            continue
        names = [values[i] for i in net._bottom_vecs[index]]
        part = LayerGraph(graph, net._layer_names[index], net._bottoms(index), net._tops(index), names, params[index])
        blobs = [net._blob_names[i] if last[i] == index else f"{net._blob_names[i]}/{part.name}" for i in tops]
        values.update(zip(tops, add_layer(part, layer, blobs), strict=True))
    outputs = [_output(graph, net, i, values[i], {value.name for value in inputs}) for i in net._outputs]
    whole = helper.make_graph(graph.nodes, net.name or "net", inputs, outputs, list(graph.constants.values()))
    result = helper.make_model(
        whole, producer_name="caffe", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as error:  # of a blob without a name, say
        raise ValueError(f"net {net.name!r} has no ONNX form: {str(error).splitlines()[0]}") from None
    return result


def _check(net: Net) -> None:
    if net.phase != caffe_pb2.TEST:
        raise ValueError(
            f"net {net.name!r} is in phase TRAIN: expected caffe.TEST, the phase in which nothing is random"
        )
    size = sum(4 * blob.count for layer in net._layers for blob in layer.blobs)
    if size > _PROTOBUF_LIMIT:
        raise ValueError(
            f"net {net.name!r} has {size} bytes of parameters: an ONNX file holds at most {_PROTOBUF_LIMIT}"
        )


def _params(net: Net, graph: Graph) -> list[list[str]]:
    """For each layer the names of its parameters, which become constants: those of `export.state_dict`."""
    constants: dict[tuple[int, tuple[int, ...], str], str] = {}  # (memory, shape, layer type) -> the constant
    values = state_dict(net)

    def constant(layer: Layer, blob: Blob, name: str) -> str:
        value = values[name]
        key = (id(blob.data_memory), tuple(value.shape), layer.type)
        if key not in constants:
            constants[key] = name if name in graph.constants else graph.constant(name, value.numpy())
        return constants[key]

    def keys(layer: Layer) -> list[str]:
        return ["running_mean", "running_var"] if layer.type == "BatchNorm" else blob_names(layer)

    return [
        [constant(layer, blob, f"{name}.{key}") for blob, key in zip(layer.blobs, keys(layer), strict=False)]
        for name, layer in zip(net._layer_names, net._layers, strict=True)
    ]


def _value_info(name: str, blob: Blob) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(blob.shape))


def _output(graph: Graph, net: Net, i: int, value: str, inputs: set[str]) -> onnx.ValueInfoProto:
    """The graph's output for blob `i`: a value of its own, even where the net only passes another one on."""
    name = net._blob_names[i]
    if value != name or value in inputs or value in graph.constants:
        (identity,) = graph.add(name, "Identity", [value])
        name = graph.rename(identity, name)
    return _value_info(name, net._blobs[i])
