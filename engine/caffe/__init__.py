"""Caffe on PyTorch: BVLC Caffe 1.0's files, Python interface and command line, on any machine that has torch.

`import caffe` brings messages and NetSpec; what computes, and with it torch, is imported when it is first asked for.
"""

import sys
from typing import TYPE_CHECKING, Any

from caffe import command_start  # noqa: F401  # isort: skip  # first: the others take a second
from caffe.cpu import wait_policy  # noqa: F401  # isort: skip  # before torch, which reads it when it is loaded
from caffe import net_spec
from caffe.imports import import_module
from caffe.net_spec import NetSpec, layers, params, to_proto
from caffe.proto.caffe_pb2 import TEST, TRAIN

if TYPE_CHECKING:
    from caffe import _caffe, io, pycaffe
    from caffe._caffe import (
        NCCL,
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        Layer,
        NesterovSolver,
        Net,
        RMSPropSolver,
        SGDSolver,
        Timer,
        all_gather,
        get_solver,
        has_nccl,
        init_log,
        layer_type_list,
        log,
        set_deterministic,
        set_device,
        set_mode_cpu,
        set_mode_gpu,
        set_multiprocess,
        set_precision,
        set_random_seed,
        set_solver_count,
        set_solver_rank,
        solver_count,
        solver_rank,
    )
    from caffe.classifier import Classifier
    from caffe.detector import Detector

__version__ = "1.0.0"

# so that `import caffe.layers as L` gives it too
sys.modules["caffe.layers"] = layers  # type: ignore[assignment]  # Python takes any object for a module there

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "__version__",
    "_caffe",
    "all_gather",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "pycaffe",
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
    "to_proto",
]

_MODULES = ("_caffe", "classifier", "detector", "io", "pycaffe")  # what pycaffe's `import caffe` brings too
_HOMES = {"Classifier": "caffe.classifier", "Detector": "caffe.detector"}  # of the other names: caffe._caffe


def __getattr__(name: str) -> Any:
    """A name of __all__ or _MODULES that was not asked for before."""
    if name in _MODULES:
        return import_module(f"caffe.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'caffe' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES.get(name, "caffe._caffe")), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
