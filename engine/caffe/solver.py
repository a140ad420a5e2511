"""Solver: trains a net as a solver prototxt says (BVLC's solver.cpp and sgd_solver.cpp)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from caffe import device, glog, parallel, solver_state, value_checks
from caffe.blob import Blob
from caffe.layer_types.python import python_layers_next_to
from caffe.net import Net
from caffe.proto import caffe_pb2, text
from caffe.smoothed_loss import SmoothedLoss
from caffe.update_rules import LR_POLICIES, SOLVER_TYPES, norm, update

if TYPE_CHECKING:
    from caffe.nccl import NCCL

STOP, SNAPSHOT = "stop", "snapshot"


class Solver:
    """A solver of `type` (or of the type the prototxt names), with its train net and test nets.

    Attributes:
        param: the SolverParameter.
        place: the solver prototxt, for messages; "solver" where there is none.
        net, test_nets: the nets; test nets use the train net's parameters.
        iter: how many updates were made.
        lr: the learning rate of the next update.
        history: the update rule's memory, one or two blobs a learned parameter.
        stopped: whether a signal ended the last `step` or `solve`, of this solver or of another one.
        requested_action: called after each iteration; "stop", "snapshot" or None.

    Raises:
        ValueError: the solver prototxt is not sound.
    """

    type = "SGD"

    def __init__(self, solver_file: str | Path | caffe_pb2.SolverParameter, place: str = "solver"):
        self.param = caffe_pb2.SolverParameter()
        is_message = isinstance(solver_file, caffe_pb2.SolverParameter)
        self.place = place if is_message else str(solver_file)
        self.param.CopyFrom(solver_file if is_message else text.read_solver(solver_file))
        if self.param.type != self.type:
            self.param.type = self.type
        self._check()
        if glog.enabled():
            glog.info("solver.cpp:45", f"Initializing solver from parameters: \n{text.to_text(self.param)}")
        if self.param.random_seed >= 0:
            device.set_random_seed(self.param.random_seed + parallel.solver_rank())
        self.iter = 0
        self.current_step = 0
        self.requested_action: Callable[[], str | None] = lambda: None
        self.resumed: caffe_pb2.ResumeState | None = None  # what `restore` read, until the next step
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self._nccl: NCCL | None = None
        self._others: tuple[int, list[bytes]] = (-1, [])  # an iteration, and the other solvers' states there
        self._loss = SmoothedLoss(self.param.average_loss)
        self.stopped = False
        self._warned = False  # that a loss is not finite
        self._before_test: caffe_pb2.ResumeState | None = None  # during a test, and after one that was stopped
        self._timer = time.monotonic()
        self._displayed = 0
        self.net = self._train_net()
        self.test_nets = self._make_test_nets()
        count = SOLVER_TYPES[self.type].histories
        self.history = [Blob(blob.shape) for _ in range(count) for blob in self.net.learnable_params]
        glog.info("solver.cpp:57", "Solver scaffolding done.")

    def _check(self) -> None:
        p = self.param
        for field, value in p.ListFields():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{self.place}: {field.name} must be a finite number, found {value:g}")
        if p.average_loss < 1:
            raise ValueError(
                f"{self.place}: average_loss should be non-negative and at least 1, found {p.average_loss}"
            )
        if p.iter_size < 1:
            raise ValueError(f"{self.place}: iter_size must be at least 1, found {p.iter_size}")
        if not SOLVER_TYPES[self.type].momentum and p.momentum:
            raise ValueError(f"{self.place}: Momentum cannot be used with {self.type}: found momentum: {p.momentum:g}")
        if self.type == "RMSProp" and not 0 <= p.rms_decay < 1:
            raise ValueError(f"{self.place}: rms_decay should lie between 0 and 1, found {p.rms_decay:g}")
        if p.regularization_type not in ("L1", "L2"):
            raise ValueError(f"{self.place}: Unknown regularization type: {p.regularization_type}; expected L1 or L2")
        if p.snapshot and not p.HasField("snapshot_prefix"):
            raise ValueError(f"{self.place}: In solver params, snapshot is specified but snapshot_prefix is not")
        snapshots = p.snapshot or (p.snapshot_after_train and p.HasField("snapshot_prefix"))
        if snapshots and parallel.is_root():
            solver_state.check_prefix(p.snapshot_prefix, self.place)

    # -- nets

    def _train_net(self) -> Net:
        p = self.param
        named = [name for name in ("net", "net_param", "train_net", "train_net_param") if p.HasField(name)]
        fields = "net, net_param, train_net, train_net_param"
        if not named:
            raise ValueError(
                f"{self.place}: SolverParameter must specify a train net using one of these fields: {fields}"
            )
        if len(named) > 1:
            raise ValueError(
                f"{self.place}: SolverParameter must not contain more than one of these fields specifying a train_net: "
                f"{fields}; found {', '.join(named)}"
            )
        value = getattr(p, named[0])
        if isinstance(value, str):
            glog.info("solver.cpp:102", f"Creating training net from {named[0]} file: {value}")
        else:
            glog.info("solver.cpp:97", f"Creating training net specified in {named[0]}.")
        return self._net(value, caffe_pb2.TRAIN, p.train_state)

    def _make_test_nets(self) -> list[Net]:
        p = self.param
        sources = [("test_net_param", param) for param in p.test_net_param]
        sources += [(f"test_net file: {path}", path) for path in p.test_net]
        generic = ("net_param", p.net_param) if p.HasField("net_param") else (f"net file: {p.net}", p.net)
        has_generic = p.HasField("net_param") or p.HasField("net")
        if len(p.test_iter) < len(sources) or (not has_generic and len(p.test_iter) != len(sources)):
            raise ValueError(
                f"{self.place}: test_iter must be specified for each test network: "
                f"found {len(p.test_iter)} test_iter for {len(sources)} test nets"
            )
        sources += [generic] * (len(p.test_iter) - len(sources))
        if p.test_state and len(p.test_state) != len(sources):
            raise ValueError(
                f"{self.place}: test_state must be unspecified or specified once per test net: "
                f"expected {len(sources)}, found {len(p.test_state)}"
            )
        if sources and p.test_interval <= 0:
            raise ValueError(f"{self.place}: with test nets test_interval must be positive, found {p.test_interval}")
        nets = []
        for i, (what, value) in enumerate(sources):
            glog.info("solver.cpp:190", f"Creating test net (#{i}) specified by {what}")
            state = p.test_state[i] if p.test_state else caffe_pb2.NetState()
            nets.append(self._net(value, caffe_pb2.TEST, state))
            nets[-1].debug_info = p.debug_info
        return nets

    def _net(self, value: str | caffe_pb2.NetParameter, phase: int, state: caffe_pb2.NetState) -> Net:
        """A net whose state is the phase, then what the net file says, then what the solver says."""
        param = caffe_pb2.NetParameter()
        param.CopyFrom(self._read_net(value) if isinstance(value, str) else value)
        merged = caffe_pb2.NetState(phase=phase)
        merged.MergeFrom(param.state)
        merged.MergeFrom(state)
        param.state.CopyFrom(merged)
        _check_multipliers(param)
        with python_layers_next_to(value if isinstance(value, str) else None):
            net = Net.from_param(param)
        for listed in self.param.weights:
            for path in listed.split(","):
                glog.info("solver.cpp:72", f"Finetuning from {path.strip()}")
                try:
                    net.copy_from(path.strip())
                except OSError as error:
                    raise type(error)(f"{self.place}, weights: {error}") from None
        return net

    def _read_net(self, path: str) -> caffe_pb2.NetParameter:
        try:
            return text.read_net(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.place}: {error}") from None

    # -- training

    def step(self, iterations: int) -> None:
        """Make `iterations` updates, testing, displaying and snapshotting as the prototxt says."""
        p, net = self.param, self.net
        stop = self.iter + iterations
        self._loss = SmoothedLoss(p.average_loss)
        self._timer, self._displayed = time.monotonic(), self.iter
        self.resumed, self.stopped = None, False
        while self.iter < stop:
            net.clear_param_diffs()
            if p.test_interval and self.iter % p.test_interval == 0 and (self.iter > 0 or p.test_initialization):
                self._gather_states()
                if parallel.is_root():
                    self._test_all()
                if self.stopped:
                    return
            for on_start, _ in self._callbacks:
                on_start()
            if self.stopped:  # by another solver
                return
            display = bool(p.display) and self.iter % p.display == 0
            net.debug_info = display and p.debug_info
            losses = []
            for _ in range(p.iter_size):
                losses.append(net._forward_loss(0, len(net.layers) - 1))
                net._backward(len(net.layers) - 1, 0)
            if p.display:
                self._loss.add(losses)
            if display:
                value_checks.raise_noted(net._layers)
                self._display()
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self.apply_update()
            action = self._nccl.action if self._nccl else self.requested_action()
            self.iter += 1
            if (p.snapshot and self.iter % p.snapshot == 0) or action == SNAPSHOT:
                self._gather_states()
                if parallel.is_root():
                    self.snapshot()
            if action == STOP:
                self.stopped = True
                break
        self._gather_states()

    def _gather_states(self) -> None:
        """Where several solvers train, let the root know the others' states at this iteration, for its snapshots."""
        if self._nccl and self._others[0] != self.iter:
            self._others = self.iter, self._nccl.gather_states()

    def solve(self, resume_file: str | Path | None = None) -> None:
        """Train to max_iter, from a solverstate where given; snapshot and test at the end."""
        p = self.param
        glog.info("solver.cpp:289", f"Solving {self.net.name}")
        glog.info("solver.cpp:290", f"Learning Rate Policy: {p.lr_policy}")
        if not parallel.is_root():
            raise RuntimeError(
                f"solve is for the root solver, and set_solver_rank said {parallel.solver_rank()}: the others call step"
            )
        self.stopped = False
        if resume_file:
            glog.info("solver.cpp:295", f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        self.step(p.max_iter - self.iter)
        value_checks.raise_noted(self.net._layers)
        if p.snapshot_after_train and (not p.snapshot or self.iter % p.snapshot):
            self.snapshot()
        if self.stopped:
            glog.info("solver.cpp:311", "Optimization stopped early.")
            return
        if p.display and self.iter % p.display == 0:
            self._loss.add([self.net._forward_loss(0, len(self.net.layers) - 1)])
            value_checks.raise_noted(self.net._layers)
            loss = self._loss.read()
            glog.info("solver.cpp:327", f"Iteration {self.iter}, loss = {loss:g}")
            self._warn_of(loss)
        if p.test_interval and self.iter % p.test_interval == 0:
            self._test_all()
        glog.info("solver.cpp:332", "Optimization Done.")

    def apply_update(self) -> None:
        """Update the parameters from their diffs, which then hold what was subtracted."""
        rate = self.lr
        if self.param.display and self.iter % self.param.display == 0:
            glog.info("sgd_solver.cpp:112", f"Iteration {self.iter}, lr = {rate:g}")
        params, count = self.net.learnable_params, len(self.net.learnable_params)
        with torch.no_grad():
            self._clip()
            for (its_rate, decay), indices in self._by_rate_and_decay(rate).items():
                histories = [[self.history[start + i] for i in indices] for start in range(0, len(self.history), count)]
                update([params[i] for i in indices], histories, its_rate, decay, self.param, self.iter)

    def _by_rate_and_decay(self, rate: float) -> dict[tuple[float, float], list[int]]:
        """Which parameters have what rate and what decay, of the solver's `rate` and weight_decay and their own."""
        groups: dict[tuple[float, float], list[int]] = {}
        for index, mults in enumerate(zip(self.net.params_lr, self.net.params_decay, strict=True)):
            lr_mult, decay_mult = (1.0 if mult is None else mult for mult in mults)
            groups.setdefault((rate * lr_mult, self.param.weight_decay * decay_mult), []).append(index)
        return groups

    def _clip(self) -> None:
        """Scale the diffs down to an L2 norm of clip_gradients. The log says so each time, with the norm: on a GPU that
        is one number a clipped solver's iteration waits for; solvers that do not clip wait for none."""
        limit = self.param.clip_gradients
        if limit < 0:
            return
        total = float(norm([blob.diff_tensor for blob in self.net.learnable_params]))
        if total > limit:
            scale = limit / total
            glog.info(
                "sgd_solver.cpp:93",
                f"Gradient clipping: scaling down gradients (L2 norm {total:g} > {limit:g}) by scale factor {scale:g}",
            )
            for blob in self.net.learnable_params:
                blob.diff_tensor.data.mul_(scale)
                blob.diff_memory.written()

    @property
    def lr(self) -> float:
        p = self.param
        if p.lr_policy not in LR_POLICIES:
            raise ValueError(
                f"{self.place}: Unknown learning rate policy: {p.lr_policy!r}; expected lr_policy to be one of "
                f"{', '.join(LR_POLICIES)}"
            )
        rate, needs = LR_POLICIES[p.lr_policy]
        for name in needs:
            if not (len(p.stepvalue) if name == "stepvalue" else p.HasField(name)):
                raise ValueError(f"{self.place}: lr_policy {p.lr_policy!r} needs {name}")
        if "stepsize" in needs and p.stepsize <= 0:
            raise ValueError(f"{self.place}: stepsize must be positive, found {p.stepsize}")
        if "gamma" in needs and p.gamma < 0 and p.lr_policy != "sigmoid":  # whose rate falls with a negative one only
            raise ValueError(f"{self.place}: gamma must not be negative, found {p.gamma:g}")
        if p.lr_policy == "step":
            self.current_step = self.iter // p.stepsize
        elif (
            p.lr_policy == "multistep"
            and self.current_step < len(p.stepvalue)
            and self.iter >= p.stepvalue[self.current_step]
        ):
            self.current_step += 1
            glog.info("sgd_solver.cpp:50", f"MultiStep Status: Iteration {self.iter}, step = {self.current_step}")
        return float(rate(p, self.iter, self.current_step))

    # -- display and test

    def _display(self) -> None:
        loss = self._loss.read()
        self._warn_of(loss)
        lapse = time.monotonic() - self._timer
        speed = (self.iter - self._displayed) / (lapse or 1)
        glog.info(
            "solver.cpp:239",
            f"Iteration {self.iter} ({speed:g} iter/s, {lapse:g}s/{self.param.display} iters), loss = {loss:g}",
        )
        self._timer, self._displayed = time.monotonic(), self.iter
        values = [self.net.blobs[name].data.ravel() for name in self.net.outputs]
        self._log_outputs("solver.cpp:258", "Train", self.net, values)

    def _warn_of(self, loss: float) -> None:
        """Warn, once, of a loss that is not finite, naming where in the net such values begin. (BVLC Caffe trains on
        without a word.)"""
        if not math.isfinite(loss) and not self._warned:
            self._warned = True
            place = _first_not_finite(self.net) or "."
            glog.warning("solver.cpp:239", f"Iteration {self.iter}: the loss is {loss:g}{place}")

    def _warn_of_parameters(self) -> None:
        """The same of parameters that are not finite: a solver without `display` reads no loss."""
        if not self._warned and (place := _first_not_finite(self.net, tops=False)):
            self._warned = True
            what = "the parameters are not finite, and the snapshot is of no use"
            glog.warning("solver.cpp:447", f"Iteration {self.iter}: {what}{place}")

    @staticmethod
    def _log_outputs(where: str, which: str, net: Net, values: list) -> None:
        index = 0
        for name, numbers in zip(net.outputs, values, strict=True):
            weight = net.blob_loss_weights[name]
            for value in numbers:
                loss = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
                glog.info(where, f"    {which} net output #{index}: {name} = {value:g}{loss}")
                index += 1

    def _test_all(self) -> None:
        self._before_test = solver_state.capture(self)
        for index in range(len(self.test_nets)):
            if not self.stopped:
                self.test(index)
        if not self.stopped:
            self._before_test = None

    def test(self, index: int = 0) -> dict[str, list[float]]:
        """Run test net `index` for its test_iter; logs and returns the mean of each output value."""
        p, net = self.param, self.test_nets[index]
        glog.info("solver.cpp:347", f"Iteration {self.iter}, Testing net (#{index})")
        net.share_with(self.net)
        sums: dict[str, list[float]] = {}
        losses = 0.0
        for _ in range(p.test_iter[index]):
            action = self.requested_action()
            while action:
                if action == SNAPSHOT:
                    self.snapshot()
                elif action == STOP:
                    self.stopped = True
                    glog.info("solver.cpp:375", "Test interrupted.")
                    return {}
                action = self.requested_action()
            loss = net._forward_loss(0, len(net.layers) - 1)
            value_checks.raise_noted(net._layers)
            if p.test_compute_loss:
                losses += float(loss)
            for name in net.outputs:
                values = net.blobs[name].data.ravel().tolist()
                before = sums.get(name, [0.0] * len(values))
                if len(values) != len(before):
                    raise ValueError(
                        f"test net #{index}, output {name}: expected {len(before)} values as in the batch before, "
                        f"found {len(values)}: a mean over test_iter batches needs one size"
                    )
                sums[name] = [a + b for a, b in zip(before, values, strict=True)]
        count = p.test_iter[index]
        if p.test_compute_loss:
            glog.info("solver.cpp:401", f"Test loss: {losses / count if count else math.nan:g}")
        means = {name: [value / count for value in values] for name, values in sums.items()}
        if means:  # test_iter: 0 tests nothing
            self._log_outputs("solver.cpp:414", "Test", net, list(means.values()))
        return means

    # -- state

    def snapshot(self) -> None:
        """Write the caffemodel and the solverstate of this iteration."""
        if not parallel.is_root():
            raise RuntimeError(f"snapshot is for the root solver, and set_solver_rank said {parallel.solver_rank()}")
        value_checks.raise_noted(self.net._layers)
        self._warn_of_parameters()
        at, others = self._others
        solver_state.snapshot(self, self._before_test, others if at == self.iter else [])

    def restore(self, path: str | Path) -> None:
        """Continue from a solverstate."""
        self._before_test = None
        solver_state.restore(self, path)

    def share_weights(self, net: Net) -> None:
        """Make `net` use the train net's parameters."""
        net.share_with(self.net)

    def add_callback(
        self, on_start: Callable[[], Any] | NCCL, on_gradients_ready: Callable[[], Any] | None = None
    ) -> None:
        """Call one function before each iteration and one after its gradients are there; or exchange through a NCCL."""
        if on_gradients_ready is None:
            self._nccl = cast("NCCL", on_start)
            on_start, on_gradients_ready = self._nccl.on_start, self._nccl.on_gradients_ready
        self._callbacks.append((cast("Callable[[], Any]", on_start), on_gradients_ready))


def _check_multipliers(param: caffe_pb2.NetParameter) -> None:
    """Raise ValueError, naming the layer, for a loss weight or a multiplier of a rate that is not finite."""
    for layer in param.layer:
        numbers = [("loss_weight", weight) for weight in layer.loss_weight]
        numbers += [(name, getattr(spec, name)) for spec in layer.param for name in ("lr_mult", "decay_mult")]
        for name, number in numbers:
            if not math.isfinite(number):
                raise ValueError(f"layer {layer.name!r}: {name} must be a finite number, found {number:g}")


def _first_not_finite(net: Net, tops: bool = True) -> str:
    """Where in a net values begin that are not finite, as the end of a sentence; "" where all are finite.

    In the order of the layers, each one's parameters before its tops. tops: whether to look at these.
    """
    for index, (name, layer) in enumerate(zip(net._layer_names, net._layers, strict=True)):
        blobs = [(f"param {number}", blob) for number, blob in enumerate(layer.blobs)]
        if tops:
            blobs += [(repr(net._blob_names[top]), net._blobs[top]) for top in net._top_vecs[index]]
        for blob_name, blob in blobs:
            if not torch.isfinite(blob.data_tensor).all():
                return f"; the first blob that is not finite is {blob_name} of layer {name!r} ({layer.type})"
    return ""


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam."""

    type = "Adam"


_CLASSES = {
    cls.type: cls for cls in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
}


def get_solver(solver: str | Path | caffe_pb2.SolverParameter, place: str = "solver") -> Solver:
    """The solver of a solver prototxt, of the type it names. place: the file that a message was read from.

    Raises ValueError for an unknown type.
    """
    if isinstance(solver, caffe_pb2.SolverParameter):
        param = solver
    else:
        param, place = text.read_solver(solver), str(solver)
    if param.type not in _CLASSES:
        raise ValueError(f"{place}: Unknown solver type: {param.type} (known types: {', '.join(_CLASSES)})")
    return _CLASSES[param.type](param, place)
