"""WindowData: windows of images, as detection by classification (R-CNN) trains on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from caffe import device, glog
from caffe.blob import Blob
from caffe.data import upload
from caffe.data.decoding import decode
from caffe.data.prefetch import workers
from caffe.data.transformer import DataTransformer
from caffe.layer import register
from caffe.layer_types.data import PrefetchingLayer
from caffe.proto import byte_strings, caffe_pb2

CHANNELS = 3  # of an image as it is read
FIELDS = ("class", "overlap", "x1", "y1", "x2", "y2")  # of a window


@dataclass(frozen=True)
class Image:
    """An image of a window file. place: the line that names it. encoded: the file's bytes, where images are cached."""

    path: str
    place: str
    encoded: bytes | None = None

    def read(self) -> np.ndarray:
        """The pixels, uint8 (H, W, 3) in BGR order, upright. Raises ValueError where there are none."""
        import cv2

        encoded = _contents(self.path, self.place) if self.encoded is None else self.encoded
        try:
            return decode(encoded, cv2.IMREAD_COLOR)
        except ValueError as error:
            raise ValueError(f"{self.place}: Could not open or find file {self.path}: {error}") from None


class Window(NamedTuple):
    """A window of an image, its corners included. place: its line. label: 0 for background."""

    image: Image
    place: str
    label: int
    overlap: float
    corners: tuple[int, int, int, int]  # x1 y1 x2 y2


def read_windows(path: str, root: str, cache: bool) -> tuple[list[Window], int, int]:
    """The windows of a window file, the channels of its images and their number.

    The file is, for each image: `# index`, path, channels, height, width, number of windows and for each of them
    `class overlap x1 y1 x2 y2`, separated by whitespace.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or is written otherwise; the message says the line.
    """
    try:
        text = Path(byte_strings.path(path)).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise FileNotFoundError(
            f"Failed to open window file {path}: {error.strerror} (seen from {os.getcwd()})"
        ) from None
    words = ((word, number) for number, line in enumerate(text.split("\n"), 1) for word in line.split())
    windows: list[Window] = []
    channels, last, place = -1, -1, path
    for word, line in words:
        if word != "#":
            raise ValueError(f"{path}:{line}: expected `# index` of an image, found {word!r}")
        (index,), _ = _numbers(path, words, "the image's index")
        name, line = next(words, ("", line))
        named = f"{path}:{line}"
        sizes, place = _numbers(path, words, "channels", "height", "width", "the number of windows")
        last, channels, count = int(index), int(sizes[0]), int(sizes[3])
        image = Image(root + name, named, _contents(root + name, named) if cache else None)
        if last % 100 == 0:
            glog.info("window_data_layer.cpp:151", f"num: {last} {image.path} {channels} windows to process: {count}")
        for _ in range(count):
            (label, overlap, x1, y1, x2, y2), window = _numbers(path, words, *FIELDS)
            windows.append(Window(image, window, int(label), overlap, (int(x1), int(y1), int(x2), int(y2))))
    if last < 0:
        raise ValueError(f"{path}: Window file is empty: expected images with their windows")
    if channels != CHANNELS:
        raise ValueError(f"{place}: expected {CHANNELS} channels, as images are read in colour, found {channels}")
    return windows, channels, last + 1


def _numbers(path: str, words: Iterator[tuple[str, int]], *names: str) -> tuple[list[float], str]:
    """A number for each of the names, as large as an int of C at most, and the line of the first."""
    numbers, places = [], []
    for name in names:
        word, line = next(words, ("the end of the file", 0))
        places.append(f"{path}:{line}" if line else path)
        try:
            numbers.append(float(word))
        except ValueError:
            numbers.append(math.nan)
        if not abs(numbers[-1]) < 1 << 31:
            raise ValueError(f"{places[-1]}: expected {name}, found {word}")
    return numbers, places[0]


def _contents(path: str, place: str) -> bytes:
    try:
        return Path(byte_strings.path(path)).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"{getattr(error, 'strerror', None) or error} (seen from {os.getcwd()})"
        raise ValueError(f"{place}: Could not open or find file {path}: {reason}") from None


def _round(value: float | np.floating) -> int:
    """C's round: halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))


@dataclass(frozen=True)
class Warp:
    """How a window comes to a crop of `size` x `size`: with `pad` pixels of context on each side, `square` or not."""

    size: int
    pad: int
    square: bool

    def __call__(self, pixels: np.ndarray, window: Window, mirror: bool) -> tuple[np.ndarray, int, int]:
        """The warped window (H, W, 3) and the place in the crop, y and x, where it begins; around it is padding.

        Raises ValueError for a window that is empty or outside its image.
        """
        height, width = pixels.shape[:2]
        x1, y1, x2, y2 = window.corners
        target_w = target_h = self.size
        left = above = 0
        if self.pad or self.square:
            x1, y1, x2, y2 = self._expanded(x1, y1, x2, y2)
            if not (x1 <= x2 and y1 <= y2):
                raise ValueError(
                    f"{window.place}: window {window.corners} (x1 y1 x2 y2) of {window.image.path} is empty: "
                    "expected x1 <= x2 and y1 <= y2"
                )
            scale_x, scale_y = (np.float32(self.size) / np.float32(n) for n in (x2 - x1 + 1, y2 - y1 + 1))
            cut = max(0, -x1), max(0, -y1), max(0, x2 - width + 1), max(0, y2 - height + 1)
            x1, y1, x2, y2 = x1 + cut[0], y1 + cut[1], x2 - cut[2], y2 - cut[3]
            above = _round(cut[1] * scale_y)
            left = _round(cut[2 if mirror else 0] * scale_x)
            target_w = min(_round((x2 - x1 + 1) * scale_x), self.size - left)
            target_h = min(_round((y2 - y1 + 1) * scale_y), self.size - above)
        if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height and target_w > 0 and target_h > 0):
            raise ValueError(
                f"{window.place}: window {window.corners} (x1 y1 x2 y2) of {window.image.path} lies outside the image "
                f"of {width}x{height} (width x height)"
            )
        import cv2

        warped = cv2.resize(pixels[y1 : y2 + 1, x1 : x2 + 1], (target_w, target_h), interpolation=cv2.INTER_LINEAR)
        return warped[:, ::-1] if mirror else warped, above, left

    def _expanded(self, x1: int, y1: int, x2: int, y2: int) -> tuple[int, int, int, int]:
        """The window with its context, which may reach beyond the image. In float32, as BVLC."""
        context = np.float32(self.size) / np.float32(self.size - 2 * self.pad)
        half_w, half_h = np.float32((x2 - x1 + 1) / 2), np.float32((y2 - y1 + 1) / 2)
        centre_x, centre_y = np.float32(x1) + half_w, np.float32(y1) + half_h
        if self.square:
            half_w = half_h = max(half_w, half_h)
        w, h = half_w * context, half_h * context
        return _round(centre_x - w), _round(centre_y - h), _round(centre_x + w), _round(centre_y + h)


class Sampler:
    """A BatchSource that draws: of the background first, then of the foreground; each window at random, with
    replacement."""

    def __init__(
        self,
        param: caffe_pb2.WindowDataParameter,
        transformer: DataTransformer,
        channels: int,
        windows: Sequence[Window],
    ):
        self.warp = Warp(transformer.crop, param.context_pad, param.crop_mode == "square")
        self.transformer, self.channels, self.scale = transformer, channels, np.float32(param.scale)
        foreground = [window for window in windows if window.overlap >= np.float32(param.fg_threshold)]
        background = [
            window._replace(label=0, overlap=0.0)
            for window in windows
            if window.overlap < min(np.float32(param.fg_threshold), np.float32(param.bg_threshold))
        ]
        for name, found in (("foreground", foreground), ("background", background)):
            if not found:
                raise ValueError(
                    f"{param.source}: expected at least one {name} window (overlap at least fg_threshold "
                    f"{param.fg_threshold:g} is foreground, below bg_threshold {param.bg_threshold:g} background)"
                )
        for window in foreground:
            if window.label <= 0:
                raise ValueError(
                    f"{window.place}: expected classes above 0 for foreground windows, found {window.label}"
                )
        counts = int(np.float32(param.batch_size) * np.float32(param.fg_fraction))
        self.shares = ((background, param.batch_size - counts), (foreground, counts))
        self.random = np.random.RandomState(device.random_seed())

    def histogram(self) -> dict[int, int]:
        """How many windows each class has, the background being class 0."""
        labels = [0, *(window.label for window in self.shares[1][0])]
        counts = {label: labels.count(label) for label in sorted(set(labels))}
        return {**counts, 0: len(self.shares[0][0])}

    def make(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Data (N, C, crop, crop), 0 where a window's context is outside its image, and labels (N,)."""
        chosen = [windows[self.random.randint(len(windows))] for windows, count in self.shares for _ in range(count)]
        mirrors = self.random.randint(2, size=len(chosen)) if self.transformer.mirror else [0] * len(chosen)
        data = upload.empty((len(chosen), self.channels, self.warp.size, self.warp.size)).zero_()
        list(workers().map(self._place, chosen, mirrors, data.numpy()))
        return data, torch.tensor([window.label for window in chosen], dtype=torch.float32)

    def finish(self, data: torch.Tensor, labels: torch.Tensor, *_: torch.Tensor) -> list[torch.Tensor]:
        """Nothing is left to do."""
        return [data, labels]

    def state(self) -> caffe_pb2.SourceState:
        """What the next batch is drawn with."""
        return caffe_pb2.SourceState(transform_stream=device.stream_state(self.random))

    def restore(self, state: caffe_pb2.SourceState) -> None:
        """Draw on from a `state`."""
        self.random = device.restored_stream(self.random, state.transform_stream)

    def _place(self, window: Window, mirror: int, out: np.ndarray) -> None:
        pixels = window.image.read()
        warped, y, x = self.warp(pixels, window, bool(mirror))
        height, width = warped.shape[:2]
        values = warped.transpose(2, 0, 1).astype(np.float32)
        mean = self.transformer.mean
        if mean is not None:
            off = (mean.shape[2] - self.warp.size) // 2
            values -= mean[:, y + off : y + off + height, x + off : x + off + width]
        elif self.transformer.mean_values.size:
            values -= self.transformer.mean_values.reshape(-1, 1, 1)
        out[:, y : y + height, x : x + width] = values * self.scale


@register("WindowData")
class WindowData(PrefetchingLayer):
    """Windows of images, warped to crop_size x crop_size, fg_fraction of a batch of the foreground, the rest of the
    background (Girshick et al. 2014).

    Tops: data (N, C, crop, crop); the classes (N,), 0 for background. Of transform_param it uses crop_size, mirror
    and the mean; the scale is window_data_param's, as in BVLC. context_pad pixels of each side of the crop are context
    around the window; crop_mode "square" widens windows to squares first, "warp" does not.
    """

    top_count = (2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.window_data_param
        glog.info(
            "window_data_layer.cpp:56",
            f"Window data layer:\n  foreground (object) overlap threshold: {param.fg_threshold:g}\n"
            f"  background (non-object) overlap threshold: {param.bg_threshold:g}\n"
            f"  foreground sampling fraction: {param.fg_fraction:g}",
        )
        try:
            transformer = DataTransformer(self.layer_param.transform_param, self.phase)
            windows, channels, images = read_windows(param.source, param.root_folder, param.cache_images)
            glog.info("window_data_layer.cpp:160", f"Number of images: {images}")
            self._check(param, transformer, channels)
            sampler = Sampler(param, transformer, channels, windows)
        except (ValueError, OSError) as error:
            raise type(error)(f"layer {self.layer_param.name!r} ({self.type}): {error}") from None
        for label, count in sampler.histogram().items():
            glog.info("window_data_layer.cpp:164", f"class {label} has {count} samples")
        glog.info("window_data_layer.cpp:168", f"Amount of context padding: {param.context_pad}")
        glog.info("window_data_layer.cpp:171", f"Crop mode: {param.crop_mode}")
        top[0].reshape(param.batch_size, channels, transformer.crop, transformer.crop)
        top[1].reshape(param.batch_size)
        glog.info("window_data_layer.cpp:183", "output data size: " + ",".join(map(str, top[0].shape)))
        self.start(sampler)

    @staticmethod
    def _check(param: caffe_pb2.WindowDataParameter, transformer: DataTransformer, channels: int) -> None:
        """Raise ValueError, saying which, for fields that do not fit one another."""
        crop, means, mean = transformer.crop, transformer.mean_values.size, transformer.mean
        facts = (
            (crop > 0, f"transform_param.crop_size must be above 0; found {crop}"),
            (param.batch_size > 0, f"batch_size must be above 0; found {param.batch_size}"),
            (
                2 * param.context_pad < crop,
                f"context_pad must be below half of crop_size {crop}; found {param.context_pad}",
            ),
            (
                param.crop_mode in ("warp", "square"),
                f'crop_mode must be "warp" or "square"; found "{param.crop_mode}"',
            ),
            (0 <= param.fg_fraction <= 1, f"fg_fraction must be from 0 to 1; found {param.fg_fraction:g}"),
            (
                means in (0, 1, channels),
                f"Specify either 1 mean_value or as many as channels: {channels}; found {means}",
            ),
            (
                mean is None or (mean.shape[0] == channels and min(mean.shape[1:]) >= crop),
                f"the mean image must have {channels} channels of {crop}x{crop} or more; "
                f"found {'no mean' if mean is None else 'x'.join(map(str, mean.shape))}",
            ),
        )
        for holds, message in facts:
            if not holds:
                raise ValueError(message)
