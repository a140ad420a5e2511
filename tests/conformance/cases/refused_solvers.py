"""Solvers and their files that must be refused."""

from __future__ import annotations

import os

import caffe

from .refusals import GOOD, solver
from .refusing import Refusal
from .table import write_net

POLICY = 'net: "NET" base_lr: 0.1 max_iter: 2 '
H5 = 'snapshot_format: HDF5 snapshot_prefix: "%s/refused" '


def stepped(text):
    return solver(POLICY + text, lambda each, folder: each.step(1))


def in_folder(text, use=lambda each, folder: None):
    """An action with a solver text in which DATA stands for the folder."""
    return lambda folder: solver(GOOD + text.replace("DATA", folder), use)(folder)


def other_file(change, text="", suffix="solverstate.h5"):
    """An action that snapshots in HDF5, changes the solver's state file with `change(file)` and restores it."""

    def action(folder):
        import h5py

        text_ = GOOD + H5 % folder + text

        def snapshot(each, _):
            each.step(1)
            each.snapshot()

        path = os.path.join(folder, "refused_iter_1." + suffix)
        solver(text_, snapshot)(folder)
        with h5py.File(path, "r+") as file:
            change(file)
        solver(text_, lambda each, _: each.restore(os.path.join(folder, "refused_iter_1.solverstate.h5")))(folder)

    return action


def remove(name):
    def change(file):
        del file[name]

    return change


def no_string(file):
    del file["learned_net"]
    file.create_group("learned_net")


def unreadable(file):
    """A text that stands in another file, which is not there."""
    del file["learned_net"]
    file.create_dataset("learned_net", (1,), "S9", external=[("/nowhere/text", 0, 9)])


def as_rank_1(use):
    """An action on a solver that is told to be the second of several."""

    def action(folder):
        caffe.set_solver_count(2)
        caffe.set_multiprocess(True)
        try:
            made = solver(GOOD, lambda each, _: each)(folder)
            caffe.set_solver_rank(1)
            use(made)
        finally:
            caffe.set_solver_rank(0)
            caffe.set_multiprocess(False)
            caffe.set_solver_count(1)

    return action


def state_is_a_folder(folder):
    os.mkdir(os.path.join(folder, "refused_iter_0.solverstate.h5"))
    try:
        solver(GOOD + H5 % folder, lambda each, _: each.snapshot())(folder)
    finally:
        os.rmdir(os.path.join(folder, "refused_iter_0.solverstate.h5"))


def restored_text(folder):
    path = write_net(folder, "refused_state", "no state")
    solver(GOOD, lambda each, _: each.restore(path))(folder)


def restored_h5_text(folder):
    path = os.path.join(folder, "text.solverstate.h5")
    with open(path, "w") as file:
        file.write("no HDF5")
    solver(GOOD, lambda each, _: each.restore(path))(folder)


# what: (the action, words of the message)
ACTIONS = {
    "average_loss": (solver(GOOD + "average_loss: 0"), ("average_loss should be non-negative",)),
    "test_iter_count": (
        solver(GOOD + 'test_net: "NET" test_net: "NET" test_iter: 1 test_interval: 1'),
        ("test_iter must be specified for each test network",),
    ),
    "test_iter_count_of_test_nets": (
        solver(GOOD.replace("net:", "train_net:") + 'test_net: "NET" test_iter: 1 test_iter: 1 test_interval: 1'),
        ("test_iter must be specified for each test network",),
    ),
    "test_state_count": (
        solver(GOOD + "test_iter: 1 test_interval: 1 test_state { } test_state { }"),
        ("test_state must be unspecified or specified once per test net",),
    ),
    "snapshot_into_no_folder": (
        in_folder('snapshot: 1 snapshot_prefix: "DATA/no/x"'),
        (
            "Cannot write to snapshot prefix",
            "Make sure that the directory exists and is writable",
        ),
    ),
    "solve_as_second": (as_rank_1(lambda each: each.solve()), ()),
    "snapshot_as_second": (as_rank_1(lambda each: each.snapshot()), ()),
    "both_types": (
        solver(GOOD + 'type: "SGD" solver_type: SGD'),
        ("Failed to upgrade solver: old solver_type field (enum)",),
    ),
    "step_without_stepsize": (stepped('lr_policy: "step" gamma: 0.1'), ("stepsize",)),
    "step_gamma": (stepped('lr_policy: "step" stepsize: 1 gamma: -1'), ("gamma",)),
    "exp_gamma": (stepped('lr_policy: "exp" gamma: -1'), ("gamma",)),
    "inv_gamma": (stepped('lr_policy: "inv" gamma: -1 power: 1'), ("gamma",)),
    "multistep_gamma": (stepped('lr_policy: "multistep" stepvalue: 0 gamma: -1'), ("gamma",)),
    "sigmoid_without_stepsize": (stepped('lr_policy: "sigmoid" gamma: 1'), ("stepsize",)),
    "rmsprop_momentum": (solver(GOOD + 'type: "RMSProp" momentum: 0.9'), ("Momentum cannot be used with RMSProp",)),
    "rmsprop_decay_negative": (
        solver(GOOD + 'type: "RMSProp" rms_decay: -0.1'),
        ("rms_decay should lie between 0 and 1",),
    ),
    "rmsprop_decay_1": (solver(GOOD + 'type: "RMSProp" rms_decay: 1'), ("rms_decay should lie between 0 and 1",)),
    "hdf5_snapshot_into_no_folder": (
        in_folder('snapshot_format: HDF5 snapshot_prefix: "DATA/no/x"', lambda each, folder: each.snapshot()),
        ("no/x",),
    ),
    "hdf5_snapshot_state_is_a_folder": (state_is_a_folder, ("refused_iter_0.solverstate.h5",)),
    "snapshot_later_into_no_folder": (
        in_folder('snapshot_prefix: "DATA/no/x"', lambda each, folder: each.snapshot()),
        (),
    ),
    "restore_h5_missing": (
        solver(GOOD, lambda each, folder: each.restore("nowhere.solverstate.h5")),
        ("nowhere.solverstate.h5",),
    ),
    "restore_h5_text": (restored_h5_text, ("text.solverstate.h5",)),
    "restore_h5_without_iter": (other_file(remove("iter")), ("iter",)),
    "restore_h5_without_step": (other_file(remove("current_step")), ("current_step",)),
    "restore_h5_learned_net": (other_file(no_string), ("learned_net",)),
    "restore_h5_learned_net_unreadable": (other_file(unreadable), ("learned_net",)),
    "restore_h5_without_history": (other_file(remove("history")), ("history",)),
    "restore_h5_history_count": (other_file(remove("history/1")), ("Incorrect length of history blobs",)),
    "restore_h5_history_shape": (
        other_file(lambda file: [remove("history/1")(file), file["history"].create_dataset("1", data=[1.0] * 7)]),
        ("shape",),
    ),
    "restore_text": (restored_text, ()),
}

CASES = [Refusal("Refusal/solver_" + what, words, action) for what, (action, words) in ACTIONS.items()]
CASES.append(
    Refusal(
        "Refusal/solver_sigmoid_gamma",
        (),
        stepped('lr_policy: "sigmoid" gamma: -1 stepsize: 1'),
        accepted="the rate of sigmoid rises with a positive gamma, and falls with a negative one only",
    )
)
