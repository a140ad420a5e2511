"""Codes of images by one forward pass of a deploy net, and how the net's training prepared images.

Caffe is imported when it is used: a command sets before how much it logs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from layer_params import read_param_str
from numpy.typing import ArrayLike

from dhn.codes import sources
from dhn.files import parse_json

if TYPE_CHECKING:
    import caffe

# what a test data layer says of an image, besides its crop; upright: False where it does not look at the orientation
PREPARED = ("resize", "gray", "upright", "mean_value", "mean_file", "scale")
AHEAD = 4  # batches prepared while the net computes


def settings_of(model: str | os.PathLike) -> dict:
    """How the test data layer of a train_val.prototxt prepares images: those of PREPARED that it sets.

    Knows Data and ImageData layers and Python layers with the keys of multilabel_data.MultiLabelDataLayer.
    Raises OSError for a file that cannot be read, ValueError for one that is no net, or a net without such a layer.
    """
    import caffe
    from caffe.net_param import filter_net
    from caffe.proto.text import read_net

    net = read_net(os.fspath(model))  # of the old form (layers { }) too
    net.state.phase = caffe.TEST
    with warnings_alone():
        layers = filter_net(net).layer
    for layer in layers:
        if layer.bottom:
            continue
        if layer.type == "Python" and layer.python_param.module == "multilabel_data":
            return _settings_of_param_str(layer.python_param.param_str, f"{model}: layer {layer.name!r}")
        if layer.type in ("Data", "ImageData"):
            settings: dict[str, Any] = {}
            transform, image = layer.transform_param, layer.image_data_param
            if transform.mean_value:
                settings["mean_value"] = list(transform.mean_value)
            if transform.mean_file:
                settings["mean_file"] = transform.mean_file
            if transform.scale != 1:
                settings["scale"] = transform.scale
            if layer.type == "ImageData":
                settings["gray"] = not image.is_color
                if image.new_height:
                    settings["resize"] = [image.new_height, image.new_width]
            elif transform.force_color or transform.force_gray:
                settings["gray"] = transform.force_gray
            else:
                settings["upright"] = False
            return settings
    raise ValueError(
        f"{model}: expected a test data layer (Data, ImageData, or Python with multilabel_data), found none; "
        "say how images are prepared with --mean-value, --scale and --resize"
    )


def _settings_of_param_str(text: str, where: str) -> dict:
    """The settings of PREPARED that a MultiLabelDataLayer has. Raises ValueError, which says where."""
    from multilabel_data import PARAMS  # which imports caffe

    try:
        values = parse_json(text or "{}")
        given = {key: values[key] for key in PREPARED if key in PARAMS and values.get(key) is not None}
    except (ValueError, AttributeError):
        raise ValueError(f"{where}: expected a JSON object in its param_str, found {text[:80]!r}") from None
    read_param_str(json.dumps(given), where, {key: PARAMS[key] for key in given})
    return given


def load_net(model: str, weights: str) -> caffe.Net:
    """The net of a deploy.prototxt in its TEST phase, every layer that learns having weights.

    Raises ValueError where the file has none for a layer: Caffe itself would leave that layer as it was filled.
    """
    import caffe

    for path, what in ((model, "--model"), (weights, "--weights")):
        if not os.path.isfile(path):
            raise ValueError(f"{what}: there is no file {path}")
    net = caffe.Net(model, caffe.TEST, weights=weights)
    given = _layers_in(weights)
    missing = [name for name in net.params if name not in given]
    if missing:
        raise ValueError(f"{weights} has no weights for {', '.join(missing)} of {model}: is it another net's file?")
    return net


def _layers_in(weights: str) -> set:
    """Names of the layers that a .caffemodel or .caffemodel.h5 has weights for."""
    if weights.endswith(".h5"):
        import h5py

        with h5py.File(weights, "r") as file:
            return set(file["data"])
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter()
    net.ParseFromString(Path(weights).read_bytes())
    return {layer.name for layers in (net.layer, net.layers) for layer in layers if layer.blobs}


def extract(
    net: caffe.Net,
    blob: str,
    source: sources.ImageSource,
    batch_size: int,
    mean: ArrayLike = 0,
    scale: float = 1,
    advance: Callable[[int], object] = lambda images: None,
    rows: range | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, K) float32 and labels (N, C) int8 of the N images of a source, in its order.

    rows: only these images, the first one where a batch begins.

    net: one with a single image input (B, channels, height, width); it is reshaped to batches of `batch_size`, the
    last one to what is left. source: what sources.open_source gives. mean: a number, or an array that
    multilabel_data.Batches takes; scale multiplies after its subtraction. advance(n) is called after each n images.
    Raises ValueError for a blob that holds no codes, and for codes that are not finite, naming the image.
    """
    from image_records import Prefetcher
    from multilabel_data import Batches

    data = net.blobs[net.inputs[0]]
    _, channels, height, width = data.shape
    batches = Batches(source, batch_size, train=False, crop=(height, width), mean=mean, scale=scale)
    rows = rows or range(len(source))
    plans = [rows[begin : begin + batch_size] for begin in range(0, len(rows), batch_size)]
    if batches.shape[1] != channels:
        raise ValueError(f"{source.name(0)}: the net takes {channels} channels, the image has {batches.shape[1]}")

    def build(plan: range, map_: Callable) -> tuple[np.ndarray, np.ndarray]:
        return batches.build([(index, 0, 0, False) for index in plan], map_)

    prefetcher = Prefetcher(plans, build, AHEAD, threads=os.cpu_count() or 1)
    codes: np.ndarray | None = None
    carried = np.empty((len(rows), source.labels), np.float32)
    for plan in plans:
        images, labels = prefetcher.next()
        if len(images) != data.shape[0]:
            data.reshape(*images.shape)
            net.reshape()
        data.data[...] = images
        net.forward()
        batch = net.blobs[blob].data
        if batch.shape[0] != len(images) or batch.size == 0:
            raise ValueError(f"blob {blob}: expected a row an image, {len(images)} of them, found {batch.shape}")
        batch = batch.reshape(len(images), -1)
        if not np.isfinite(batch).all():
            row = int((~np.isfinite(batch).all(1)).argmax())
            raise ValueError(f"{source.name(plan[row])}: its codes are not finite; did the training diverge?")
        if codes is None:
            codes = np.empty((len(rows), batch.shape[1]), np.float32)
        own = slice(plan.start - rows.start, plan.stop - rows.start)
        codes[own], carried[own] = batch, labels
        advance(len(images))
    assert codes is not None, "a source has images"
    return codes, sources.label_rows(carried, source, rows.start)


def mean_of(settings: dict) -> ArrayLike:
    """The mean to subtract, as multilabel_data.Batches takes it: a number, (channels, 1, 1) or an image."""
    if "mean_file" in settings:
        return sources.read_mean(settings["mean_file"])
    value = settings.get("mean_value", 0)
    return np.reshape(value, (-1, 1, 1)) if isinstance(value, list) and len(value) > 1 else np.ravel(value)[0]


@contextlib.contextmanager
def warnings_alone() -> Iterator[None]:
    """Of what this thread does meanwhile, Caffe's log has the warnings, but not a line for every layer and blob."""
    thread = threading.get_ident()

    def is_shown(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= logging.WARNING

    logger = logging.getLogger("caffe")
    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)
