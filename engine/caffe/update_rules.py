"""The solvers' update rules and learning-rate policies, as tables (BVLC's sgd_solver.cpp and its siblings).

A rule takes the regularised gradient `diff` and its history tensors (changed in place) and returns what is subtracted
from the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from caffe.proto import caffe_pb2

Rule = Callable[[torch.Tensor, list[torch.Tensor], float, caffe_pb2.SolverParameter, int], torch.Tensor]


def sgd(diff, history, rate, param, iteration):
    """v = momentum v + rate g."""
    (v,) = history
    return v.mul_(param.momentum).add_(diff, alpha=rate)


def nesterov(diff, history, rate, param, iteration):
    """v as in SGD; the step is (1 + momentum) v_new - momentum v_old (Sutskever et al. 2013)."""
    (v,) = history
    old = v.clone()
    v.mul_(param.momentum).add_(diff, alpha=rate)
    return v.mul(1 + param.momentum).sub_(old, alpha=param.momentum)


def adagrad(diff, history, rate, param, iteration):
    """rate g / (sqrt(sum of g^2) + delta) (Duchi et al. 2011)."""
    (h,) = history
    h.addcmul_(diff, diff)
    return diff.div(h.sqrt().add_(param.delta)).mul_(rate)


def rmsprop(diff, history, rate, param, iteration):
    """rate g / (sqrt(h) + delta), h a running mean of g^2 with rms_decay (Tieleman and Hinton 2012)."""
    (h,) = history
    h.mul_(param.rms_decay).addcmul_(diff, diff, value=1 - param.rms_decay)
    return diff.div(h.sqrt().add_(param.delta)).mul_(rate)


def adadelta(diff, history, rate, param, iteration):
    """g times the ratio of the running RMS of steps and of gradients, with momentum as decay (Zeiler 2012)."""
    h, steps = history
    h.mul_(param.momentum).addcmul_(diff, diff, value=1 - param.momentum)
    step = diff * ((steps + param.delta) / (h + param.delta)).sqrt_()
    steps.mul_(param.momentum).addcmul_(step, step, value=1 - param.momentum)
    return step.mul_(rate)


def adam(diff, history, rate, param, iteration):
    """Bias-corrected first moment over the root of the second (Kingma and Ba 2015); betas momentum, momentum2."""
    m, v = history
    m.mul_(param.momentum).add_(diff, alpha=1 - param.momentum)
    v.mul_(param.momentum2).addcmul_(diff, diff, value=1 - param.momentum2)
    t = iteration + 1
    correction = math.sqrt(1 - param.momentum2**t) / (1 - param.momentum**t)
    return m.div(v.sqrt().add_(param.delta)).mul_(rate * correction)


@dataclass(frozen=True)
class SolverType:
    """An update rule, how many history blobs it keeps a parameter, and whether it takes a momentum."""

    rule: Rule
    histories: int = 1
    momentum: bool = True


SOLVER_TYPES = {
    "SGD": SolverType(sgd),
    "Nesterov": SolverType(nesterov),
    "AdaGrad": SolverType(adagrad, momentum=False),
    "RMSProp": SolverType(rmsprop, momentum=False),
    "AdaDelta": SolverType(adadelta, histories=2),
    "Adam": SolverType(adam, histories=2),
}

# Policy -> (rate at an iteration, given the solver's parameters and its current step; fields the policy needs).
LR_POLICIES = {
    "fixed": (lambda p, i, step: p.base_lr, ()),
    "step": (lambda p, i, step: p.base_lr * p.gamma**step, ("gamma", "stepsize")),
    "exp": (lambda p, i, step: p.base_lr * p.gamma**i, ("gamma",)),
    "inv": (lambda p, i, step: p.base_lr * (1 + p.gamma * i) ** -p.power, ("gamma", "power")),
    "multistep": (lambda p, i, step: p.base_lr * p.gamma**step, ("gamma", "stepvalue")),
    "poly": (lambda p, i, step: p.base_lr * (1 - i / p.max_iter) ** p.power, ("power", "max_iter")),
    "sigmoid": (lambda p, i, step: p.base_lr / (1 + math.exp(-p.gamma * (i - p.stepsize))), ("gamma", "stepsize")),
}
