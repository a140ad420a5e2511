"""Command line flags, read as gflags reads them: one or two dashes, `=` or a space, any order."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from caffe import glog

TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
_KINDS = {str: "string", int: "int32", bool: "bool"}

# flag: (type, default, what it is for)
Table = Mapping[str, tuple[type, object, str]]

# what every command has
COMMON: Table = {
    "minloglevel": (int, 0, "Messages below this level are not logged: 0 info, 1 warning, 2 error."),
    "log_dir": (str, "", "Optional; also write the log to a file in this folder."),
    "proto": (str, "", "Optional; a fork's caffe.proto, whose own messages and fields are added."),
}
# The log always goes to stderr: these of glog's flags ask for what is done anyway.
_ALWAYS: Table = dict.fromkeys(("logtostderr", "alsologtostderr"), (bool, True, ""))
_HELP: Table = dict.fromkeys(("help", "helpshort", "version"), (bool, False, ""))


class FlagError(ValueError):
    """A flag that does not exist or has no value of its type."""


@dataclass(frozen=True)
class Flags:
    """The flags of one command, beside the COMMON ones."""

    usage: str
    table: Table = field(default_factory=dict)

    def parse(self, arguments: list[str]) -> tuple[list[str], SimpleNamespace]:
        """Returns (the words that are no flags, the flags' values). Raises FlagError."""
        known = {**self.table, **COMMON, **_ALWAYS, **_HELP}
        values = SimpleNamespace(**{name: default for name, (_, default, _) in known.items()})
        words, rest = [], list(arguments)
        while rest:
            word = rest.pop(0)
            if word == "--":
                words += rest
                break
            if not word.startswith("-") or word == "-":
                words.append(word)
                continue
            name, given, text = word.removeprefix("-").removeprefix("-").partition("=")
            negated = name not in known and name.removeprefix("no") in known and name.startswith("no")
            if negated and known[name.removeprefix("no")][0] is bool and not given:
                name, given, text = name.removeprefix("no"), "=", "false"
            if name not in known:
                raise FlagError(f"unknown command line flag '{name}'")
            kind = known[name][0]
            if not given and kind is bool:
                text = "true"
            elif not given:
                if not rest:
                    raise FlagError(f"flag '{word}' is missing its argument")
                text = rest.pop(0)
            setattr(values, name, _value(name, kind, text))
        return words, values

    def help_text(self) -> str:
        """The usage, with every flag, its type and its default."""
        lines = [self.usage, "  Flags:"]
        for name, (kind, default, about) in {**self.table, **COMMON}.items():
            shown = f'"{default}"' if kind is str else str(default).lower()
            lines.append(f"    -{name} ({about}) type: {_KINDS[kind]} default: {shown}")
        return "\n".join(lines)


def _value(name: str, kind: type, text: str):
    try:
        if kind is bool:
            return (*TRUE, *FALSE).index(text.lower()) < len(TRUE)
        return kind(text)
    except ValueError:
        raise FlagError(f"illegal value '{text}' specified for {_KINDS[kind]} flag '{name}'") from None


def start(values: SimpleNamespace) -> None:
    """Apply minloglevel, log_dir and proto."""
    if values.minloglevel:
        glog.logger.setLevel(
            (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)[min(values.minloglevel, 3)]
        )
    if values.log_dir:
        folder = Path(values.log_dir)
        if not folder.is_dir():
            raise FlagError(f"-log_dir: expected an existing folder, found {values.log_dir!r}")
        handler = logging.FileHandler(folder / "caffe.INFO")
        handler.setFormatter(glog.logger.handlers[0].formatter)
        glog.logger.addHandler(handler)
        print(f"Log file: {folder / 'caffe.INFO'}", file=sys.stderr)
    if values.proto:
        from caffe.proto import forks

        forks.add(values.proto)


def run(
    flags: Flags,
    action: Callable[[list[str], SimpleNamespace], int | None],
    arguments: list[str] | None = None,
    source: str = "caffe.cpp:83",
) -> int:
    """Parse the command line and do `action(words, values)`; returns the exit status.

    An error that the engine raised is shown as one line of the log, from `source`, and gives status 1; an exception
    of a user's own layer is raised as it is.
    """
    try:
        words, values = flags.parse(sys.argv[1:] if arguments is None else arguments)
    except FlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    if values.version:
        print("caffe version 1.0.0")
        return 0
    if values.help or values.helpshort:
        print(flags.help_text())
        return 1
    try:
        start(values)
        return action(words, values) or 0
    except FlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        if not ours(error):
            raise
        glog.error(source, str(error))
        return 1


def ours(error: Exception) -> bool:
    """Whether the engine raised it, with a sentence made for the reader; a user's layer gets its traceback shown."""
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    return Path(frame.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parents[1])
