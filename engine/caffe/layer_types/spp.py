"""SPP: spatial pyramid pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer import Layer, register
from caffe.layer_types.pooling import Pooling
from caffe.proto import caffe_pb2


@register("SPP")
class SPP(Layer):
    """The bottom pooled over 1x1, 2x2, 4x4 ... bins, pyramid_height grids in all: a vector of one length for images of
    any size (He et al. 2014).

    Bottom: (N, C, H, W). Top: (N, C * (1 + 4 + 16 ...)), or (N, C, 1, 1) for pyramid_height 1. `pool` as Pooling's.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        height = self.layer_param.spp_param.pyramid_height
        self.check(height > 0, f"pyramid_height must be above 0; found {height}")
        self.grids: list[Pooling] = []
        self.counts: list[int] = []  # values an item, of each grid
        self.shape: tuple[int, ...] | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, param = bottom[0], self.layer_param.spp_param
        self.check(
            x.num_axes == 4,
            f"Input must have 4 axes, corresponding to (num, channels, height, width); found {x.shape_string()}",
        )
        self.check(min(x.shape[2:]) > 0, f"Input dimensions cannot be zero; found {x.shape_string()}.")
        if self.shape != x.shape:
            self.shape = x.shape
            grids = [self._grid(x, level) for level in range(param.pyramid_height)]
            self.grids, self.counts = [grid for grid, _ in grids], [count for _, count in grids]
        if len(self.grids) == 1:
            top[0].reshape(*x.shape[:2], 1, 1)
        else:
            top[0].reshape(x.shape[0], sum(self.counts))

    def _grid(self, x: Blob, level: int) -> tuple[Pooling, int]:
        """(the layer that pools over 2^level x 2^level bins, padded to bins of one size; its values an item)"""
        bins = 2**level
        param = caffe_pb2.LayerParameter(name=self.layer_param.name, type="Pooling", phase=self.phase)
        pool = param.pooling_param
        pool.pool = self.layer_param.spp_param.pool
        pool.kernel_h, pool.kernel_w = pool.stride_h, pool.stride_w = [-(-size // bins) for size in x.shape[2:]]
        pool.pad_h, pool.pad_w = [
            (kernel * bins - size + 1) // 2
            for kernel, size in zip((pool.kernel_h, pool.kernel_w), x.shape[2:], strict=True)
        ]
        grid, pooled = Pooling(param), Blob()
        grid.setup([x], [pooled])
        grid.reshape([x], [pooled])
        return grid, math.prod(pooled.shape[1:])

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        pooled = [self._tops(grid.compute(x))[0] for grid in self.grids]
        return pooled[0] if len(pooled) == 1 else torch.cat([one.flatten(1) for one in pooled], 1)
