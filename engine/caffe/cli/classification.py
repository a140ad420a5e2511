"""`classification DEPLOY.prototxt NET.caffemodel MEAN LABELS.txt IMAGE`: the five likeliest labels of an image."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

import caffe
from caffe.cli.flags import Flags, run
from caffe.cli.images import read_mean
from caffe.data.decoding import decode
from caffe.proto import caffe_pb2

FLAGS = Flags(
    "classification",
    "Usage: classification deploy.prototxt network.caffemodel mean.binaryproto labels.txt img.jpg",
)
TOP = 5


def load_net(model: str, weights: str) -> caffe.Net:
    """The net with its weights. Raises ValueError for one without one image-shaped input and one output."""
    fillers = import_module("caffe.fillers")  # here: it imports torch, which help needs not
    with fillers.only_unwritten():  # BVLC's command has no seed either
        net = caffe.Net(model, caffe_pb2.TEST)
        net.copy_from(weights)
    for kind, names in (("input", net.inputs), ("output", net.outputs)):
        if len(names) != 1:
            raise ValueError(f"{model}: Network should have exactly one {kind}, found {len(names)}: {', '.join(names)}")
    shape = net.blobs[net.inputs[0]].data.shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ValueError(f"{model}: Input layer should have 1 or 3 channels, in (N, C, H, W); found {tuple(shape)}")
    return net


def predict(net: caffe.Net, mean: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The output for a picture, uint8 (H, W) or (H, W, 3), resized to the input. mean: (C,), subtracted."""
    blob = net.blobs[net.inputs[0]]
    channels, height, width = blob.data.shape[1:]
    if image.ndim == 3 and channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    elif image.ndim == 2 and channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height))
    pixels = image.reshape(height, width, channels).astype(np.float32) - mean.astype(np.float32)
    blob.reshape(1, channels, height, width)
    net.reshape()
    blob.data[0] = pixels.transpose(2, 0, 1)
    net.forward()
    return np.array(net.blobs[net.outputs[0]].data[0]).ravel()


def classify(words: list[str], values: SimpleNamespace) -> int:
    """Do what the command line says; returns the exit status."""
    if len(words) != 5:
        print(FLAGS.usage, file=sys.stderr)
        return 1
    model, weights, mean_file, label_file, image_file = words
    import torch  # here, as help needs it not

    if torch.cuda.is_available():
        caffe.set_mode_gpu()
    else:
        caffe.set_mode_cpu()
    net = load_net(model, weights)
    channels = net.blobs[net.inputs[0]].data.shape[1]
    mean = read_mean(mean_file)
    if len(mean) != channels:
        raise ValueError(
            f"{mean_file}: Number of channels of mean file, {len(mean)}, doesn't match the input's {channels}"
        )
    labels = Path(label_file).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    outputs = net.blobs[net.outputs[0]].data.shape[1]
    if len(labels) != outputs:
        raise ValueError(
            f"{label_file}: Number of labels, {len(labels)}, is different from the output layer dimension, {outputs}"
        )
    print(f"---------- Prediction for {image_file} ----------")
    try:
        image = decode(Path(image_file).read_bytes(), cv2.IMREAD_ANYCOLOR)
    except ValueError as error:
        raise ValueError(f"Unable to decode image {image_file}: {error}") from None
    output = predict(net, mean.mean((1, 2)), image)
    for index in np.argsort(-output, kind="stable")[:TOP]:
        print(f'{output[index]:.4f} - "{labels[index]}"')
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run(FLAGS, classify, arguments, "classification.cpp:83")


if __name__ == "__main__":
    sys.exit(main())
