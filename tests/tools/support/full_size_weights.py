"""AlexNet's weights at their full size, in the form in which BVLC released them in 2013."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2

SHAPES = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3),
          "conv5": (256, 192, 3, 3), "fc6": (1, 1, 4096, 9216), "fc7": (1, 1, 4096, 4096),
          "fc8": (1, 1, 1000, 4096)}  # fmt: skip


def varint(value: int) -> bytes:
    groups = []
    while True:
        value, low = value >> 7, value & 127
        groups.append(low | (128 if value else 0))
        if not value:
            return bytes(groups)


def field(number: int, raw: bytes) -> bytes:
    """A length-delimited field on the wire."""
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def blob(values: np.ndarray) -> bytes:
    """A BlobProto with num, channels, height and width in the place of a shape."""
    legacy = b"".join(varint(number << 3) + varint(size) for number, size in enumerate(values.shape, 1))
    return legacy + field(5, values.astype("<f4").tobytes())


def v1_weights(path: Path, name: str) -> Path:
    """A .caffemodel as BVLC released it in 2013, random values of the usual size, 233 MB."""
    random = np.random.RandomState(0)
    with open(path, "wb") as out:
        out.write(field(1, name.encode()))
        for layer, shape in SHAPES.items():
            kind = "CONVOLUTION" if layer.startswith("conv") else "INNER_PRODUCT"
            header = caffe_pb2.V1LayerParameter(name=layer, type=kind).SerializeToString()
            outputs = shape[0] if kind == "CONVOLUTION" else shape[2]
            weights = random.standard_normal(shape).astype(np.float32) * np.sqrt(2 * outputs / np.prod(shape))
            out.write(field(2, header + field(6, blob(weights)) + field(6, blob(np.zeros((1, 1, 1, outputs))))))
    return path
