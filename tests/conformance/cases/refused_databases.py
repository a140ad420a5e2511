"""Databases that a Data layer must refuse: their records, and what transform_param asks of them."""

from __future__ import annotations

import os

import numpy as np
from caffe.proto import caffe_pb2

import fixtures

from .refused_nets import layer
from .refusing import Refusal, build


def database(records, transform=""):
    """An action that reads an LMDB of these Datums' bytes."""

    def action(folder):
        path = os.path.join(folder, "refused_%d" % len(os.listdir(folder)))
        fixtures.write_lmdb(path, records)
        parameters = 'data_param { source: "%s" batch_size: 2 backend: LMDB } transform_param { %s }'
        net = build(layer("Data", "", "x", parameters % (path, transform)))(folder)
        net.forward()

    return action


def raw(*shape):
    return fixtures.datum(np.ones(shape, np.uint8), 0)


def encoded(height, width):
    return fixtures.datum(np.ones((3, height, width), np.uint8), 0, encoded=True)


def by_opencv(pixels):
    """A Datum of a PNG of other kinds than fixtures writes: gray, or of 16 bits."""
    import cv2

    return caffe_pb2.Datum(data=cv2.imencode(".png", pixels)[1].tobytes(), label=0, encoded=True).SerializeToString()


def broken():
    return caffe_pb2.Datum(data=b"no image", label=0, encoded=True).SerializeToString()


def with_mean(records, shape):
    def action(folder):
        fixtures.write_blob(os.path.join(folder, "refused.binaryproto"), np.ones(shape, np.float32))
        database(records, 'mean_file: "%s/refused.binaryproto"' % folder)(folder)

    return action


# what: (the action, words of the message)
ACTIONS = {
    "datum_without_channels": (database([caffe_pb2.Datum(label=1).SerializeToString()]), ()),
    "datum_height": (database([raw(3, 4, 9)], "crop_size: 6"), ("crop_size",)),
    "datum_width": (database([raw(3, 9, 4)], "crop_size: 6"), ("crop_size",)),
    "second_datum_channels": (database([raw(3, 6, 6), raw(1, 6, 6)]), ("channels",)),
    "second_datum_lower": (database([raw(3, 6, 6), raw(3, 5, 6)]), ("height",)),
    "second_datum_narrower": (database([raw(3, 6, 6), raw(3, 6, 5)]), ("width",)),
    "second_datum_higher": (database([raw(3, 6, 6), raw(3, 7, 6)]), ("height",)),
    "second_datum_wider": (database([raw(3, 6, 6), raw(3, 6, 7)]), ("width",)),
    "mean_values_count": (
        database([raw(3, 6, 6)], "mean_value: 1 mean_value: 2"),
        ("Specify either 1 mean_value or as many as channels: 3",),
    ),
    "mean_channels": (with_mean([raw(3, 6, 6)], (1, 6, 6)), ("mean",)),
    "mean_height": (with_mean([raw(3, 6, 6)], (3, 5, 6)), ("mean",)),
    "mean_width": (with_mean([raw(3, 6, 6)], (3, 6, 5)), ("mean",)),
    "encoded_broken": (database([broken()]), ()),
    "encoded_width": (database([encoded(9, 4)], "crop_size: 6"), ("crop_size",)),
    "encoded_second_channels": (database([encoded(6, 6), by_opencv(np.ones((6, 6), np.uint8))]), ("channels",)),
    "encoded_second_lower": (database([encoded(6, 6), encoded(5, 6)]), ("height",)),
    "encoded_second_narrower": (database([encoded(6, 6), encoded(6, 5)]), ("width",)),
    "encoded_second_higher": (database([encoded(6, 6), encoded(7, 6)]), ("height",)),
    "encoded_second_wider": (database([encoded(6, 6), encoded(6, 7)]), ("width",)),
    "encoded_16_bits": (
        database([by_opencv(np.ones((6, 6, 3), np.uint16))]),
        ("Image data type must be unsigned byte",),
    ),
    "encoded_mean_values_count": (
        database([encoded(6, 6)], "mean_value: 1 mean_value: 2"),
        ("Specify either 1 mean_value or as many as channels: 3",),
    ),
    "encoded_mean_channels": (with_mean([encoded(6, 6)], (1, 6, 6)), ("mean",)),
    "encoded_mean_height": (with_mean([encoded(6, 6)], (3, 5, 6)), ("mean",)),
    "encoded_mean_width": (with_mean([encoded(6, 6)], (3, 6, 5)), ("mean",)),
}

CASES = [Refusal("Refusal/" + what, words, action) for what, (action, words) in ACTIONS.items()]
