"""A sample: a Python that imports caffe; or `caffe train` on LeNet, from its start to its first iteration's line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import batch_nets


def setup(folder: str, what: str):
    """what: "import" or "train". Raises RuntimeError when a command ends early."""
    if what == "import":
        command, line = [sys.executable, "-c", "import caffe, sys; sys.stderr.write('imported')"], "imported"
    else:
        program = os.path.join(os.path.dirname(sys.executable), "caffe")
        command = [program, "train", "-solver", batch_nets.write_solver(folder, "lenet", 64, display=1)]
        line = "] Iteration 0 "

    variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    variables["GLOG_minloglevel"] = "0"

    def first_line():
        start = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, universal_newlines=True, env=variables)
        try:
            for said in process.stderr:
                if line in said:
                    return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
        raise RuntimeError("%s ended without a line with %r" % (" ".join(command), line))

    def sample():
        seconds = first_line()
        return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}

    sample()
    return sample
