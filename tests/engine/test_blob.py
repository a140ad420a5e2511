"""Blobs: shapes, live views, memory shared and adopted, the lazy copy between host and device, messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from caffe import blob_proto, synced_memory
from caffe.blob import Blob, BlobVec
from caffe.proto import caffe_pb2


@pytest.fixture
def separate_host(monkeypatch):
    """Host and device memory apart, as on a GPU."""
    monkeypatch.setattr(synced_memory, "shares_host_memory", lambda where: False)


def test_shape_and_legacy_dimensions():
    blob = Blob((2, 3))
    assert (blob.shape, blob.count, blob.num, blob.channels, blob.height, blob.width) == ((2, 3), 6, 2, 3, 1, 1)
    assert blob.shape_string() == "2 3 (6)"
    assert (blob.axis(-1), blob.axis(1)) == (1, 1)
    with pytest.raises(ValueError, match="axis 2 out of range"):
        blob.axis(2)
    blob.reshape(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="legacy accessors"):
        blob.num  # noqa: B018
    with pytest.raises(ValueError, match="0 or more"):
        blob.reshape(-1, 2)


def test_reshape_keeps_what_fits_and_takes_lists():
    blob = Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape([3, 2])
    assert blob.data.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    blob.reshape(2)
    blob.reshape(8)
    assert blob.data[:6].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("apart", [False, True])
def test_views_are_live_both_ways(apart, request):
    if apart:
        request.getfixturevalue("separate_host")
    blob = Blob((2, 2))
    held = blob.data
    held[0, 0] = 5
    assert blob.data_tensor[0, 0] == 5
    blob.set_data(torch.full((2, 2), 7.0))
    assert held.tolist() == [[7, 7], [7, 7]], "an array handed out earlier shows what the net computes"
    held.flat[3] = 1
    held[[0], [1]] = 2
    assert blob.data_tensor.tolist() == [[7, 2], [7, 1]]


def test_views_stay_live_when_the_device_changes(monkeypatch):
    apart = {"now": False}
    monkeypatch.setattr(synced_memory, "shares_host_memory", lambda where: not apart["now"])
    there = torch.device("cpu", 0)  # another name of the CPU, here for a GPU
    blob = Blob((2,))
    held = blob.data
    held[...] = 1
    apart["now"] = True
    blob.data_memory.move(there)
    held[0] = 5
    assert blob.data_tensor.tolist() == [5, 1], "the array of before set_mode_gpu reaches the net"
    blob.set_data(torch.tensor([2.0, 3.0]))
    assert held.tolist() == [2, 3], "and shows what the net computes"
    apart["now"] = False
    blob.data_memory.move(there)
    held[1] = 7
    assert blob.data_tensor.tolist() == [2, 7], "and so it does when the net is back on the CPU"
    blob.set_data(torch.tensor([4.0, 5.0]))
    assert held.tolist() == [4, 5]


def test_device_only_values_reach_the_host(separate_host):
    blob = Blob((3,))
    blob.set_data(torch.tensor([1.0, 2, 3]))
    assert blob.data_memory.host is None, "nobody asked for a host copy"
    assert blob.data.tolist() == [1, 2, 3]
    blob.data[1] = 9
    assert blob.data_tensor.tolist() == [1, 9, 3]
    blob.fill(data=4.0)
    assert blob.data.tolist() == [4, 4, 4]


def test_a_tensor_is_adopted_only_while_no_array_is_out():
    blob = Blob((4,))
    first = torch.ones(4)
    blob.set_data(first)
    assert blob.data_tensor.data_ptr() == first.data_ptr()
    held = blob.data
    blob.set_data(torch.zeros(4))
    assert held.tolist() == [0] * 4
    del held
    third = torch.full((4,), 3.0)
    blob.set_data(third)
    assert blob.data_tensor.data_ptr() == third.data_ptr()


def test_views_of_others_are_copied():
    blob, whole = Blob((2,)), torch.arange(4.0)
    blob.set_data(whole[:2])
    blob.data[0] = 100
    assert whole[0] == 0
    blob.set_data(whole.reshape(2, 2).t()[0])
    assert blob.data.tolist() == [0, 2]


def test_sharing():
    a, b = Blob((2, 2)), Blob((4,))
    b.share_data(a)
    a.data[0, 1] = 3
    assert b.data.tolist() == [0, 3, 0, 0]
    b.set_data(torch.ones(4))
    assert a.data.tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ValueError, match="expected 3 values, found 4"):
        Blob((3,)).share_data(a)


def test_arrays_outlive_blobs():
    blob = Blob((2,))
    held = blob.data
    held[:] = 3
    del blob
    assert held.tolist() == [3, 3]


def test_message_and_back():
    blob, other, proto = Blob((2, 3)), Blob(), caffe_pb2.BlobProto()
    blob.data[...] = np.random.default_rng(0).normal(size=(2, 3))
    blob.diff[...] = 2
    blob.to_proto(proto, write_diff=True)
    other.from_proto(caffe_pb2.BlobProto.FromString(proto.SerializeToString()))
    assert other.shape == (2, 3)
    np.testing.assert_array_equal(other.data, blob.data)
    np.testing.assert_array_equal(other.diff, blob.diff)
    assert list(proto.data) == blob.data.ravel().tolist()


def test_large_message_has_a_long_length():
    blob, proto = Blob((70000,)), caffe_pb2.BlobProto()
    blob.data[...] = np.arange(70000)
    blob.to_proto(proto)
    assert len(proto.data) == 70000
    other = Blob()
    other.from_proto(proto)
    np.testing.assert_array_equal(other.data, blob.data)


def test_double_and_legacy_messages():
    blob = Blob()
    blob.from_proto(caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, double_data=[1.5, 2.5]))
    assert blob.shape == (1, 1, 1, 2)
    assert blob.data.ravel().tolist() == [1.5, 2.5]
    bias = Blob((2,))
    bias.from_proto(caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2]), reshape=False)
    assert bias.data.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"expected 2 \(2\), found 1 1 2 1 \(2\)"):
        bias.from_proto(caffe_pb2.BlobProto(num=1, channels=1, height=2, width=1, data=[1, 2]), reshape=False)


@pytest.mark.parametrize("name", ["data", "diff", "double_data", "double_diff"])
def test_values_read_by_numpy_and_from_the_wire_agree(name):
    values = np.random.default_rng(0).normal(size=300)  # 300: a length of two bytes on the wire
    proto = caffe_pb2.BlobProto(**{name: values})
    for found in (blob_proto.floats(proto, name.removeprefix("double_")), blob_proto._from_wire(proto, name)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(np.float32))


def test_a_message_with_too_few_values_is_refused():
    proto = caffe_pb2.BlobProto(shape={"dim": [3]}, data=[1, 2])
    with pytest.raises(ValueError, match="expected 3 values for shape 3"):
        Blob().from_proto(proto)


def test_add_blob():
    blobs = BlobVec()
    blobs.add_blob(2, 3)
    assert blobs[0].shape == (2, 3)


def test_values_of_a_message_go_to_views_that_are_out():
    proto = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[2]), data=[1, 2])
    blob, seen = Blob((2,)), Blob((2,))
    view = seen.data
    for each in (blob, seen):
        each.from_proto(proto)
        assert each.data.tolist() == [1, 2]
    assert view.tolist() == [1, 2]
    blob.data[0] = 5
    assert list(proto.data) == [1, 2]
