"""Refusing: an action that BVLC answers with a failed check, and the message of it that the engine's keeps words of.

BVLC aborts the process where the engine raises, so in the reference each case runs in a forked child. A case's answer
is which of its words were found in the message; the message itself is answered as a note, which is not compared. The
note begins with the file and line of BVLC's check, from which `checks.py` counts.
"""

from __future__ import annotations

import linecache
import os
import re
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass

import caffe
import numpy as np

from .scenario import open_net
from .table import Answer, write_net
from .text import INPUT, ip

ABORTS = str(getattr(getattr(caffe, "_caffe", None), "__file__", "")).endswith(".so")
RAISED = "raised"  # stands for the check's place where BVLC raised an exception
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECONDS = 60  # for one action in the reference


def aborted(action: Callable[[str], object], folder: str) -> str:
    """ "file.cpp:line] message" of the check that failed in an action. AssertionError when none did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        os.dup2(writing, 2)
        status = 1
        try:
            action(folder)
        except Exception as error:
            os.write(2, ("F %s] %s" % (RAISED, error)).encode())
            status = 3
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 3:
        raise AssertionError("not refused")
    fatal = re.search(r"^F(?:\S+ \S+ +\d+)? (\S+)\] (.*?)(?:\*\*\* Check failure|\Z)", text, re.S | re.M)
    if not fatal:
        raise AssertionError("no check failed: %s" % text.strip())
    parser = re.findall(r"^\[libprotobuf ERROR [^\]]*\] (.*)$", text, re.M)
    return "%s] %s" % (fatal.group(1), " ".join([*parser, fatal.group(2).strip()]))


def message_of(action: Callable[[str], object], folder: str) -> str:
    """What an action was refused with. AssertionError when it was not, or when the engine did not say so itself."""
    if ABORTS:
        return aborted(action, folder)
    try:
        action(folder)
    except Exception as error:
        if not said_on_purpose(error):
            raise AssertionError("not a refusal of the engine's: %r" % error) from error
        return str(error)
    raise AssertionError("not refused")


class Told(Exception):
    """What a command said."""


def said_on_purpose(error: Exception) -> bool:
    """Whether the engine raised it itself, or a command or the case did; what torch raises in it is a crash."""
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    file = frame.tb_frame.f_code.co_filename
    engine = os.path.dirname(os.path.dirname(caffe.__file__))
    if file.startswith(tuple(os.path.join(engine, package, "") for package in ("caffe", "atomic_writes"))):
        return linecache.getline(file, frame.tb_lineno).strip().startswith("raise ")
    return file.startswith(HERE) and isinstance(error, (ValueError, TypeError, Told))


@dataclass
class Refusal:
    """name: "Refusal/what". words: parts of BVLC's message that a person searches for; asked of the engine's too.

    accepted: why the engine does what BVLC refuses, where it does: the action must succeed then, and words be empty.
    """

    name: str
    words: tuple
    action: Callable[[str], object]
    accepted: str = ""

    def run(self, folder: str) -> Answer:
        if self.accepted and not ABORTS:
            self.action(folder)
            return {"words": np.array([], dtype=str)}
        message = message_of(self.action, folder)
        kept = [word for word in self.words if word.lower() in message.lower()]
        if ABORTS and len(kept) < len(self.words):
            raise AssertionError("the reference's message does not have all of %s: %s" % (self.words, message))
        return {"words": np.array(kept, dtype=str), "note": np.array(message.replace(folder, "DATA"))}


def build(text):
    return lambda folder: caffe.Net(write_net(folder, "refused", text.replace("DATA", folder)), caffe.TRAIN)


def run(text, use):
    """An action that builds a net and uses it."""
    return lambda folder: use(open_net(folder, "refused", text), folder)


def weights_of(text, use):
    """An action that saves a net's weights and hands their file to another net, whose "a" has 3 outputs."""

    def action(folder):
        path = os.path.join(folder, "refused.caffemodel")
        open_net(folder, "refused_saved", text).save(path)
        return use(open_net(folder, "refused", INPUT + ip("a", "data")), path)

    return action
