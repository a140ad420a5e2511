"""The flags that `classify` and `detect` share: the net, the device, and what is done to images."""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np

import caffe
from caffe.cli.arguments import add_proto

# BVLC's defaults, below Caffe's root folder: (path, where it comes from)
DEFAULTS = {
    "model_def": (
        "models/bvlc_reference_caffenet/deploy.prototxt",
        "BVLC's source tree has it",
    ),
    "pretrained_model": (
        "models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel",
        "BVLC's scripts/download_model_binary.py gets it",
    ),
    "mean_file": (
        "python/caffe/imagenet/ilsvrc_2012_mean.npy",
        "BVLC's source tree has it, and `caffe shim DIR MEAN` makes it of a mean image; --mean_file '' is none",
    ),
}


def _root() -> str:
    """Caffe's root folder: the one above the `python` that the command lies in, as BVLC's, or the working folder."""
    folder = os.path.dirname(sys.argv[0])
    return os.path.join(folder, "..") if os.path.basename(os.path.abspath(folder)) == "python" else ""


def check_files(args: argparse.Namespace) -> None:
    """Raise FileNotFoundError, with the flag and where the file comes from, for a file of the net that is missing."""
    for flag, (default, source) in DEFAULTS.items():
        path = getattr(args, flag)
        if (path == "" and flag == "mean_file") or os.path.isfile(path):
            continue
        remedy = f" Its default is BVLC's: {source}." if path == os.path.join(_root(), default) else ""
        raise FileNotFoundError(f"--{flag}: expected a file at {path}, found none.{remedy}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add input and output, the net, the device and the steps of caffe.io.Transformer."""
    defaults = {flag: os.path.join(_root(), path) for flag, (path, _) in DEFAULTS.items()}
    parser.set_defaults(**defaults)
    parser.add_argument("--model_def", help="Model definition file (default: %(default)s)")
    parser.add_argument("--pretrained_model", help="Trained model weights file (default: %(default)s)")
    parser.add_argument("--gpu", action="store_true", help="Switch for gpu computation")
    parser.add_argument(
        "--mean_file",
        help="Data set image mean, (K, H, W) as .npy or .binaryproto, or '' for none (default: %(default)s)",
    )
    parser.add_argument("--input_scale", type=float, help="Multiply input features by this scale after the mean")
    parser.add_argument("--raw_scale", type=float, default=255.0, help="Multiply raw input by this scale first")
    parser.add_argument(
        "--channel_swap",
        default="2,1,0",
        help="Order to permute input channels. The default converts RGB to BGR since BGR is the Caffe default",
    )
    add_proto(parser)


def steps(args: argparse.Namespace) -> dict:
    """The steps but for the mean as keywords of caffe.Classifier and caffe.Detector."""
    swap = [_whole(text) for text in args.channel_swap.split(",")] if args.channel_swap else None
    return {"input_scale": args.input_scale, "raw_scale": args.raw_scale, "channel_swap": swap}


def set_mean(net: caffe.Classifier | caffe.Detector, path: str, by_channel: bool = False) -> None:
    """Have the net's input less the mean image of a file, or by_channel its mean colour; '': nothing less.

    Raises ValueError, which names the file.
    """
    if not path:
        return
    mean = read_mean(path)
    if by_channel and mean.ndim == 3:
        mean = mean.mean((1, 2))
    try:
        net.transformer.set_mean(net.inputs[0], mean)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def use_device(gpu: bool) -> None:
    """Say and set the device, as BVLC's scripts."""
    if gpu:
        caffe.set_mode_gpu()
        print("GPU mode")
    else:
        caffe.set_mode_cpu()
        print("CPU mode")


def _whole(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"expected whole numbers separated by ',', found {text!r}")
    return int(text)


def pair(text: str) -> tuple[int, int]:
    """`256,256` as (height, width)."""
    numbers = tuple(_whole(part) for part in text.split(","))
    if len(numbers) != 2 or 0 in numbers:
        raise ValueError(f"expected height,width, found {text!r}")
    return numbers


def load_array(path: str) -> np.ndarray:
    """The numbers of an .npy. Raises ValueError, which names it, for another file, one cut short, or other values."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception:  # of a damaged header numpy raises nearly everything
        array = None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or not array.size:
        raise ValueError(
            f"{path}: expected an array of numbers as numpy saves it (.npy), found another file or half one"
        )
    return array


def read_mean(path: str) -> np.ndarray:
    """The mean image (K, H, W) of an .npy or a binaryproto. Raises FileNotFoundError where there is none."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"expected a mean image, .npy or .binaryproto, at {path}, found no file")
    if path.endswith(".npy"):
        mean = load_array(path)
    else:
        blob = caffe.proto.text.read_binary(path, caffe.proto.caffe_pb2.BlobProto())
        try:
            mean = caffe.io.blobproto_to_array(blob)
        except ValueError as error:
            raise ValueError(f"{path}: expected a mean image as binaryproto: {error}") from None
    if mean.ndim == 4:
        if len(mean) != 1:
            raise ValueError(f"{path}: expected one mean image, found {len(mean)}")
        mean = mean[0]
    if not mean.size or not np.isfinite(mean).all():
        raise ValueError(f"{path}: expected a mean image of finite numbers, found {mean.shape} of others or none")
    return mean
