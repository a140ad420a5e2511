"""Detector: a net that classifies windows of images (pycaffe's caffe.Detector), as R-CNN does (arXiv:1311.2524)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe import io
from caffe.classifier import check_image, image_transformer
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST


class Detector(Net):
    """A net in phase TEST whose first input takes windows of images, warped to its size.

    Args:
        model_file, pretrained_file: the deploy prototxt and the caffemodel.
        mean, input_scale, raw_scale, channel_swap: see caffe.io.Transformer's set_mean and so on.
        context_pad: how many pixels at each border of the (square) input show what surrounds the window.
    """

    def __init__(
        self,
        model_file: str | Path,
        pretrained_file: str | Path,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ):
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[str, Sequence[Sequence[int]]]]) -> list[dict]:
        """Classify windows of image files.

        images_windows: (file name, windows) of each image; a window is (ymin, xmin, ymax, xmax) in pixels.
        Returns a dict for each window: `window`, `prediction` (the net's first output, (C,)) and `filename`.
        """
        rows, crops = [], []
        for filename, windows in images_windows:
            image = io.load_image(filename)
            check_image(self, image, filename)
            for window in windows:
                rows.append({"window": window, "filename": filename})
                try:
                    crops.append(self.crop(image, window))
                except ValueError as error:
                    raise ValueError(f"{filename}: {error}") from None
        if not crops:
            return []
        name = self.inputs[0]
        batch: dict[str, Any] = {name: np.array([self.transformer.preprocess(name, crop) for crop in crops])}
        predictions = self.forward_all(**batch)[self.outputs[0]]
        return [dict(one, prediction=prediction) for one, prediction in zip(rows, predictions, strict=True)]

    def detect_selective_search(self, image_fnames: Iterable[str]) -> list[dict]:
        """Classify the windows that selective search proposes; returns what `detect_windows` does.

        Raises:
            ImportError: the module that proposes the windows is not installed.
        """
        try:
            import selective_search_ijcv_with_python as selective_search
        except ImportError as error:
            raise ImportError(
                "detect_selective_search needs the module selective_search_ijcv_with_python "
                "(github.com/sergeyk/selective_search_ijcv_with_python, which runs MATLAB) on PYTHONPATH: "
                f"{error}. With windows from elsewhere call detect_windows"
            ) from error
        paths = [os.path.abspath(name) for name in image_fnames]  # MATLAB runs in a folder of its own
        windows = selective_search.get_windows(paths, cmd="selective_search_rcnn")
        return self.detect_windows(zip(paths, windows, strict=True))

    def crop(self, im: np.ndarray, window: Sequence[int]) -> np.ndarray:
        """The window (ymin, xmin, ymax, xmax) of an image (H, W, K).

        With context_pad it is the net's input size, with the window in the middle, surrounded by context_pad pixels
        of context, and by the mean where the image has ended.

        Raises:
            ValueError: a window, or its surroundings, without a pixel of the image.
        """
        ymin, xmin, ymax, xmax = (int(at) for at in window)
        if not self.context_pad:
            return self._part(im, window, (ymin, xmin, ymax, xmax))
        size = self.blobs[self.inputs[0]].width
        half = np.array([ymax - ymin + 1, xmax - xmin + 1]) / 2
        centre = np.array([ymin, xmin]) + half
        reach = half * size / (size - 2 * self.context_pad)
        first, last = np.round(centre - reach), np.round(centre + reach)
        scale = size / (last - first + 1)
        offset = np.round(np.maximum(0, -first) * scale).astype(int)
        first, last = first.clip(0, im.shape[:2]).astype(int), last.clip(0, im.shape[:2]).astype(int)
        extent = np.minimum(np.round((last - first + 1) * scale).astype(int), size - offset)
        if extent.min() < 1:  # of so wide a window, the image is less than a pixel
            raise _outside(im, window)
        part = io.resize_image(self._part(im, window, (*first, *last)), extent)
        crop = np.ones(self.crop_dims, np.float32) * self.crop_mean
        crop[offset[0] : offset[0] + extent[0], offset[1] : offset[1] + extent[1]] = part
        return crop

    @staticmethod
    def _part(im: np.ndarray, window: Sequence[int], box: Sequence[int]) -> np.ndarray:
        part = im[box[0] : box[2], box[1] : box[3]]
        if not part.size:
            raise _outside(im, window)
        return part

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context, and the mean, as an image before `transformer` works on it, that fills what has none.

        Raises:
            ValueError: a context that leaves no room for the window.
        """
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        if context_pad and not 0 < 2 * context_pad < width:
            raise ValueError(f"context_pad: expected less than half of the input's {width} pixels, found {context_pad}")
        self.context_pad = context_pad
        self.crop_dims = np.array([height, width, channels])
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        mean = self.transformer.mean.get(name)
        if mean is not None:
            mean = mean.transpose(1, 2, 0)
            if name in self.transformer.channel_swap:
                mean = mean[:, :, np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean = mean / self.transformer.raw_scale.get(name, 1.0)


def _outside(im: np.ndarray, window: Sequence[int]) -> ValueError:
    return ValueError(
        f"crop: expected a window (ymin, xmin, ymax, xmax) inside the image of {im.shape[0]} x {im.shape[1]}, "
        f"found {tuple(int(at) for at in window)}"
    )
