"""Solvers: twenty iterations of a small net on an LMDB, from the same weights: losses, weights, history."""

from __future__ import annotations

import os

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from .scenario import collector, parameters
from .table import draw, seed_of, write_net
from .text import ip

CASES, scenario = collector()

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 mean_value: 60 }
  include { phase: TRAIN } data_param { source: "DATA/lmdb_train" batch_size: 8 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 mean_value: 60 }
  include { phase: TEST } data_param { source: "DATA/lmdb_test" batch_size: 4 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 3 kernel_size: 5 stride: 2 } }
layer { name: "tanh" type: "TanH" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" param { lr_mult: 1.5 decay_mult: 2 }
  inner_product_param { num_output: 3 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SHARED = NET.replace(
    'layer { name: "accuracy"',
    ip("ip2", "ip", more='param { name: "w" }')
    + ip("ip3", "ip2", more='param { name: "w" }')
    + 'layer { name: "accuracy"',
).replace('bottom: "ip" bottom: "label" top: "loss"', 'bottom: "ip3" bottom: "label" top: "loss"')
BATCH_NORM = NET.replace(
    'layer { name: "tanh"',
    'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }\nlayer { name: "tanh"',
)

# what: the solver's text beside net, snapshot_prefix and max_iter; SGD unless it says another type
SOLVERS = {
    "fixed": 'base_lr: 0.05 lr_policy: "fixed"',
    "step": 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 6',
    "exp": 'base_lr: 0.1 lr_policy: "exp" gamma: 0.9',
    "inv": 'base_lr: 0.1 lr_policy: "inv" gamma: 0.2 power: 0.75',
    "multistep": 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.3 stepvalue: 4 stepvalue: 5 stepvalue: 15',
    "poly": 'base_lr: 0.1 lr_policy: "poly" power: 1.5',
    "sigmoid": 'base_lr: 0.1 lr_policy: "sigmoid" gamma: 0.5 stepsize: 8',
    "momentum": 'base_lr: 0.02 lr_policy: "fixed" momentum: 0.9',
    "weight_decay": 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.5 weight_decay: 0.1',
    "weight_decay_l1": 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.5 weight_decay: 0.02 regularization_type: "L1"',
    "clip_gradients": 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 clip_gradients: 0.3',
    "clip_and_decay": 'base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.05 clip_gradients: 0.2',
    "iter_size": 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 iter_size: 3 weight_decay: 0.05',
    "iter_size_clip": 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 iter_size: 2 clip_gradients: 0.3',
    "nesterov": 'type: "Nesterov" base_lr: 0.02 lr_policy: "exp" gamma: 0.95 momentum: 0.9 weight_decay: 0.01',
    "adagrad": 'type: "AdaGrad" base_lr: 0.05 lr_policy: "fixed" weight_decay: 0.01 delta: 1e-6',
    "rmsprop": 'type: "RMSProp" base_lr: 0.01 lr_policy: "fixed" rms_decay: 0.9 delta: 1e-4 weight_decay: 0.01',
    "adadelta": 'type: "AdaDelta" base_lr: 1 lr_policy: "fixed" momentum: 0.95 delta: 1e-4 weight_decay: 0.01',
    "adam": 'type: "Adam" base_lr: 0.01 lr_policy: "inv" gamma: 0.01 power: 0.5 momentum: 0.9 momentum2: 0.99',
    "shared_params": 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01',
    "batch_norm": 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01',
}
# Each solver type with each policy besides: the type's own fields at a rate that it bears, the policy's fields above.
POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
TYPES = {
    "Nesterov": "base_lr: 0.02 momentum: 0.9",
    "AdaGrad": "base_lr: 0.05 delta: 1e-6",
    "RMSProp": "base_lr: 0.01 rms_decay: 0.9 delta: 1e-4",
    "AdaDelta": "base_lr: 1 momentum: 0.95 delta: 1e-4",
    "Adam": "base_lr: 0.01 momentum: 0.9 momentum2: 0.99",
}
for _type, _fields in TYPES.items():
    for _policy in POLICIES:
        _schedule = SOLVERS[_policy].split(" ", 2)[2]
        SOLVERS["%s_%s" % (_type.lower(), _policy)] = 'type: "%s" %s %s' % (_type, _fields, _schedule)
NETS = {"shared_params": SHARED, "batch_norm": BATCH_NORM}


def open_solver(folder, name, text, net=NET):
    """A solver whose net's parameters are drawn from the name's seed."""
    path = write_net(folder, name + "_net", net.replace("DATA", folder))
    prefix = os.path.join(folder, name.replace("/", "-"))
    lines = (
        'net: "%s" max_iter: 20 snapshot_prefix: "%s" solver_mode: CPU display: 0 test_iter: 4 test_interval: 1000 %s\n'
    )
    solver = caffe.get_solver(write_net(folder, name, lines % (path, prefix, text)))
    random = np.random.RandomState(seed_of(name))
    for layer, blobs in solver.net.params.items():
        if layer != "bn":
            for blob in blobs:
                blob.data[...] = draw("small", blob.data.shape, random)
    return solver


def losses(solver, count):
    found = []
    for _ in range(count):
        solver.step(1)
        found.append(float(solver.net.blobs["loss"].data))
    return np.array(found, np.float32)


def history(solver, prefix):
    """Snapshot, and what the two files hold."""
    solver.snapshot()
    state = caffe_pb2.SolverState()
    with open("%s_iter_%d.solverstate" % (prefix, solver.iter), "rb") as file:
        state.ParseFromString(file.read())
    answer = {
        "iter": np.array(state.iter),
        "current_step": np.array(state.current_step),
        "learned_net": np.array(os.path.basename(state.learned_net)),
    }
    for index, blob in enumerate(state.history):
        answer["history%d" % index] = np.array(blob.data, np.float32).reshape(tuple(blob.shape.dim))
    return answer


def answer_of(what, text):
    def ask(folder):
        name = "Solver/" + what
        solver = open_solver(folder, name, text, NETS.get(what, NET))
        answer = {"losses": losses(solver, 20), "type": np.array(type(solver).__name__)}
        answer.update(parameters(solver.net))
        answer.update(history(solver, os.path.join(folder, name.replace("/", "-"))))
        return answer

    return ask


for _what, _text in SOLVERS.items():
    scenario("Solver/" + _what)(answer_of(_what, _text))


def as_bvlc(path):
    """The solverstate without what BVLC does not write: the engine reads the data anew from such a state only."""
    state, kept = caffe_pb2.SolverState(), caffe_pb2.SolverState()
    with open(path, "rb") as file:
        state.ParseFromString(file.read())
    kept.iter, kept.learned_net, kept.current_step = state.iter, state.learned_net, state.current_step
    kept.history.extend(state.history)
    with open(path, "wb") as file:
        file.write(kept.SerializeToString())
    return path


@scenario("Solver/restored")
def restored(folder):
    text = 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 12 momentum: 0.9'
    name = "Solver/restored"
    solver = open_solver(folder, name, text)
    answer = {"before": losses(solver, 10)}
    solver.snapshot()
    other = open_solver(folder, name, text)
    other.restore(as_bvlc(os.path.join(folder, "Solver-restored_iter_10.solverstate")))
    answer["iter"] = np.array(other.iter)
    answer.update({"restored " + k: v for k, v in parameters(other.net).items()})
    answer["after"] = losses(other, 10)
    answer.update(parameters(other.net))
    return answer


@scenario("Solver/test_net")
def test_net(folder):
    """The test net is a net of its own, which shares the trained parameters when the solver tests."""
    solver = open_solver(
        folder, "Solver/test_net", 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 test_initialization: true'
    )
    solver.step(1)  # iteration 0 tests first
    shared = solver.test_nets[0]
    answer = {"layer_names": np.array(list(shared._layer_names), dtype=str), "iter": np.array(solver.iter)}
    answer["tested_loss"] = np.array(shared.blobs["loss"].data)
    solver.step(4)
    answer.update(parameters(shared))
    shared.forward()
    answer["accuracy"] = np.array(shared.blobs["accuracy"].data)
    answer["loss"] = np.array(shared.blobs["loss"].data)
    return answer


@scenario("Solver/solve")
def solve(folder):
    solver = open_solver(folder, "Solver/solve", 'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 snapshot: 8')
    solver.solve()
    files = sorted(name for name in os.listdir(folder) if name.startswith("Solver-solve_iter"))
    return {"iter": np.array(solver.iter), "files": np.array(files, dtype=str), **parameters(solver.net)}


@scenario("Solver/train_net_and_states")
def train_net_and_states(folder):
    """train_net, test_net, train_state, test_state; the callbacks' order."""
    path = write_net(folder, "Solver/states_net", NET.replace("DATA", folder))
    text = (
        'train_net: "%s" test_net: "%s" test_net: "%s" test_iter: 1 test_iter: 2 test_interval: 100 base_lr: 0.1'
        ' lr_policy: "fixed" max_iter: 3 train_state { stage: "x" } test_state { level: 1 } test_state { stage: "y" }\n'
        % (path, path, path)
    )
    solver = caffe.get_solver(write_net(folder, "Solver/states", text))
    calls = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("gradients"))
    solver.step(2)
    return {
        "test_nets": np.array(len(solver.test_nets)),
        "calls": np.array(calls, dtype=str),
        "train": np.array(list(solver.net._layer_names), dtype=str),
        "test": np.array(list(solver.test_nets[1]._layer_names), dtype=str),
    }
