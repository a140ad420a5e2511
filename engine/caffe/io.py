"""Arrays, messages and images (pycaffe's caffe.io). Images are (H, W, K) float32 arrays, RGB, in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from caffe import scikit_image
from caffe.blob_proto import append_floats, floats, proto_shape
from caffe.data.decoding import decode
from caffe.proto import caffe_pb2
from caffe.scikit_image import Source, img_as_float, resize, rgb2gray

# -- arrays and messages


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> np.ndarray:
    """The data (or diff) of a BlobProto as a float64 array of its shape."""
    return floats(blob, "diff" if return_diff else "data").astype(float).reshape(proto_shape(blob))


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> caffe_pb2.BlobProto:
    """A BlobProto with the shape and values of `arr`, and the values of `diff` as its diff."""
    arr = np.asarray(arr)
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    for field, values in (("data", arr), ("diff", diff)):
        if values is not None:
            append_floats(blob, field, np.asarray(values, float))
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[np.ndarray]) -> bytes:
    """A serialized BlobProtoVector of the arrays."""
    return caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(arr) for arr in arraylist]).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:
    """The arrays of a serialized BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> caffe_pb2.Datum:
    """A Datum of a (C, H, W) array: uint8 values go to `data`, others to `float_data`."""
    if arr.ndim != 3:
        raise ValueError(f"Incorrect array shape. Expected (channels, height, width), found {arr.shape}")
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2])
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        append_floats(datum, "float_data", arr.astype(float))
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> np.ndarray:
    """The values of a raw Datum, (C, H, W): uint8 from `data`, float64 from `float_data` where that is empty."""
    if datum.encoded:
        raise ValueError(
            "the Datum is encoded: expected raw values; "
            "decode it with cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_UNCHANGED)"
        )
    values = np.frombuffer(datum.data, np.uint8).copy() if len(datum.data) else np.array(datum.float_data, float)
    return values.reshape(datum.channels, datum.height, datum.width)


# -- preparing inputs


class Transformer:
    """Prepares images for the inputs of a net and turns input values back into images.

    inputs: from each input's name to its shape (N, K, H, W). All steps but resizing are optional, set by input.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]):
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the net inputs: {self.inputs}")
        return tuple(self.inputs[in_])

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """An image (H', W', K) as input values, float32 (K, H, W).

        In this order: resize to the input's H and W, transpose, swap channels, times raw_scale, minus mean,
        times input_scale. `data` stays as it is.
        """
        size = self._shape(in_)[2:]
        values = np.array(data, np.float32)
        if values.shape[:2] != size:
            values = resize_image(values, size)
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_]), :, :]
        if self.raw_scale.get(in_) is not None:
            values *= self.raw_scale[in_]
        if self.mean.get(in_) is not None:
            values -= self.mean[in_]
        if self.input_scale.get(in_) is not None:
            values *= self.input_scale[in_]
        return values

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Undo `preprocess`, resizing apart: input values (K, H, W), or (1, K, H, W), as an image (H, W, K)."""
        self._shape(in_)
        values = data.copy().squeeze()
        if self.input_scale.get(in_) is not None:
            values /= self.input_scale[in_]
        if self.mean.get(in_) is not None:
            values += self.mean[in_]
        if self.raw_scale.get(in_) is not None:
            values /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            values = values[np.argsort(self.channel_swap[in_]), :, :]
        if in_ in self.transpose:
            values = values.transpose(np.argsort(self.transpose[in_]))
        return values

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Reorder the dimensions: (2, 0, 1) makes (H, W, K) into (K, H, W)."""
        if len(order) != len(self._shape(in_)) - 1:
            raise ValueError(
                "Transpose order needs to have the same number of dimensions as the input; "
                f"expected {len(self._shape(in_)) - 1}, found {tuple(order)}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Reorder the channels, the first axis after transpose: (2, 1, 0) makes RGB into BGR."""
        if len(order) != self._shape(in_)[1]:
            raise ValueError(
                "Channel swap needs to have the same number of dimensions as the input channels; "
                f"expected {self._shape(in_)[1]}, found {tuple(order)}"
            )
        channels = len(order)
        if not all(-channels <= channel < channels for channel in order):
            raise ValueError(f"Channel swap: expected channels below {channels}, found {tuple(order)}")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Multiply by `scale` before the mean: 255 for nets trained on pixels in [0, 255]."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Subtract `mean`: (K,), a value per channel; or (H', W') or (K, H', W'), resized to the input."""
        shape = self._shape(in_)
        if mean.ndim == 1:
            if len(mean) != shape[1]:
                raise ValueError(f"Mean channels incompatible with input. Expected {shape[1]}, found {len(mean)}")
            self.mean[in_] = mean[:, np.newaxis, np.newaxis]
            return
        if mean.ndim not in (2, 3):
            raise ValueError(f"Mean shape invalid: expected (K,), (H, W) or (K, H, W), found {mean.shape}")
        image = np.broadcast_to(mean, (1, *mean.shape)) if mean.ndim == 2 else mean
        if len(image) not in (1, shape[1]) or not image.size:
            raise ValueError(f"Mean channels incompatible with input. Expected {shape[1:]}, found {image.shape}")
        if image.shape != shape[1:]:
            low, high = image.min(), image.max()
            if high > low:
                unit = (image - low) / (high - low)
                image = resize_image(unit.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1) * (high - low) + low
            else:
                image = np.full((len(image), *shape[2:]), low)
        self.mean[in_] = image

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Multiply by `scale` after the mean."""
        self._shape(in_)
        self.input_scale[in_] = scale


# -- images


def load_image(filename: Source, color: bool = True) -> np.ndarray:
    """An image as float32 in [0, 1]: (H, W, 3) RGB, or with color False (H, W, 1) luminance (ITU-R 709).

    A grey image is repeated in three channels, an alpha channel is dropped, the picture is turned upright as its EXIF
    orientation says.

    filename: a path; an address that begins with http://, https://, ftp:// or file://; a file object opened as bytes.

    Raises:
        OSError: nothing can be read there, or no image, or one that is cut short.
    """
    data, name = scikit_image.contents(filename)
    try:
        image = decode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        if image.ndim == 3 and image.dtype == np.uint16:
            image = decode(data, cv2.IMREAD_COLOR)  # 8 bits, as Pillow gives scikit-image
    except ValueError as error:
        raise OSError(f"Cannot load {name}: {error}") from None
    image = img_as_float(image if image.ndim == 2 else image[:, :, ::-1])
    if image.ndim == 3 and not color:
        image = rgb2gray(image)
    if image.ndim == 2:
        image = np.repeat(image[:, :, np.newaxis], 3 if color else 1, axis=2)
    return np.ascontiguousarray(image, np.float32)


def resize_image(im: np.ndarray, new_dims: Sequence[int] | np.ndarray, interp_order: int = 1) -> np.ndarray:
    """An image (H, W, K) resized to `new_dims` (height, width): float32 (height, width, K).

    With 1 or 3 channels as scikit-image 0.18, which pycaffe calls, does it: smoothed before it is made smaller, black
    outside. With others by SciPy's splines. interp_order: 0 (nearest), 1 (linear) to 5.

    Raises:
        ValueError: another interpolation order.
    """
    new_dims = tuple(int(dim) for dim in new_dims)
    if im.dtype.kind == "f" and im.dtype.itemsize not in (4, 8):  # SciPy has no half and no long floats
        im = im.astype(np.float32 if im.dtype == np.float16 else np.float64)
    if im.shape[-1] not in (1, 3):
        factors = np.array(new_dims, float) / im.shape[:2]
        from scipy import ndimage  # here, for it takes a tenth of the time of `import caffe`

        return ndimage.zoom(im, (*factors, 1), order=interp_order).astype(np.float32)
    low, high = im.min(), im.max()
    if not high > low:
        return np.full((*new_dims[:2], im.shape[-1]), low, np.float32)
    unit = (im - low) / (high - low)
    return (resize(unit, new_dims, order=interp_order, mode="constant") * (high - low) + low).astype(np.float32)


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int] | np.ndarray) -> np.ndarray:
    """The four corners and the centre of each image, then their mirror images.

    images: N arrays (H, W, K) of one shape. crop_dims: (height, width).
    Returns float32 (10 * N, height, width, K), the ten of the first image first.
    """
    height, width = (int(dim) for dim in crop_dims)
    rows, columns = images[0].shape[0] - height, images[0].shape[1] - width
    if rows < 0 or columns < 0:
        raise ValueError(f"oversample: crops of {height} x {width} do not fit in images of shape {images[0].shape}")
    corners = [(top, left) for top in (0, rows) for left in (0, columns)]
    centre = (int(images[0].shape[0] / 2 - height / 2), int(images[0].shape[1] / 2 - width / 2))
    crops = []
    for image in images:
        five = [image[top : top + height, left : left + width] for top, left in (*corners, centre)]
        crops += five + [crop[:, ::-1] for crop in five]
    return np.array(crops, np.float32)


# -- what scripts find in pycaffe's module because it imports it


def __getattr__(name: str) -> Any:
    """`caffe.io.skimage` and `caffe.io.zoom`, imported when they are asked for."""
    if name == "skimage":
        return scikit_image.module()
    if name == "zoom":
        from scipy.ndimage import zoom

        return zoom
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "skimage", "zoom"]
