"""Gradients by torch's autograd engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.autograd import graph


def leaf_gradients(
    edges: Sequence[graph.GradientEdge], leaves: Sequence[torch.Tensor], diffs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor | None, ...]:
    """The gradient of each leaf, where `diffs` are those of the edges; None for one that no edge depends on.

    This is what torch.autograd.grad(edges, leaves, diffs, retain_graph=True, allow_unused=True) calls after its check
    of shapes. For that check it imports sympy, at the first backward: 0.6 s and 34 MB, and then 40 us a call. A blob's
    diff has the shape of its data, and the engine checks it too.
    """
    run_backward = getattr(graph, "_engine_run_backward", None)
    if run_backward is None:  # a torch that names it otherwise
        return torch.autograd.grad(list(edges), leaves, diffs, retain_graph=True, allow_unused=True)
    retain_graph, create_graph, allow_unused = True, False, True
    return run_backward(
        tuple(edges), tuple(diffs), retain_graph, create_graph, tuple(leaves), allow_unused, accumulate_grad=False
    )
