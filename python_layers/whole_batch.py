"""The batches of several solvers that train side by side, as the one batch that they are parts of."""

from __future__ import annotations

from typing import NamedTuple

import caffe
import numpy as np

import loss_arrays

PAIRS = ("all", "own")  # of param_str's key `pairs`


class WholeBatch(NamedTuple):
    """codes (n B, K) and labels (n B, ...) of n solvers' batches; where this solver's rows are among them; n."""

    codes: np.ndarray
    labels: np.ndarray
    own: slice
    solvers: int


def gather(codes: np.ndarray, labels: np.ndarray, pairs: str, phase: int) -> WholeBatch:
    """The whole batch of which this solver has codes (B, K) and labels (B, ...), both float32. Codes may be on a GPU;
    those of several solvers come as numpy arrays.

    It is the solver's own with pairs `own`, in TEST, in a solver that trains alone, and on BVLC Caffe, where solvers
    cannot ask each other. The solvers' gradients will be averaged: to be the whole batch's, that of a solver's own rows
    must be multiplied by their number.
    """
    size, axes = len(codes), labels.shape[1:]
    if pairs == "own" or solvers(phase) == 1:
        return WholeBatch(codes, labels, slice(0, size), 1)
    own = np.hstack([loss_arrays.on_host(codes), labels.reshape(size, -1)])
    parts = caffe.all_gather(own)  # (n, B, K + C); outside of step n is 1
    rows, bits = parts.reshape(-1, parts.shape[-1]), codes.shape[1]  # (n B, K + C)
    first = caffe.solver_rank() * size if len(parts) > 1 else 0
    whole = np.ascontiguousarray(rows[:, :bits]), rows[:, bits:].reshape(-1, *axes)
    return WholeBatch(*whole, slice(first, first + size), len(parts))


def solvers(phase: int) -> int:
    """How many solvers' batches make up the whole batch: what a sum over own rows is multiplied by, as averaging
    divides it. 1 on BVLC Caffe."""
    return caffe.solver_count() if phase == caffe.TRAIN and hasattr(caffe, "all_gather") else 1
