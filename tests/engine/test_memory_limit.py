"""The memory that a process may take: a size beyond it is refused in a sentence before it is allocated."""

from __future__ import annotations

import resource
from pathlib import Path

import caffe
import forked
import lmdb
import pytest
from caffe import memory_limit
from caffe.blob import Blob, SizeError
from caffe.proto import caffe_pb2


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_what_ulimit_leaves(kind):
    """In a child: a limit that was lowered stays lowered."""

    def child() -> int:
        pages = Path("/proc/self/statm").read_text().split()
        used = int(pages[0 if kind == resource.RLIMIT_AS else 5]) * resource.getpagesize()
        resource.setrlimit(kind, (used + (200 << 20), resource.RLIM_INFINITY))
        print(memory_limit.limit() >> 20)
        assert memory_limit.fits(100 << 20) and not memory_limit.fits(300 << 20)
        return 0

    process, output = forked.begin(child)
    text = output.read()
    process.join()
    assert process.exitcode == 0, text
    assert 150 < int(text) <= 200


def test_a_blob_that_has_its_memory_keeps_it(monkeypatch):
    blob = Blob()
    blob.reshape(1 << 25)
    assert blob.data.size == 1 << 25
    monkeypatch.setattr(memory_limit, "limit", lambda: 1 << 20)
    blob.reshape(10)
    blob.reshape(1 << 25)
    with pytest.raises(SizeError, match=r"a blob of shape \(33554433,\) takes 134217732 bytes, more than the 1048576"):
        blob.reshape((1 << 25) + 1)


def test_a_batch_beyond_it_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with lmdb.open(str(tmp_path / "db")) as environment, environment.begin(write=True) as transaction:
        datum = caffe_pb2.Datum(channels=3, height=8, width=8, data=bytes(192), label=1)
        transaction.put(b"0", datum.SerializeToString())
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "in" type: "Data" top: "data" top: "label" data_param { batch_size: 1000000 backend: LMDB '
        f'source: "{tmp_path}/db" }} }}'
    )
    monkeypatch.setattr(memory_limit, "limit", lambda: 1 << 30)
    message = r"layer 'in' \(Data\): 6 batches of shape \(1000000, 3, 8, 8\) take 4608000000 bytes, more than there are"
    with pytest.raises(ValueError, match=message):
        caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
