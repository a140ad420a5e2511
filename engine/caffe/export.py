"""A net's parameters as a torch state dict, for programs that do not read Caffe's files."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import atomic_writes
import torch

from caffe.errors import name_layer
from caffe.layer_types.inner_product import InnerProduct
from caffe.proto import byte_strings

if TYPE_CHECKING:
    from caffe.layer import Layer
    from caffe.net import Net

# layer type -> what torch.nn calls its blobs, where torch.nn has such a layer
_NAMES = {
    "Convolution": ("weight", "bias"),
    "Deconvolution": ("weight", "bias"),
    "InnerProduct": ("weight", "bias"),
    "Embed": ("weight", "bias"),
    "Scale": ("weight", "bias"),
    "PReLU": ("weight",),
    "Bias": ("bias",),
}


def blob_names(layer: Layer) -> list[str]:
    """What the blobs of a layer are called: `weight` and `bias` as in torch.nn, `blob0`, `blob1` where it has none."""
    if layer.type == "Bias" or (layer.type == "Scale" and layer.layer_param.bottom[1:]):
        return ["bias"][: len(layer.blobs)]
    known = _NAMES.get(layer.type, ())
    return [known[j] if j < len(known) else f"blob{j}" for j in range(len(layer.blobs))]


def state_dict(net: Net) -> OrderedDict[str, torch.Tensor]:
    """The parameters of `net` by name, `<layer>.weight` and so on: float32 tensors on the CPU, copies.

    They lie as torch.nn's layers have them: Conv2d (out, in / groups, h, w), ConvTranspose2d (in, out / groups, h, w),
    Linear (out, in), whether or not the InnerProduct is transposed. BatchNorm gives `running_mean` and `running_var`,
    divided by Caffe's third blob. The blobs of layers that torch.nn does not have are called `blob0`, `blob1` and on,
    and lie as Caffe has them. A parameter that layers share stands under each of their names.
    """
    found: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, layer in zip(net._layer_names, net._layers, strict=True):
        try:
            values = [blob.data_tensor.detach().cpu().clone() for blob in layer.blobs]
        except RuntimeError as error:  # for want of memory
            name_layer(error, layer)
            raise
        if layer.type == "BatchNorm":
            count = values[2].item()
            for key, value in zip(("running_mean", "running_var"), values, strict=False):
                found[f"{name}.{key}"] = value.reshape(-1) / count if count else torch.zeros_like(value)
            continue
        if isinstance(layer, InnerProduct):
            transposed = layer.layer_param.inner_product_param.transpose
            shape = (layer.inputs, layer.outputs) if transposed else (layer.outputs, layer.inputs)
            weight = values[0].view(shape)
            values[0] = weight.t().contiguous() if transposed else weight
            values[1:] = [bias.view(-1) for bias in values[1:]]
        for key, value in zip(blob_names(layer), values, strict=True):
            found[f"{name}.{key}"] = value
    return found


def save_state_dict(net: Net, path: str | Path) -> None:
    """Write `state_dict(net)` for torch.load(path, weights_only=True), whole or not at all."""
    found = state_dict(net)

    def save(stream: BinaryIO) -> None:
        try:
            torch.save(found, stream)
        except RuntimeError as error:  # of the archive's end, which hides why the stream took no more
            if isinstance(error.__context__, OSError | MemoryError):
                raise error.__context__ from None
            raise

    atomic_writes.write_atomic(byte_strings.path(path), save)
