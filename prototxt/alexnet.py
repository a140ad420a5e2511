"""AlexNet and CaffeNet up to fc7, for 227x227 images, with the layer names of bvlc_alexnet and bvlc_reference_caffenet.

Weights of the one fit into the other without an error, for all their shapes agree; but AlexNet normalises before it
pools and CaffeNet pools before it normalises, and each net's weights are good in their own order only. Fillers,
multipliers and dropout are those of dhn-caffe; what WEIGHTS brings takes the fillers' place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.net_spec import Top


def learned(weight_std: float | None = None, bias: float = 0, lr: float = 1) -> dict:
    """Fillers and multipliers of a layer with weights; weight_std None: xavier."""
    filler = dict(type="xavier") if weight_std is None else dict(type="gaussian", std=weight_std)
    return dict(
        weight_filler=filler,
        bias_filler=dict(type="constant", value=bias),
        param=[dict(lr_mult=lr, decay_mult=1), dict(lr_mult=2 * lr, decay_mult=0)],
    )


def _pool(n: caffe.NetSpec, index: int, bottom: Top) -> Top:
    n[f"pool{index}"] = L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    return n[f"pool{index}"]


def _norm(n: caffe.NetSpec, index: int, bottom: Top) -> Top:
    n[f"norm{index}"] = L.LRN(bottom, local_size=5, alpha=1e-4, beta=0.75)
    return n[f"norm{index}"]


def _convolution(n: caffe.NetSpec, index: int, bottom: Top, bias: float, **kwargs: Any) -> Top:
    conv = n[f"conv{index}"] = L.Convolution(bottom, **kwargs, **learned(0.01, bias))
    n[f"relu{index}"] = L.ReLU(conv, in_place=True)
    return n[f"relu{index}"]


def _inner_product(n: caffe.NetSpec, index: int, bottom: Top) -> Top:
    fc = n[f"fc{index}"] = L.InnerProduct(bottom, num_output=4096, **learned(0.005, bias=1))
    relu = n[f"relu{index}"] = L.ReLU(fc, in_place=True)
    n[f"drop{index}"] = L.Dropout(relu, in_place=True, dropout_ratio=0.5)
    return n[f"drop{index}"]


def _net(n: caffe.NetSpec, *after_relu: Callable[[caffe.NetSpec, int, Top], Top]) -> Top:
    """Five convolutions and two inner products; `after_relu`: what follows the first two convolutions' ReLUs."""
    top = _convolution(n, 1, n.data, 0, num_output=96, kernel_size=11, stride=4)
    for layer in after_relu:
        top = layer(n, 1, top)
    top = _convolution(n, 2, top, 1, num_output=256, pad=2, kernel_size=5, group=2)
    for layer in after_relu:
        top = layer(n, 2, top)
    top = _convolution(n, 3, top, 0, num_output=384, pad=1, kernel_size=3)
    top = _convolution(n, 4, top, 1, num_output=384, pad=1, kernel_size=3, group=2)
    top = _convolution(n, 5, top, 1, num_output=256, pad=1, kernel_size=3, group=2)
    top = _pool(n, 5, top)
    top = _inner_product(n, 6, top)
    return _inner_product(n, 7, top)


def alexnet(n: caffe.NetSpec) -> Top:
    """The paper's net: convolution, ReLU, normalisation, pooling (weights: bvlc_alexnet)."""
    return _net(n, _norm, _pool)


def caffenet(n: caffe.NetSpec) -> Top:
    """The net of the authors' code: convolution, ReLU, pooling, normalisation (weights: bvlc_reference_caffenet)."""
    return _net(n, _pool, _norm)
