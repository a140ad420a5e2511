"""In what numbers convolutions and inner products multiply. Parameters, blobs, losses and updates stay float32.

float32   the default, on a GPU too: torch by itself would let its convolutions round to TF32
tf32      factors rounded to 10 bits of fraction, sums in float32; GPUs of compute capability 8.0 or above. It is
          torch's switch for every product of the process
bf16      factors and results rounded to 7 bits of fraction, forward and backward, sums in float32; such GPUs, and any
          CPU
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from caffe import device

if TYPE_CHECKING:
    from caffe.layer import Layer

PRECISIONS = ("float32", "tf32", "bf16")
LAYERS = ("Convolution", "InnerProduct")  # what bf16 is for; torch adds up a Deconvolution's in bf16 on a CPU

_name = "float32"


def current() -> str:
    """The current precision."""
    return _name


def set_precision(name: str) -> None:
    """Multiply in `name`, one of PRECISIONS, from the next forward on. Call it after set_mode_gpu and set_device.

    Raises:
        ValueError: there is no such precision, or the device does not have it.
    """
    global _name
    if name not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, found {name!r}")
    where = device.current()
    if name == "tf32" and where.type != "cuda":
        raise ValueError("precision tf32 is a GPU's, found CPU mode; choose the GPU first, or float32 or bf16")
    if name != "float32" and where.type == "cuda" and torch.cuda.get_device_capability(where) < (8, 0):
        found = "{}.{}".format(*torch.cuda.get_device_capability(where))
        raise ValueError(f"precision {name}: expected a GPU of compute capability 8.0 or above, found {found}")
    _name = name
    device.allow_tf32(name == "tf32")
    # torch's own default lets cuBLAS add partial sums of a product in bf16
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def computed(layer: Layer, inputs: Sequence[torch.Tensor]) -> torch.Tensor | Sequence[torch.Tensor]:
    """layer.compute(*inputs), whose results are float32 whatever the products' precision."""
    if _name != "bf16" or layer.type not in LAYERS:
        return layer.compute(*inputs)
    with torch.autocast(inputs[0].device.type, torch.bfloat16, cache_enabled=False):
        tops = layer.compute(*inputs)
    return [top.float() for top in ([tops] if isinstance(tops, torch.Tensor) else tops)]
