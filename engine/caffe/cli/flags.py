"""The flags of the `caffe` command, read as gflags reads them: one or two dashes, `=` or a space, any order."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from caffe import glog

USAGE = """caffe: command line brew
usage: caffe <command> <args>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time
"""

# flag: (type, default, what it is for)
FLAGS = {
    "gpu": (str, "", "Optional; run in GPU mode on the given device ID, or 'all' where there is one."),
    "solver": (str, "", "The solver definition protocol buffer text file."),
    "model": (str, "", "The model definition protocol buffer text file."),
    "phase": (str, "", "Optional; network phase (TRAIN or TEST). Only used for 'time'."),
    "level": (int, 0, "Optional; network level."),
    "stage": (str, "", "Optional; network stages (not to be confused with phase), separated by ','."),
    "snapshot": (str, "", "Optional; the snapshot solver state to resume training."),
    "weights": (
        str,
        "",
        "Optional; the pretrained weights to initialize finetuning, separated by ','. "
        "Cannot be set simultaneously with snapshot.",
    ),
    "iterations": (int, 50, "The number of iterations to run."),
    "sigint_effect": (
        str,
        "stop",
        "Optional; action to take when a SIGINT signal is received: snapshot, stop or none.",
    ),
    "sighup_effect": (
        str,
        "snapshot",
        "Optional; action to take when a SIGHUP signal is received: snapshot, stop or none.",
    ),
    "minloglevel": (int, 0, "Messages below this level are not logged: 0 info, 1 warning, 2 error."),
    "log_dir": (str, "", "Optional; also write the log to a file in this folder."),
}


class FlagError(ValueError):
    """A flag that does not exist or has no value of its type."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise FlagError(message)


def parse(arguments: list[str]) -> tuple[list[str], argparse.Namespace]:
    """Returns (the words that are no flags, the flags' values). Raises FlagError."""
    parser = _Parser(prog="caffe", add_help=False, allow_abbrev=False)
    for name, (kind, default, _) in FLAGS.items():
        parser.add_argument(f"-{name}", f"--{name}", type=kind, default=default)
    for name in ("help", "helpshort", "version"):
        parser.add_argument(f"-{name}", f"--{name}", action="store_true")
    # The log always goes to stderr: these two of glog's flags ask for what is done anyway.
    for name in ("logtostderr", "alsologtostderr"):
        parser.add_argument(f"-{name}", f"--{name}", nargs="?", const="1", default="1")
    values, rest = parser.parse_known_args(arguments)
    for word in rest:
        if word.startswith("-") and word != "-":
            raise FlagError(f"unknown command line flag '{word.lstrip('-').split('=')[0]}'")
    return rest, values


def help_text() -> str:
    """The usage, with every flag, its type and its default."""
    lines = [USAGE, "  Flags:"]
    for name, (kind, default, about) in FLAGS.items():
        shown = f'"{default}"' if kind is str else default
        lines.append(f"    -{name} ({about}) type: {'string' if kind is str else 'int32'} default: {shown}")
    return "\n".join(lines)


def start_logging(values: argparse.Namespace) -> None:
    """Apply minloglevel and log_dir."""
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
