"""Caffe on PyTorch: BVLC Caffe 1.0's files, Python interface and command line, on any machine that has torch."""

from caffe import io, net_spec
from caffe.device import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from caffe.layer import layer_type_list
from caffe.layers.python import PythonLayer as Layer
from caffe.net import Net
from caffe.net_spec import NetSpec, layers, params, to_proto
from caffe.proto.caffe_pb2 import TEST, TRAIN
from caffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)

__version__ = "1.0.0"

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
    "io",
    "layer_type_list",
    "layers",
    "net_spec",
    "params",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
    "to_proto",
]
