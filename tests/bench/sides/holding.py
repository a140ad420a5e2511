"""A sample: the memory of a process that imports torch and holds what a training needs, and nothing else.

That is every blob's values and gradients (of inputs, no gradients), the parameters', and the solver's history.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

SIZES = """
import caffe, batch_nets
net = caffe.Net(batch_nets.message(%r, %d), caffe.TRAIN)
print(sum(blob.count for blob in net.blobs.values()), sum(net.blobs[name].count for name in %r),
      sum(blob.count for blobs in net.params.values() for blob in blobs))
"""


def numbers(net: str, batch: int) -> int:
    """How many float32 numbers these are."""
    code = SIZES % (net, batch, ("data", "label"))
    here = os.path.dirname(os.path.abspath(__file__))  # where Python then finds batch_nets
    said = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=here).stdout
    blobs, inputs, parameters = map(int, said.split())
    return 2 * blobs - inputs + 3 * parameters


def setup(folder: str, net: str, batch: int):
    count = numbers(net, batch)
    import torch  # noqa: F401  (what the engine cannot do without)

    held = np.ones(count, np.float32)

    def sample():
        return {"seconds": float(held[0])}

    return sample
