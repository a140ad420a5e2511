"""Weights from and for other programs, and what becomes of a caffemodel's parameters in a net.

    python tools/convert_weights.py show WEIGHTS --net train_val.prototxt
    python tools/convert_weights.py export WEIGHTS --net deploy.prototxt OUT.pt
    python tools/convert_weights.py export WEIGHTS --net deploy.prototxt OUT.onnx
    python tools/convert_weights.py torchvision alexnet.pth OUT.caffemodel

`show` prints, layer by layer, what is copied, new, ignored or mismatched, and warns where AlexNet's weights go into
CaffeNet or the other way; its exit status is 1 where the weights do not load. `export` writes the net with the weights
as a torch state dict (for torch.load with weights_only=True) or as an ONNX model (needs the package onnx).

`torchvision` turns the state dict of torchvision's AlexNet into a caffemodel, and OUT.prototxt next to it. That net
is not BVLC's: one column, 64 to 256 channels, no LRN, 224 x 224 pixels. It wants RGB from 0 to 1, less a mean, over a
deviation; Caffe gives BGR from 0 to 255 less a mean. The channels' order and the deviation are folded into conv1, which
changes no answer: its padding is 0 either way. The mean stays with the data layer, whose mean_value is in the prototxt:
folded into the bias, it would be wrong along the padded border.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import dhn  # first: it says so where the project is not installed

# isort: split
import caffe
import numpy as np
import torch
from atomic_writes.command_lines import Parser
from caffe import layers as L
from caffe import params as P
from caffe.atomic_files import write_atomic
from caffe.export import save_state_dict
from caffe.proto import caffe_pb2
from caffe.proto.text import to_text
from dhn.progress import console
from dhn.weights.report import quiet, show

# torchvision's names -> ours, and the shapes: of the last one the number of outputs is free
TORCHVISION = {
    "features.0": ("conv1", (64, 3, 11, 11)),
    "features.3": ("conv2", (192, 64, 5, 5)),
    "features.6": ("conv3", (384, 192, 3, 3)),
    "features.8": ("conv4", (256, 384, 3, 3)),
    "features.10": ("conv5", (256, 256, 3, 3)),
    "classifier.1": ("fc6", (4096, 9216)),
    "classifier.4": ("fc7", (4096, 4096)),
    "classifier.6": ("fc8", (None, 4096)),
}
MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's transforms, for pixels of 0 to 1
MEAN_VALUES = tuple(round(255 * value, 3) for value in reversed(MEAN_RGB))  # B, G, R, of 0 to 255


def save_onnx(net: caffe.Net, path: str | Path) -> None:
    from caffe.onnx_export import save_onnx as save  # here, as it needs the package onnx

    save(net, path)


EXPORTS = {".pt": save_state_dict, ".pth": save_state_dict, ".onnx": save_onnx}


def torchvision_alexnet(outputs: int) -> caffe_pb2.NetParameter:
    """The net of torchvision's AlexNet, up to `prob`, with fc8 of `outputs` classes."""
    n = caffe.NetSpec()
    n.data = L.Input(input_param={"shape": {"dim": [10, 3, 224, 224]}})
    top = n.data
    for index, num_output, size, stride, pad, pooled in (
        (1, 64, 11, 4, 2, True),
        (2, 192, 5, 1, 2, True),
        (3, 384, 3, 1, 1, False),
        (4, 256, 3, 1, 1, False),
        (5, 256, 3, 1, 1, True),
    ):
        n[f"conv{index}"] = L.Convolution(top, num_output=num_output, kernel_size=size, stride=stride, pad=pad)
        top = n[f"relu{index}"] = L.ReLU(n[f"conv{index}"], in_place=True)
        if pooled:
            top = n[f"pool{index}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    for index in (6, 7):
        top = n[f"drop{index - 1}"] = L.Dropout(top, in_place=True, dropout_ratio=0.5)
        n[f"fc{index}"] = L.InnerProduct(top, num_output=4096)
        top = n[f"relu{index}"] = L.ReLU(n[f"fc{index}"], in_place=True)
    n.fc8 = L.InnerProduct(top, num_output=outputs)
    n.prob = L.Softmax(n.fc8)
    net = n.to_proto()
    net.name = "torchvision_alexnet"
    return net


def from_torchvision(state: Mapping[str, torch.Tensor]) -> caffe.Net:
    """The net of torchvision's AlexNet with the parameters of `state`, its state dict.

    It takes BGR images of 224 x 224 pixels from 0 to 255, less MEAN_VALUES. Raises ValueError for another state dict.
    """
    expected = {f"{module}.{part}": shape if part == "weight" else shape[:1]
                for module, (_, shape) in TORCHVISION.items() for part in ("weight", "bias")}  # fmt: skip
    if set(state) != set(expected):
        missing, more = sorted(set(expected) - set(state)), sorted(map(str, set(state) - set(expected)))
        raise ValueError(
            f"expected the state dict of torchvision's AlexNet, {', '.join(expected)}; "
            f"missing: {', '.join(missing) or 'none'}; found besides: {', '.join(more) or 'none'}"
        )
    for name, value in state.items():
        if (
            not isinstance(value, torch.Tensor)
            or value.layout != torch.strided
            or value.is_meta
            or not value.is_floating_point()
        ):
            found = f"{value.layout} of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"{name}: expected a tensor of floating-point numbers, found {found}")
    outputs = state["classifier.6.bias"].numel()
    for name, shape in expected.items():
        shape_in_file = tuple(state[name].shape)
        if shape_in_file != (wanted := tuple(outputs if dim is None else dim for dim in shape)):
            raise ValueError(f"{name}: expected the shape {wanted} of torchvision's AlexNet, found {shape_in_file}")
    with quiet():
        net = caffe.Net(torchvision_alexnet(outputs), caffe.TEST)
    for module, (layer, _) in TORCHVISION.items():
        weight, bias = (state[f"{module}.{part}"].detach().double().numpy() for part in ("weight", "bias"))
        if layer == "conv1":
            weight = (weight / (255 * np.reshape(STD_RGB, (1, 3, 1, 1))))[:, ::-1]
        net.params[layer][0].data[...] = weight
        net.params[layer][1].data[...] = bias
    return net


def convert_torchvision(source: Path, target: Path) -> Path:
    """Write the caffemodel `target` and its prototxt from a file of torchvision's; returns the prototxt's path.

    Raises OSError, or ValueError for a file that is no state dict of torchvision's AlexNet.
    """
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of a damaged file, whatever its code comes upon
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{source}: expected a state dict written by torch.save: {reason}") from None
    if not isinstance(state, Mapping):
        raise ValueError(f"{source}: expected a state dict, found {type(state).__name__}")
    try:
        net = from_torchvision(state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    prototxt = target.with_suffix(".prototxt")
    means = "".join(f"#   mean_value: {value:g}\n" for value in MEAN_VALUES)
    header = (
        f"# Written by: python tools/convert_weights.py torchvision {source.name} {target.name}\n"
        "# torchvision's AlexNet. The input is BGR, 0 to 255, less the mean; a data layer gives it with\n"
        f"# transform_param {{\n#   crop_size: 224\n{means}# }}\n"
    )
    net.save(target)
    write_atomic(prototxt, (header + to_text(torchvision_alexnet(net.blobs["fc8"].shape[1]))).encode())
    return prototxt


def export(weights: Path, prototxt: Path, target: Path) -> None:
    """Write the net of `prototxt` (phase TEST) with `weights` as a torch state dict or an ONNX model, by the suffix."""
    if target.suffix not in EXPORTS:
        raise ValueError(f"{target}: expected a name that ends in {', '.join(EXPORTS)}, found {target.suffix!r}")
    with quiet():
        net = caffe.Net(str(prototxt), caffe.TEST)
        net.copy_from(weights)
    try:
        EXPORTS[target.suffix](net, target)
    except (MemoryError, ImportError) as error:
        raise type(error)(f"{weights} of {prototxt}: {error or 'no memory to export it'}") from error


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Weights from and for other programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("show", "what is copied, new, ignored or mismatched"), ("export", "to torch or ONNX")):
        command = commands.add_parser(name, help=text)
        command.add_argument("weights", type=Path, help="a caffemodel, binary or HDF5")
        command.add_argument("--net", type=Path, required=True, help="the prototxt of the net")
    command.add_argument("target", type=Path, help="OUT.pt or OUT.onnx")
    command = commands.add_parser("torchvision", help="from torchvision's AlexNet")
    command.add_argument("source", type=Path, help="the state dict, as torchvision offers it")
    command.add_argument("target", type=Path, help="OUT.caffemodel; OUT.prototxt is written next to it")
    options = parser.parse_args(arguments)
    try:
        if options.command == "show":
            return 1 if show(options.weights, options.net).layers("mismatched") else 0
        if options.command == "export":
            export(options.weights, options.net, options.target)
            console.print(f"wrote {options.target}")
        else:
            prototxt = convert_torchvision(options.source, options.target)
            console.print(f"wrote {options.target} and {prototxt}")
    except (OSError, ValueError, ImportError) as error:
        print(f"convert_weights: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
