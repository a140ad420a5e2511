"""Command line flags, read as gflags reads them: one or two dashes, `=` or a space, any order."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from atomic_writes import ending

from caffe import errors, glog

TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
_KINDS = {str: "string", int: "int32", bool: "bool"}

# flag: (type, default, what it is for)
Table = Mapping[str, tuple[type, Any, str]]

_PROTO: Table = {"proto": (str, "", "Optional; a fork's caffe.proto, whose own messages and fields are added.")}
# gflags' own
_GFLAGS: Table = {
    "flagfile": (str, "", "Load flags from these files, -flag=value a line; flags of other programs are passed over"),
    "fromenv": (str, "", "Set these flags from the environment: FLAGS_name=value"),
    "tryfromenv": (str, "", "The same, for those of them that are there"),
    "undefok": (str, "", "Names of flags that may be given though there is no such flag"),
    "help": (bool, False, "Show all flags"),
    "helpfull": (bool, False, "The same"),
    "helppackage": (bool, False, "The same"),
    "helpshort": (bool, False, "Show this command's own flags"),
    "version": (bool, False, "Show the version and exit"),
}


class UsageError(ValueError):
    """Flags that do not go together, or one that is missing."""


class FlagError(ValueError):
    """A flag that does not exist or has no value of its type."""


@dataclass(frozen=True)
class Flags:
    """The flags of one command, `program`, next to those that every command has: glog's, gflags' and -proto."""

    program: str
    usage: str
    table: Table = field(default_factory=dict)

    @property
    def known(self) -> Table:
        """Every flag of the command."""
        return {**self.table, **_PROTO, **glog.FLAGS, **_GFLAGS}

    def parse(self, arguments: list[str]) -> tuple[list[str], SimpleNamespace]:
        """Returns (the words that are no flags, the flags' values). Raises FlagError."""
        values = {name: default for name, (_, default, _) in self.known.items()}
        # as BVLC's tools, which set it before they read the command line
        values.update(glog.defaults(), alsologtostderr=True)
        unknown: list[str] = []
        words = self._read(list(arguments), values, unknown)
        for name in unknown:
            if name not in values["undefok"].split(","):
                raise FlagError(f"unknown command line flag '{name}'")
        return words, SimpleNamespace(**values)

    def _read(self, rest: list[str], values: dict[str, Any], unknown: list[str]) -> list[str]:
        """Set `values` from the words of a command line; returns those that are no flags."""
        known = self.known
        words: list[str] = []
        while rest:
            word = rest.pop(0)
            if word == "--":
                return words + rest
            if not word.startswith("-") or word == "-":
                words.append(word)
                continue
            name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
            negated = name.removeprefix("no")
            if name not in known and name != negated and not equals and known.get(negated, (str,))[0] is bool:
                name, equals, text = negated, "=", "false"
            if name not in known:
                unknown.append(name)
                continue
            kind = known[name][0]
            if not equals and kind is bool:
                text = "true"
            elif not equals:
                if not rest:
                    raise FlagError(f"flag '{word}' is missing its argument")
                text = rest.pop(0)
            values[name] = _value(name, kind, text)
            if name == "flagfile":
                for path in filter(None, text.split(",")):
                    self._read(_file_flags(path), values, [])
            elif name in ("fromenv", "tryfromenv"):
                self._read(_from_environment(text, name == "fromenv"), values, unknown)
        return words

    def help_text(self, everything: bool = False) -> str:
        """The usage and the command's own flags, with types and defaults; `everything`: glog's and gflags' too."""
        lines = [self.usage, "  Flags:", *_describe({**self.table, **_PROTO})]
        if everything:
            lines += ["  Flags of the log (GLOG_<flag> in the environment sets them too):", *_describe(glog.FLAGS)]
            lines += ["  Flags about flags:", *_describe(_GFLAGS)]
        return "\n".join(lines)


def _describe(table: Table) -> list[str]:
    lines = []
    for name, (kind, default, about) in table.items():
        text = f'"{default}"' if kind is str else str(default).lower()
        lines.append(f"    -{name} ({about}) type: {_KINDS[kind]} default: {text}")
    return lines


def _file_flags(path: str) -> list[str]:
    """The flags in a file of -flagfile."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise FlagError(f"-flagfile: cannot read {path}: {error.strerror}") from None
    return [line.strip() for line in lines if line.strip().startswith("-")]


def _from_environment(names: str, required: bool) -> list[str]:
    """-flag=value of each of the flags that FLAGS_flag in the environment sets."""
    words = []
    for name in filter(None, names.split(",")):
        text = os.environ.get(f"FLAGS_{name}")
        if text is not None:
            words.append(f"-{name}={text}")
        elif required:
            raise FlagError(f"FLAGS_{name} not found in environment")
    return words


def _value(name: str, kind: type, text: str) -> bool | int | str:
    try:
        if kind is bool:
            return (*TRUE, *FALSE).index(text.lower()) < len(TRUE)
        if kind is int:
            number = int(text, 16 if text[:2].lower() == "0x" else 10)
            if not -(2**31) <= number < 2**31:
                raise ValueError
            return number
        return text
    except ValueError:
        raise FlagError(f"illegal value '{text}' specified for {_KINDS[kind]} flag '{name}'") from None


def _program(command: str) -> str:
    """The name that was called, where it is the command's own (caffe.bin), as glog names its files by."""
    called = os.path.basename(sys.argv[0])
    return called if called.startswith(command) and not called.endswith(".py") else command


def run(
    flags: Flags,
    action: Callable[[list[str], SimpleNamespace], int | None],
    arguments: list[str] | None = None,
    source: str = "caffe.cpp:83",
    alone: bool = True,
) -> int:
    """Parse the command line and do `action(words, values)`; returns the exit status.

    alone: not one of several processes, which end each other.
    An error is shown as one line of the log, from `source`, and gives status 1; of one in a user's own layer, the
    traceback stands before it. A mistake of the engine's is raised as it is.
    """

    def command() -> int:
        return _run(flags, action, arguments, source)

    if alone:
        return ending.run(command, flags.program)
    ending.restore()
    return command()


def _run(
    flags: Flags, action: Callable[[list[str], SimpleNamespace], int | None], arguments: list[str] | None, source: str
) -> int:
    try:
        words, values = flags.parse(sys.argv[1:] if arguments is None else arguments)
    except FlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    if values.version:
        print("caffe version 1.0.0")
        return 0
    if values.helpshort or values.help or values.helpfull or values.helppackage:
        print(flags.help_text(not values.helpshort))
        return 1
    glog.start(_program(flags.program), {name: getattr(values, name) for name in glog.FLAGS})
    try:
        if values.proto:
            from caffe.proto import forks

            forks.add(values.proto)
        return action(words, values) or 0
    except FlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        message = errors.of_command(error, sys.argv[1:] if arguments is None else arguments)
        if message is None:
            raise
        if hasattr(error, "caffe_layer"):
            traceback.print_exc()
        glog.error(source, message)
        return 1
    finally:
        glog.stop()
