"""The sections of check.py that measure a card: the engine next to plain PyTorch, and the layers that feed it."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import batch_nets
import caffe
import check_nets
import cv2
import fixtures
import numpy as np
import timing
import torch
import torch.nn.functional as F
import torch_training
from caffe.proto import caffe_pb2, text

if TYPE_CHECKING:
    from check import Report

BATCH = 256
NETS = ("alexnet", "caffenet")
GOAL, MEMORY_GOAL, LIMIT = 1.0, 1.1, 1.5  # of plain PyTorch's time and memory; above LIMIT the check fails
FED_GOAL, DHN_GOAL = 1.05, 1.15  # of the time without data layer, and without data layer and losses
WARM, ROUNDS, COUNT = 5, 5, 5  # iterations before the first measurement; measurements, and iterations in each
PICTURES, LABELS = 1024, 10


def milliseconds(step: Callable[[], object]) -> float:
    """The median time of `step` on the card, by its own clock."""
    for _ in range(WARM):
        step()
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(COUNT):
            step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / COUNT)
    return sorted(times)[ROUNDS // 2]


def measured(step: Callable[[], object]) -> tuple[float, float]:
    """(milliseconds, GiB at the peak) of `step`."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return milliseconds(step), torch.cuda.max_memory_allocated() / 2**30


def plain(name: str) -> Callable[[], object]:
    """An iteration of the net in plain PyTorch."""
    net = torch_training.Net(name).cuda().train()
    update = torch_training.optimizer(net)
    pictures = torch.ones(BATCH, 3, 227, 227, device="cuda")
    classes = torch.zeros(BATCH, dtype=torch.long, device="cuda")

    def step() -> None:
        update.zero_grad(set_to_none=True)
        F.cross_entropy(net(pictures), classes).backward()
        update.step()

    return step


def engine(net: caffe_pb2.NetParameter) -> Callable[[], object]:
    """An iteration of a solver for the net."""
    solver = check_nets.solver(net, base_lr=1e-6)
    return lambda: solver.step(1)


def with_constants(name: str) -> caffe_pb2.NetParameter:
    """A net of tests/conformance/large_nets.py whose pictures and labels are constants on the card."""
    return timing.with_data(batch_nets.message(name, BATCH))


def speed(report: Report) -> None:
    """AlexNet and CaffeNet on the engine and in plain PyTorch."""
    for name in NETS:
        for precision in ("float32", "tf32"):
            caffe.set_precision(precision)  # the switches of torch too
            sides = {"engine": measured(engine(with_constants(name))), "torch": measured(plain(name))}
            ratio, memory = (ours / theirs for ours, theirs in zip(sides["engine"], sides["torch"], strict=True))
            report.check(
                f"{name} {BATCH} {precision}",
                ratio <= LIMIT,
                engine_ms=round(sides["engine"][0], 2),
                torch_ms=round(sides["torch"][0], 2),
                ratio=round(ratio, 2),
                goal=GOAL,
                memory_ratio=round(memory, 2),
                memory_goal=MEMORY_GOAL,
            )


def write_pictures(folder: str) -> None:
    """LMDBs `jpeg` and `raw` of PICTURES smooth pictures of 256x256, each with a class and a label vector."""
    random = np.random.RandomState(0)
    base = [
        cv2.resize(random.randint(0, 255, (24, 24, 3)).astype(np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
        for _ in range(64)
    ]
    records: dict[str, list[bytes]] = {"jpeg": [], "raw": []}
    for index in range(PICTURES):
        picture, label = base[index % len(base)], index % LABELS
        both = {
            "jpeg": caffe_pb2.Datum(encoded=True, data=cv2.imencode(".jpg", picture)[1].tobytes()),
            "raw": caffe_pb2.Datum(channels=3, height=256, width=256, data=picture.transpose(2, 0, 1).tobytes()),
        }
        for kind, datum in both.items():
            datum.label = label
            datum.float_data.extend(float(i == label) for i in range(LABELS))
            records[kind].append(datum.SerializeToString())
    for kind, values in records.items():
        fixtures.write_lmdb(f"{folder}/{kind}", values, map_size=1 << 30)


DATA = """
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ crop_size: 227 mirror: true
  mean_value: 104 mean_value: 117 mean_value: 123 }} data_param {{ source: "{}" batch_size: {} backend: LMDB }} }}
"""
MULTI_LABEL = """
layer {{ name: "data" type: "Python" top: "data" top: "label" python_param {{ module: "multilabel_data"
  layer: "MultiLabelDataLayer" param_str: '{}' }} }}
"""
DHN = """
layer { name: "hash_layer" type: "TanH" bottom: "score" top: "hash_layer" }
layer { name: "pairwise_loss" type: "Python" bottom: "hash_layer" bottom: "label" top: "pairwise_loss" loss_weight: 1
  python_param { module: "pairwise_loss" layer: "PairwiseLossLayer" } }
layer { name: "quantization_loss" type: "Python" bottom: "hash_layer" top: "quantization_loss" loss_weight: 1
  python_param { module: "quantization_loss" layer: "QuantizationLossLayer" } }
"""


def with_source(source: str, losses: str | None = None) -> caffe_pb2.NetParameter:
    """AlexNet with the data layer of `source` (prototxt) for its inputs, and with `losses` for its own."""
    net = batch_nets.message("alexnet", BATCH, deploy=losses is not None)
    layers = [layer for layer in net.layer if layer.type != "Input"]
    del net.layer[:]
    net.layer.extend(text.parse(source, caffe_pb2.NetParameter()).layer)
    net.layer.extend(layers)
    if losses is not None:
        net.layer.extend(text.parse(losses, caffe_pb2.NetParameter()).layer)
    return net


def feed(report: Report) -> None:
    """Images a second of the Data layer, alone and under AlexNet, and DHN training next to AlexNet without it."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder)
        caffe.set_precision("float32")
        alone = milliseconds(engine(with_constants("alexnet")))
        for kind in ("raw", "jpeg"):
            source = DATA.format(f"{folder}/{kind}", BATCH)
            layer = images_a_second(source)
            fed = wall_milliseconds(engine(with_source(source)))
            report.check(
                f"Data, {kind}",
                fed <= LIMIT * alone,
                layer_images_s=round(layer),
                needed_images_s=round(1e3 * BATCH / alone),
                training_ms=round(fed, 1),
                without_ms=round(alone, 1),
                ratio=round(fed / alone, 2),
                goal=FED_GOAL,
            )
        settings = {"source": f"{folder}/raw", "batch_size": BATCH, "crop": 227, "mirror": True, "mean_value": 110}
        dhn = wall_milliseconds(engine(with_source(MULTI_LABEL.format(json.dumps(settings)), DHN)))
        report.check(
            "DHN, raw",
            dhn <= LIMIT * alone,
            training_ms=round(dhn, 1),
            without_ms=round(alone, 1),
            ratio=round(dhn / alone, 2),
            goal=DHN_GOAL,
        )


def images_a_second(source: str) -> float:
    """How many images a data layer delivers in a second of the wall clock."""
    net = caffe.Net(text.parse(source, caffe_pb2.NetParameter()), caffe.TRAIN)
    return 1e3 * BATCH / wall_milliseconds(lambda: net._forward_loss(0, 0))


def wall_milliseconds(step: Callable[[], object], warm: int = 6, count: int = 12) -> float:
    """The time of `step` by the wall clock, so that waiting for batches counts; `warm` is more than is read ahead."""
    for _ in range(warm):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / count
