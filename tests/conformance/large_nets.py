"""AlexNet, CaffeNet, GoogLeNet, ResNet-50 and FCN-8s, each written into a NetSpec.

AlexNet and CaffeNet are the project's own up to fc7 (prototxt/alexnet.py), with ImageNet's classifier on top.
"""

from __future__ import annotations

import os
import sys

from caffe import layers as L
from caffe import params as P

from example_nets import inputs, rates

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "prototxt"))
import alexnet as project

CLASSES = 1000


def _classify(n, bottom):
    n.score = L.InnerProduct(bottom, num_output=CLASSES, param=rates(1, 2))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)


def alexnet(n):
    inputs(n, [1, 3, 227, 227], [1])
    _classify(n, project.alexnet(n))


def caffenet(n):
    inputs(n, [1, 3, 227, 227], [1])
    _classify(n, project.caffenet(n))


def _convolved(n, name, bottom, **convolution):
    """Convolution and ReLU in place."""
    n[name] = L.Convolution(bottom, param=rates(1, 2), **convolution)
    n["relu_" + name] = L.ReLU(n[name], in_place=True)
    return n["relu_" + name]


def _pooled(n, name, bottom, kind="MAX", size=3, stride=2, pad=0):
    n[name] = L.Pooling(bottom, pool=getattr(P.Pooling, kind), kernel_size=size, stride=stride, pad=pad)
    return n[name]


# block: outputs of the 1x1, the 3x3's reduction, the 3x3, the 5x5's reduction, the 5x5, the pooling's projection
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _inception(n, block, bottom):
    one, reduce3, three, reduce5, five, project1 = INCEPTION[block]
    name = "inception_%s_" % block
    branches = [
        _convolved(n, name + "1x1", bottom, num_output=one, kernel_size=1),
        _convolved(
            n,
            name + "3x3",
            _convolved(n, name + "3x3_reduce", bottom, num_output=reduce3, kernel_size=1),
            num_output=three,
            kernel_size=3,
            pad=1,
        ),
        _convolved(
            n,
            name + "5x5",
            _convolved(n, name + "5x5_reduce", bottom, num_output=reduce5, kernel_size=1),
            num_output=five,
            kernel_size=5,
            pad=2,
        ),
        _convolved(
            n,
            name + "pool_proj",
            _pooled(n, name + "pool", bottom, stride=1, pad=1),
            num_output=project1,
            kernel_size=1,
        ),
    ]
    n[name + "output"] = L.Concat(*branches)
    return n[name + "output"]


def _auxiliary(n, name, bottom):
    """One of the two classifiers half-way, whose loss counts 0.3."""
    top = _pooled(n, name + "_pool", bottom, "AVE", size=5, stride=3)
    top = _convolved(n, name + "_conv", top, num_output=128, kernel_size=1)
    n[name + "_fc"] = L.InnerProduct(top, num_output=1024, param=rates(1, 2))
    n[name + "_relu"] = L.ReLU(n[name + "_fc"], in_place=True)
    n[name + "_drop"] = L.Dropout(n[name + "_relu"], in_place=True, dropout_ratio=0.7)
    n[name + "_score"] = L.InnerProduct(n[name + "_drop"], num_output=CLASSES, param=rates(1, 2))
    n[name] = L.SoftmaxWithLoss(n[name + "_score"], n.label, loss_weight=0.3)


def googlenet(n):
    inputs(n, [1, 3, 224, 224], [1])
    norm = dict(local_size=5, alpha=1e-4, beta=0.75)
    top = _convolved(n, "conv1", n.data, num_output=64, kernel_size=7, stride=2, pad=3)
    n.norm1 = L.LRN(_pooled(n, "pool1", top), **norm)
    top = _convolved(n, "conv2_reduce", n.norm1, num_output=64, kernel_size=1)
    n.norm2 = L.LRN(_convolved(n, "conv2", top, num_output=192, kernel_size=3, pad=1), **norm)
    top = _pooled(n, "pool2", n.norm2)
    for block in INCEPTION:
        top = _inception(n, block, top)
        if block in ("3b", "4e"):
            top = _pooled(n, "pool" + block[0], top)
        if block in ("4a", "4d"):
            _auxiliary(n, "loss1" if block == "4a" else "loss2", top)
    n.pool5 = _pooled(n, "pool5", top, "AVE", size=7, stride=1)
    n.drop5 = L.Dropout(n.pool5, in_place=True, dropout_ratio=0.4)
    _classify(n, n.drop5)


def _normalised(n, name, bottom, **convolution):
    """Convolution without bias, BatchNorm and Scale in place."""
    n[name] = L.Convolution(bottom, bias_term=False, param=rates(1), **convolution)
    n["bn_" + name] = L.BatchNorm(n[name], in_place=True)
    n["scale_" + name] = L.Scale(n["bn_" + name], in_place=True, bias_term=True)
    return n["scale_" + name]


def _bottleneck(n, name, bottom, outputs, stride, projected):
    shortcut = bottom
    if projected:
        shortcut = _normalised(n, name + "_branch1", bottom, num_output=4 * outputs, kernel_size=1, stride=stride)
    top = bottom
    for letter, size, count in (("a", 1, outputs), ("b", 3, outputs), ("c", 1, 4 * outputs)):
        branch = name + "_branch2" + letter
        shape = dict(kernel_size=size, pad=size // 2, stride=stride if letter == "a" else 1)
        top = _normalised(n, branch, top, num_output=count, **shape)
        if letter != "c":
            n["relu_" + branch] = top = L.ReLU(top, in_place=True)
    n[name] = L.Eltwise(shortcut, top)
    n["relu_" + name] = L.ReLU(n[name], in_place=True)
    return n["relu_" + name]


def resnet50(n):
    """BatchNorm's statistics are those of the batch, as in training."""
    inputs(n, [1, 3, 224, 224], [1])
    top = _normalised(n, "conv1", n.data, num_output=64, kernel_size=7, stride=2, pad=3)
    n.relu_conv1 = L.ReLU(top, in_place=True)
    top = _pooled(n, "pool1", n.relu_conv1)
    for stage, (outputs, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 2):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            top = _bottleneck(n, "res%d%s" % (stage, "abcdef"[block]), top, outputs, stride, block == 0)
    _classify(n, _pooled(n, "pool5", top, "AVE", size=7, stride=1))


def _cropped(n, name, bottom, like, offset):
    n[name] = L.Crop(bottom, like, axis=2, offset=offset)
    return n[name]


def fcn8s(n, divide=4):
    """VGG-16 made fully convolutional, with the scores of pool3 and pool4 added; every width divided by `divide`.

    The loss is the sum over the pixels, as FCN's is.
    """
    classes = 21
    inputs(n, [1, 3, 224, 224], [1, 1, 224, 224])
    top = n.data
    for stage, (outputs, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for index in range(1, count + 1):
            pad = 100 if stage == index == 1 else 1
            top = _convolved(n, "conv%d_%d" % (stage, index), top, num_output=outputs // divide, kernel_size=3, pad=pad)
        top = _pooled(n, "pool%d" % stage, top, size=2)
    for name, size in (("fc6", 7), ("fc7", 1)):
        top = _convolved(n, name, top, num_output=4096 // divide, kernel_size=size)
        n["drop_" + name] = top = L.Dropout(top, in_place=True, dropout_ratio=0.5)

    def scored(name, bottom):
        n[name] = L.Convolution(bottom, num_output=classes, kernel_size=1, param=rates(1, 2))
        return n[name]

    def upsampled(name, bottom, size, stride):
        shape = dict(num_output=classes, kernel_size=size, stride=stride, bias_term=False)
        n[name] = L.Deconvolution(bottom, convolution_param=shape, param=rates(1))
        return n[name]

    upscore2 = upsampled("upscore2", scored("score_fr", top), 4, 2)
    n.fuse_pool4 = L.Eltwise(upscore2, _cropped(n, "score_pool4c", scored("score_pool4", n.pool4), upscore2, 5))
    upscore4 = upsampled("upscore_pool4", n.fuse_pool4, 4, 2)
    n.fuse_pool3 = L.Eltwise(upscore4, _cropped(n, "score_pool3c", scored("score_pool3", n.pool3), upscore4, 9))
    n.score = L.Crop(upsampled("upscore8", n.fuse_pool3, 16, 8), n.data, axis=2, offset=31)
    n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_param=dict(ignore_label=5, normalize=False))
