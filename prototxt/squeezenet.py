"""SqueezeNet v1.0 up to fire9, with the layer names of its release (DeepScale/SqueezeNet), and the hash layer's input.

1.2 million weights reach AlexNet's accuracy on ImageNet, so it can be fine-tuned on a CPU. A fire module squeezes to
few channels by 1x1 convolutions, then expands them by 1x1 and 3x3 ones side by side. drop9, conv10 and pool10, which
classify ImageNet's 1,000 classes, are left out; in their place three layers stand under the hash layer:

pool9        the mean of each of fire9's 512 channels over all positions, for pictures of any size
pool9/norm   BatchNorm: each channel minus its mean, divided by its standard deviation
fc10         512 inner products with ReLU and dropout, as AlexNet's fc7; they learn at 10 times the rate, being new

Without fc10 a code is a linear function of the pooled features, in which the classes are separable but not clustered:
on the frozen features of one classifier, 48 bits had a MAP of 0.65 among 1,000 held-out training images of CIFAR-10,
and 0.70 with it (data/cifar10/RESULTS.md).

BatchNorm is what makes a pairwise loss work here. Behind a ReLU no feature is negative, so the features of any two
pictures have a large inner product in common, which says nothing of the pictures. The hash layer, whose learning rate
is 10 times that of the others, hands it on to the codes: theta = <z_i, z_j> is large for every pair. Then either all
codes become equal, where TanH is saturated and passes no gradient on; or the dissimilar pairs, which are the most, pull
all codes to 0, where every pair's loss is log 2 and the gradient is 0 too. Centred features have no such part in
common: their inner products have both signs from the first iteration on. ImageNet's weights have no statistics for
BatchNorm; the layer learns them in the pretraining as a classifier, and a variant goes on with those.
"""

from __future__ import annotations

from typing import Any

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.net_spec import Top

from alexnet import learned

# of fire2 to fire9: channels of squeeze1x1, and of expand1x1 and expand3x3 each
FIRE = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOLED = (1, 4, 8)  # the layers (conv1 and fire modules) with max pooling behind them
FROZEN = 4  # conv1 to fire4 keep ImageNet's weights, which saves two fifths of an iteration's time


def _convolution(n: caffe.NetSpec, block: str, name: str, index: int, bottom: Top, **kwargs: Any) -> Top:
    rate = 0 if index <= FROZEN else 1
    conv = n[f"{block}{name}"] = L.Convolution(bottom, **kwargs, **learned(lr=rate))
    n[f"{block}relu_{name}"] = L.ReLU(conv, in_place=True)
    return n[f"{block}relu_{name}"]


def _pool(n: caffe.NetSpec, index: int, bottom: Top) -> Top:
    if index not in POOLED:
        return bottom
    n[f"pool{index}"] = L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    return n[f"pool{index}"]


def _fire(n: caffe.NetSpec, index: int, bottom: Top, squeeze: int, expand: int) -> Top:
    block = f"fire{index}/"
    top = _convolution(n, block, "squeeze1x1", index, bottom, num_output=squeeze, kernel_size=1)
    one = _convolution(n, block, "expand1x1", index, top, num_output=expand, kernel_size=1)
    three = _convolution(n, block, "expand3x3", index, top, num_output=expand, kernel_size=3, pad=1)
    n[f"{block}concat"] = L.Concat(one, three)
    return n[f"{block}concat"]


def squeezenet(n: caffe.NetSpec) -> Top:
    """fc10, (B, 512), on the normalised, pooled features of fire9 (weights up to there: squeezenet_v1.0)."""
    top = _pool(n, 1, _convolution(n, "", "conv1", 1, n.data, num_output=96, kernel_size=7, stride=2))
    for index, channels in enumerate(FIRE, 2):
        top = _pool(n, index, _fire(n, index, top, *channels))
    n.pool9 = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    # the running mean over the last 50 batches or so; Caffe's default of 1,000 lags behind weights that move
    n["pool9/norm"] = L.BatchNorm(n.pool9, moving_average_fraction=0.98)
    n.fc10 = L.InnerProduct(n["pool9/norm"], num_output=512, **learned(lr=10))
    n.relu10 = L.ReLU(n.fc10, in_place=True)
    n.drop10 = L.Dropout(n.relu10, in_place=True, dropout_ratio=0.5)
    return n["drop10"]
