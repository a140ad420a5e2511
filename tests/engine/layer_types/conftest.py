"""What every layer test stands on: one layer from prototxt text, its forward, its gradient checked in the engine."""

from __future__ import annotations

import caffe
import devices
import numpy as np
import pytest
import torch
from caffe import device, layer, value_checks
from caffe.blob import Blob
from caffe.proto import caffe_pb2, text

STEP = 1e-6  # of the central difference, in double precision


class OneLayer:
    """The layer that `prototxt` (the inside of `layer { }`) describes, wired to blobs that hold `arrays`.

    `in_place`: its first top is its first bottom.
    """

    def __init__(self, prototxt: str, *arrays, tops: int = 1, phase: int = caffe.TRAIN, in_place: bool = False):
        param = text.parse(f'name: "it" {prototxt}', caffe_pb2.LayerParameter())
        param.phase = phase
        self.arrays = [np.asarray(array, np.float32) for array in arrays]
        self.bottom = [Blob(array.shape) for array in self.arrays]
        self.top = [Blob() for _ in range(tops)]
        if in_place:
            self.top[0] = self.bottom[0]
        self.layer = layer.create(param)
        self.layer.check_counts(self.bottom, self.top)
        self.layer.setup(self.bottom, self.top)
        self.layer.reshape(self.bottom, self.top)

    @property
    def blobs(self) -> list[Blob]:
        return self.layer.blobs

    def forward(self, record: bool = False) -> np.ndarray | list[np.ndarray]:
        """What the tops hold after a forward pass: an array, or a list of them for more tops than one."""
        for blob, array in zip(self.bottom, self.arrays, strict=True):
            blob.reshape(*array.shape)
            blob.data[...] = array
        if record:
            self.layer.propagate_down = [i not in self.layer.no_gradient for i in range(len(self.bottom))]
            self.layer.param_propagate_down = [True] * len(self.blobs)
        self.layer.reshape(self.bottom, self.top)
        self.layer.forward(self.bottom, self.top)
        value_checks.raise_noted([self.layer])  # on a GPU, where a net does when its outputs are read
        found = [blob.data.copy() for blob in self.top]
        return found[0] if len(found) == 1 else found

    def backward(self, *diffs: np.ndarray) -> list[np.ndarray]:
        """The bottoms' diffs, from the tops'; after `forward(record=True)`."""
        for blob, diff in zip(self.top, diffs, strict=True):
            blob.diff[...] = diff
        self.layer.backward(self.top, self.layer.propagate_down, self.bottom)
        return [blob.diff.copy() for blob in self.bottom]

    def check_gradient(self, tolerance: float = 1e-4) -> None:
        """Backward, with top diffs of about 2, against differences of the layer's own `compute` in double precision.

        The blobs' diffs must grow by the gradient, the bottoms' must be set to it; both within `tolerance` of the
        largest derivative of the array. Outputs without gradient (masks, probabilities) get diffs of 0.
        """
        generator = np.random.default_rng(7)
        caffe.set_random_seed(5)
        shapes = [np.shape(one) for one in self._tops(self.forward(record=True))]
        weights = [2 * generator.uniform(0.5, 1.5, shape) for shape in shapes[:1]]
        weights += [generator.uniform(0.5, 1.5, shape) * 2 * self._flows(i + 1) for i, shape in enumerate(shapes[1:])]
        for blob in self.blobs:
            blob.diff[...] = 10
        diffs = self.backward(*weights)
        where = device.current()
        values = [torch.tensor(array, dtype=torch.float64).to(where) for array in self.arrays]
        params = [blob.data_tensor.double().clone() for blob in self.blobs]

        def objective() -> list[torch.Tensor]:
            caffe.set_random_seed(5)
            self.layer._leaves = params
            try:
                tops = self.layer._tops(self.layer.compute(*values))
            finally:
                self.layer._leaves = None
            return [torch.as_tensor(w).to(where) * top for w, top in zip(weights, tops, strict=True) if w.any()]

        checked = [(values[i], diffs[i], f"bottom {i}") for i, want in enumerate(self.layer.propagate_down) if want]
        checked += [(p, b.diff - 10, f"blob {i}") for i, (p, b) in enumerate(zip(params, self.blobs, strict=True))]
        assert checked
        for value, found, name in checked:
            expected = differences(objective, value)
            scale = max(np.abs(expected).max(), 1e-3)
            np.testing.assert_allclose(found, expected, atol=tolerance * scale, rtol=0, err_msg=name)

    def _tops(self, found) -> list[np.ndarray]:
        return found if isinstance(found, list) else [found]

    def _flows(self, index: int) -> bool:
        """Whether top `index` has a gradient to give back."""
        return self.layer._record.edges[index] is not None


def differences(objective, value: torch.Tensor) -> np.ndarray:
    """The sum of d objective() / d value, by central differences; a value that stays NaN has none."""
    assert value.numel() <= 500, "too many differences for a quick test: take a smaller array"
    flat = value.view(-1)
    result = np.empty(flat.numel())
    for i in range(flat.numel()):
        kept = flat[i].item()
        flat[i] = kept + STEP
        above = objective()
        flat[i] = kept - STEP
        changes = [(a - b).nan_to_num() for a, b in zip(above, objective(), strict=True)]
        result[i] = sum(float(change.sum()) for change in changes) / (2 * STEP)
        flat[i] = kept
    return result.reshape(tuple(value.shape))


@pytest.fixture(
    params=[pytest.param(name, marks=[] if name == "cpu" else pytest.mark.slow) for name in devices.DEVICES]
)
def one(request):
    """Make a OneLayer, on each device in turn: one('type: "ReLU"', array)."""
    with devices.computing_on(request.param):
        yield OneLayer


@pytest.fixture
def normal():
    """Standard normal arrays of a given shape; the same in every run."""
    generator = np.random.RandomState(3)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)
