"""A sample: batches of a net that is a data layer alone, as fast as it gives them. Or with pauses, as a net would."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

import caffe

CROP, MEAN = 227, (104, 117, 123)
TRANSFORM = "transform_param { mirror: true crop_size: %d %%s }" % CROP
MEAN_VALUES = TRANSFORM % " ".join("mean_value: %d" % value for value in MEAN)


def data(folder: str, batch: int) -> str:
    mean = TRANSFORM % ('mean_file: "%s/mean.binaryproto"' % folder)
    source = 'data_param { source: "%s/photos_lmdb" backend: LMDB batch_size: %d }' % (folder, batch)
    return 'layer { name: "data" type: "Data" top: "data" top: "label" %s %s }' % (mean, source)


def image_data(folder: str, batch: int) -> str:
    source = 'image_data_param { source: "%s/photos.txt" root_folder: "%s/" batch_size: %d shuffle: true %s }'
    source %= (folder, folder, batch, "new_height: 256 new_width: 256")
    return 'layer { name: "data" type: "ImageData" top: "data" top: "label" %s %s }' % (MEAN_VALUES, source)


def multilabel(folder: str, batch: int) -> str:
    """python_layers/multilabel_data.py with the options of the project's nets, its cache of decoded images emptied."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "python_layers"))
    import image_records

    if not image_records._CACHE_BYTES:
        raise ValueError("image_records has no cache of decoded images any more: do not set its size here")
    image_records._CACHE_BYTES = 0
    options = {"source": folder + "/photos_multilabel.txt", "root": folder, "batch_size": batch, "resize": 256}
    options.update({"crop": CROP, "mirror": True, "mean_value": MEAN, "gray": False, "threads": 4})
    python = 'python_param { module: "multilabel_data" layer: "MultiLabelDataLayer" param_str: \'%s\' }'
    return 'layer { name: "data" type: "Python" top: "data" top: "label" %s }' % (python % json.dumps(options))


def there(folder: str, batch: int) -> str:
    """Blobs that hold their data already."""
    shapes = "shape { dim: [%d, 3, %d, %d] } shape { dim: %d }" % (batch, CROP, CROP, batch)
    return 'layer { name: "data" type: "Input" top: "data" top: "label" input_param { %s } }' % shapes


LAYERS = {"data": data, "image_data": image_data, "multilabel": multilabel, "there": there}


def open_net(folder: str, layer: str, batch: int):
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = os.path.join(own, "net.prototxt")
        with open(path, "w") as file:
            file.write(LAYERS[layer](folder, batch))
        net = caffe.Net(path, caffe.TRAIN)
    expected = (batch, 3, CROP, CROP)
    if net.blobs["data"].data.shape != expected:
        raise ValueError("expected data of shape %s, found %s" % (expected, net.blobs["data"].data.shape))
    return net


def seconds_per_batch(net, count: int, pause: float = 0) -> float:
    start = time.perf_counter()
    for _ in range(count):
        net.forward()
        if pause:
            time.sleep(pause)
    return (time.perf_counter() - start) / count


def setup(folder: str, layer: str, batch: int, iterations: int, paused: bool = False):
    """`seconds`: an image's time. With `paused`: an iteration's, of a net that computes elsewhere.

    That net takes twice as long for a batch as the layer does, the first side's, which notes how long that is.
    """
    caffe.set_mode_cpu()
    net = open_net(folder, layer, batch)
    seconds_per_batch(net, 8)  # what was read ahead, and the first allocations
    if not paused:
        return lambda: {"seconds": seconds_per_batch(net, iterations) / batch}
    note = os.path.join(folder, "seconds_per_batch")
    if layer != "there":
        with open(note, "w") as file:
            file.write(repr(seconds_per_batch(net, 2 * iterations)))
    with open(note) as file:
        pause = 2 * float(file.read())
    return lambda: {"seconds": seconds_per_batch(net, iterations, pause)}
