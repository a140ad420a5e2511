"""What `debug_info` logs of a net: mean absolute values, layer by layer (BVLC's Net::ForwardDebugInfo and kin)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from caffe import glog

if TYPE_CHECKING:
    from caffe.net import Net


def forward(net: Net, index: int) -> None:
    """Log the tops and parameters of layer `index` after its forward."""
    name = net._layer_names[index]
    for blob_id in net._top_vecs[index]:
        value = _mean_abs(net._blobs[blob_id].data_tensor)
        glog.info("net.cpp:593", f"    [Forward] Layer {name}, top blob {net._blob_names[blob_id]} data: {value}")
    for j, blob in enumerate(net._layers[index].blobs):
        value = _mean_abs(blob.data_tensor)
        glog.info("net.cpp:605", f"    [Forward] Layer {name}, param blob {_param_name(net, index, j)} data: {value}")


def backward(net: Net, index: int) -> None:
    """Log the bottom diffs and parameter diffs of layer `index` after its backward."""
    name = net._layer_names[index]
    for blob_id, needed in zip(net._bottom_vecs[index], net._bottom_need_backward[index], strict=True):
        if needed:
            value = _mean_abs(net._blobs[blob_id].diff_tensor)
            glog.info(
                "net.cpp:621", f"    [Backward] Layer {name}, bottom blob {net._blob_names[blob_id]} diff: {value}"
            )
    layer = net._layers[index]
    for j, (blob, learns) in enumerate(zip(layer.blobs, layer.param_propagate_down, strict=True)):
        if learns:
            value = _mean_abs(blob.diff_tensor)
            param = _param_name(net, index, j)
            glog.info("net.cpp:632", f"    [Backward] Layer {name}, param blob {param} diff: {value}")


def params(net: Net) -> None:
    """Log the norms of all parameters and of their diffs after a whole backward."""
    sides = [[getattr(blob, side) for blob in net.learnable_params] for side in ("data_tensor", "diff_tensor")]
    l1 = [float(sum(tensor.abs().sum() for tensor in side)) for side in sides]
    l2 = [float(sum(tensor.square().sum() for tensor in side)) ** 0.5 for side in sides]
    glog.error(
        "net.cpp:721",
        "    [Backward] All net params (data, diff): "
        f"L1 norm = ({l1[0]:g}, {l1[1]:g}); L2 norm = ({l2[0]:g}, {l2[1]:g})",
    )


def _mean_abs(tensor: torch.Tensor) -> str:
    return f"{tensor.abs().mean().item() if tensor.numel() else 0.0:g}"


def _param_name(net: Net, index: int, j: int) -> str:
    specs = net._layers[index].layer_param.param
    return specs[j].name if j < len(specs) and specs[j].name else str(j)
