"""A sample: a caffemodel is copied into AlexNet."""

from __future__ import annotations

import os
import tempfile

import caffe

import batch_nets


def setup(folder: str):
    """Raises ValueError when a layer has not got its weights."""
    caffe.set_mode_cpu()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = batch_nets.write(own, "alexnet", 1, deploy=True)
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace('"score"', '"fc8"'))  # as bvlc_alexnet names it
        net = caffe.Net(path, caffe.TEST)
    weights = os.path.join(folder, "weights.caffemodel")
    for blobs in net.params.values():
        blobs[0].data[...] = 0
    net.copy_from(weights)
    empty = [name for name, blobs in net.params.items() if not blobs[0].data.any()]
    if empty:
        raise ValueError("%s: expected weights for every layer, found none for %s" % (weights, ", ".join(empty)))
    return lambda: net.copy_from(weights)
