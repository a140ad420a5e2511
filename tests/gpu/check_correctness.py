"""The sections of check.py that prove correctness, on a card and on the simulated device."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import caffe
import cases
import check_nets
import comparison
import fixtures
import numpy as np
import run_cases
import storage
import torch
from caffe import device
from caffe.cli import main as command_line
from caffe.cuda import kernels as cuda_kernels
from caffe.proto import caffe_pb2, text

if TYPE_CHECKING:
    from check import Report

REFUSALS = ("Refusal/", "LayerRefusal/")  # they raise before anything is computed
ROUNDED = {"tf32": 2e-3, "bf16": 2e-2}  # what products in fewer bits may differ by, of the largest value
PRODUCTS = ("Convolution/", "InnerProduct/")
EXACT, ADDED_IN_ANY_ORDER = 0.0, 1e-3  # how far a resumed training may be from the uninterrupted one
ITERATIONS = 10


def environment(report: Report) -> None:
    """A card, in GPU mode, in float32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    report.check("GPU mode", device.current().type == "cuda", card=torch.cuda.get_device_name(0).replace(" ", "_"))
    switches = [matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_bf16_reduced_precision_reduction]
    report.check("float32 is float32", not any(switches), torch=torch.__version__, cudnn=cudnn.version())
    if report.simulated is None:  # else each section runs what takes the kernel's place
        x = torch.ones(2, 8, 3, 3, device=device.current())
        report.check("LRN's kernel is compiled", cuda_kernels.lrn("lrn", (torch.empty_like(x), x), 5, 0.2, 1.0, 0.75))


def recorded(report: Report) -> None:
    """BVLC's recorded answers: in float32 within their own tolerance, products in fewer bits within ROUNDED."""
    answers = storage.load(comparison.RECORDED)
    names = [name for name in cases.ALL if not name.startswith(REFUSALS)]
    with tempfile.TemporaryDirectory() as folder, gpu_mode_stays():
        fixtures.write(folder)
        for precision in ("float32", *ROUNDED):
            caffe.set_precision(precision)
            passed, worst, asked = 0, 0.0, 0
            for name in names if precision == "float32" else [name for name in names if name.startswith(PRODUCTS)]:
                asked += 1
                try:
                    found = run_cases.answer(name, folder)
                    off, messages = comparison.differences(answers[name], found)
                    if precision != "float32":
                        messages = [] if off <= ROUNDED[precision] else messages
                except Exception as error:
                    off, messages = 0.0, [f"{type(error).__name__}: {error}"]
                passed, worst = passed + (not messages), max(worst, off)
                if messages:
                    print(f"     {precision} {name}: {messages[0][:200]}")
            report.check(precision, asked > 0 and passed == asked, cases=asked, passed=passed, worst=f"{worst:.2g}")


@contextlib.contextmanager
def gpu_mode_stays():
    """Cases that ask for the CPU in passing, as BVLC's recording had it, get the GPU."""
    cpu, caffe.set_mode_cpu = caffe.set_mode_cpu, lambda: None
    try:
        yield
    finally:
        caffe.set_mode_cpu = cpu


def resume(report: Report) -> None:
    """A resumed training against the uninterrupted one: to the bit where deterministic, else within rounding."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in ('type: "SGD"', 'type: "Adam" momentum2: 0.99'):
            for deterministic in (True, False):
                caffe.set_deterministic(deterministic)
                settings = f'{kind} snapshot_prefix: "{folder}/s"'
                one = check_nets.solver(check_nets.small(), settings)
                one.step(6)
                one.snapshot()
                one.step(6)
                two = check_nets.solver(check_nets.small(), settings)
                two.restore(f"{folder}/s_iter_6.solverstate")
                two.step(6)
                off = max(
                    float(np.abs(a.data - b.data).max() / np.abs(a.data).max())
                    for a, b in zip(one.net.learnable_params, two.net.learnable_params, strict=True)
                )
                name = kind.split('"')[1] + (", deterministic" if deterministic else "")
                report.check(name, off <= (EXACT if deterministic else ADDED_IN_ANY_ORDER), off=f"{off:.2g}")


def labels(report: Report) -> None:
    """A label that is no class is named, and the device goes on."""
    message = ""
    try:
        solver = check_nets.solver(check_nets.small(label=7))
        solver.step(3)
        solver.net.forward()
    except ValueError as error:
        message = str(error)
    report.check("a wrong label is named", "label" in message and "7" in message)
    report.check("the device goes on", float(torch.ones(3, device=device.current()).sum()) == 3)


def transfers(report: Report) -> None:
    """An iteration without data from outside copies nothing and waits for nothing."""
    solver = check_nets.solver(check_nets.small())
    solver.step(3)
    if report.simulated is not None:
        report.simulated.clear()
        solver.step(ITERATIONS)
        report.check("no copies, no waits", not +report.simulated.counts, counts=dict(report.simulated.counts))
        return
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        solver.step(ITERATIONS)
        torch.cuda.synchronize()
    events = Counter(event.name for event in profile.events())
    copies = {name: count for name, count in events.items() if "Memcpy" in name and "DtoD" not in name}
    waits = sum(events[name] for name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"))
    launches = sum(count for name, count in events.items() if "LaunchKernel" in name)
    report.check("no copies", not copies, copies=copies, launches_an_iteration=launches / ITERATIONS)
    report.check("no waits but the profiler's", waits <= 1, waits=waits)
    torch.cuda.set_sync_debug_mode("error")
    try:
        solver.step(3)
        message = ""
    except RuntimeError as error:
        message = str(error)[:200]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    report.check("no hidden waits", not message, message=message)


DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 20 mirror: true mean_value: 99
  scale: 0.01 } data_param { source: "SOURCE" batch_size: 8 backend: LMDB prefetch: 2 } }
"""


def batches(report: Report) -> None:
    """The batches that a training sees, without a wait between them, are those that a CPU sees."""
    count = 5 * ITERATIONS
    with tempfile.TemporaryDirectory() as folder:
        pictures = fixtures.pictures(64, (3, 24, 23), 5)
        fixtures.write_lmdb(f"{folder}/lmdb", [fixtures.datum(one, i % 5) for i, one in enumerate(pictures)])
        data, net = DATA.replace("SOURCE", f"{folder}/lmdb"), check_nets.small()
        caffe.set_mode_cpu()
        caffe.set_random_seed(1)
        reference = caffe.Net(text.parse(data, caffe_pb2.NetParameter()), caffe.TRAIN)
        expected = np.array([checksum(reference, i) for i in range(count)])
        caffe.set_mode_gpu()
        solver = check_nets.solver(data + net[net.index('layer { name: "conv"') :], base_lr=1e-5)
        sums = []
        for _ in range(count):
            solver.step(1)
            sums.append(weighted_sum(solver.net.blobs["data"].data_tensor))
        found = torch.stack(sums).cpu().numpy()
        wrong = np.abs(found - expected) > 1e-6 * np.abs(expected).max()
        report.check("checksums under training", not wrong.any(), batches=count, wrong=int(wrong.sum()))


def checksum(net: caffe.Net, index: int) -> float:
    """The checksum of the net's next batch."""
    net.forward()
    return float(weighted_sum(net.blobs["data"].data_tensor))


def weighted_sum(values: torch.Tensor) -> torch.Tensor:
    """A sum that tells the places of the values apart, on their device."""
    weights = torch.arange(values.numel(), device=values.device, dtype=torch.float64).remainder(1021)
    return (values.reshape(-1).double() * weights).sum()


def commands(report: Report) -> None:
    """The commands end with the status that they should."""
    with tempfile.TemporaryDirectory() as folder:
        net, solver = Path(folder, "net.prototxt"), Path(folder, "solver.prototxt")
        net.write_text(check_nets.small())
        solver.write_text(
            f'net: "{net}" base_lr: 0.01 lr_policy: "fixed" max_iter: 6 display: 3 snapshot: 3 '
            f'snapshot_prefix: "{folder}/s"'
        )
        train, state = f"train -solver {solver}", f"{folder}/s_iter_3.solverstate"
        for words, status in (
            ("device_query -gpu 0", 0),
            ("device_query -gpu all", 0),
            (f"{train} -gpu 0", 0),
            (f"{train} -gpu 0 -deterministic", 0),
            (f"{train} -gpu 0 -snapshot {state}", 0),
            (f"test -model {net} -weights {folder}/s_iter_6.caffemodel -gpu 0 -iterations 3", 0),
            (f"time -model {net} -gpu 0 -iterations 3 -precision tf32", 0),
            (f"{train} -gpu 99", 1),
        ):
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                found = command_line.main(words.split())
            report.check("caffe " + words.replace(folder + "/", ""), found == status, status=found)
