"""Nets for small images, which learn from scratch on a CPU in minutes."""

from __future__ import annotations

from typing import Any

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.net_spec import Top

from alexnet import learned


def _convolution(n: caffe.NetSpec, index: int, bottom: Top, pool: bool, **kwargs: Any) -> Top:
    """AlexNet's convolution and ReLU, with overlapping max pooling and LRN if `pool`."""
    conv = n[f"conv{index}"] = L.Convolution(bottom, **kwargs, **learned())
    top = n[f"relu{index}"] = L.ReLU(conv, in_place=True)
    if pool:
        top = n[f"pool{index}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
        top = n[f"norm{index}"] = L.LRN(top, local_size=5, alpha=1e-4, beta=0.75)
    return top


def _inner_product(n: caffe.NetSpec, index: int, bottom: Top, num_output: int, dropout: float) -> Top:
    fc = n[f"fc{index}"] = L.InnerProduct(bottom, num_output=num_output, **learned())
    relu = n[f"relu{index}"] = L.ReLU(fc, in_place=True)
    n[f"drop{index}"] = L.Dropout(relu, in_place=True, dropout_ratio=dropout)
    return n[f"drop{index}"]


def small_alexnet(n: caffe.NetSpec) -> Top:
    """AlexNet's layers at the size of 28x28 grey images: three convolutions, two inner products with dropout."""
    top = _convolution(n, 1, n.data, pool=True, num_output=16, kernel_size=5, pad=2)
    top = _convolution(n, 2, top, pool=True, num_output=32, kernel_size=5, pad=2)
    top = _convolution(n, 3, top, pool=False, num_output=64, kernel_size=3, pad=1)
    top = _inner_product(n, 4, top, num_output=256, dropout=0.2)
    return _inner_product(n, 5, top, num_output=256, dropout=0.2)


def cifar_quick(n: caffe.NetSpec) -> Top:
    """Caffe's cifar10_quick up to ip1, for 32x32 colour images: three convolutions, each with pooling, and BatchNorm.

    BatchNorm centres ip1, for the reason that squeezenet.py gives; ip1 is wider than the 64 of the original, so that
    there is room for codes of 48 bits and more.
    """
    top = n.conv1 = L.Convolution(n.data, num_output=32, kernel_size=5, pad=2, **learned())
    top = n.pool1 = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    top = n.relu1 = L.ReLU(top, in_place=True)
    for index, outputs in ((2, 32), (3, 64)):
        top = n[f"conv{index}"] = L.Convolution(top, num_output=outputs, kernel_size=5, pad=2, **learned())
        top = n[f"relu{index}"] = L.ReLU(top, in_place=True)
        top = n[f"pool{index}"] = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=3, stride=2)
    top = n.ip1 = L.InnerProduct(top, num_output=256, **learned())
    n["ip1/norm"] = L.BatchNorm(top, moving_average_fraction=0.98)
    return n["ip1/norm"]
