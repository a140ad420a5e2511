"""How the coordinates of one top follow from those of another, and the Crop layer that aligns them.

A map is (axis, scale, shift): coordinate x of the one is scale * x + shift of the other, on the axes from `axis` on
(None: on all). From a layer's output to its input the map is the layer's own turned round; along a path maps compose.

    score = coord_map.crop(upscore, data)      # FCN's last layer
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caffe.net_spec import Function, Top
from caffe.net_spec import layers as L

PASS_THROUGH_LAYERS = [
    "AbsVal", "BatchNorm", "Bias", "BNLL", "Dropout", "Eltwise", "ELU", "Log", "LRN", "Exp", "MVN", "Power",
    "ReLU", "PReLU", "Scale", "Sigmoid", "Split", "TanH", "Threshold",
]  # fmt: skip

Map = tuple  # (axis, scale, shift)


class UndefinedMapException(Exception):
    """A layer whose output coordinates do not follow from its input's by a scale and a shift."""


class AxisMismatchException(Exception):
    """Maps that begin at different axes."""


def conv_params(fn: Function) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(axis, stride, reach of the kernel, pad) of a Convolution, Deconvolution, Im2col or Pooling.

    Raises:
        AssertionError: sizes given in the old way (kernel_h, stride_w, ...).
        KeyError: no kernel_size.
    """
    params = fn.params.get("convolution_param", fn.params)
    legacy = [f"{what}_{side}" for what in ("pad", "kernel", "stride") for side in "hw"]
    fields = [name for name in legacy if name in fn.params or name in params]
    if fields:
        raise AssertionError(f"cropping does not support legacy _h/_w params: found {', '.join(fields)}")
    if "kernel_size" not in params:
        raise KeyError(f"kernel_size: the {fn.type_name} layer has none, and its coordinate map needs it")
    kernel, stride, pad, dilation = (
        np.array(params.get(name, default), ndmin=1)
        for name, default in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1))
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, np.ndarray]:
    """(axis, offset) of a Crop layer."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map of a layer: output coordinate = scale * input coordinate + shift.

    Raises:
        UndefinedMapException: the layer has none.
    """
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, reach, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (reach - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, reach, pad = conv_params(fn)
        return axis, stride, (reach - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return None, 1, 0
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # a convolution's axis is the channels', one before the first coordinate
    raise UndefinedMapException(f"{fn.type_name} layers have no coordinate map")


def compose(base_map: Map, next_map: Map) -> Map:
    """The map that applies `next_map`, then `base_map`.

    Raises:
        AxisMismatchException: they begin at different axes.
    """
    (axis, scale, shift), (next_axis, next_scale, next_shift) = base_map, next_map
    if None not in (axis, next_axis) and axis != next_axis:
        raise AxisMismatchException(f"coordinate maps begin at axis {axis} and at axis {next_axis}")
    return next_axis if axis is None else axis, scale * next_scale, scale * next_shift + shift


def inverse(coord_map: Map) -> Map:
    """The map the other way."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def _walk(top: Top) -> Iterator[tuple[Top, Map]]:
    """`top` and all that it is computed from, as far as coordinates can be followed: (top, map from it to `top`)."""
    maps: dict[Top, Map] = {top: (None, 1, 0)}
    frontier = [top]
    while frontier:
        at = frontier.pop()
        yield at, maps[at]
        bottoms = at.fn.inputs[:1] if at.fn.type_name == "Crop" else at.fn.inputs  # the second only gives the size
        try:
            for bottom in bottoms:
                maps[bottom] = compose(maps[at], coord_map(at.fn))
                frontier.append(bottom)
        except UndefinedMapException:
            continue


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from coordinates of `top_from` to those of `top_to`, through a top that both are computed from.

    Raises:
        RuntimeError: there is no such top, or layers without a coordinate map lie between.
        AxisMismatchException: layers on the way work from different axes on.
    """
    from_maps = dict(_walk(top_from))
    for top, to_map in _walk(top_to):
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that cuts `top_from` to the part that lies over `top_to`.

    Raises:
        AssertionError: their scales differ, or the offset is negative or not a whole number.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    shift = np.array(shift, ndmin=1)
    for holds, problem in (
        (np.all(scale == 1), f"scale mismatch on crop (a = {scale})"),
        (np.all(shift <= 0), f"cannot crop negative offset (b = {shift})"),
        (np.all(np.round(shift) == shift), f"cannot crop noninteger offset (b = {shift})"),
    ):
        if not holds:
            raise AssertionError(problem)
    offset = [int(-at) for at in shift]
    return L.Crop(top_from, top_to, crop_param={"axis": (1 if axis is None else axis) + 1, "offset": offset})
