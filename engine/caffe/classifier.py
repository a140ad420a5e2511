"""Classifier: a net that classifies images (pycaffe's caffe.Classifier)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe import io
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST


def image_transformer(
    net: Net,
    mean: np.ndarray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """The Transformer from images (H, W, K) to the first input of `net`, with the steps that are given."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer


def check_image(net: Net, image: np.ndarray, name: str) -> None:
    """Raise ValueError, which names it, for what is no image (H, W, K) of the net's K channels."""
    channels = net.blobs[net.inputs[0]].shape[1]
    if image.ndim != 3 or image.shape[2] != channels or not image.size or image.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: expected an image (H, W, {channels}) of numbers for the net's {channels} channels, found "
            f"{image.dtype} {image.shape}"
        )


class Classifier(Net):
    """A net in phase TEST whose first input takes images.

    Args:
        model_file, pretrained_file: the deploy prototxt and the caffemodel.
        image_dims: (height, width) that images are resized to before they are cropped; by default the input's size.
        mean, input_scale, raw_scale, channel_swap: see caffe.io.Transformer's set_mean and so on.

    Attributes:
        transformer: the caffe.io.Transformer in use.
        image_dims, crop_dims: (height, width) of the resized images, and of the net's input.
    """

    def __init__(
        self,
        model_file: str | Path,
        pretrained_file: str | Path,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ):
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None or len(image_dims) == 0 else image_dims

    def predict(self, inputs: Iterable[np.ndarray], oversample: bool = True) -> np.ndarray:
        """The net's first output for each image: (N, C).

        Args:
            inputs: N images (H, W, K), as caffe.io.load_image gives them, of any sizes.
            oversample: the mean over ten crops: the corners, the centre and their mirror images. Otherwise the output
                for the centre crop, in the shape the net gives it.

        Raises:
            ValueError: no image, one of other channels than the net's input, or image_dims smaller than that.
        """
        images = []
        for number, image in enumerate(inputs):
            check_image(self, image, f"predict: image {number}")
            images.append(io.resize_image(image, self.image_dims))
        if not images:
            raise ValueError("predict: expected at least one image (H, W, K), found none")
        crops = io.oversample(images, self.crop_dims) if oversample else self._centres(images)
        name = self.inputs[0]
        batch: dict[str, Any] = {name: np.array([self.transformer.preprocess(name, crop) for crop in crops])}
        predictions = self.forward_all(**batch)[self.outputs[0]]
        return predictions.reshape(len(images), 10, -1).mean(1) if oversample else predictions

    def _centres(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        (rows, columns), (height, width) = map(int, self.image_dims), self.crop_dims.tolist()
        if rows < height or columns < width:
            raise ValueError(
                f"predict: expected image_dims of at least the net's input, {(height, width)}, "
                f"found {(rows, columns)}: no crop fits"
            )
        top, left = (rows - height) // 2, (columns - width) // 2
        return [image[top : top + height, left : left + width] for image in images]
