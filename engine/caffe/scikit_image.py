"""What pycaffe and scripts take from scikit-image, as its version 0.18 does it: reading, converting, resizing."""

from __future__ import annotations

import importlib
import os
import types
from collections.abc import Sequence
from typing import IO, Any, NoReturn

import cv2
import numpy as np

from caffe.data import exif
from caffe.data.decoding import decode, encode

Source = str | os.PathLike | IO[bytes]  # an image: a path, an address, a file object
_ADDRESSES = ("http://", "https://", "ftp://", "file://")
_TIMEOUT = 60  # seconds without an answer from an address

# How scipy.ndimage names what lies outside an image; scikit-image has numpy.pad's names.
_NDIMAGE = {
    "constant": "constant",
    "edge": "nearest",
    "symmetric": "reflect",
    "reflect": "mirror",
    "wrap": "wrap",
}


# -- reading and writing


def contents(source: Source) -> tuple[bytes, str]:
    """(the bytes of an image, its name for messages).

    source: a path; an address that begins with http://, https://, ftp:// or file://; a file object opened as bytes.
    Raises OSError: nothing can be read there.
    """
    import http.client  # these two here, for they take a while, and few scripts need them
    import urllib.request

    if hasattr(source, "read"):
        data, name = source.read(), str(getattr(source, "name", None) or "the file object")
        if not isinstance(data, bytes):
            found = f"found {type(data).__name__}: open it with 'rb'"
            raise OSError(f"Cannot load {name}: expected a file opened as bytes, {found}")
        return data, name
    if not isinstance(source, str | os.PathLike):
        found = f"found {type(source).__name__}; bytes go into io.BytesIO"
        raise TypeError(f"expected a path, an address or a file object, {found}")
    name = os.fspath(source)
    try:
        if isinstance(source, str) and source.startswith(_ADDRESSES):
            with urllib.request.urlopen(source, timeout=_TIMEOUT) as answer:
                return answer.read(), name
        with open(os.path.expanduser(name), "rb") as file:
            return file.read(), name
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(f"Cannot load {name}: expected an image file: {reason} (seen from {os.getcwd()})") from error


def imread(fname: Source, as_gray: bool = False) -> np.ndarray:
    """skimage.io.imread: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA as the file has it; as_gray: floats (H, W)."""
    data, name = contents(fname)
    try:
        image = exif.upright(decode(data, cv2.IMREAD_UNCHANGED), exif.orientation(data))
    except ValueError as error:
        raise OSError(f"Cannot load {name}: {error}") from None
    if image.ndim == 2:
        return image
    image = np.ascontiguousarray(image[:, :, [2, 1, 0, 3][: image.shape[2]]])
    return rgb2gray(image[:, :, :3]) if as_gray else image


def imsave(fname: str | os.PathLike, arr: np.ndarray) -> None:
    """skimage.io.imsave: write (H, W), (H, W, 3) RGB or (H, W, 4) RGBA; the name says the type of file."""
    image = arr[:, :, 0] if arr.ndim == 3 and arr.shape[2] == 1 else arr
    image = image if image.dtype in (np.uint8, np.uint16) else img_as_ubyte(image)
    image = image if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    made = encode(image, os.path.splitext(os.fspath(fname))[1])
    if made is None:
        raise OSError(f"Cannot write {os.fspath(fname)}: expected a name that ends in a type of image, such as .png")
    with open(fname, "wb") as file:
        file.write(made)


# -- values


def img_as_float(image: np.ndarray) -> np.ndarray:
    """Whole numbers as float64: 0 to 1, or -1 to 1 of a signed type; floats as they are."""
    image = np.asarray(image)
    if image.dtype == bool:
        return image.astype(float)
    if not np.issubdtype(image.dtype, np.integer):
        return image
    return np.maximum(image * (1.0 / np.iinfo(image.dtype).max), -1.0)


def img_as_ubyte(image: np.ndarray) -> np.ndarray:
    """An image as uint8: floats in [-1, 1] times 255, rounded, those below 0 as 0; 16 bits shortened to 8."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    image = img_as_float(image)
    if np.abs(image).max(initial=0) > 1:
        raise ValueError(f"img_as_ubyte: expected values from -1 to 1, found {image.min():g} to {image.max():g}")
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def rgb2gray(image: np.ndarray) -> np.ndarray:
    """The luminance (ITU-R 709) of an image (..., 3), in [0, 1]."""
    return img_as_float(image) @ np.array([0.2125, 0.7154, 0.0721])


def gray2rgb(image: np.ndarray) -> np.ndarray:
    """An image (H, W) as (H, W, 3)."""
    return np.repeat(np.asarray(image)[..., np.newaxis], 3, axis=-1)


# -- sizes


def resize(
    image: np.ndarray,
    output_shape: Sequence[int],
    order: int | None = None,
    mode: str = "reflect",
    cval: float = 0,
    clip: bool = True,
    preserve_range: bool = False,
    anti_aliasing: bool | None = None,
    anti_aliasing_sigma: float | Sequence[float] | None = None,
) -> np.ndarray:
    """skimage.transform.resize: an image of any number of axes resized to `output_shape`, as floats.

    Args:
        output_shape: the new shape; the last axis may be left out and is then kept.
        order: 0 nearest (where two pixels are equally near, scikit-image takes either), 1 linear, 3 cubic, else splines
            of order 2, 4, 5; None: 1, or 0 of a bool image.
        mode, cval: what lies outside: "constant" (cval), "edge", "symmetric", "reflect" or "wrap".
        clip: keep to the range of the image's values.
        preserve_range: leave the values as they are; otherwise whole numbers become [0, 1].
        anti_aliasing, anti_aliasing_sigma: smooth before an axis becomes smaller, by (factor - 1) / 2 pixels or sigma.

    Raises:
        ValueError: a shape of fewer axes, or another order or mode.
    """
    image, shape = np.asarray(image), tuple(int(size) for size in output_shape)
    if len(shape) > image.ndim:
        image = image.reshape(image.shape + (1,) * (len(shape) - image.ndim))
    elif len(shape) == image.ndim - 1:
        shape += image.shape[-1:]
    if len(shape) != image.ndim:
        raise ValueError(f"resize: expected an output_shape of {image.ndim} or {image.ndim - 1} axes, found {shape}")
    if mode not in _NDIMAGE:
        raise ValueError(f"resize: expected a mode of {', '.join(_NDIMAGE)}, found {mode!r}")
    is_bool = image.dtype == bool
    order = (0 if is_bool else 1) if order is None else order
    if order not in range(6):
        raise ValueError(f"resize: expected an order from 0 to 5, found {order!r}")
    from scipy import ndimage  # here, for it takes a tenth of the time of `import caffe`

    factors = np.array(image.shape) / shape
    if anti_aliasing if anti_aliasing is not None else not is_bool:
        sigma = np.maximum(0, (factors - 1) / 2) if anti_aliasing_sigma is None else anti_aliasing_sigma
        image = ndimage.gaussian_filter(image, sigma, mode=_NDIMAGE[mode], cval=cval)
    image = _floats(image) if preserve_range else img_as_float(image)
    if order in (0, 1, 3) and shape[2:] == image.shape[2:] and len(shape) in (2, 3):
        resized = _resize_plane(image, shape[:2], order, mode, cval)
    else:
        places = [factor * (np.arange(size) + 0.5) - 0.5 for factor, size in zip(factors, shape, strict=True)]
        grid = np.array(np.meshgrid(*places, indexing="ij"))
        resized = ndimage.map_coordinates(image, grid, order=order, mode=_NDIMAGE[mode], cval=cval)
    if clip and order != 0:
        low, high = image.min(), image.max()
        outside = resized == cval if mode == "constant" and not low <= cval <= high else None
        resized = resized.clip(low, high)
        if outside is not None:
            resized[outside] = cval
    return resized


def _floats(image: np.ndarray) -> np.ndarray:
    return image if image.dtype in (np.float32, np.float64) else image.astype(float)


_MARGIN = 2  # pixels around an image that a cubic reaches


def _resize_plane(image: np.ndarray, size: Sequence[int], order: int, mode: str, cval: float) -> np.ndarray:
    """The first two axes of `image` at the centres of the new pixels, in its own precision."""
    outside: dict[str, Any] = {"mode": mode}
    if mode == "constant":
        outside["constant_values"] = cval
    image = np.pad(image, [(_MARGIN, _MARGIN)] * 2 + [(0, 0)] * (image.ndim - 2), **outside)
    for axis, new in enumerate(size):
        places, weights = _neighbours(new, image.shape[axis] - 2 * _MARGIN, order, image.dtype.type)
        weights = weights.reshape(len(weights), *(new if each == axis else 1 for each in range(image.ndim)))
        image = sum(np.take(image, place, axis) * weight for place, weight in zip(places, weights, strict=True))
    return image


def _neighbours(new: int, old: int, order: int, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Which old pixels, counted with the margin, give how much to each new one: two arrays (neighbours, new)."""
    centres = (kind(old / new) * np.arange(new, dtype=kind) + kind(old / new / 2 - 0.5)).astype(float)
    if order == 0:
        first, weights = np.floor(centres + 0.5), [np.ones(new)]
    else:
        first = np.floor(centres)
        at = centres - first  # from the pixel before, 0 to 1
        weights = [1 - at, at]
    if order == 3:  # Catmull-Rom
        first = first - 1
        weights = [
            ((1 - at / 2) * at - 0.5) * at,
            (1.5 * at - 2.5) * at**2 + 1,
            ((2 - 1.5 * at) * at + 0.5) * at,
            (at - 1) / 2 * at**2,
        ]
    places = first.astype(int) + _MARGIN + np.arange(len(weights))[:, np.newaxis]
    return places, np.array(weights, kind)


# -- the module


def module() -> types.ModuleType | types.SimpleNamespace:
    """scikit-image; where it is not installed, those of its functions that scripts call through caffe.io.skimage."""
    try:
        for part in ("io", "transform", "color"):
            importlib.import_module(f"skimage.{part}")
        return importlib.import_module("skimage")
    except ModuleNotFoundError:
        return _PARTS


class _Part(types.SimpleNamespace):
    """A part of scikit-image where that is not installed."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{self.__name__} has no {name!r} without scikit-image: found {', '.join(vars(self))}; "
            "install it with `pip install scikit-image`"
        )


_PARTS = _Part(
    __name__="caffe.io.skimage",
    img_as_float=img_as_float,
    img_as_ubyte=img_as_ubyte,
    io=_Part(__name__="caffe.io.skimage.io", imread=imread, imsave=imsave),
    transform=_Part(__name__="caffe.io.skimage.transform", resize=resize),
    color=_Part(__name__="caffe.io.skimage.color", rgb2gray=rgb2gray, gray2rgb=gray2rgb),
)
