"""Pieces of prototxt that nets are put together from."""

from __future__ import annotations


def layer(name, kind, bottoms="", tops="", more=""):
    """A layer's text; bottoms and tops: names with spaces between them; more: its other fields."""
    bottoms = "".join(' bottom: "%s"' % each for each in bottoms.split())
    tops = "".join(' top: "%s"' % each for each in tops.split())
    return 'layer { name: "%s" type: "%s"%s%s %s }\n' % (name, kind, bottoms, tops, more)


def source(name, *dims):
    """An Input layer named as its top."""
    return layer(name, "Input", "", name, "input_param { shape { %s } }" % " ".join("dim: %d" % n for n in dims))


def ip(name, bottom, top=None, outputs=3, more=""):
    """An InnerProduct layer."""
    return layer(
        name, "InnerProduct", bottom, top or name, "%s inner_product_param { num_output: %d }" % (more, outputs)
    )


def softmax_loss(bottom, more=""):
    return layer("loss", "SoftmaxWithLoss", bottom + " label", "loss", more)


def euclidean(name, first, second, more=""):
    return layer(name, "EuclideanLoss", first + " " + second, name, more)


INPUT, LABEL = source("data", 4, 3), source("label", 4)
