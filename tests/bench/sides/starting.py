"""A sample: a Python that imports something; `caffe train` on LeNet to its first iteration's line; a tool's start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import numpy as np

import batch_nets

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools")
IMPORTS = {"import": "import caffe", "net": "import caffe; caffe.Net", "torch": "import torch"}


def setup(folder: str, what: str):
    """what: of IMPORTS; `train`; `tools`: processor time of the slowest start of those that need no torch, `numpy`: of
    its import; `score`: the first call of score_map. Raises RuntimeError when a command ends early or fails."""
    if what in IMPORTS:
        command, line = [sys.executable, "-c", IMPORTS[what] + "; import sys; sys.stderr.write('done')"], "done"
    elif what == "train":
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

    def slowest_tool():
        score = ["score_map.py", *score_files(folder), "--json"]
        starts = (["create_lmdb.py", "--help"], ["get_data.py", "--help"], ["score_map.py", "--help"], score)
        return max(processor_seconds([os.path.join(TOOLS, words[0]), *words[1:]], variables) for words in starts)

    def first_score():
        start = time.perf_counter()
        processor_seconds([os.path.join(TOOLS, "score_map.py"), *score_files(folder), "--json"], variables)
        return time.perf_counter() - start

    def numpy_alone():
        return processor_seconds(["-c", "import numpy"], variables)

    measured = {"tools": slowest_tool, "score": first_score, "numpy": numpy_alone}.get(what, first_line)

    def sample():
        seconds = measured()
        return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}

    sample()
    return sample


def score_files(folder: str) -> list[str]:
    """The arguments of score_map: small files of codes, drawn by the first who asks."""
    words = []
    for side, items in (("query", 50), ("database", 500)):
        path = os.path.join(folder, "start_%s.npz" % side)
        if not os.path.exists(path):
            random = np.random.RandomState(items)
            np.savez(path, codes=random.standard_normal((items, 48)).astype(np.float32),
                     labels=(np.arange(items)[:, None] % 10 == np.arange(10)).astype(np.uint8))  # fmt: skip
        words += ["--" + side, path]
    return words


def processor_seconds(words: list[str], variables: dict) -> float:
    """What Python takes of the processor for a command line."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError("%s: %s" % (" ".join(words), done.stderr.decode(errors="replace").strip()))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
