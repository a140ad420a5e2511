"""What `caffe` does with a solver, a net or a device: train, test, time and device_query."""

from __future__ import annotations

import math
import time as clock
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch

from caffe import device, glog, parallel
from caffe.cli import ranks
from caffe.cli.flags import UsageError
from caffe.cli.signals import SignalActions
from caffe.nccl import NCCL
from caffe.net import Net
from caffe.precision import set_precision
from caffe.proto import byte_strings, caffe_pb2, text
from caffe.solver import get_solver


def _gpus(value: str) -> list[int]:
    """The device numbers of -gpu. Raises UsageError for what is not there."""
    if not value:
        return []
    found = torch.cuda.device_count()
    try:
        wanted = list(range(found)) if value == "all" else [int(number) for number in value.split(",")]
    except ValueError:
        raise UsageError(f"-gpu: expected device numbers separated by ',' or 'all', found {value!r}") from None
    if not found or any(not 0 <= number < found for number in wanted):
        raise UsageError(
            f"-gpu {value}: Cannot use GPU: torch {torch.__version__} finds {found} CUDA devices; "
            "leave -gpu out to compute on the CPU"
        )
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"-gpu {value}: expected each device once; a device trains in one process")
    return wanted


def _use(args: SimpleNamespace, line_gpu: int, line_cpu: int) -> None:
    gpus = _gpus(args.gpu)
    if gpus:
        glog.info(f"caffe.cpp:{line_gpu}", f"Use GPU with device ID {gpus[0]}")
        device.set_device(gpus[0])
        device.set_mode_gpu()
    else:
        glog.info(f"caffe.cpp:{line_cpu}", "Use CPU.")
        device.set_mode_cpu()
    _set_arithmetic(args)


def _set_arithmetic(args: SimpleNamespace) -> None:
    set_precision(args.precision)
    device.set_deterministic(args.deterministic)


def train(args: SimpleNamespace) -> int:
    """Train or fine-tune: -solver, and -snapshot to resume or -weights to start from. Returns the exit status."""
    if not args.solver:
        raise UsageError("Need a solver definition to train: caffe train -solver FILE")
    if args.snapshot and args.weights:
        raise UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    actions = SignalActions(args.sigint_effect, args.sighup_effect)
    param = text.read_solver(args.solver)
    param.train_state.level = args.level
    param.train_state.stage.extend(args.stage.split(","))
    here, gpus = ranks.place(), _gpus(args.gpu)
    if args.processes < 1 or (args.processes > 1 and gpus):
        raise UsageError(f"-processes {args.processes}: expected 1 or more, and without -gpu, which has one a device")
    count = max(args.processes, len(gpus))
    if here is None and count > 1:
        return ranks.launch(count, args.command_line)
    if here is not None and gpus and here.local_rank >= len(gpus):
        raise UsageError(f"-gpu {args.gpu}: expected a device for each process on this machine, found {len(gpus)}")
    with ranks.joined(here) if here else nullcontext():
        _train(args, param, gpus, actions, here)
    return 0


def _train(
    args: SimpleNamespace,
    param: caffe_pb2.SolverParameter,
    gpus: list[int],
    actions: SignalActions,
    here: ranks.Place | None,
) -> None:
    """Train in this process, alone or as one of several solvers."""
    written = param.HasField("solver_mode")  # left out, BVLC's `caffe` trains on the CPU, though GPU is the default
    if not args.gpu and args.processes == 1 and written and param.solver_mode == caffe_pb2.SolverParameter.GPU:
        if torch.cuda.is_available():
            gpus = _gpus(str(here.local_rank if here else param.device_id))
        elif parallel.is_root():
            glog.warning(
                "common.cpp:66",
                f"solver_mode is GPU and torch {torch.__version__} finds no CUDA device: training on the CPU. "
                "Write solver_mode: CPU to be rid of this warning.",
            )
    if gpus:
        glog.info("caffe.cpp:204", f"Using GPUs {', '.join(map(str, gpus))}")
        for number in gpus:
            glog.info("caffe.cpp:209", f"GPU {number}: {torch.cuda.get_device_name(number)}")
        param.device_id = gpus[here.local_rank if here and args.gpu else 0]
        device.set_device(param.device_id)
        device.set_mode_gpu()
    else:
        glog.info("caffe.cpp:197", "Use CPU.")
        device.set_mode_cpu()
    _set_arithmetic(args)
    if args.weights:
        param.weights.append(byte_strings.from_path(args.weights))
    if not parallel.is_root():
        del param.weights[:]  # the root sends what it has read
    solver = get_solver(param, args.solver)
    solver.requested_action = actions
    with actions:
        if args.snapshot and parallel.is_root():
            glog.info("caffe.cpp:235", f"Resuming from {args.snapshot}")
            solver.restore(args.snapshot)
        nccl = NCCL(solver, here.uid) if here else None
        if nccl:
            nccl.bcast()
            solver.add_callback(nccl)
        glog.info("caffe.cpp:239", "Starting Optimization")
        if parallel.is_root():
            solver.solve()
        else:
            solver.step(param.max_iter - solver.iter)
        if nccl:
            nccl.end()
    glog.info("caffe.cpp:250", "Optimization Done.")


def _mean(total: float, count: int) -> float:
    """total / count; of nothing, not a number, as C++ has it (-iterations 0)."""
    return total / count if count else math.nan


def test(args: SimpleNamespace) -> None:
    """Score a model: -model, -weights, -iterations batches."""
    if not args.model:
        raise UsageError("Need a model definition to score: caffe test -model FILE -weights FILE")
    if not args.weights:
        raise UsageError("Need model weights to score: caffe test -model FILE -weights FILE")
    _use(args, 267, 275)
    net = Net(args.model, caffe_pb2.TEST, level=args.level, stages=args.stage.split(","))
    for path in args.weights.split(","):
        net.copy_from(path)
    glog.info("caffe.cpp:281", f"Running for {args.iterations} iterations.")
    loss = 0.0
    sums = dict.fromkeys(net.outputs, np.zeros(0))
    for i in range(args.iterations):
        loss += net._forward(0, len(net.layers) - 1)
        for name in net.outputs:
            values = net.blobs[name].data.ravel()
            sums[name] = np.pad(sums[name], (0, max(0, values.size - sums[name].size)))  # an output may grow
            sums[name][: values.size] += values
            for value in map(float, values):  # one by one: a list takes eight times the memory
                glog.info("caffe.cpp:304", f"Batch {i}, {name} = {value:g}")
    glog.info("caffe.cpp:309", f"Loss: {_mean(loss, args.iterations):g}")
    for name, totals in sums.items():
        weight = net.blob_loss_weights[name]
        for total in map(float, totals):
            mean = _mean(total, args.iterations)
            shown = f" (* {weight:g} = {weight * mean:g} loss)" if weight else ""
            glog.info("caffe.cpp:321", f"{name} = {mean:g}{shown}")


def time(args: SimpleNamespace) -> None:
    """Time a model, layer by layer: -model, -iterations, -phase."""
    if not args.model:
        raise UsageError("Need a model definition to time: caffe time -model FILE")
    phases = {"": caffe_pb2.TRAIN, "TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}
    if args.phase not in phases:
        raise UsageError(f'phase must be "TRAIN" or "TEST", found {args.phase!r}')
    _use(args, 337, 343)
    net = Net(args.model, phases[args.phase], level=args.level, stages=args.stage.split(","))
    last = len(net.layers) - 1
    glog.info("caffe.cpp:351", "Performing Forward")
    glog.info("caffe.cpp:356", f"Initial loss: {net._forward(0, last):g}")
    glog.info("caffe.cpp:357", "Performing Backward")
    net._backward(last, 0)
    glog.info("caffe.cpp:365", "*** Benchmark begins ***")
    glog.info("caffe.cpp:366", f"Testing for {args.iterations} iterations.")
    spent = {"forward": [0.0] * (last + 1), "backward": [0.0] * (last + 1)}
    totals = {"forward": 0.0, "backward": 0.0}
    began = clock.perf_counter()
    for iteration in range(args.iterations):
        start = clock.perf_counter()
        for way, indices, run in (
            ("forward", range(last + 1), net._forward_loss),
            ("backward", range(last, -1, -1), net._backward),
        ):
            passed = clock.perf_counter()
            for i in indices:
                layer_start = clock.perf_counter()
                run(i, i)
                _synchronize()
                spent[way][i] += clock.perf_counter() - layer_start
            totals[way] += clock.perf_counter() - passed
        took = 1e3 * (clock.perf_counter() - start)
        glog.info("caffe.cpp:394", f"Iteration: {iteration + 1} forward-backward time: {took:g} ms.")
    whole = 1e3 * (clock.perf_counter() - began)
    glog.info("caffe.cpp:397", "Average time per layer: ")
    for i, name in enumerate(net._layer_names):
        for way, line in (("forward", 400), ("backward", 403)):
            glog.info(f"caffe.cpp:{line}", f"{name:>10}\t{way}: {1e3 * _mean(spent[way][i], args.iterations):g} ms.")
    glog.info("caffe.cpp:408", f"Average Forward pass: {1e3 * _mean(totals['forward'], args.iterations):g} ms.")
    glog.info("caffe.cpp:410", f"Average Backward pass: {1e3 * _mean(totals['backward'], args.iterations):g} ms.")
    glog.info("caffe.cpp:412", f"Average Forward-Backward: {_mean(whole, args.iterations):g} ms.")
    glog.info("caffe.cpp:414", f"Total Time: {whole:g} ms.")
    glog.info("caffe.cpp:415", "*** Benchmark ends ***")


def _synchronize() -> None:
    if device.current().type == "cuda":
        torch.cuda.synchronize(device.current())


def device_query(args: SimpleNamespace) -> None:
    """Describe the CUDA devices of -gpu (default: all)."""
    shown = args.gpu or "all"
    glog.info("caffe.cpp:138", f"Querying GPUs {args.gpu}")
    numbers = range(torch.cuda.device_count()) if shown == "all" else _gpus(shown)
    for number in numbers:
        properties = torch.cuda.get_device_properties(number)
        for what, value in (
            ("Device id:                    ", number),
            ("Major revision number:        ", properties.major),
            ("Minor revision number:        ", properties.minor),
            ("Name:                         ", properties.name),
            ("Total global memory:          ", properties.total_memory),
            ("Number of multiprocessors:    ", properties.multi_processor_count),
        ):
            glog.info("common.cpp:186", f"{what} {value}")
