"""A sample: iterations of a solver (forward, backward, update) on a net whose inputs are drawn once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time

import caffe
import numpy as np

import batch_nets


@contextlib.contextmanager
def busy_cores(wanted: bool):
    """While entered, other processes keep all cores busy, if that is wanted."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() * wanted)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def setup(folder: str, net: str, batch: int, iterations: int, neighbour: bool = False):
    """`seconds` is the time of one iteration. The first two, which allocate, are not measured.

    neighbour: other processes keep all cores busy meanwhile.
    """
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    with tempfile.TemporaryDirectory(dir=folder) as own:  # each side writes its own: they start side by side
        solver = caffe.get_solver(batch_nets.write_solver(own, net, batch))
    batch_nets.fill(solver.net)
    solver.step(2)

    def sample():
        with busy_cores(neighbour):
            start = time.perf_counter()
            solver.step(iterations)
            seconds = (time.perf_counter() - start) / iterations
        losses = [float(solver.net.blobs[name].data.sum()) for name in solver.net.outputs]
        if not np.isfinite(losses).all():
            raise ValueError("%s: expected finite losses, found %s: nothing is measured by them" % (net, losses))
        return {"seconds": seconds}

    return sample
