"""Python layers that the cases use."""

from __future__ import annotations

import json

import caffe


class Scaled(caffe.Layer):
    """top = factor * bottom + shift; param_str: {"factor": number}; shift is a learnable blob of one value."""

    def setup(self, bottom, top):
        self.factor = json.loads(self.param_str)["factor"] if self.param_str else 1
        if len(bottom) != 1:
            raise ValueError("Scaled takes one bottom")
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 0.5

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data + self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += top[0].diff.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * top[0].diff


class HalfSquaredError(caffe.Layer):
    """top = sum((bottom0 - bottom1)^2) / 2; a loss that honours its loss_weight and propagate_down."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError("HalfSquaredError needs bottoms of one size")
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference = bottom[0].data - bottom[1].data
        top[0].data[0] = (self.difference**2).sum() / 2

    def backward(self, top, propagate_down, bottom):
        for index, sign in ((0, 1), (1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * top[0].diff[0] * self.difference


class Counting(caffe.Layer):
    """A source: top0 holds 1, 2, 3 ..., top1 the layer's phase (0 TRAIN, 1 TEST) and the reshapes so far."""

    def setup(self, bottom, top):
        self.count = 0
        self.reshapes = 0
        top[0].reshape(2)
        top[1].reshape(2)

    def reshape(self, bottom, top):
        self.reshapes += 1

    def forward(self, bottom, top):
        self.count += 1
        top[0].data[...] = self.count
        top[1].data[...] = [int(self.phase), self.reshapes]

    def backward(self, top, propagate_down, bottom):
        pass
