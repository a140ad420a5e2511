"""Caffe's messages and enums, under the module name that every pycaffe script imports.

They are built at run time from the shipped descriptor in a descriptor pool of their own: any protobuf from 4.22 on
works, and another copy of Caffe's schema in the same process (onnx, caffe2, an OpenCV build) cannot clash with it.

A type checker sees none of them: to it `caffe_pb2.LayerParameter` in an annotation is Any, and only the reader's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

FILE: descriptor_pb2.FileDescriptorProto
DESCRIPTOR: descriptor.FileDescriptor


def define(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Make the module's messages, enums and constants those of `file`, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name)
    names: dict[str, object] = {"FILE": file, "DESCRIPTOR": found}
    for name, message in found.message_types_by_name.items():
        names[name] = message_factory.GetMessageClass(message)
    for name, enum in found.enum_types_by_name.items():
        names[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        names.update({value.name: value.number for value in enum.values})
    names.update(_descriptors("", found.message_types_by_name, found.enum_types_by_name))
    globals().update(names)


def _descriptors(path: str, messages: dict, enums: dict) -> Iterator[tuple[str, object]]:
    """The descriptors under the names of a module that protoc generates: _LAYERPARAMETER, _PHASE, and of what is
    nested in a message _POOLINGPARAMETER_POOLMETHOD."""
    for name, each in {**messages, **enums}.items():
        yield f"{path}_{name.upper()}", each
    for name, message in messages.items():
        yield from _descriptors(f"{path}_{name.upper()}", message.nested_types_by_name, message.enum_types_by_name)


def shipped() -> descriptor_pb2.FileDescriptorProto:
    """The messages of caffe.proto, without what `forks.add` added."""
    return descriptor_pb2.FileDescriptorProto.FromString((Path(__file__).parent / "caffe.desc").read_bytes())


define(shipped())


def __getattr__(name: str) -> Any:
    raise AttributeError(f"caffe_pb2 has no message or enum {name!r}: BVLC Caffe 1.0's caffe.proto does not define it")
