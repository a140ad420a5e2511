"""WindowData. Its windows are drawn at random, so there is one of each kind, and no mirror."""

from __future__ import annotations

import os

import caffe

from .scenario import Scenario, open_net
from .table import copied

# Two pictures of 10x12 (width x height); a foreground window, one of neither kind, a background window.
WINDOWS = """# 0
list_0.png
3 12 10
2
3 0.9 1 2 7 6
5 0.4 0 0 3 3
# 1
list_1.png 3 12 10 1
4 0.1 4 5 9 11
"""


def window(what, transform, fields="", batch=4):
    def ask(folder):
        path = os.path.join(folder, "windows.txt")
        with open(path, "w") as file:
            file.write(WINDOWS)
        text = 'layer { name: "data" type: "WindowData" top: "data" top: "label" window_data_param {'
        text += ' source: "%s" root_folder: "DATA/images/" batch_size: %d' % (path, batch)
        text += " fg_threshold: 0.5 bg_threshold: 0.3 %s } transform_param { %s } }" % (fields, transform)
        net = open_net(folder, "WindowData/" + what, text, caffe.TRAIN)
        net.forward()
        return {name: copied(blob.data) for name, blob in net.blobs.items()}

    return Scenario("WindowData/" + what, ask)


CASES = [
    window("plain", "crop_size: 6"),
    window("scale", "crop_size: 6 mean_value: 90", "scale: 0.0625"),
    window("scale_of_the_transform", "crop_size: 6 scale: 3"),
    window("fraction", "crop_size: 5", "fg_fraction: 0.7", batch=5),
    window("no_foreground", "crop_size: 5", "fg_fraction: 0"),
    window("larger_crop", "crop_size: 15 mean_value: 100"),
    window("square", "crop_size: 7 mean_value: 10 mean_value: 20 mean_value: 30", 'crop_mode: "square"'),
    window("context", "crop_size: 9", "context_pad: 2"),
    window("context_beyond_image", "crop_size: 11 mean_value: 50", "context_pad: 4 cache_images: true"),
    window("square_context", "crop_size: 8", 'context_pad: 3 crop_mode: "square" fg_fraction: 0.5'),
    window("mean_file", 'crop_size: 6 mean_file: "DATA/mean.binaryproto"', "context_pad: 1"),
]
