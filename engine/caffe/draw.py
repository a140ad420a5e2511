"""Pictures of nets (pycaffe's caffe.draw).

The picture is a graph in the DOT language. Image formats (png, pdf, svg, ...) need Graphviz's program `dot`; the text
itself (dot, gv, raw) needs nothing, and `get_pydot_graph` the package pydot.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from caffe.atomic_files import write_atomic
from caffe.proto import caffe_pb2

LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_COLORS = {"Convolution": "#FF5050", "Deconvolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}
_LEARNING = ("Convolution", "Deconvolution", "InnerProduct")
_TEXT = ("raw", "dot", "gv")


def get_pooling_types_dict() -> dict[int, str]:
    """The names of the pooling methods, by number."""
    return {value: name for name, value in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: caffe_pb2.LayerParameter) -> str:
    """What the arrow out of a layer says: its batch size, its num_output, or nothing (`""`)."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else '""'


def get_layer_lr_mult(layer: caffe_pb2.LayerParameter) -> tuple[float, float]:
    """The learning rate multipliers of weights and bias.

    Raises:
        ValueError: a layer of a type without these two, or with more than two param fields.
    """
    if layer.type not in _LEARNING:
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier (layer {layer.name!r})")
    if len(layer.param) > 2:
        raise ValueError(f"layer {layer.name!r}: expected at most two param fields, found {len(layer.param)}")
    weights, bias = ([each.lr_mult for each in layer.param] + [1.0, 1.0])[:2]
    return weights, bias


def get_layer_label(layer: caffe_pb2.LayerParameter, rankdir: str, display_lrm: bool = False) -> str:
    """A layer's text, quoted: name, type, kernel, stride and pad, and with `display_lrm` its lr_mult."""
    separator = " " if rankdir in ("TB", "BT") else r"\n"  # where the graph runs sideways, room is below
    pooling = layer.type == "Pooling"
    lines = [re.sub(r'([{}|<>"\\])', r"\\\1", layer.name)]
    lines.append(
        f"({layer.type} {get_pooling_types_dict()[layer.pooling_param.pool]})" if pooling else f"({layer.type})"
    )
    if layer.type in ("Convolution", "Deconvolution", "Pooling"):
        param = layer.pooling_param if pooling else layer.convolution_param
        for what, field, default in (("kernel size", "kernel_size", 1), ("stride", "stride", 1), ("pad", "pad", 0)):
            value = getattr(param, field)
            lines.append(f"{what}: {value if pooling else value[0] if len(value) else default}")
    if display_lrm and layer.type in _LEARNING and any(get_layer_lr_mult(layer)):
        lines.append("lr mult: {:.1f}, {:.1f}".format(*get_layer_lr_mult(layer)))
    return f'"{separator.join(lines)}"'


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer type."""
    return _COLORS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def _included(layer: caffe_pb2.LayerParameter, phase: int | None) -> bool:
    if phase is None:
        return True
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name!r} has both include and exclude specified: expected one of them")
    rules = layer.include or layer.exclude
    matches = any(not rule.HasField("phase") or rule.phase == phase for rule in rules)
    return matches if layer.include else not matches


def _graph(
    net: caffe_pb2.NetParameter, rankdir: str, label_edges: bool, phase: int | None, display_lrm: bool
) -> tuple[dict[str, tuple[str, dict]], list[tuple[str, str, str]]]:
    """The graph as ({node key: (text, style)}, [(source key, target key, text)])."""
    nodes: dict[str, tuple[str, dict]] = {}
    edges = []
    for layer in net.layer:
        if not _included(layer, phase):
            continue
        key = f"{layer.name}_{layer.type}"
        in_place = list(layer.bottom) == list(layer.top) and len(layer.top) == 1
        style = dict(LAYER_STYLE_DEFAULT, fillcolor=choose_color_by_layertype(layer.type))
        nodes[key] = (get_layer_label(layer, rankdir, display_lrm), NEURON_LAYER_STYLE if in_place else style)
        for name in layer.bottom:
            nodes[f"{name}_blob"] = (name, BLOB_STYLE)
            edges.append((f"{name}_blob", key, '""'))
        for name in layer.top:
            nodes[f"{name}_blob"] = (name, {})  # an output of the net stays plain
            edges.append((key, f"{name}_blob", get_edge_label(layer) if label_edges else '""'))
    return nodes, edges


def get_pydot_graph(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """The net as a pydot.Dot.

    Args:
        rankdir: the direction in which the graph runs: LR, TB or BT.
        label_edges: write batch sizes and num_output on the arrows.
        phase: leave out layers of the other phase.
        display_lrm: write the lr_mult of learning layers.

    Raises:
        ImportError: neither pydotplus nor pydot is installed.
    """
    try:
        import pydotplus as pydot
    except ImportError:
        try:
            import pydot
        except ImportError as error:
            raise ImportError(
                "get_pydot_graph needs the package pydot: pip install pydot. draw_net and draw_net_to_file draw "
                "without it, with Graphviz's program dot"
            ) from error
    nodes, edges = _graph(caffe_net, rankdir, label_edges, phase, display_lrm)
    made = {key: pydot.Node(text, **style) for key, (text, style) in nodes.items()}
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    for node in made.values():
        graph.add_node(node)
    for source, target, text in edges:
        graph.add_edge(pydot.Edge(made[source], made[target], label=text))
    return graph


def _dot_text(net: caffe_pb2.NetParameter, rankdir: str, phase: int | None, display_lrm: bool) -> str:
    nodes, edges = _graph(net, rankdir, True, phase, display_lrm)
    numbers = {key: f"n{index}" for index, key in enumerate(nodes)}
    lines = [f"digraph {_quoted(net.name or 'Net')} {{", f"rankdir={rankdir};"]
    for key, (text, style) in nodes.items():
        attributes = {"label": text, **style}
        written = ", ".join(f"{name}={_quoted(value)}" for name, value in attributes.items())
        lines.append(f"{numbers[key]} [{written}];")
    lines += [f"{numbers[source]} -> {numbers[target]} [label={_quoted(text)}];" for source, target, text in edges]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', r"\""))


def draw_net(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """The picture of a net as the bytes of a file of type `ext`; arguments as for `get_pydot_graph`.

    Raises:
        FileNotFoundError: Graphviz's program dot is not installed.
        ValueError: dot does not know the type, or rankdir is none of LR, TB, BT, RL.
    """
    if rankdir not in ("LR", "TB", "BT", "RL"):
        raise ValueError(f"draw_net: expected rankdir LR, TB, BT or RL, found {rankdir!r}")
    text = _dot_text(caffe_net, rankdir, phase, display_lrm).encode()
    if ext in _TEXT:
        return text
    try:
        done = subprocess.run(["dot", f"-T{ext}"], input=text, capture_output=True, check=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"drawing a {ext} needs Graphviz's program dot on PATH, and there is none: install graphviz (on Debian: "
            f"apt install graphviz), or write the text ({', '.join('.' + each for each in _TEXT)})"
        ) from None
    if done.returncode:
        raise ValueError(f"dot cannot draw a {ext}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def file_type(filename: str | Path) -> str:
    """The type that a picture's name ends in. Raises ValueError where there is none."""
    ext = Path(filename).suffix.removeprefix(".")
    if not ext:
        raise ValueError(f"draw_net: expected a file name that ends in its type (.png), found {str(filename)!r}")
    return ext


def draw_net_to_file(
    caffe_net: caffe_pb2.NetParameter,
    filename: str | Path,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the picture of a net to a file of the type its name ends in; see `draw_net`."""
    write_atomic(filename, draw_net(caffe_net, rankdir, file_type(filename), phase, display_lrm))
