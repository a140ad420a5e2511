"""A sample: training iterations of the demo's net, with its data layer and both losses, for either `caffe`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time

import caffe

import batch_nets

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
sys.path.insert(0, os.path.join(ROOT, "python_layers"))


def setup(folder: str, iterations: int):
    """`seconds` is the time of one iteration. The first two, which allocate, are not measured."""
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    with open(os.path.join(ROOT, "prototxt", "fashion_mnist", "train_val.prototxt")) as file:
        net = re.sub(r"data/fashion_mnist/\w+_lmdb", folder + "/demo_lmdb", file.read())
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = os.path.join(own, "train_val.prototxt")
        for each, text in ((path, net), (path + ".solver", batch_nets.SOLVER % (path, 0))):
            with open(each, "w") as file:
                file.write(text)
        solver = caffe.get_solver(path + ".solver")
    solver.step(2)

    def sample():
        start = time.perf_counter()
        solver.step(iterations)
        return {"seconds": (time.perf_counter() - start) / iterations}

    return sample
