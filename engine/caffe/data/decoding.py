"""From the bytes of a picture file or a Datum to pixels, and back: numpy and OpenCV, no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError

from caffe.data import exif
from caffe.proto import caffe_pb2

_FLOAT_FILES = (b"PF", b"Pf", b"v/1\x01")  # PFM, OpenEXR: OpenCV would cut their values to 0 and 1


def decode(data: bytes, flags: int) -> np.ndarray:
    """The pixels of a picture file, (H, W) or (H, W, C) in BGR order, as cv2.imdecode reads them with `flags`.

    IMREAD_COLOR, IMREAD_GRAYSCALE, IMREAD_ANYCOLOR turn the picture upright as EXIF says; IMREAD_UNCHANGED does not.

    Raises:
        ValueError: no picture, or one that is cut short; the message leaves its name to the caller.
    """
    import cv2  # functions import it where they need it: few nets decode pictures

    if (found := exif.damage(data)) is not None:
        raise ValueError(f"expected an image, found {found}")
    if flags in (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE) and data.startswith(_FLOAT_FILES):
        raise ValueError("expected an image of 8 or 16 bits a channel, found floating-point pixels: convert it")
    if flags != cv2.IMREAD_UNCHANGED:  # turned here: OpenCV 4 knows the orientation of a JPEG alone
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    except cv2.error:  # more pixels than OpenCV allows
        image = None
    if image is None:
        raise ValueError(
            f"expected an image, found {len(data)} bytes that OpenCV {cv2.__version__} cannot decode: another type of "
            "file, or cut short"
        )
    return image if flags == cv2.IMREAD_UNCHANGED else exif.upright(image, exif.orientation(data))


def encode(image: np.ndarray, kind: str) -> bytes | None:
    """A picture file of a kind, `.png` say; None where OpenCV has no such kind, or it cannot hold the image."""
    import cv2

    if kind.isascii():  # OpenCV crashes at text that is not UTF-8
        with contextlib.suppress(cv2.error):
            written, data = cv2.imencode(kind, image)
            return data.tobytes() if written else None
    return None


def decode_flags(color: bool | None) -> int:
    """How a Datum or a list's image is decoded: to 3 channels (True), to 1 (False), or as it is stored (None)."""
    import cv2

    return {True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE, None: cv2.IMREAD_UNCHANGED}[color]


def channels_first(image: np.ndarray) -> np.ndarray:
    """OpenCV's (H, W) or (H, W, C) as (C, H, W)."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def parse_datum(record: bytes) -> caffe_pb2.Datum:
    """The Datum of a database's record. Raises ValueError where it holds none."""
    try:
        return caffe_pb2.Datum.FromString(record)
    except DecodeError:
        raise ValueError(f"expected a Datum, found {len(record)} bytes that do not decode as one") from None


def datum_image(datum: caffe_pb2.Datum, color: bool | None = None) -> np.ndarray:
    """The image of a Datum, (C, H, W): decoded, or raw uint8 `data`, or float32 `float_data` where `data` is empty.

    Raises:
        ValueError: it does not decode, or the number of values is not channels * height * width.
    """
    if datum.encoded:
        try:
            image = channels_first(decode(datum.data, decode_flags(color)))
        except ValueError as error:
            raise ValueError(f"Could not decode datum: {error}") from None
        if image.dtype != np.uint8:
            raise ValueError(f"Image data type must be unsigned byte, found {image.dtype}")
        return image
    shape = (datum.channels, datum.height, datum.width)
    data = datum.data
    values = np.frombuffer(data, np.uint8) if data else np.array(datum.float_data, np.float32)
    if min(shape) <= 0 or values.size != shape[0] * shape[1] * shape[2]:
        name = "data" if data else "float_data"
        raise ValueError(
            f"the Datum says {size(shape)} (channels x height x width), its {name} holds {values.size} values"
            + ("" if datum.encoded or not data else "; an encoded image needs `encoded: true`")
        )
    return values.reshape(shape)


def size(shape: Sequence[int]) -> str:
    """A shape for messages: `3x227x227`."""
    return "x".join(map(str, shape))
