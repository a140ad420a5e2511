"""The names of BVLC's compiled module, for scripts that import from it. Its vectors are lists here."""

from caffe import __version__  # noqa: F401
from caffe.blob import Blob, BlobVec
from caffe.device import set_deterministic, set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from caffe.glog import init_log, log
from caffe.layer import layer_type_list
from caffe.layer_types.python import PythonLayer as Layer
from caffe.nccl import NCCL, all_gather, has_nccl
from caffe.net import Net
from caffe.parallel import (
    set_multiprocess,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from caffe.precision import set_precision
from caffe.proto.caffe_pb2 import LayerParameter, SolverParameter
from caffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
    get_solver,
)
from caffe.timer import Timer

BoolVec = DtypeVec = IntVec = LayerVec = NetVec = RawBlobVec = StringVec = list

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "BoolVec",
    "DtypeVec",
    "IntVec",
    "Layer",
    "LayerParameter",
    "LayerVec",
    "NesterovSolver",
    "Net",
    "NetVec",
    "RMSPropSolver",
    "RawBlobVec",
    "SGDSolver",
    "Solver",
    "SolverParameter",
    "StringVec",
    "Timer",
    "all_gather",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_deterministic",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_precision",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]
