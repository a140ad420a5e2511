"""One side of a row as a process that takes a sample whenever it is told to, on BVLC Caffe or on the engine.

    python sampling.py TASK OPTIONS

TASK: a module beside this file. Its `setup(**options)` does everything that is not measured and gives a function; a
call of that is one sample. It may return figures (a dict) that join the sample's: `seconds`, by default the time of
the whole call, and `peak`, by default the greatest memory this process has held so far, in bytes. `others` is the share
of the machine's cores that was busy meanwhile with something else: what the sample is worth.
OPTIONS: JSON. A line on stdin asks for a sample; the answer is a line of JSON, the first after `setup`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def peak_memory() -> int:
    """The most memory this process has held, in bytes (VmHWM: what it held before an exec does not count)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def processor_seconds() -> tuple[float, float]:
    """(what all cores have spent, with what a hypervisor took away; what this process and its children have)."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, interrupts, soft, stolen = (int(word) for word in file.readline().split()[1:9])
    spent = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return spent, sum(os.times()[:4])


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    task, options = sys.argv[1:]
    sample = importlib.import_module(task).setup(**json.loads(options))
    print(json.dumps({"process": os.getpid()}), file=answers)
    for _ in sys.stdin:
        spent, own = processor_seconds()
        start = time.perf_counter()
        figures = sample() or {}
        seconds = time.perf_counter() - start
        now_spent, now_own = processor_seconds()
        others = (now_spent - spent - (now_own - own)) / (seconds * os.cpu_count())
        figures["others"] = min(1.0, max(0.0, others))
        figures.setdefault("seconds", seconds)
        figures.setdefault("peak", peak_memory())
        print(json.dumps(figures), file=answers)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    sys.dont_write_bytecode = True
    sys.exit(main())
