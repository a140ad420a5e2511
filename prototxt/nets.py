"""The nets that the hash layer can stand on, by name."""

from __future__ import annotations

from collections.abc import Callable

import caffe
from caffe.net_spec import Top

from alexnet import alexnet, caffenet
from small_nets import cifar_quick, small_alexnet
from squeezenet import squeezenet

NETS: dict[str, Callable[[caffe.NetSpec], Top]] = {  # (net spec) -> the top that the hash layer stands on
    "small_alexnet": small_alexnet,
    "cifar_quick": cifar_quick,
    "alexnet": alexnet,
    "caffenet": caffenet,
    "squeezenet": squeezenet,
}
FINE_TUNED = ("alexnet", "caffenet", "squeezenet")  # nets for large colour images that start from ImageNet's weights
