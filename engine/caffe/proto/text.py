"""Reading and writing prototxt, with errors that name the file and the line.

`read_net` and `read_solver` are what the rest of the engine calls: they parse, upgrade and return a current message.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from caffe.proto import caffe_pb2, kinds

_OWN_KINDS = {
    "NetParameter": ("a caffemodel",),
    "SolverState": ("a solverstate",),
    "BlobProto": ("a mean image (binaryproto)",),
}
M = TypeVar("M", bound=Message)


class PrototxtError(ValueError):
    """A prototxt that does not parse; the message names file, line and column."""


def parse(text: str, message: M, source: str = "<string>") -> M:
    """Parse `text` into `message` and return it; `source` is the file name that errors show."""
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        reason = str(error).split(" : ", 1)[-1] if line is not None else str(error)
        where = f"{source}:{line}:{column}" if line is not None else source
        shown = ""
        lines = text.splitlines()
        if line is not None and 0 < line <= len(lines):
            shown = f"\n    {lines[line - 1].strip()}"
        from caffe.proto import forks

        told = f"{reason}{forks.explain(reason)}"
        raise PrototxtError(f"{where}: not a valid {message.DESCRIPTOR.name}: {told}{shown}") from None


def read(path: str | Path, message: M) -> M:
    """Parse the prototxt file `path` into `message` and return it."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileNotFoundError(
            f"Cannot read {path}, expected a {message.DESCRIPTOR.name} prototxt there: {error.strerror}"
        ) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = kinds.misplaced(path) or (
            f"found binary data at byte {error.start}; "
            "a caffemodel or solverstate goes to --weights or --snapshot"
        )
        raise PrototxtError(f"{path}: expected a {message.DESCRIPTOR.name} in text form, {found}") from None
    try:
        return parse(text, message, str(path))
    except PrototxtError:
        wanted = kinds.TEXTS.get(message.DESCRIPTOR.name)
        found = kinds.misplaced(path, wanted) if wanted else ""
        if not found:
            raise
        raise PrototxtError(f"{path}: expected {wanted}, {found}") from None


def read_net(path: str | Path) -> caffe_pb2.NetParameter:
    """The NetParameter of a net prototxt, upgraded to the current form."""
    from caffe.proto.upgrade import upgrade_net

    return upgrade_net(read(path, caffe_pb2.NetParameter()), str(path))


def read_solver(path: str | Path) -> caffe_pb2.SolverParameter:
    """The SolverParameter of a solver prototxt, upgraded to the current form."""
    from caffe.proto.upgrade import upgrade_solver

    return upgrade_solver(read(path, caffe_pb2.SolverParameter()), str(path))


def read_binary(path: str | Path, message: M) -> M:
    """Parse the binary protobuf file `path` (caffemodel, solverstate, binaryproto) into `message`."""
    path = Path(path)
    name = message.DESCRIPTOR.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileNotFoundError(f"Cannot read {path}, expected a binary {name} there: {error.strerror}") from None
    try:
        message.ParseFromString(data)
    except DecodeError:
        found = "" if kinds.kind(path) in _OWN_KINDS.get(name, ()) else kinds.misplaced(path)
        raise ValueError(
            f"{path}: expected a binary {name}, "
            + (found or f"found {len(data)} bytes that do not decode as one: the file is of another kind, or truncated")
        ) from None
    return message


def to_text(message: Message) -> str:
    """The prototxt of a message, its whole numbers and its bytes above 127 written as BVLC Caffe prints them."""

    def whole(found: re.Match) -> str:
        value = float(found[1])
        short = f"{value:.6g}"
        return ": " + (short if float(short) == value else f"{value:.8g}")

    return re.sub(r"(?m): (-?\d+\.0)$", whole, text_format.MessageToString(message, as_utf8=False))
