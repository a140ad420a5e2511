"""A sample: what OpenCV takes to decode a JPEG of 500x375 and to resize it, which a query by a picture begins with."""

from __future__ import annotations

import os
import statistics
import time

import cv2
import numpy as np

PICTURES, SIDE = 15, 131  # the net's input


def setup(folder: str):
    with open(os.path.join(folder, "photos", "00000.jpg"), "rb") as stream:
        picture = np.frombuffer(stream.read(), np.uint8)

    def sample():
        seconds = []
        for _ in range(PICTURES):
            start = time.perf_counter()
            cv2.resize(cv2.imdecode(picture, cv2.IMREAD_COLOR), (SIDE, SIDE))
            seconds.append(time.perf_counter() - start)
        return {"seconds": statistics.median(seconds)}

    return sample
