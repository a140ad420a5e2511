"""Compile caffe.proto into caffe.desc, the serialized FileDescriptorProto that caffe_pb2 builds its messages from.

Run after an edit of caffe.proto: `python -m caffe.proto.generate` (needs grpcio-tools, which carries protoc).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def compile_descriptor() -> bytes:
    """The serialized FileDescriptorProto of caffe.proto."""
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.desc"
        status = protoc.main(["protoc", f"-I{HERE}", f"--descriptor_set_out={out}", "caffe.proto"])
        if status:
            raise RuntimeError(f"protoc refused {HERE / 'caffe.proto'}; its message stands above")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return files.file[0].SerializeToString(deterministic=True)


if __name__ == "__main__":
    (HERE / "caffe.desc").write_bytes(compile_descriptor())
