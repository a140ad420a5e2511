"""Cases that are a function: what a table of layers cannot say (nets, weights, solvers)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import caffe
import numpy as np

from .table import Answer, copied, draw, seed_of, write_net


@dataclass
class Scenario:
    """name: "group/what". ask: the function that answers, given the folder where fixtures.write has been."""

    name: str
    ask: Callable[[str], Answer]

    def run(self, folder: str) -> Answer:
        return self.ask(folder)


def collector():
    """(list of scenarios, a decorator that adds a function to it under a name)."""
    found = []

    def scenario(name):
        def add(function):
            found.append(Scenario(name, function))
            return function

        return add

    return found, scenario


def open_net(folder: str, name: str, text: str, phase: int = caffe.TRAIN, **options):
    """The net of a text, in which DATA stands for the folder, its parameters and inputs drawn from the name's seed."""
    net = caffe.Net(write_net(folder, name, text.replace("DATA", folder)), phase, **options)
    fill(net, name)
    return net


def fill(net, name: str) -> None:
    """Draw parameters, then the Input layers' tops (integers below 3 where the name starts with label)."""
    random = np.random.RandomState(seed_of(name))
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = draw("small", blob.data.shape, random)
    for index, layer in enumerate(net.layers):
        if layer.type == "Input":
            for top in net._top_ids(index):
                blob = net.blobs[list(net._blob_names)[top]]
                kind = "labels3" if list(net._blob_names)[top].startswith("label") else "normal"
                blob.data[...] = draw(kind, blob.data.shape, random)


def structure(net) -> Answer:
    """Names in order, types, loss weights, wiring and shapes, as pycaffe shows them."""
    layers = list(net._layer_names)
    return {
        "layer_names": np.array(layers, dtype=str),
        "layer_types": np.array([layer.type for layer in net.layers], dtype=str),
        "blob_names": np.array(list(net._blob_names), dtype=str),
        "blob_shapes": np.array([str(tuple(blob.data.shape)) for blob in net.blobs.values()], dtype=str),
        "loss_weights": np.array(list(net._blob_loss_weights), dtype=np.float32),
        "bottoms": np.array([str(list(net._bottom_ids(i))) for i in range(len(layers))], dtype=str),
        "tops": np.array([str(list(net._top_ids(i))) for i in range(len(layers))], dtype=str),
        "inputs": np.array(list(net.inputs), dtype=str),
        "outputs": np.array(list(net.outputs), dtype=str),
        "params": np.array(
            ["%s %s" % (name, [tuple(b.data.shape) for b in blobs]) for name, blobs in net.params.items()], dtype=str
        ),
    }


def values(net, diffs: bool = True) -> Answer:
    """Every blob's data and, after backward, its diff; every parameter's diff."""
    answer = {}
    for name, blob in net.blobs.items():
        answer[name] = copied(blob.data)
        if diffs:
            answer[name + ".diff"] = copied(blob.diff)
    if diffs:
        for name, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                answer["%s[%d].diff" % (name, index)] = copied(blob.diff)
    return answer


def parameters(net) -> Answer:
    return {
        "%s[%d]" % (name, index): copied(blob.data)
        for name, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    }
