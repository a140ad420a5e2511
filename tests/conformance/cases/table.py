"""A layer's case: one layer, its bottoms, its parameters, all as text and a seed; and the run that answers it.

`Case("Convolution/stride", "convolution_param { num_output: 4 kernel_size: 3 stride: 2 }", "2x3x7x6")` is a net of
Input layers and one Convolution layer. Its bottoms, parameters and top diffs are drawn from a seed that is the checksum
of its name, so a case's numbers do not change when another is added before it.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass

import caffe
import numpy as np

Answer = dict  # name of a value -> array


def draw(kind: str, shape: tuple, random: np.random.RandomState) -> np.ndarray:
    """Values of one kind: normal, small, positive, probability, binary, zero, one or large;

    tiesN or labelsN: integers below N (one digit).
    """
    if kind.startswith(("labels", "ties")):
        return random.randint(0, int(kind[-1]), shape).astype(np.float32)
    makers = {
        "normal": lambda: random.standard_normal(shape),
        "small": lambda: 0.3 * random.standard_normal(shape),
        "large": lambda: 60 * random.standard_normal(shape),
        "positive": lambda: random.uniform(0.2, 2.0, shape),
        "probability": lambda: random.uniform(0.05, 0.95, shape),
        "binary": lambda: random.randint(0, 2, shape),
        "zero": lambda: np.zeros(shape),
        "one": lambda: np.ones(shape),
    }
    return makers[kind]().astype(np.float32)


def seed_of(name: str) -> int:
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def write_net(folder: str, name: str, text: str) -> str:
    """Write a net's text into the folder and return its path."""
    path = os.path.join(folder, name.replace("/", "-") + ".prototxt")
    with open(path, "w") as file:
        file.write(text)
    return path


def copied(blob) -> np.ndarray:
    return np.array(blob, dtype=np.float32, copy=True)


@dataclass
class Case:
    """name: "Type/what is special". body: the layer's fields beside name, type, bottom and top.

    bottoms: "2x3x4x4" or "2x3 labels5" (shape, kind of values), one string each, "-" for a net whose layer has none.
    tops: their number, or "in place". params: the kinds of the parameters' values, or "as filled".
    backward: whether backward is run. force: whether each bottom is asked a diff that can be (force_backward).
    loss: the top's diffs are the net's own loss weights.
    keep: what is answered beside tops and diffs ("params": the parameters after the run).
    """

    name: str
    body: str = ""
    bottoms: str = ""
    tops: object = 1
    params: str = ""
    phase: int = caffe.TRAIN
    iterations: int = 1
    backward: bool = True
    force: bool = True
    loss: bool = False
    keep: str = ""

    def shapes(self) -> list:
        """[(shape, kind)] of the bottoms."""
        found = []
        for text in filter(None, (part.strip() for part in self.bottoms.split(","))):
            shape, _, kind = text.partition(" ")
            found.append((tuple(int(n) for n in shape.split("x")) if shape != "scalar" else (), kind or "normal"))
        return found

    def top_names(self) -> list:
        return ["bottom0"] if self.tops == "in place" else ["top%d" % i for i in range(self.tops)]

    def text(self) -> str:
        """The net's prototxt."""
        lines = ["force_backward: true"] if self.backward and self.force else []
        for index, (shape, _) in enumerate(self.shapes()):
            dims = " ".join("dim: %d" % n for n in shape)
            lines.append('layer { name: "b%d" type: "Input" top: "bottom%d"' % (index, index))
            lines.append("  input_param { shape { %s } } }" % dims)
        bottoms = " ".join('bottom: "bottom%d"' % i for i in range(len(self.shapes())))
        tops = " ".join('top: "%s"' % top for top in self.top_names())
        kind = self.name.split("/")[0]
        lines.append('layer { name: "layer" type: "%s" %s %s' % (kind, bottoms, tops))
        lines.append("  %s }" % self.body)
        return "\n".join(lines) + "\n"

    def run(self, folder: str) -> Answer:
        """Forward and backward with whichever caffe is imported. folder: where fixtures.write has been."""
        random = np.random.RandomState(seed_of(self.name))
        net = caffe.Net(write_net(folder, self.name, self.text().replace("DATA", folder)), self.phase)
        parameters = net.params.get("layer", [])
        if self.params != "as filled":
            kinds = self.params.split() or ["small"] * len(parameters)
            for blob, kind in zip(parameters, kinds):
                blob.data[...] = draw(kind, blob.data.shape, random)
        answer: Answer = {}
        for iteration in range(self.iterations):
            mark = "@%d" % iteration if iteration else ""
            for index, (shape, kind) in enumerate(self.shapes()):
                blob = net.blobs["bottom%d" % index]
                blob.data[...] = draw(kind, shape, random)
                blob.diff[...] = 7  # whatever a layer does not write shows
            net.forward()
            for top in self.top_names():
                answer[top + mark] = copied(net.blobs[top].data)
            if self.backward:
                if not self.loss:
                    for top in self.top_names():
                        diff = net.blobs[top].diff
                        diff[...] = draw("normal", diff.shape, random)
                net.backward()
                for index in range(len(self.shapes())):
                    answer["bottom%d.diff%s" % (index, mark)] = copied(net.blobs["bottom%d" % index].diff)
                for index, blob in enumerate(parameters):
                    answer["param%d.diff%s" % (index, mark)] = copied(blob.diff)
            if self.keep == "params":
                for index, blob in enumerate(parameters):
                    answer["param%d%s" % (index, mark)] = copied(blob.data)
        return answer
