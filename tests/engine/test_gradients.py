"""caffe.gradients: the same as torch.autograd.grad, whether torch has the function by that name or not."""

from __future__ import annotations

import pytest
import torch
from caffe.gradients import leaf_gradients
from torch.autograd import graph


@pytest.mark.parametrize("has_it", [True, False])
def test_gradients_are_those_of_autograd(has_it, monkeypatch):
    if not has_it:
        monkeypatch.delattr(graph, "_engine_run_backward")
    else:
        monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("the check of shapes"))
    torch.manual_seed(0)
    first, second, unused = (torch.randn(3, 4, requires_grad=True) for _ in range(3))
    tops = (first * second, second.sum(1))
    edges, diffs = [graph.get_gradient_edge(top) for top in tops], [torch.randn(3, 4), torch.randn(3)]
    for _ in range(2):  # the graph is kept
        gradients = leaf_gradients(edges, [first, second, unused], diffs)
        torch.testing.assert_close(gradients[0], diffs[0] * second)
        torch.testing.assert_close(gradients[1], diffs[0] * first + diffs[1][:, None])
        assert gradients[2] is None and not any(each.requires_grad for each in gradients[:2])
