"""The whole nets of tests/conformance with another batch, for either `caffe`: to train, or to ask for features."""

from __future__ import annotations

import os
import sys

import caffe
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance"))
import large_nets
import squeezenet
import whole_nets


def _squeezenet(n):
    """The project's SqueezeNet up to fc10, with ImageNet's classifier on top."""
    large_nets.inputs(n, [1, 3, 227, 227], [1])
    large_nets._classify(n, squeezenet.squeezenet(n))


NETS = {**{name: each[0] for name, each in whole_nets.NETS.items()}, "squeezenet": _squeezenet}

# The rate is so small that the net stays as it was drawn: no time depends on how much was learned.
SOLVER = (
    'train_net: "%s" base_lr: 1e-6 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 max_iter: 1000000 '
    "display: %d solver_mode: CPU snapshot_after_train: false"
)


def message(name: str, batch: int, deploy: bool = False):
    """The NetParameter of a net of NETS. deploy: without labels and losses. Weights: He et al.'s filler."""
    spec = caffe.NetSpec()
    NETS[name](spec)
    net = spec.to_proto()
    net.name = name
    kept = [each for each in net.layer if not (deploy and ("label" in each.top or "Loss" in each.type))]
    del net.layer[:]
    net.layer.extend(kept)
    for layer in net.layer:
        if layer.type == "Input":
            layer.input_param.shape[0].dim[0] = batch
        for kind in ("convolution_param", "inner_product_param"):
            if layer.HasField(kind):
                getattr(layer, kind).weight_filler.type = "msra"
    return net


def write(folder: str, name: str, batch: int, deploy: bool = False) -> str:
    """Write the net into `folder`; returns its path."""
    path = os.path.join(folder, "%s_%d_%s.prototxt" % (name, batch, "deploy" if deploy else "train"))
    with open(path, "w") as file:
        file.write(str(message(name, batch, deploy)))
    return path


def write_solver(folder: str, name: str, batch: int, display: int = 0) -> str:
    """Write the net and a solver for it into `folder`; returns the solver's path."""
    path = os.path.join(folder, "%s_%d_%d_solver.prototxt" % (name, batch, display))
    with open(path, "w") as file:
        file.write(SOLVER % (write(folder, name, batch), display))
    return path


def fill(net) -> None:
    """Draw pictures and labels into the net's inputs."""
    whole_nets.draw_inputs(net, np.random.RandomState(0))
