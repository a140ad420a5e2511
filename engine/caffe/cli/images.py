"""The flags that `classify` and `detect` share: the net, the device, and what is done to images."""

from __future__ import annotations

import argparse
import os

import numpy as np

import caffe
from caffe import device
from caffe.cli.arguments import add_proto


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add input and output, the net, the device and the steps of caffe.io.Transformer."""
    parser.add_argument("--model_def", required=True, help="Model definition file")
    parser.add_argument("--pretrained_model", required=True, help="Trained model weights file")
    parser.add_argument("--gpu", action="store_true", help="Switch for gpu computation")
    parser.add_argument(
        "--mean_file",
        required=True,
        help="Data set image mean, (K, H, W) as .npy or .binaryproto, or '' for none. (BVLC's default was the ImageNet "
        "mean of its source tree, which is not shipped here)",
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
    """The steps as keywords of caffe.Classifier and caffe.Detector."""
    swap = [_whole(text) for text in args.channel_swap.split(",")] if args.channel_swap else None
    return {
        "mean": _mean(args.mean_file) if args.mean_file else None,
        "input_scale": args.input_scale,
        "raw_scale": args.raw_scale,
        "channel_swap": swap,
    }


def use_device(gpu: bool) -> None:
    """Say and set the device, as BVLC's scripts."""
    if gpu:
        device.set_mode_gpu()
        print("GPU mode")
    else:
        device.set_mode_cpu()
        print("CPU mode")


def _whole(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"expected whole numbers separated by ',', found {text!r}")
    return int(text)


def pair(text: str) -> tuple[int, int]:
    """`256,256` as (height, width)."""
    numbers = tuple(_whole(part) for part in text.split(","))
    if len(numbers) != 2:
        raise ValueError(f"expected height,width, found {text!r}")
    return numbers


def _mean(path: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"--mean_file: expected a .npy or .binaryproto file at {path}")
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    mean = caffe.io.blobproto_to_array(caffe.proto.text.read_binary(path, caffe.proto.caffe_pb2.BlobProto()))
    return mean[0] if mean.ndim == 4 else mean
