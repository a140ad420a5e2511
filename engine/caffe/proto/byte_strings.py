"""Strings of Caffe's messages that are not UTF-8: names and paths in GBK or Latin-1, as C++ takes them.

A message in Python holds str. A byte that is no part of a valid UTF-8 sequence becomes one character of a block that
no text uses, U+10FF80 to U+10FFFF for the bytes 128 to 255, and becomes that byte again where a string leaves the
engine: in a binary file, a prototxt, a path. A valid string stays as it is.
"""

from __future__ import annotations

import os
import re
from typing import TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_BLOCK = 0x10FF00
_TO_BLOCK = {0xDC00 + byte: _BLOCK + byte for byte in range(128, 256)}  # from the surrogates of surrogateescape
_FROM_BLOCK = {place: surrogate for surrogate, place in _TO_BLOCK.items()}
_MARKS = (b"\xf4\x8f\xbe", b"\xf4\x8f\xbf")  # how a character of the block begins in UTF-8
_ESCAPED = re.compile(r"\\364\\217\\27([67])\\2([0-7][0-7])")  # such a character in a prototxt that protobuf prints


def decode(data: bytes) -> str:
    """The str that stands for `data` in a message."""
    return data.decode("utf-8", "surrogateescape").translate(_TO_BLOCK)


def encode(text: str) -> bytes:
    """The bytes that `text`, a string of a message, stands for."""
    return text.translate(_FROM_BLOCK).encode("utf-8", "surrogateescape")


def path(name: str | os.PathLike) -> str:
    """A string of a message as a path, by which the file system is given the very bytes; another path as it is.

    Raises ValueError for one with a zero byte, at which BVLC's paths end.
    """
    name = os.fspath(name)
    if "\0" in name:
        raise ValueError(f"{name!r}: expected the path of a file, found a zero byte in it; correct it")
    return name if name.isascii() else os.fsdecode(encode(name))


def from_path(name: str | os.PathLike) -> str:
    """A path as a string of a message: the reverse of `path`."""
    return decode(os.fsencode(name))


def print_bytes(prototxt: str) -> str:
    """A prototxt as protobuf prints it, with the bytes that its strings stand for, in octal."""

    def byte(found: re.Match) -> str:
        return f"\\{(0x80 if found[1] == '6' else 0xC0) + int(found[2], 8):o}"

    return _ESCAPED.sub(byte, prototxt)


def restore(message: M) -> M:
    """Put the str that stands for them where a message parsed from a binary file holds bytes; returns the message."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                if _has_strings(field.message_type):
                    restore(each)
        elif field.type == field.TYPE_STRING:
            if isinstance(value, bytes):
                setattr(message, field.name, decode(value))
            elif not isinstance(value, str):
                for index, each in enumerate(value):
                    if isinstance(each, bytes):
                        value[index] = decode(each)
    return message


def serialize(message: Message) -> bytes:
    """The binary form of a message, its strings the bytes that they stand for."""
    data = message.SerializePartialToString()
    if not any(mark in data for mark in _MARKS):
        return data
    twin = _twin(message.DESCRIPTOR).FromString(data)
    _encode_strings(twin, message.DESCRIPTOR)
    return twin.SerializePartialToString()


def _has_strings(descriptor: Descriptor) -> bool:
    """Whether a message holds a string, itself or further in: those of parameters' values do not."""
    if descriptor not in _holds_strings:
        _holds_strings[descriptor] = False  # of a message within itself the other fields decide
        _holds_strings[descriptor] = any(
            field.type == field.TYPE_STRING or (field.message_type is not None and _has_strings(field.message_type))
            for field in descriptor.fields
        )
    return _holds_strings[descriptor]


_holds_strings: dict[Descriptor, bool] = {}


def _twin(descriptor: Descriptor) -> type[Message]:
    """The message class of the same fields, the strings of type bytes."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.file.CopyToProto(file)

    def visit(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            if field.type == field.TYPE_STRING:
                field.type = field.TYPE_BYTES
        for nested in message.nested_type:
            visit(nested)

    for message in file.message_type:
        visit(message)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(descriptor.full_name))


def _encode_strings(twin: Message, descriptor: Descriptor) -> None:
    for field, value in twin.ListFields():
        original = descriptor.fields_by_name[field.name]
        if field.message_type is not None:
            if _has_strings(original.message_type):
                for each in value if hasattr(value, "add") else [value]:
                    _encode_strings(each, original.message_type)
        elif original.type == original.TYPE_STRING:
            if isinstance(value, bytes):
                setattr(twin, field.name, encode(value.decode("utf-8", "surrogateescape")))
            else:
                for index, each in enumerate(value):
                    value[index] = encode(each.decode("utf-8", "surrogateescape"))
