"""Reading and writing prototxt, with errors that name the file and the line.

`read_net` and `read_solver` are what the rest of the engine calls: they parse, upgrade and return a current message.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from caffe.proto import byte_strings, caffe_pb2, forks, kinds, text_parser
from caffe.proto.upgrade import upgrade_net, upgrade_solver

_OWN_KINDS = {
    "NetParameter": ("a caffemodel",),
    "SolverState": ("a solverstate",),
    "BlobProto": ("a mean image (binaryproto)",),
}
M = TypeVar("M", bound=Message)


class PrototxtError(ValueError):
    """A prototxt that does not parse; the message names file, line and column."""


def parse(text: str | bytes, message: M, source: str = "<string>") -> M:
    """Parse `text` into `message` and return it; `source` is the file name that errors show.

    Strings and comments may hold bytes that are not UTF-8: see byte_strings.
    """
    data = byte_strings.encode(text) if isinstance(text, str) else text
    try:
        text_parser.parse(data, message)
    except text_parser.ParseError as error:
        where, excerpt = source, ""
        if error.offset is not None:
            line = data.count(b"\n", 0, error.offset) + 1
            begin = data.rfind(b"\n", 0, error.offset) + 1
            where = f"{source}:{line}:{error.offset - begin + 1}"
            line_text = data[begin:].partition(b"\n")[0].decode(errors="replace").strip()
            excerpt = f"\n    {_printable(line_text)}" if line_text else ""
        reason = _printable(error.reason)
        raise PrototxtError(f"{where}: not a valid {message.DESCRIPTOR.name}: {reason}{excerpt}") from None
    return message


def _printable(text: str) -> str:
    """Text of a file that may be damaged, without what moves a terminal's cursor or begins a line."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def read(path: str | Path, message: M) -> M:
    """Parse the prototxt file `path` into `message` and return it."""
    path = Path(byte_strings.path(path))
    name = message.DESCRIPTOR.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileNotFoundError(f"Cannot read {path}, expected a {name} prototxt there: {error.strerror}") from None
    try:
        return parse(data, message, str(path))
    except PrototxtError:
        expected, binary = kinds.TEXTS.get(name, ""), data.find(0)
        finding = kinds.misplaced(path, expected)
        if not finding and binary >= 0:
            finding = f"found binary data at byte {binary}; a caffemodel or solverstate goes to --weights or --snapshot"
        if not finding:
            raise
        form = expected if expected and binary < 0 else f"a {name} in text form"
        raise PrototxtError(f"{path}: expected {form}, {finding}") from None


def read_net(path: str | Path) -> caffe_pb2.NetParameter:
    """The NetParameter of a net prototxt, upgraded to the current form."""
    return upgrade_net(read(path, caffe_pb2.NetParameter()), str(path))


def read_solver(path: str | Path) -> caffe_pb2.SolverParameter:
    """The SolverParameter of a solver prototxt, upgraded to the current form."""
    return upgrade_solver(read(path, caffe_pb2.SolverParameter()), str(path))


def read_binary(path: str | Path, message: M) -> M:
    """Parse the binary protobuf file `path` (caffemodel, solverstate, binaryproto) into `message`.

    Fields that BVLC Caffe's schema does not define are kept as unknown ones.
    """
    path = Path(byte_strings.path(path))
    name = message.DESCRIPTOR.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileNotFoundError(f"Cannot read {path}, expected a binary {name} there: {error.strerror}") from None
    try:
        try:
            message.ParseFromString(data)
        except DecodeError:
            forks.parse_by_bvlc(message, data)
    except DecodeError:
        finding = kinds.misplaced(path, *_OWN_KINDS.get(name, ()))
        raise ValueError(
            f"{path}: expected a binary {name}, "
            + (
                finding
                or f"found {len(data)} bytes that do not decode as one: the file is of another kind, or truncated"
            )
        ) from None
    return byte_strings.restore(message)


def to_text(message: Message) -> str:
    """The prototxt of a message, its whole numbers and the bytes above 127 written as BVLC Caffe prints them."""

    def whole(match: re.Match) -> str:
        value = float(match[1])
        short = f"{value:.6g}"
        return ": " + (short if float(short) == value else f"{value:.8g}")

    printed = text_format.MessageToString(message, as_utf8=False)
    return re.sub(r"(?m): (-?\d+\.0)$", whole, byte_strings.print_bytes(printed))
