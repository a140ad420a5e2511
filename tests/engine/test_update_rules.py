"""The update in pieces: every value once, the same values as in one piece, in place, with temporaries of a piece. And
the compiled update: the values of torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from caffe import update_rules
from caffe.blob import Blob
from caffe.cpu import kernels
from caffe.proto import caffe_pb2
from torch.utils._python_dispatch import TorchDispatchMode

TYPES = sorted(update_rules.SOLVER_TYPES)
SHAPES = [(3, 5), (4,), (2, 3, 2), (1,), (20,)]
VALUES = 52


COMPILED_TYPES = [name for name in TYPES if update_rules.SOLVER_TYPES[name].compiled is not None]


@pytest.fixture
def by_torch(monkeypatch):
    monkeypatch.setattr(kernels, "LIBRARY", None)


@pytest.fixture
def small_pieces(by_torch, monkeypatch):
    monkeypatch.setitem(update_rules.PIECE, "cpu", 6)


def test_pieces_hold_every_value_once_and_columns_together(small_pieces):
    column = list(torch.arange(VALUES).split([15, 4, 12, 1, 20]))
    seen, sizes = [], []
    for left, right in update_rules.pieces([column, [-tensor for tensor in column]]):
        sizes.append(sum(len(tensor) for tensor in left))
        for one, other in zip(left, right, strict=True):
            assert torch.equal(one, -other)
            seen += one.tolist()
    assert seen == list(range(VALUES))
    assert min(sizes[:-1]) >= 6 and max(sizes) < 12


def trained(kind: str, steps: int = 3, shapes=SHAPES, decay: float = 0.05, **fields) -> list[Blob]:
    """The parameters, whose diffs hold the last steps, and their histories, after some updates."""
    fields = {"iter_size": 2, **fields}
    param = caffe_pb2.SolverParameter(type=kind, momentum=0.9, delta=1e-4, rms_decay=0.8, **fields)
    generator = torch.Generator().manual_seed(4)
    params = [Blob(shape) for shape in shapes]
    histories = [[Blob(shape) for shape in shapes] for _ in range(update_rules.SOLVER_TYPES[kind].histories)]
    for blob in params:
        blob.set_data(torch.randn(blob.shape, generator=generator))
    for step in range(steps):
        for blob in params:
            blob.set_diff(torch.randn(blob.shape, generator=generator))
        update_rules.update(params, histories, 0.1, decay, param, step)
    return [*params, *(blob for history in histories for blob in history)]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("regularization", ["L1", "L2"])
def test_pieces_change_no_bit(kind, regularization, by_torch, request):
    whole = trained(kind, regularization_type=regularization)
    request.getfixturevalue("small_pieces")
    for one, other in zip(whole, trained(kind, regularization_type=regularization), strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_array_equal(one.diff, other.diff)


@pytest.mark.skipif(kernels.LIBRARY is None, reason="kernels.c was not compiled")
@pytest.mark.parametrize("kind", COMPILED_TYPES)
@pytest.mark.parametrize(
    ("decay", "fields"),
    [(0.05, {}), (0.05, {"regularization_type": "L1"}), (0, {"iter_size": 1})],
    ids=["L2", "L1", "without decay"],
)
def test_compiled_updates_are_those_of_torch(kind, decay, fields, monkeypatch, request):
    names, run = [], kernels.run
    monkeypatch.setattr(kernels, "run", lambda name, *arguments: (names.append(name), run(name, *arguments)))
    shapes = [*SHAPES, (70001,), (3, 4099)]  # of several parts and stretches, that end anywhere
    compiled = trained(kind, shapes=shapes, decay=decay, **fields)
    assert names == ["update"] * 3
    request.getfixturevalue("by_torch")
    for one, other in zip(compiled, trained(kind, shapes=shapes, decay=decay, **fields), strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.diff, other.diff, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_the_diff_is_what_was_subtracted(kind):
    before, after = trained(kind, steps=2), trained(kind, steps=3)
    for one, other in zip(before[: len(SHAPES)], after, strict=False):
        np.testing.assert_array_equal(one.data - other.diff, other.data)


class Made(TorchDispatchMode):
    """Notes how many values each operation's new memory has."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {tensor.untyped_storage().data_ptr() for tensor in torch.utils._pytree.tree_leaves((args, kwargs))
                 if isinstance(tensor, torch.Tensor)}  # fmt: skip
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.sizes.append(tensor.numel())
        return result


@pytest.mark.parametrize("kind", TYPES)
def test_temporaries_are_pieces(kind, small_pieces):
    params = [Blob((500,))]
    histories = [[Blob((500,))] for _ in range(update_rules.SOLVER_TYPES[kind].histories)]
    memories = [blob.data_tensor.data_ptr() for blob in (*params, *(one for [one] in histories))]
    param = caffe_pb2.SolverParameter(type=kind, momentum=0.9)
    params[0].fill(data=1.0, diff=1.0)
    with Made() as made, torch.no_grad():
        update_rules.update(params, histories, 0.1, 0.05, param, 0)
    assert max(made.sizes, default=0) <= 6
    assert kind != "SGD" or not made.sizes
    assert memories == [blob.data_tensor.data_ptr() for blob in (*params, *(one for [one] in histories))]


def test_norm(small_pieces):
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in SHAPES]
    expected = np.sqrt(sum((tensor.double().numpy() ** 2).sum() for tensor in tensors))
    assert float(update_rules.norm(tensors)) == pytest.approx(expected, rel=1e-6)
    assert float(update_rules.norm([])) == 0
