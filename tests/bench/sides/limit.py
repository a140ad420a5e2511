"""A sample: the time that an iteration's products alone would take at the rate of a large matrix product, measured now.

Products: of convolutions and inner products, forward, and in training of the gradients of weights that learn, and of
bottoms that need one. Where the engine computes a convolution by Winograd's F(2x2, 3x3), its 16 products for 36 are
counted; where by F(4x4, 5x5), its 64 for 400.
"""

from __future__ import annotations

import math
import os
import time

import caffe
import torch

import batch_nets

SIZE = 2048
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def multiplications(message, forward: bool = False) -> float:
    """Multiply-adds of a training iteration of a NetParameter, or of its forward alone."""
    from caffe.cpu import winograd, winograd_5x5

    net = caffe.Net(message, caffe.TRAIN)
    needing, total = set(), 0.0
    for layer in message.layer:
        learns = needs = any(bottom in needing for bottom in layer.bottom)
        if layer.type in ("Convolution", "InnerProduct"):
            weight, top = net.params[layer.name][0].shape, net.blobs[layer.top[0]].shape
            products = math.prod(top) * math.prod(weight[1:])
            if layer.type == "Convolution":
                bottom = torch.empty(tuple(net.blobs[layer.bottom[0]].shape), device="cpu")
                asked = geometry(layer, top), bottom, torch.empty(tuple(weight))
                if winograd.is_applicable(*asked):
                    products *= 16 / 36
                elif winograd_5x5.is_applicable(*asked):
                    products *= 64 / 400
            learns = not layer.param or layer.param[0].lr_mult > 0
            total += products * (1 if forward else 1 + learns + needs)
        if needs or learns:
            needing.update(layer.top)
    return total


def geometry(layer, top):
    """The convolution's Geometry; top: its shape."""
    from caffe.cpu.geometry import Geometry

    p = layer.convolution_param
    kernel, stride, pad, dilation = ((list(each) or [default])[0] for each, default in
                                     ((p.kernel_size, 1), (p.stride, 1), (p.pad, 0), (p.dilation, 1)))  # fmt: skip
    return Geometry(kernel=(kernel,) * 2, stride=(stride,) * 2, pad=(pad,) * 2, dilation=(dilation,) * 2,
                    group=p.group, sizes=list(top[2:]))  # fmt: skip


def message(net: str, batch: int, forward: bool):
    """The NetParameter of a net of batch_nets, or of the demo's."""
    if net != "demo":
        return batch_nets.message(net, batch, deploy=forward)
    from caffe.proto import text

    demo = text.read_net(os.path.join(ROOT, "prototxt", "fashion_mnist", "deploy.prototxt"))
    demo.layer[0].input_param.shape[0].dim[0] = batch
    return demo


def setup(folder: str, net: str, batch: int, forward: bool = False, times: float = 1):
    """`seconds`: `times` the limit of an iteration of a net, or of its forward alone for each image."""
    products = times * multiplications(message(net, batch, forward), forward) / (batch if forward else 1)
    one, other = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    torch.mm(one, other)

    def sample():
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(one, other)
            seconds.append(time.perf_counter() - start)
        return {"seconds": products * min(seconds) / SIZE**3}

    return sample
