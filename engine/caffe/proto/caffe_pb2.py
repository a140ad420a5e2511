"""Caffe's messages and enums, under the module name that every pycaffe script imports.

They are built at run time from the shipped descriptor in a descriptor pool of their own: any protobuf from 4.22 on
works, and another copy of Caffe's schema in the same process (onnx, caffe2, an OpenCV build) cannot clash with it.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

_pool = descriptor_pool.DescriptorPool()
_file_proto = descriptor_pb2.FileDescriptorProto.FromString((Path(__file__).parent / "caffe.desc").read_bytes())
_pool.Add(_file_proto)
DESCRIPTOR = _pool.FindFileByName(_file_proto.name)

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = message_factory.GetMessageClass(_message)
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = enum_type_wrapper.EnumTypeWrapper(_enum)
    globals().update({_value.name: _value.number for _value in _enum.values})


def __getattr__(name: str):
    raise AttributeError(f"caffe_pb2 has no message or enum {name!r}: BVLC Caffe 1.0's caffe.proto does not define it")
