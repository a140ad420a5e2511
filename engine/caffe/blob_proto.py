"""Shape and values of a BlobProto, as numpy has them: no torch."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.message import Message

from caffe.proto import caffe_pb2


def proto_shape(proto: caffe_pb2.BlobProto) -> tuple[int, ...]:
    """The shape a BlobProto states, in its current or in its legacy 4-D form."""
    if any(proto.HasField(name) for name in ("num", "channels", "height", "width")):
        return (proto.num, proto.channels, proto.height, proto.width)
    return tuple(proto.shape.dim)


def shape_string(proto: caffe_pb2.BlobProto) -> str:
    """A BlobProto's shape as BVLC's Blob writes it: `2 3 (6)`."""
    shape = proto_shape(proto)
    return "".join(f"{dim} " for dim in shape) + f"({math.prod(shape)})"


def floats(proto: caffe_pb2.BlobProto, field: str) -> np.ndarray:
    """The values of a BlobProto's `data` or `diff` (or their double forms) as a float32 array."""
    double = getattr(proto, f"double_{field}")
    name = f"double_{field}" if len(double) else field
    values = getattr(proto, name)
    if not len(values):
        return np.empty(0, np.float32)
    if hasattr(values, "__array__"):  # recent protobufs: one copy
        return np.asarray(values).astype(np.float32, copy=False)
    return _from_wire(proto, name)


def _from_wire(proto: caffe_pb2.BlobProto, name: str) -> np.ndarray:
    """`floats` for older protobufs, which hand repeated numbers out one Python object each: their packed wire form is
    the array itself."""
    only = type(proto)()
    getattr(only, name).MergeFrom(getattr(proto, name))
    wire = only.SerializeToString()
    start = 1
    while wire[start] & 0x80:
        start += 1
    dtype = np.dtype("<f8" if name.startswith("double") else "<f4")
    return np.frombuffer(wire, dtype, offset=start + 1).astype(np.float32, copy=False)


def append_floats(proto: Message, field: str, values: np.ndarray) -> None:
    """Add values to a field of packed float32 of a message.

    As bytes that it parses: where memory is short, protobuf 7 drops what it is to extend a field by, without a word,
    but says that it cannot parse.
    """
    number = proto.DESCRIPTOR.fields_by_name[field].number
    with np.errstate(over="ignore"):  # infinity, as protobuf makes of it
        raw = np.ascontiguousarray(values, "<f4").tobytes()
    size, varint = len(raw), bytearray()
    while size > 0x7F:
        varint.append(size & 0x7F | 0x80)
        size >>= 7
    varint.append(size)
    proto.MergeFromString(bytes([number << 3 | 2]) + bytes(varint) + raw)
