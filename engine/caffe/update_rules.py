"""The solvers' update rules and learning-rate policies, as tables (BVLC's sgd_solver.cpp and its siblings).

An update reads and writes whole parameters: memory is what it waits for. On a CPU the common rules are one pass in C
(cpu/update.h). The rest goes through them in pieces that stay in the cache, and changes everything in place. The pieces
are lists of tensors, for the operations on lists (torch._foreach_*, those of torch.optim), which on a GPU are one
launch a list.

A rule takes lists of tensors, as many of each: the regularised gradients `diffs`, which it changes into what is
subtracted from the parameters, and for each of its histories a list, changed too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import (
    _foreach_add,
    _foreach_add_,
    _foreach_addcmul_,
    _foreach_copy_,
    _foreach_div_,
    _foreach_mul_,
    _foreach_sign,
    _foreach_sqrt,
    _foreach_sqrt_,
    _foreach_sub_,
)

from caffe.blob import Blob
from caffe.cpu import kernels
from caffe.proto import caffe_pb2

Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]
Rule = Callable[[Tensors, Sequence[Tensors], float, caffe_pb2.SolverParameter, int], None]

# Values a piece. On a CPU parameter, diff and history, 4 MiB each, stay in the last-level cache, and are still enough
# for every core; on a GPU a piece bounds the temporaries.
PIECE = {"cpu": 1 << 20, "cuda": 1 << 24}


def sgd(
    diffs: Tensors, history: Sequence[Tensors], rate: float, param: caffe_pb2.SolverParameter, iteration: int
) -> None:
    """v = momentum v + rate g."""
    (v,) = history
    _foreach_mul_(v, param.momentum)
    _foreach_add_(v, diffs, alpha=rate)
    _foreach_copy_(diffs, v)


def nesterov(
    diffs: Tensors, history: Sequence[Tensors], rate: float, param: caffe_pb2.SolverParameter, iteration: int
) -> None:
    """v as in SGD; the step is (1 + momentum) v_new - momentum v_old (Sutskever et al. 2013)."""
    (v,) = history
    old = [tensor.clone() for tensor in v]
    sgd(diffs, history, rate, param, iteration)
    _foreach_mul_(diffs, 1 + param.momentum)
    _foreach_sub_(diffs, old, alpha=param.momentum)


def adagrad(
    diffs: Tensors, history: Sequence[Tensors], rate: float, param: caffe_pb2.SolverParameter, iteration: int
) -> None:
    """rate g / (sqrt(sum of g^2) + delta) (Duchi et al. 2011)."""
    (h,) = history
    _foreach_addcmul_(h, diffs, diffs)
    _divide_by_root(diffs, h, param.delta)
    _foreach_mul_(diffs, rate)


def rmsprop(
    diffs: Tensors, history: Sequence[Tensors], rate: float, param: caffe_pb2.SolverParameter, iteration: int
) -> None:
    """rate g / (sqrt(h) + delta), h a running mean of g^2 with rms_decay (Tieleman and Hinton 2012)."""
    (h,) = history
    _foreach_mul_(h, param.rms_decay)
    _foreach_addcmul_(h, diffs, diffs, value=1 - param.rms_decay)
    _divide_by_root(diffs, h, param.delta)
    _foreach_mul_(diffs, rate)


def adadelta(
    diffs: Tensors, history: Sequence[Tensors], rate: float, param: caffe_pb2.SolverParameter, iteration: int
) -> None:
    """g times the ratio of the running RMS of steps and of gradients, with momentum as decay (Zeiler 2012)."""
    h, steps = history
    _foreach_mul_(h, param.momentum)
    _foreach_addcmul_(h, diffs, diffs, value=1 - param.momentum)
    ratio = _foreach_add(steps, param.delta)
    _foreach_div_(ratio, _foreach_add(h, param.delta))
    _foreach_sqrt_(ratio)
    _foreach_mul_(diffs, ratio)
    _foreach_mul_(steps, param.momentum)
    _foreach_addcmul_(steps, diffs, diffs, value=1 - param.momentum)
    _foreach_mul_(diffs, rate)


def adam(
    diffs: Tensors, history: Sequence[Tensors], rate: float, param: caffe_pb2.SolverParameter, iteration: int
) -> None:
    """Bias-corrected first moment over the root of the second (Kingma and Ba 2015); betas momentum, momentum2."""
    m, v = history
    _foreach_mul_(m, param.momentum)
    _foreach_add_(m, diffs, alpha=1 - param.momentum)
    _foreach_mul_(v, param.momentum2)
    _foreach_addcmul_(v, diffs, diffs, value=1 - param.momentum2)
    _foreach_copy_(diffs, m)
    _divide_by_root(diffs, v, param.delta)
    _foreach_mul_(diffs, rate * _adam_correction(param, iteration))


def _adam_correction(param: caffe_pb2.SolverParameter, iteration: int) -> float:
    t = iteration + 1
    with np.errstate(all="ignore"):
        return float(np.sqrt(1 - _power(param.momentum2, t)) / (1 - _power(param.momentum, t)))


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < 700 else math.inf


def _power(base: float, exponent: float) -> np.float64:
    """As C's pow, which Caffe calls: infinity and not-a-number, where Python raises or gives a complex number."""
    with np.errstate(all="ignore"):
        return np.float64(base) ** exponent


def _divide_by_root(diffs: Tensors, squares: Tensors, delta: float) -> None:
    roots = _foreach_sqrt(squares)
    _foreach_add_(roots, delta)
    _foreach_div_(diffs, roots)


@dataclass(frozen=True)
class SolverType:
    """An update rule, how many history blobs it keeps a parameter, whether it takes a momentum, and its number in
    cpu/update.h, where it is there."""

    rule: Rule
    histories: int = 1
    momentum: bool = True
    compiled: int | None = None


SOLVER_TYPES = {
    "SGD": SolverType(sgd, compiled=0),
    "Nesterov": SolverType(nesterov, compiled=1),
    "AdaGrad": SolverType(adagrad, momentum=False),
    "RMSProp": SolverType(rmsprop, momentum=False),
    "AdaDelta": SolverType(adadelta, histories=2),
    "Adam": SolverType(adam, histories=2, compiled=2),
}


def update(
    params: Sequence[Blob],
    histories: Sequence[Sequence[Blob]],
    rate: float,
    decay: float,
    param: caffe_pb2.SolverParameter,
    iteration: int,
) -> None:
    """Update `params` of one rate and one decay. Their diffs, sums of iter_size gradients, become what was subtracted.

    histories: for each history that the rule keeps its blobs, one a parameter.
    """
    kind = SOLVER_TYPES[param.type]
    columns = [[blob.data_tensor.data for blob in params], [blob.diff_tensor.data for blob in params]]
    columns += [[blob.data_tensor.data for blob in history] for history in histories]
    if kind.compiled is not None and kernels.usable(*chain.from_iterable(columns)):
        _update_compiled(kind.compiled, columns, rate, decay, param, iteration)
    else:
        _update_in_pieces(kind.rule, columns, rate, decay, param, iteration)
    for blob in params:
        blob.data_memory.written()
        blob.diff_memory.written()
    for history_blobs in histories:
        for blob in history_blobs:
            blob.data_memory.written()


def _update_compiled(
    rule: int,
    columns: Sequence[Tensors],
    rate: float,
    decay: float,
    param: caffe_pb2.SolverParameter,
    iteration: int,
) -> None:
    """`update` of columns of tensors (data, diffs and each of the histories) by a rule of cpu/update.h."""
    table = [[row[0].numel(), *(tensor.data_ptr() for tensor in row)] for row in zip(*columns, strict=True)]
    counts = len(table), sum(row[0] for row in table), rule, param.regularization_type == "L1"
    if param.type == "Adam":
        rate *= _adam_correction(param, iteration)
    numbers = 1 / param.iter_size, decay, rate, param.momentum, param.momentum2, param.delta
    kernels.run("update", torch.tensor(table), *counts, *numbers)


def _update_in_pieces(
    rule: Rule,
    columns: Sequence[Tensors],
    rate: float,
    decay: float,
    param: caffe_pb2.SolverParameter,
    iteration: int,
) -> None:
    """`update` of columns of tensors (data, diffs and each of the histories) by torch."""
    for data, diffs, *history in pieces(columns):
        if param.iter_size > 1:
            _foreach_mul_(diffs, 1.0 / param.iter_size)
        if decay:
            _foreach_add_(diffs, data if param.regularization_type == "L2" else _foreach_sign(data), alpha=decay)
        rule(diffs, history, rate, param, iteration)
        _foreach_sub_(data, diffs)


def norm(tensors: Tensors) -> torch.Tensor:
    """The L2 norm of all values together, a scalar on their device. (torch.linalg.vector_norm of fc6's 38 million
    values on a CPU is wrong by 2e-3: it adds them one after the other.)"""
    squares = [piece.square().sum() for (some,) in pieces([tensors]) for piece in some]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def pieces(columns: Sequence[Tensors]) -> Iterator[list[Tensors]]:
    """Yield the columns in chunks of flat tensors, about PIECE values each (less than 2 PIECE at a tensor's end).

    A column is a list of tensors, one a parameter: all data, all diffs, all of a history. A parameter's tensors are cut
    at the same values in each column, and a chunk has a list a column. Two columns (data, diffs) of three parameters of
    5, 14 and 2 values, with PIECE = 8, are two chunks:

        data   aaaaa  bbbbbbbb | bbbbbb  cc         [[a,      b[:8]], [A,      B[:8]]]
        diffs  AAAAA  BBBBBBBB | BBBBBB  CC         [[b[8:],  c    ], [B[8:],  C    ]]

    The first is full only with b's first piece, as 5 values are fewer than PIECE.
    """
    chunk: list[list[torch.Tensor]] = [[] for _ in columns]
    values = 0  # of the chunk, in one column
    for tensors in zip(*columns, strict=True):  # one parameter's tensors, one a column: (b, B)
        size = PIECE[tensors[0].device.type]
        cuts = [tensor.view(-1).split(size) for tensor in tensors]  # of each column: ((b[:8], b[8:]), (B[:8], B[8:]))
        for number, first in enumerate(cuts[0]):
            for column, cut in zip(chunk, cuts, strict=True):
                column.append(cut[number])
            values += first.numel()
            if values >= size:
                yield list(chunk)
                chunk, values = [[] for _ in columns], 0
    if chunk and chunk[0]:
        yield list(chunk)


# Policy -> (rate at an iteration, given the solver's parameters and its current step; fields the policy needs).
LR_POLICIES = {
    "fixed": (lambda p, i, step: p.base_lr, ()),
    "step": (lambda p, i, step: p.base_lr * _power(p.gamma, step), ("gamma", "stepsize")),
    "exp": (lambda p, i, step: p.base_lr * _power(p.gamma, i), ("gamma",)),
    "inv": (lambda p, i, step: p.base_lr * _power(1 + p.gamma * i, -p.power), ("gamma", "power")),
    "multistep": (lambda p, i, step: p.base_lr * _power(p.gamma, step), ("gamma", "stepvalue")),
    "poly": (lambda p, i, step: p.base_lr * _power(1 - i / (p.max_iter or math.nan), p.power), ("power", "max_iter")),
    "sigmoid": (lambda p, i, step: p.base_lr / (1 + _exp(-p.gamma * (i - p.stepsize))), ("gamma", "stepsize")),
}
