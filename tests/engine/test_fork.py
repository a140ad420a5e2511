"""A child forked by a process that has computed computes too (BVLC's Python data layers fork)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import caffe
import cv2
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2, text

SECONDS = 20  # after which a child that hangs is killed

NET = """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 8 dim: 3 dim: 32 dim: 32 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 64 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool" top: "conv2"
  convolution_param { num_output: 64 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param { num_output: 32 weight_filler { type: "xavier" } } }
"""
IMAGE_DATA = """
layer { name: "data" type: "ImageData" top: "data" top: "label"
  image_data_param { source: "list.txt" batch_size: 2 shuffle: true } }
"""
DATA = """
layer { name: "data" type: "Data" top: "data" top: "label"
  data_param { source: "db" batch_size: 2 backend: LMDB } }
"""


def net_of(prototxt: str, phase: int = caffe.TRAIN) -> caffe.Net:
    return caffe.Net(text.parse(prototxt, caffe_pb2.NetParameter()), phase)


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` returns True in a forked child, before SECONDS have passed."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            os._exit(0 if work() else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), "the child hung and was killed"
    return os.WEXITSTATUS(status) == 0


def test_a_child_computes_what_its_parent_does():
    net = net_of(NET, caffe.TEST)
    net.blobs["data"].data[...] = np.random.RandomState(0).rand(8, 3, 32, 32)

    def compute() -> tuple[np.ndarray, np.ndarray]:
        net.forward()
        net.blobs["ip"].diff[...] = 1
        net.backward()
        return net.blobs["ip"].data.copy(), net.blobs["data"].diff.copy()

    expected = compute()

    def work() -> bool:
        return all(np.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in zip(compute(), expected, strict=True))

    assert in_child(work)
    assert in_child(lambda: in_child(work)), "and a child of a child"
    assert work(), "the parent goes on"


@pytest.mark.parametrize("prototxt", [IMAGE_DATA, DATA], ids=["ImageData", "Data"])
def test_a_data_layer_reads_on_in_the_child_and_in_the_parent(prototxt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = np.random.RandomState(0).randint(0, 255, (7, 3, 8, 8)).astype(np.uint8)
    with lmdb.open("db", map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number, picture in enumerate(pictures):
            cv2.imwrite(f"{number}.png", picture.transpose(1, 2, 0))
            transaction.put(b"%08d" % number, caffe.io.array_to_datum(picture, number).SerializeToString())
    with open("list.txt", "w") as lines:
        lines.writelines(f"{number}.png {number}\n" for number in range(7))
    nets = []
    for _ in range(2):
        caffe.set_random_seed(3)
        nets.append(net_of(prototxt))
        nets[-1].forward()
    expected = [nets[0].forward()["data"].copy() for _ in range(6)]

    def work() -> bool:
        return all(np.array_equal(nets[1].forward()["data"], batch) for batch in expected)

    assert in_child(work)
    assert work(), "the parent goes on where it was"


@contextlib.contextmanager
def held(lock) -> Iterator[None]:
    """The lock is another thread's within, as of one that draws."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_fork_while_the_reading_thread_draws(tmp_path, monkeypatch):
    """numpy's streams have a lock, which nobody lets go in the child."""
    monkeypatch.chdir(tmp_path)
    with open("list.txt", "w") as lines:
        for number in range(7):
            cv2.imwrite(f"{number}.png", np.full((8, 8, 3), number, np.uint8))
            lines.write(f"{number}.png {number}\n")
    net = net_of(IMAGE_DATA)
    net.forward()
    reader = net._layers[0]._batches.reader
    with held(reader.random._bit_generator.lock), held(reader.transformer.random._bit_generator.lock):
        assert in_child(lambda: bool(net.forward()))
    assert net.forward(), "the parent goes on"


def test_a_solver_trains_in_the_child():
    prototxt = """
    layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
      shape { dim: 4 dim: 3 dim: 16 dim: 16 } shape { dim: 4 dim: 5 }
      data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
    """
    param = text.parse('base_lr: 0.01 lr_policy: "fixed" random_seed: 1', caffe_pb2.SolverParameter())
    text.parse(prototxt, param.net_param)
    solver = caffe.get_solver(param)
    solver.step(2)

    def work() -> bool:
        solver.step(3)
        return bool(np.isfinite(solver.net.blobs["loss"].data).all()) and solver.iter == 5

    assert in_child(work)
    assert solver.iter == 2
