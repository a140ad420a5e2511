"""Layers whose way on a GPU is another than on a CPU, or that once waited for it."""

from __future__ import annotations

import caffe
import numpy as np
import pytest
import torch
from caffe import layer, value_checks
from caffe.blob import Blob
from caffe.layer_types import pooling
from caffe.proto import caffe_pb2, text


class OneLayer:
    """The layer of a prototxt's `layer { }`, its first bottom with a gradient, wired to blobs that hold `arrays`."""

    def __init__(self, prototxt: str, *arrays: object):
        self.bottom = [Blob(np.shape(array)) for array in arrays]
        for blob, array in zip(self.bottom, arrays, strict=True):
            blob.set_data(torch.tensor(array, dtype=torch.float32).to(caffe.device.current()))
        self.top = [Blob()]
        self.layer = layer.create(text.parse(f'name: "it" {prototxt}', caffe_pb2.LayerParameter()))
        self.layer.setup(self.bottom, self.top)
        self.layer.propagate_down = [True] + [False] * (len(arrays) - 1)
        self.forward()

    def forward(self) -> None:
        self.layer.reshape(self.bottom, self.top)
        self.layer.forward(self.bottom, self.top)

    def backward(self, diff: np.ndarray) -> np.ndarray:
        self.top[0].diff[...] = diff
        self.layer.backward(self.top, self.layer.propagate_down, self.bottom)
        return self.bottom[0].diff.copy()


def test_upsample_keeps_the_last_of_several_values_on_each_device(device):
    it = OneLayer('type: "Upsample"', [[[[1, 2], [3, 4]]]], [[[[5, 0], [5, 15]]]])
    expected = np.zeros(16)
    expected[[0, 5, 15]] = 2, 3, 4
    np.testing.assert_array_equal(it.top[0].data.ravel(), expected)
    np.testing.assert_array_equal(it.backward(np.arange(16).reshape(1, 1, 4, 4)).ravel(), [5, 0, 5, 15])


@pytest.mark.parametrize(
    ("prototxt", "bottoms", "message"),
    [
        ('type: "BatchReindex"', ([[1, 2], [3, 4]], [1, 0, 1]), None),
        ('type: "BatchReindex"', ([[1, 2], [3, 4]], [1, -1, 7]), "was negative: expected 0 to 1, found -1"),
        ('type: "BatchReindex"', ([[1, 2], [3, 4]], [1, 2, 1]), "greater than batch size: expected 0 to 1, found 2"),
        ('type: "Upsample"', ([[[[1, 2]]]], [[[[1, 2]]]]), None),
        ('type: "Upsample"', ([[[[1, 2]]]], [[[[1, 8]]]]), "out of range .* found 8, expected 0 to 7"),
    ],
)
def test_indices_are_checked_without_a_sync(simulated_gpu, prototxt, bottoms, message):
    it = OneLayer(prototxt, *bottoms)
    simulated_gpu.clear()
    it.forward()
    assert not simulated_gpu.counts
    if message is None:
        value_checks.raise_noted([it.layer])
    else:
        with pytest.raises(ValueError, match=message):
            value_checks.raise_noted([it.layer])


def test_an_index_of_no_items_names_none_that_is_wrong(device):
    it = OneLayer('type: "BatchReindex"', [[1, 2], [3, 4]], np.zeros(0))
    value_checks.raise_noted([it.layer])
    assert it.top[0].shape == (0, 2)


ROIS = [[0, 0, 0, 5, 4], [1, 2, 1, 3, 3], [1, 9, 9, 9, 9]]
ROI_POOLING = 'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.9 }'


def test_roi_pooling_is_the_same_on_each_device(device):
    features = np.random.RandomState(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
    it = OneLayer(ROI_POOLING, features, ROIS)
    found, diff = it.top[0].data.copy(), it.backward(np.ones(it.top[0].shape))
    caffe.set_mode_cpu()
    expected = OneLayer(ROI_POOLING, features, ROIS)
    np.testing.assert_array_equal(found, expected.top[0].data)
    np.testing.assert_array_equal(diff, expected.backward(np.ones(it.top[0].shape)))


def test_roi_pooling_waits_for_no_regions_that_the_host_has(simulated_gpu):
    it = OneLayer(ROI_POOLING, np.ones((2, 3, 5, 6)), ROIS)
    it.bottom[1].data[...] = ROIS  # as a Python layer writes them
    it.bottom[1].data_tensor  # noqa: B018  # sent
    simulated_gpu.clear()
    it.forward()
    assert simulated_gpu.counts == {"to device": 4}, "items, rows and columns of bins, which bins are empty"
    it.bottom[1].set_data(torch.tensor(ROIS, dtype=torch.float32, device="cuda"))
    simulated_gpu.clear()
    it.forward()
    assert simulated_gpu.counts == {"to device": 4, "to host, blocking": 1}, "what a GPU computed is read once"


WINDOWS = {
    "overlapping": ((7, 6), (3, 3), (2, 2), (0, 0), True),
    "separate": ((6, 6), (2, 2), (2, 2), (0, 0), True),
    "padded": ((7, 7), (3, 3), (2, 2), (1, 1), True),
    "floor leaves a rest": ((8, 8), (3, 3), (2, 2), (0, 0), False),
    "beyond the edge": ((8, 7), (3, 3), (2, 2), (0, 0), True),
    "stride over kernel": ((9, 9), (2, 2), (3, 3), (0, 0), False),
    "oblong": ((9, 8), (2, 4), (1, 3), (1, 2), True),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_the_deterministic_gradient_of_max_pooling_is_torchs(window):
    size, kernel, stride, pad, ceil = WINDOWS[window]
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 5, (2, 3, *size), generator=generator).float()  # with many equal values
    top, index = torch.nn.functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, return_indices=True)
    dy = torch.randint(-9, 9, top.shape, generator=generator).float()  # whole numbers: sums are exact in any order
    expected = torch.ops.aten.max_pool2d_with_indices_backward(dy, x, kernel, stride, pad, (1, 1), ceil, index)
    found = torch.full_like(x, 7)
    pooling._add_by_offset(found, dy, index, kernel, stride, pad)
    assert torch.equal(found, expected)


def test_max_pooling_copies_no_indices(simulated_gpu):
    it = OneLayer(
        'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', np.random.RandomState(0).rand(2, 3, 9, 9)
    )
    simulated_gpu.record_operations = True
    simulated_gpu.clear()
    it.forward()
    assert not {"copy_", "_to_copy"} & set(simulated_gpu.operations)
    it.backward(np.ones(it.top[0].shape))
    assert "_to_copy" not in simulated_gpu.operations
