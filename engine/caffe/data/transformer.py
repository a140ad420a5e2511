"""DataTransformer: from decoded images to the values of a net's input (Caffe's transform_param).

value = (pixel - mean) * scale, cropped and mirrored. Images are (channels, height, width) arrays, channels in
OpenCV's order: blue, green, red.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from caffe import device, glog
from caffe.blob_proto import floats, proto_shape
from caffe.data import upload
from caffe.data.decoding import size
from caffe.data.prefetch import workers
from caffe.proto import caffe_pb2, kinds
from caffe.proto.text import read_binary

T = TypeVar("T")
Shape = tuple[int, ...]
# An image to come: its name in error messages, and what loads it as a uint8 or float (C, H, W) array.
Source = tuple[str, Callable[[], np.ndarray]]

_CHUNK = 4  # images that one thread makes at a time


class _NotBytesError(Exception):
    """An image among bytes that is not of bytes."""


class DataTransformer:
    """Crops, mirrors, subtracts and scales as `param` says.

    In TRAIN the place of the crop is random, in TEST it is the centre; `mirror` flips every second image, at random,
    in both, as BVLC does.

    Raises:
        ValueError: a mean both as file and as values, or a mean file that holds no single image.
    """

    def __init__(self, param: caffe_pb2.TransformationParameter, phase: int):
        self.crop = param.crop_size
        self.mirror = param.mirror
        self.scale = np.float32(param.scale)
        self.train = phase == caffe_pb2.TRAIN
        if param.force_color and param.force_gray:
            raise ValueError("cannot set both force_color and force_gray")
        self.color = True if param.force_color else False if param.force_gray else None
        self.mean: np.ndarray | None = None
        self._mean_file = param.mean_file
        self.mean_values = np.array(param.mean_value, np.float32)
        if param.HasField("mean_file"):
            if self.mean_values.size:
                raise ValueError("Cannot specify mean_file and mean_value at the same time")
            glog.info("data_transformer.cpp:25", f"Loading mean file from: {param.mean_file}")
            self.mean = _mean_image(param.mean_file)
            if self.mirror:
                self._mirrored_mean = np.ascontiguousarray(self.mean[:, :, ::-1])
            self._sent_mean: torch.Tensor | None = None  # the mean image where nets compute
        self.random = np.random.RandomState(device.random_seed())
        self._memory = upload.HostMemory()

    def shape(self, image: Shape) -> Shape:
        """(C, H, W) of what becomes of an image of shape `image`. Raises ValueError where it does not fit."""
        channels, height, width = image
        if height < self.crop or width < self.crop:
            raise ValueError(f"crop_size {self.crop} is bigger than the image, {size(image)}")
        if self.mean is not None and self.mean.shape != image:
            raise ValueError(
                f"the image is {size(image)}, the mean file {self._mean_file} has {size(self.mean.shape)}: "
                "they must be alike"
            )
        if self.mean_values.size not in (0, 1, channels):
            raise ValueError(
                f"Specify either 1 mean_value or as many as channels: {channels}; found {self.mean_values.size}"
            )
        return (channels, self.crop, self.crop) if self.crop else image

    def batch_shape(self, first: Source) -> Shape:
        """(C, H, W) of the batch whose first image is `first`. Errors name it."""
        return self._named(first[0], lambda: self.shape(first[1]().shape))

    def batch(self, sources: Sequence[Source], threads: bool) -> list[torch.Tensor]:
        """Load and transform `sources`: a tensor (N, C, H, W) on the host, float32, or what `finish` finishes.

        The first image gives the batch its shape. Random choices are the same however many `threads` load. For a GPU
        images of bytes stay bytes, cropped and mirrored: a quarter of what floats are to copy, and the GPU has time for
        the rest. Where there is a mean image, a tensor (N, 3) follows that says which part of it each image takes.

        Raises:
            ValueError: an image that does not load or does not fit; the message names it.
        """
        first = self._load(sources[0])
        shape = self._named(sources[0][0], self.shape, first.shape)
        draws = self.random.random_sample((len(sources), 3))
        if device.current().type == "cuda" and first.dtype == np.uint8:
            try:
                bytes_ = self._filled(sources, threads, first, shape, draws, torch.uint8)
                return [bytes_] if self.mean is None else [bytes_, self._mean_parts(draws, shape)]
            except _NotBytesError:  # a later Datum has float_data: all are made as floats
                pass
        return [self._filled(sources, threads, first, shape, draws, torch.float32)]

    def finish(self, images: torch.Tensor, mean_parts: torch.Tensor | None = None) -> torch.Tensor:
        """A batch of `batch`, where nets compute, as float32: what was left of it to do. The same to the bit as on the
        host, as each step is one rounding."""
        if images.dtype != torch.uint8:
            return images
        values = images.float()
        if mean_parts is not None:
            values -= self._means(mean_parts, *images.shape[2:])
        if self.mean_values.size:
            values -= upload.copy(torch.from_numpy(self.mean_values.reshape(-1, 1, 1)), values.device)
        return values.mul_(float(self.scale)) if self.scale != 1 else values

    def _mean_parts(self, draws: np.ndarray, shape: Shape) -> torch.Tensor:
        """Which part of the mean image each image takes, (N, 3): its first row, its first column, and 1, or -1 where
        the columns are in reverse order. draws: (N, 3) in 0 to 1; shape: of a transformed image."""
        assert self.mean is not None
        parts = upload.empty((len(draws), 3), torch.int64)
        for part, draw in zip(parts.numpy(), draws, strict=True):
            top, left, mirror = self._window(self.mean.shape, shape, draw)
            part[:] = (top, left + shape[2] - 1, -1) if mirror else (top, left, 1)
        return parts

    def _means(self, parts: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The parts of the mean image that `_mean_parts` says, (N, C, height, width), where `parts` is."""
        assert self.mean is not None
        if self._sent_mean is None or self._sent_mean.device != parts.device:
            self._sent_mean = upload.copy(torch.from_numpy(self.mean), parts.device)
        top, left, step = parts[:, :, None].unbind(1)  # (N, 1) each
        rows = top + torch.arange(height, device=parts.device)  # (N, height)
        columns = left + step * torch.arange(width, device=parts.device)  # (N, width)
        return self._sent_mean[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)

    def _window(self, image: Shape, shape: Shape, draw: np.ndarray) -> tuple[int, int, bool]:
        """(first row, first column, whether mirrored) of the crop of `shape` from an image, by three draws in 0 to
        1."""
        spare = image[1] - shape[1], image[2] - shape[2]
        top, left = (int(draw[1] * (spare[0] + 1)), int(draw[2] * (spare[1] + 1))) if self.train else (
            spare[0] // 2, spare[1] // 2)  # fmt: skip
        return top, left, bool(self.mirror and draw[0] < 0.5)

    def _filled(
        self,
        sources: Sequence[Source],
        threads: bool,
        first: np.ndarray,
        shape: Shape,
        draws: np.ndarray,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """`batch` in `dtype`. first: the first image; shape: of a transformed image; draws: (N, 3) in 0 to 1."""
        whole = self._memory.take((len(sources), *shape), dtype)
        out = whole.numpy()

        def place(start: int, stop: int) -> None:
            for index in range(start, stop):
                image = first if index == 0 else self._load(sources[index])
                if index and image.shape != first.shape:
                    self._check_like(sources[index][0], image.shape, first.shape)
                if dtype == torch.uint8 and image.dtype != np.uint8:
                    raise _NotBytesError
                self._place(image, draws[index], out[index])
            if dtype == torch.float32:
                self._scale(out[start:stop])

        starts = range(0, len(sources), _CHUNK)
        each = workers().map if threads else map
        list(each(place, starts, (min(start + _CHUNK, len(sources)) for start in starts)))
        return whole

    def _place(self, image: np.ndarray, draw: np.ndarray, out: np.ndarray) -> None:
        """The cropped and mirrored image into `out`, less the mean image unless `out` is of bytes. Bytes are cropped,
        split into channels and mirrored as bytes, a quarter of what floats would be."""
        _, height, width = out.shape
        top, left, mirror = self._window(image.shape, out.shape, draw)
        part = _planes(image[:, top : top + height, left : left + width])
        out[...] = _mirrored(part) if mirror else part
        if self.mean is not None and out.dtype != np.uint8:
            mean, left = (self._mirrored_mean, image.shape[2] - width - left) if mirror else (self.mean, left)
            out -= mean[:, top : top + height, left : left + width]

    def _scale(self, images: np.ndarray) -> None:
        """Less the mean values, times the scale: some images (N, C, H, W) at once, while they are in the cache."""
        if self.mean_values.size:
            images -= self.mean_values.reshape(-1, 1, 1)
        if self.scale != 1:
            images *= self.scale

    def _check_like(self, name: str, found: Shape, first: Shape) -> None:
        """Images of one batch may differ where a crop makes them alike."""
        self._named(name, self.shape, found)
        if found[0] != first[0] or not self.crop:
            raise ValueError(
                f"{name}: the image is {size(found)}, the first one of its batch {size(first)}: images of differing "
                "sizes need crop_size, new_height and new_width, or batch_size 1; all need the same channels"
            )

    @staticmethod
    def _load(source: Source) -> np.ndarray:
        return DataTransformer._named(source[0], source[1])

    @staticmethod
    def _named(name: str, call: Callable[..., T], *arguments: Any) -> T:
        """call(*arguments), its errors starting with `name`."""
        import cv2

        try:
            return call(*arguments)
        except (ValueError, cv2.error) as error:
            raise ValueError(f"{name}: {error}") from None


def _planes(image: np.ndarray) -> np.ndarray:
    """`image` with each channel's values side by side; one that OpenCV decoded has each pixel's."""
    if image.dtype != np.uint8 or len(image) == 1 or image.strides[0] != 1:
        return image
    import cv2

    planes = np.empty(image.shape, np.uint8)
    cv2.split(image.transpose(1, 2, 0), list(planes))
    return planes


def _mirrored(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        return image[:, :, ::-1]
    import cv2

    return cv2.flip(np.ascontiguousarray(image).reshape(-1, image.shape[2]), 1).reshape(image.shape)


def _mean_image(path: str) -> np.ndarray:
    """The mean image of a binaryproto, float32 (C, H, W); its blob may be 3-D or 4-D with num 1."""
    kinds.check(path, "a mean image (binaryproto)")
    proto = read_binary(path, caffe_pb2.BlobProto())
    shape, values = proto_shape(proto), floats(proto, "data")
    image = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    if len(image) != 3 or values.size != image[0] * image[1] * image[2]:
        raise ValueError(
            f"{path}: expected a mean image of shape (1, channels, height, width), "
            f"found shape {shape} with {values.size} values"
        )
    return values.reshape(image)
