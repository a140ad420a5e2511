"""`upgrade_net_proto_text`, `upgrade_net_proto_binary`, `upgrade_solver_proto_text`: old files in the current form.

Each takes the file to read and the file to write. A file in the current form is written as it is, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from google.protobuf.message import Message

from caffe import glog
from caffe.atomic_files import check_folder, write_atomic
from caffe.cli.flags import Flags, run
from caffe.proto import byte_strings, caffe_pb2, text
from caffe.proto.upgrade import net_needs_upgrade, upgrade_net_fully, upgrade_solver_type

Needed = Callable[[Message], bool]
Upgrade = Callable[[Message, str], bool | Message]


def _solver_needs_upgrade(param: caffe_pb2.SolverParameter) -> bool:
    return param.HasField("solver_type")


def _command(name: str, words: list[str], kind: type[Message], binary: bool, needed: Needed, upgrade: Upgrade) -> int:
    """Read words[0], upgrade it where `needed`, write it to words[1]; returns the exit status."""
    form, line = ("binary", 48) if binary else ("text", 49)
    if len(words) != 2:
        old = "old_solver_proto_file_in solver_proto_file_out"
        nets = "v0_net_proto_file_in net_proto_file_out"
        glog.error(f"{name}.cpp:22", f"Usage: {name} {old if kind is caffe_pb2.SolverParameter else nets}")
        return 1
    status = 0
    source, target = words
    noun = kind.__name__
    try:
        message = text.read_binary(source, kind()) if binary else text.read(source, kind())
    except ValueError as error:
        print(error, file=sys.stderr)
        glog.error(f"{name}.cpp:30", f"Failed to parse input {form} file as {noun}: {source}")
        return 2
    if needed(message):
        if upgrade(message, source) is False:
            glog.error(f"{name}.cpp:39", "Encountered error(s) while upgrading prototxt; see details above.")
            status = 1
    else:
        glog.error(f"{name}.cpp:43", f"File already in latest proto format: {source}")
    written = byte_strings.serialize(message) if binary else text.to_text(message).encode()
    check_folder(target)
    write_atomic(target, written)
    glog.info(f"{name}.cpp:{line}", f"Wrote upgraded {noun} {form} proto to {target}")
    return status


def _run(
    name: str, arguments: list[str] | None, kind: type[Message], binary: bool, needed: Needed, upgrade: Upgrade
) -> int:
    flags = Flags(name, f"{name}: write an old file in the current form.\nUsage:\n    {name} FILE_IN FILE_OUT\n")
    return run(
        flags, lambda words, values: _command(name, words, kind, binary, needed, upgrade), arguments, f"{name}.cpp:30"
    )


def net_text(arguments: list[str] | None = None) -> int:
    """Run `upgrade_net_proto_text`; returns the exit status."""
    return _run(
        "upgrade_net_proto_text", arguments, caffe_pb2.NetParameter, False, net_needs_upgrade, upgrade_net_fully
    )


def net_binary(arguments: list[str] | None = None) -> int:
    """Run `upgrade_net_proto_binary`; returns the exit status."""
    return _run(
        "upgrade_net_proto_binary", arguments, caffe_pb2.NetParameter, True, net_needs_upgrade, upgrade_net_fully
    )


def solver_text(arguments: list[str] | None = None) -> int:
    """Run `upgrade_solver_proto_text`; returns the exit status."""
    return _run(
        "upgrade_solver_proto_text", arguments, caffe_pb2.SolverParameter, False, _solver_needs_upgrade,
        upgrade_solver_type,
    )  # fmt: skip
