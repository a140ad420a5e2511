"""The nets and solvers of check.py."""

from __future__ import annotations

import caffe
from caffe.proto import caffe_pb2, text

# One of each layer that AlexNet has. LABEL is the one label of all images.
SMALL = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 3 dim: 20 dim: 20 } shape { dim: 8 } data_filler { value: 0.3 } data_filler { value: LABEL } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 5 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def small(label: int = 2) -> str:
    """SMALL as prototxt; `label` 5 or above is wrong."""
    return SMALL.replace("LABEL", str(label))


def solver(net: str | caffe_pb2.NetParameter, settings: str = "", base_lr: float = 0.01) -> caffe.SGDSolver:
    """A solver for `net`, prototxt or its message. settings: further fields, as prototxt."""
    param = text.parse(
        f'base_lr: {base_lr} lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 random_seed: 1 {settings}',
        caffe_pb2.SolverParameter(),
    )
    param.net_param.CopyFrom(text.parse(net, caffe_pb2.NetParameter()) if isinstance(net, str) else net)
    return caffe.get_solver(param)
