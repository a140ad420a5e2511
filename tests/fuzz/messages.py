"""Other values in the fields of a message: of means, datums, caffemodels, solverstates and nets in binary form.

The file stays a message of its type, whose lengths are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

_TYPES = (caffe_pb2.BlobProto, caffe_pb2.Datum, caffe_pb2.SolverState, caffe_pb2.NetParameter)
_WHOLE = (0, 1, -1, 2, 3, 255, 65536, (1 << 31) - 1, -(1 << 31), (1 << 32) - 1, (1 << 63) - 1, -(1 << 63))
_REAL = (0.0, -0.0, 0.5, -1.0, 1e30, -1e30, 1e-45, float("nan"), float("inf"))
_TEXTS = ("", "x", "a\0b", "a\nb", "/", ".", "a" * 300, "\ue000")
_BYTES = (b"", b"x", b"\0" * 300)
_FIRST = 3  # elements of a repeated field that are changed one by one
_ONLY_SET = ("NetParameter", "LayerParameter")  # of which the fields that are not set are left alone: they are too many


def others(content: bytes) -> Iterator[bytes]:
    """The messages that differ from the file's in one field; nothing where it holds no message."""
    known: dict[int, Message] = {}  # bytes in fields that the type has
    for kind in _TYPES:
        message = kind()
        try:
            message.ParseFromString(content)
        except DecodeError:
            continue
        message.DiscardUnknownFields()
        known[message.ByteSize()] = kind.FromString(content)
    if max(known, default=0):
        message = known[max(known)]
        yield from _changed(message, message)


def _changed(whole: Message, part: Message) -> Iterator[bytes]:
    """The whole message with one field of a part of it changed."""

    def with_(change: Callable[[], object]) -> bytes | None:
        before = part.SerializeToString()
        try:
            change()
            return whole.SerializeToString()
        except (ValueError, TypeError, DecodeError):  # not of the field's type
            return None
        finally:
            part.ParseFromString(before)

    for field in part.DESCRIPTOR.fields:
        present = bool(getattr(part, field.name)) if field.is_repeated else part.HasField(field.name)
        if not present and part.DESCRIPTOR.name in _ONLY_SET:
            continue
        for change in _changes(part, field):
            if (changed := with_(change)) is not None:
                yield changed
    for field, value in part.ListFields():
        if field.message_type is not None:
            for inner in list(value)[:_FIRST] if field.is_repeated else [value]:
                yield from _changed(whole, inner)


def _changes(part: Message, field: FieldDescriptor) -> Iterator[Callable[[], object]]:
    """What may become of a field."""
    name, values = field.name, _values(field)
    yield lambda: part.ClearField(name)
    if not field.is_repeated:
        if field.message_type is not None:
            yield lambda: getattr(part, name).Clear()
            yield lambda: getattr(part, name).SetInParent()
        for value in values:
            yield lambda value=value: setattr(part, name, value)
        if field.type == FieldDescriptor.TYPE_BYTES:
            good = getattr(part, name)
            for new in (good[:-1], good + b"x", good + good):
                yield lambda new=new: setattr(part, name, new)
        return

    def elements() -> Any:  # those of now: the part is parsed again after each change
        return getattr(part, name)

    count = len(elements())
    if count:
        yield lambda: elements().pop()
        yield lambda: elements().append(elements()[0])
        yield lambda: elements().extend(list(elements()))
    if field.message_type is not None:
        yield lambda: elements().add()
        return
    for value in values:
        yield lambda value=value: elements().append(value)
        for place in range(min(count, _FIRST)):
            yield lambda value=value, place=place: elements().__setitem__(place, value)


def _values(field: FieldDescriptor) -> tuple[Any, ...]:
    if field.message_type is not None:
        return ()
    if field.enum_type is not None:
        return tuple(value.number for value in field.enum_type.values)
    by_type = {
        FieldDescriptor.CPPTYPE_BOOL: (False, True), FieldDescriptor.CPPTYPE_FLOAT: _REAL,
        FieldDescriptor.CPPTYPE_DOUBLE: _REAL,
        FieldDescriptor.CPPTYPE_STRING: _TEXTS if field.type == FieldDescriptor.TYPE_STRING else _BYTES,
    }  # fmt: skip
    return by_type.get(field.cpp_type, _WHOLE)
