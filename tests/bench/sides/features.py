"""A sample: batches of pictures go into a deploy net, and its features come out."""

from __future__ import annotations

import tempfile

import caffe
import numpy as np

import batch_nets
import repeating


def setup(folder: str, net: str, batch: int, blob: str, iterations: int):
    """`seconds` is the time of one batch: copied in, forward, the blob named `blob` copied out."""
    caffe.set_mode_cpu()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        deploy = caffe.Net(batch_nets.write(own, net, batch, deploy=True), caffe.TEST)
    pictures = np.random.RandomState(0).standard_normal(deploy.blobs["data"].data.shape).astype(np.float32)

    def one():
        deploy.blobs["data"].data[...] = pictures
        deploy.forward()
        return deploy.blobs[blob].data.copy()

    one()
    return repeating.sampler(one, iterations)
