"""Log lines as BVLC Caffe's glog writes them, so that scripts that parse Caffe's logs go on working.

    I1124 02:06:29.123456  4242 solver.cpp:239] Iteration 20 (1.5 iter/s, 13.3s/20 iters), loss = 0.69

The first argument of `info` and `warning` is the source position that BVLC Caffe 1.0 prints on that line. Lines go
through the logger "caffe" of Python's logging. Info lines come from the root solver only (see parallel).

Where they go, as with glog: to stderr, until a program begins its log with `start` (each command does) or `init_log`;
from then on to files too (see log_files), and to stderr what stderrthreshold, alsologtostderr and logtostderr say. The
environment sets each flag of FLAGS: GLOG_logtostderr=1, GLOG_log_dir=log, GLOG_minloglevel=2.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any, TextIO

from caffe import parallel
from caffe.log_files import LogFiles

logger = logging.getLogger("caffe")

_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_COLORS = {logging.WARNING: "\033[0;33m", logging.ERROR: "\033[0;31m"}

# glog's flags: (type, default, what it is for). The last group is taken because scripts give it: the engine has no
# VLOG lines, keeps no line in memory, mails nothing and shows a Python traceback where glog has a stack trace.
FLAGS: dict[str, tuple[type, Any, str]] = {
    "minloglevel": (int, 0, "Messages logged at a lower level than this don't get logged: 0 info, 1 warning, 2 error"),
    "logtostderr": (bool, False, "Log to stderr instead of to files"),
    "alsologtostderr": (bool, False, "Log to stderr in addition to files"),
    "stderrthreshold": (int, 2, "Messages at or above this level are copied to stderr in addition to files"),
    "log_dir": (str, "", "Log files go into this folder instead of $TEST_TMPDIR, $TMPDIR, $TMP or /tmp"),
    "log_link": (str, "", "Put additional links to the log files in this folder"),
    "log_prefix": (bool, True, "Begin each line with its level, time, thread and source position"),
    "logfile_mode": (int, 0o664, "Log file permissions"),
    "max_log_size": (int, 1800, "Begin a new log file at this size, in MB"),
    "stop_logging_if_full_disk": (bool, False, "Stop writing a log file when the disk is full"),
    "colorlogtostderr": (bool, False, "Color messages on stderr, where it is a terminal"),
    "logbuflevel": (int, 0, "Lines up to this level may wait in a buffer; here none does"),
    "logbufsecs": (int, 30, "Lines wait at most this many seconds; here none does"),
    "drop_log_memory": (bool, True, "Written lines leave the memory; here they always do"),
    "v": (int, 0, "Show VLOG messages up to this level; there are none"),
    "vmodule": (str, "", "As -v, for some modules"),
    "log_backtrace_at": (str, "", "Stack trace at file:line; the engine raises Python exceptions instead"),
    "symbolize_stacktrace": (bool, True, "Names in stack traces; Python's always have them"),
    "alsologtoemail": (str, "", "Mail the log to these addresses; the engine mails nothing and warns"),
    "logemaillevel": (int, 999, "Mail messages at or above this level; the engine mails nothing and warns"),
    "logmailer": (str, "/bin/mail", "Program that mails"),
}  # fmt: skip


def environment() -> dict[str, Any]:
    """The flags that GLOG_<flag> sets, read as glog does: a bool by its first letter, a number up to its last digit."""
    values: dict[str, Any] = {}
    for name, (kind, _, _) in FLAGS.items():
        text = os.environ.get(f"GLOG_{name}")
        if text is None:
            continue
        if kind is bool:
            values[name] = text[:1] in ("", "t", "T", "y", "Y", "1")
        elif kind is int:
            digits = re.match(r"\s*[-+]?\d+", text)
            values[name] = int(digits[0]) if digits else 0
        else:
            values[name] = text
    return values


def defaults() -> dict[str, Any]:
    """Each flag's value: the environment's, or glog's own."""
    return {**{name: default for name, (_, default, _) in FLAGS.items()}, **environment()}


# what moves a terminal's cursor or begins a line, in the name of a damaged file say
_CONTROL = dict.fromkeys(
    {*range(32), *range(127, 160), 0x2028, 0x2029} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)


class _Formatter(logging.Formatter):
    def __init__(self, prefix: bool):
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().rstrip("\n")
        if not message.isprintable():
            message = message.translate(_CONTROL)
        if not self._prefix:
            return message
        seconds = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1e6)
        where = getattr(record, "where", None) or f"{record.filename}:{record.lineno}"
        thread = threading.get_native_id()
        return f"{record.levelname[0]}{seconds}.{micros:06d} {thread:5d} {where}] {message}"


class _Handler(logging.StreamHandler):
    """Writes lines to what sys.stderr is at the moment, as glog writes to file descriptor 2, and to the log files."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.configure(defaults(), None)

    def configure(self, flags: dict[str, Any], program: str | None) -> None:
        """Log by `flags`. program: whose log begins; None before one does, when every line goes to stderr."""
        self.close_files()
        self._flags = SimpleNamespace(**flags)
        self._plain = _Formatter(self._flags.log_prefix)  # without color
        self.setFormatter(self._plain)
        self._files = LogFiles(program, self._flags) if program is not None and not self._flags.logtostderr else None
        all_lines = self._files is None or self._flags.alsologtostderr
        self._threshold = logging.INFO if all_lines else _LEVELS[min(max(self._flags.stderrthreshold, 0), 3)]

    def close_files(self) -> None:
        files = getattr(self, "_files", None)
        if files is not None:
            files.close()

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if self._flags.colorlogtostderr and record.levelno in _COLORS and sys.stderr.isatty():
            return f"{_COLORS[record.levelno]}{line}\033[m"
        return line

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= self._threshold:
            super().emit(record)
        if self._files is not None:
            severity = sum(record.levelno >= level for level in _LEVELS[1:3])
            self._files.write(severity, self._plain.format(record))


_handler = _Handler()


def _configure(flags: dict[str, Any], program: str | None) -> None:
    _handler.configure(flags, program)
    logger.setLevel(_LEVELS[min(max(flags["minloglevel"], 0), 3)])


if not logger.handlers:
    logger.addHandler(_handler)
    logger.propagate = False
_configure(defaults(), None)


def start(program: str, flags: dict[str, Any]) -> None:
    """Begin a program's log, as glog's InitGoogleLogging(program). flags: those of FLAGS to set, over `defaults`."""
    chosen = {**defaults(), **flags}
    _configure(chosen, program)
    if chosen["alsologtoemail"] or chosen["logemaillevel"] <= 3:
        warning("logging.cc", "alsologtoemail, logemaillevel: the engine mails no log; read its files")


def stop() -> None:
    """End a program's log: close its files; every line goes to stderr again."""
    _configure(defaults(), None)


def init_log(level: int | None = None, stderr: bool | None = None) -> None:
    """Begin the log, as BVLC's init_log(), init_log(level) and init_log(level, stderr).

    level: show messages from it on: 0 info, 1 warning, 2 error (None: as GLOG_minloglevel says).
    stderr: True, to stderr alone; False, to files (see log_files; those of pycaffe begin with a dot), and errors to
        stderr too; None, as GLOG_logtostderr says, files without it.
    """
    chosen = {"minloglevel": level, "logtostderr": None if stderr is None else bool(stderr)}
    start("", {name: value for name, value in chosen.items() if value is not None})


def log(message: str) -> None:
    """Write a message of one's own into the log."""
    logger.info("%s", message, extra={"where": "_caffe.cpp:68"})


def info(where: str, message: str) -> None:
    """Log `message` as from BVLC's source position `where` ("net.cpp:131")."""
    if parallel.is_root():
        logger.info("%s", message, extra={"where": where})


def warning(where: str, message: str) -> None:
    """Log a warning as from BVLC's source position `where`."""
    logger.warning("%s", message, extra={"where": where})


def error(where: str, message: str) -> None:
    """Log an error as from BVLC's source position `where`."""
    logger.error("%s", message, extra={"where": where})


def enabled() -> bool:
    """Whether info lines are shown: skip preparing long ones where they are not."""
    return parallel.is_root() and logger.isEnabledFor(logging.INFO)
