"""Batches' memory and their way to a GPU, whose streams, events and pinned memory are stood in for on a CPU."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import caffe
import lmdb
import numpy as np
import pytest
import torch
from caffe import device
from caffe.data import upload
from caffe.proto import caffe_pb2

CUDA = torch.device("cuda", 1)


class FakeGpu:
    """Notes what is asked of it, in order: (what, in which stream or of what, by which thread)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.log: list[tuple] = []
        self.stream = "compute"  # the current one
        to, empty = torch.Tensor.to, torch.empty
        monkeypatch.setattr(device, "current", lambda: CUDA)
        monkeypatch.setattr(device, "_copy_streams", {})
        monkeypatch.setattr(torch.cuda, "Stream", lambda where: FakeStream(self, f"copies to {where}"))
        monkeypatch.setattr(torch.cuda, "stream", self.using)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda where=None: FakeStream(self, self.stream))
        pinnable = lambda *shape, pin_memory=False, **how: self.made(empty(*shape, **how), pin_memory)  # noqa: E731
        monkeypatch.setattr(torch, "empty", pinnable)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self.made(tensor.clone(), True))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.note("keeps", stream.name))
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, where, **how: self.copied(to, tensor, where, **how))
        self.pinned: set[int] = set()
        self.there: set[int] = set()

    def note(self, *what: object) -> None:
        self.log.append((*what, threading.current_thread().name))

    def made(self, tensor: torch.Tensor, pinned: bool) -> torch.Tensor:
        self.pinned |= {tensor.data_ptr()} if pinned else set()
        return tensor

    @contextmanager
    def using(self, stream: FakeStream):
        self.stream, before = stream.name, self.stream
        yield
        self.stream = before

    def copied(self, to, tensor: torch.Tensor, where: torch.device, non_blocking: bool = False) -> torch.Tensor:
        if where != CUDA:
            return to(tensor, where)
        if tensor.data_ptr() not in self.there:
            assert tensor.data_ptr() in self.pinned and non_blocking, "a copy that the host waits for"
            self.note("copies", self.stream)
            tensor = tensor.clone()
            self.there.add(tensor.data_ptr())
        return tensor


class FakeStream:
    def __init__(self, gpu: FakeGpu, name: str):
        self.gpu, self.name = gpu, name

    def record_event(self) -> str:
        self.gpu.note("event", self.name)
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.gpu.note(f"waits for {event}", self.name)


@pytest.fixture
def gpu(monkeypatch):
    return FakeGpu(monkeypatch)


def test_a_batch_is_copied_in_a_stream_of_its_own_and_awaited_by_the_stream_that_uses_it(gpu):
    data, labels = torch.rand(4, 3), torch.arange(4.0)
    sent = upload.send([data, labels])
    copies, here = "copies to cuda:1", threading.current_thread().name
    assert gpu.log == [("copies", copies, here), ("copies", copies, here), ("event", copies, here)]
    gpu.log.clear()
    found = sent.take()
    assert gpu.log == [(f"waits for event of {copies}", "compute", here), *[("keeps", "compute", here)] * 2]
    assert (found[0] == data).all() and (found[1] == labels).all()


def test_memory_is_pinned_where_a_gpu_computes(gpu):
    for tensor in (upload.empty((2, 3)), upload.HostMemory().take((2, 3))):
        assert tensor.shape == (2, 3) and tensor.data_ptr() in gpu.pinned


def test_on_a_cpu_nothing_is_copied():
    data = torch.rand(3)
    [found] = upload.send([data]).take()
    assert found.data_ptr() == data.data_ptr()


def test_the_prefetching_thread_sends_the_batches_and_forward_does_not(tmp_path, monkeypatch):
    """A Data layer's batch, made and sent by its thread, before forward asks for it."""
    with lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 20) as environment, environment.begin(write=True) as t:
        for index in range(4):
            datum = caffe_pb2.Datum(channels=1, height=2, width=2, data=bytes([index] * 4), label=index)
            t.put(b"%d" % index, datum.SerializeToString())
    source = f'data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 4 }}'
    path = tmp_path / "net.prototxt"
    path.write_text(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {source} }}')
    net = caffe.Net(str(path), caffe.TRAIN)
    gpu = FakeGpu(monkeypatch)
    [layer] = net.layers
    sent, _ = layer._prefetcher.next()
    sent.take()
    layer._prefetcher.stop()
    by = {what: {thread for name, *_, thread in gpu.log if name.split()[0] == what} for what in ("copies", "waits")}
    assert by == {"copies": {"caffe-prefetch"}, "waits": {threading.current_thread().name}}
    assert sent.tensors[1].tolist() == [0, 1, 2, 3]


def test_host_memory_is_used_again_when_nobody_holds_the_batch():
    memory = upload.HostMemory()
    first, second = memory.take((2, 3)), memory.take((2, 3))
    places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    held = second.reshape(-1).numpy()[1:]  # what a blob's array is to its batch
    held[:] = 7
    del first, second
    again, more = memory.take((2, 3)), memory.take((2, 3))
    assert again.data_ptr() in places and more.data_ptr() not in places
    again.fill_(1), more.fill_(2)
    assert np.array_equal(held, [7] * 5)
    del held
    assert memory.take((2, 3)).data_ptr() in places


def test_host_memory_of_another_shape_is_given_back():
    memory = upload.HostMemory()
    memory.take((2, 3))
    assert memory.take((4,)).shape == (4,)
    assert len(memory._kept) == 1
