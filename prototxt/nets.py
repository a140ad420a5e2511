"""The nets that the hash layer can stand on, by name."""

from __future__ import annotations

from typing import Callable

from alexnet import alexnet, caffenet
from small_nets import small_alexnet

NETS: dict[str, Callable] = {  # (net spec) -> the top that the hash layer stands on
    "small_alexnet": small_alexnet,
    "alexnet": alexnet,
    "caffenet": caffenet,
}
FINE_TUNED = ("alexnet", "caffenet")  # nets for 227x227 colour images that start from ImageNet's weights
