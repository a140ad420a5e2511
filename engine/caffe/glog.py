"""Log lines as BVLC Caffe's glog writes them, so that scripts that parse Caffe's logs go on working.

    I1124 02:06:29.123456  4242 solver.cpp:239] Iteration 20 (1.5 iter/s, 13.3s/20 iters), loss = 0.69

The first argument of `info` and `warning` is the source position that BVLC Caffe 1.0 prints on that line. Lines go
through the logger "caffe" of Python's logging, to stderr. GLOG_minloglevel (0 info, 1 warning, 2 error) applies. Info
lines come from the root solver only (see parallel).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

from caffe import parallel

logger = logging.getLogger("caffe")

_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1e6)
        where = getattr(record, "where", None) or f"{record.filename}:{record.lineno}"
        thread = threading.get_native_id()
        return f"{record.levelname[0]}{seconds}.{micros:06d} {thread:5d} {where}] {record.getMessage()}".rstrip("\n")


class _Stderr(logging.StreamHandler):
    """Writes to what sys.stderr is at the moment, as glog writes to file descriptor 2."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr


def _start() -> None:
    if not logger.handlers:
        handler = _Stderr()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
        logger.propagate = False
    level = os.environ.get("GLOG_minloglevel", "0")  # noqa: SIM112
    _set_level(int(level) if level.isdigit() else 0)


def _set_level(level: int) -> None:
    logger.setLevel(_LEVELS[min(max(level, 0), 3)])


_start()


def init_log(level: int | None = None, stderr: bool = True) -> None:
    """Show messages from `level` on: 0 info, 1 warning, 2 error, 3 fatal (None: as it is). They go to stderr.

    Raises:
        ValueError: stderr False, which in BVLC Caffe sends the log to files in the temporary folder.
    """
    if not stderr:
        raise ValueError("init_log: the log goes to stderr, and False asks for files: redirect stderr (2> train.log)")
    if level is not None:
        _set_level(level)


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
