"""The outer fields of a binary protobuf message, by number and wire type, without a schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_DEPTH = 100  # of groups in groups, as protobuf itself limits it


class Field(NamedTuple):
    """A field of a message; its content lies at `start`, `size` bytes."""

    number: int
    wire: int
    start: int
    size: int


def fields(file: BinaryIO, size: int) -> Iterator[Field]:
    """The fields of the message that fills `file`, `size` bytes, without what is nested in them.

    Raises:
        ValueError: what follows is no field.
    """
    while file.tell() < size:
        yield _field(file, size)


def header(number: int, size: int) -> bytes:
    """What stands before the content of a field of bytes."""
    return _to_varint(number << 3 | BYTES) + _to_varint(size)


def _field(file: BinaryIO, size: int, depth: int = 0) -> Field:
    tag = _varint(file)
    number, wire = tag >> 3, tag & 7
    start = file.tell()
    if number == 0 or wire > FIXED32 or depth > _DEPTH:
        raise ValueError(f"no field at byte {start}: number {number}, wire type {wire}")
    if wire == VARINT:
        _varint(file)
    elif wire == BYTES:
        length = _varint(file)
        start = file.tell()
        file.seek(min(start + length, size))
    elif wire == GROUP:
        while (inner := _field(file, size, depth + 1)).wire != END_GROUP:
            pass
        if inner.number != number:
            raise ValueError(f"a group of number {number} at byte {start} ends as {inner.number}")
    elif wire != END_GROUP:
        file.seek(8 if wire == FIXED64 else 4, 1)
    return Field(number, wire, start, file.tell() - start)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends in a number")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number of more than 10 bytes")


def _to_varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
