"""What becomes of a caffemodel's parameters in a net: a table for people who start a fine-tuning, and its warnings.

Caffe copies parameters by the layer's name, and says nothing of the layers that it learns from scratch. Nor does it see
that AlexNet normalizes before it pools and CaffeNet after: their shapes all agree, so the weights of one load into the
other without an error and give worse features.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import caffe
import h5py
from caffe import glog, hdf5_files
from caffe.blob_proto import proto_shape
from caffe.proto import caffe_pb2, text
from caffe.proto.upgrade import upgrade_net

from dhn.progress import console
from dhn.weights.releases import recognize

COPIED, NEW, IGNORED, MISMATCHED = "copied", "new", "ignored", "mismatched"
MEANING = {
    COPIED: "copied",
    NEW: "new: not in the file, learned from scratch",
    IGNORED: "ignored: the net has no such layer",
    MISMATCHED: "MISMATCHED: rename the layer in the net to learn it from scratch",
}

# what stands between a convolution and the next layer that learns, without ReLU -> the net that is known by it
ORDERS: dict[tuple[str, ...], str] = {("LRN", "Pooling"): "AlexNet", ("Pooling", "LRN"): "CaffeNet"}
FILES = {"bvlc_alexnet": "AlexNet", "bvlc_reference_caffenet": "CaffeNet"}

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Row:
    """A layer that learns: the shapes of its blobs in the file and in the net (none where it has none there)."""

    layer: str
    status: str
    file: Shapes
    net: Shapes


@dataclass
class Report:
    """Where each layer's parameters come from. `warnings` are sentences; a net with `mismatched` rows does not load."""

    weights: str
    net: str
    rows: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    release: tuple[str, str] | None = None  # which release the file is, and how that is known

    def layers(self, status: str) -> list[str]:
        """The layers of one status: copied, new, ignored or mismatched."""
        return [row.layer for row in self.rows if row.status == status]

    def table(self) -> str:
        """The report as text: a line a layer, the sum, the warnings."""
        lines = [("layer", "in the file", "in the net", "")]
        lines += [(row.layer, _shapes(row.file), _shapes(row.net), MEANING[row.status]) for row in self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        counts = ", ".join(f"{len(self.layers(status))} {status}" for status in MEANING)
        copied = sum(math.prod(shape) for row in self.rows if row.status == COPIED for shape in row.net)
        return "\n".join([
            f"{self.weights}{f' ({self.release[0]}, {self.release[1]})' if self.release else ''} into {self.net}:",
            *("  " + "  ".join(part.ljust(width) for part, width in zip(line, (*widths, 0), strict=True)).rstrip()
              for line in lines),
            f"{counts} ({copied:,} values copied)",
            *(f"warning: {warning}" for warning in self.warnings),
        ])  # fmt: skip


@dataclass
class _Layer:
    """What the report needs to know of a layer, in a file or in a net."""

    name: str
    type: str
    shapes: Shapes
    bottoms: Sequence[str] = ()
    tops: Sequence[str] = ()
    legacy: bool = False  # shapes of the old form, 4-D with 1s in front


def report(weights: str | os.PathLike, net: caffe.Net, called: str | None = None) -> Report:
    """What happens when `weights` (a caffemodel, binary or HDF5) is loaded into `net`.

    `called` names the net in the report, which else goes by its own name. Raises FileNotFoundError or ValueError for a
    file that is no caffemodel.
    """
    name, old = _read(Path(weights))
    new = _of_net(net)
    result = Report(str(weights), called or f"net {net.name!r}", release=recognize(weights))
    in_file = {layer.name: layer for layer in old}
    for layer in new:
        source = in_file.pop(layer.name, None)
        if source is None:
            if layer.shapes:
                result.rows.append(Row(layer.name, NEW, (), layer.shapes))
        elif source.shapes or layer.shapes:
            status = COPIED if _fits(source, layer) else MISMATCHED
            file = layer.shapes if status == COPIED else _stripped(source)
            result.rows.append(Row(layer.name, status, file, layer.shapes))
    result.rows += [Row(layer.name, IGNORED, _stripped(layer), ()) for layer in in_file.values() if layer.shapes]
    if not result.layers(COPIED):
        result.warnings.append(
            f"no layer is copied: the file has parameters of {', '.join(result.layers(IGNORED)) or 'no layer'}, "
            f"the net of {', '.join(layer.name for layer in new if layer.shapes) or 'none'}; "
            "layers are matched by their names"
        )
    else:
        result.warnings += _order_warnings(name, old, new, result)
    return result


def show(weights: str | os.PathLike, prototxt: str | os.PathLike, phase: int = caffe.TRAIN) -> Report:
    """Print what happens when `weights` is loaded into the net of `prototxt`; returns the report.

    Raises what caffe.Net does for a net that is not sound: its data layers must find their sources, too.
    """
    with quiet():
        net = caffe.Net(str(prototxt), phase)
    result = report(weights, net, str(prototxt))
    console.print(result.table())
    return result


@contextmanager
def quiet() -> Iterator[None]:
    """Without the engine's info lines: what a person sees is the table."""
    before = glog.logger.level
    glog.logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        glog.logger.setLevel(before)


def learned_layers(weights: str | os.PathLike) -> set[str]:
    """The names of the layers that a caffemodel has parameters of. Raises as `report`."""
    return {layer.name for layer in _read(Path(weights))[1] if layer.shapes}


def _shapes(shapes: Shapes) -> str:
    return " + ".join("x".join(map(str, shape)) or "1" for shape in shapes) or "-"


def _stripped(layer: _Layer) -> Shapes:
    """The shapes as a person reads them: without the 1s that the old form has in front."""
    if not layer.legacy:
        return layer.shapes
    return tuple(shape[next((i for i, dim in enumerate(shape) if dim != 1), 3) :] for shape in layer.shapes)


def _fits(source: _Layer, layer: _Layer) -> bool:
    """BVLC's rule: as many blobs, and their shapes equal; the old form's with 1s in front."""
    if not source.legacy:
        return source.shapes == layer.shapes
    padded = tuple((1,) * (4 - len(shape)) + tuple(shape) for shape in layer.shapes)
    return source.shapes == padded


def _read(path: Path) -> tuple[str, list[_Layer]]:
    """Name and layers of a caffemodel."""
    if path.is_file() and h5py.is_hdf5(path):
        with hdf5_files.reading(path, "an HDF5 caffemodel") as file:
            if not isinstance(file.get("data"), h5py.Group):
                raise ValueError(f"{path}: expected a caffemodel, found an HDF5 file without the group 'data'")
            layers: dict[str, list] = {}
            file["data"].visititems(lambda name, member: _add_layer(layers, name, member, path))
            return "", [_Layer(name, "", tuple(shapes)) for name, shapes in layers.items()]
    with quiet():
        param = upgrade_net(text.read_binary(path, caffe_pb2.NetParameter()), str(path))
    if not param.layer:
        raise ValueError(f"{path}: expected a caffemodel, found a file without layers: is it a solverstate?")
    return param.name, [
        _Layer(layer.name, layer.type, tuple(proto_shape(blob) for blob in layer.blobs), layer.bottom, layer.top,
               any(blob.HasField("num") for blob in layer.blobs))
        for layer in param.layer
    ]  # fmt: skip


def _add_layer(layers: dict[str, list], name: str, member: h5py.Group | h5py.Dataset, path: Path) -> None:
    """Take up a member of an HDF5 file: a layer is a group of its blobs, the layer a/b a group in the group a."""
    if isinstance(member, h5py.Group):
        if not any(isinstance(each, h5py.Group) for each in member.values()):
            layers[name] = []
        return
    layer = name.rpartition("/")[0]
    if layer not in layers or getattr(member, "shape", None) is None:  # of a type's name, and of what is empty
        raise ValueError(f"{path}: expected a caffemodel, a group of parameters for each layer, found data/{name}")
    layers[layer].append(member.shape)


def _of_net(net: caffe.Net) -> list[_Layer]:
    layers = []
    for name, layer in zip(net._layer_names, net._layers, strict=True):
        shapes, param = tuple(blob.shape for blob in layer.blobs), layer.layer_param
        layers.append(_Layer(name, layer.type, shapes, param.bottom, param.top))
    return layers


# -- AlexNet or CaffeNet


def orders(layers: Sequence[_Layer]) -> dict[str, tuple[str, ...]]:
    """For each layer with parameters, the LRN and Pooling layers that follow it before the next one, by their types."""
    followers = {}
    for index, layer in enumerate(layers):
        if not layer.shapes:
            continue
        followed, tops = [], set(layer.tops)
        for one in layers[index + 1 :]:
            if not tops.intersection(one.bottoms):
                continue
            if one.shapes:
                break
            if one.type in ("LRN", "Pooling"):
                followed.append(one.type)
            tops = set(one.tops)
        followers[layer.name] = tuple(followed)
    return followers


def _order_warnings(name: str, old: list[_Layer], new: list[_Layer], result: Report) -> list[str]:
    """A sentence where the file's net and the net differ in the order of LRN and Pooling."""
    copied = result.layers(COPIED)
    orders_in_file, orders_in_net = orders(old), orders(new)
    net_kind = next((ORDERS[orders_in_net[layer]] for layer in copied if orders_in_net[layer] in ORDERS), None)
    if net_kind is None:
        return []
    file_kind = next((ORDERS[orders_in_file[layer]] for layer in copied if orders_in_file[layer] in ORDERS), None)
    evidence = "by the order of its layers"
    if file_kind is None:
        release, evidence = result.release or ("", "")
        file_kind = FILES.get(release)
    if file_kind is None and name in FILES.values():
        file_kind, evidence = name, "by its name"
    if file_kind is None or file_kind == net_kind:
        return []
    order_text = {kind: ", ".join(("convolution", "ReLU", *order)) for order, kind in ORDERS.items()}
    return [
        f"{result.weights} holds the weights of {file_kind} ({evidence}), which has {order_text[file_kind]}; this net "
        f"is ordered as {net_kind}, {order_text[net_kind]}. All shapes agree, so they load, but the features are "
        f"worse: take the weights of {next(file for file, kind in FILES.items() if kind == net_kind)}, or the order of "
        f"{file_kind} in the prototxt"
    ]
