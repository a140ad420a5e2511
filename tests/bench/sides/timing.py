"""A sample: what the command `caffe time` says a forward and backward take, the one beside this Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile

import batch_nets

AVERAGE = re.compile(r"Average Forward-Backward: ([0-9.e+]+) ms")


def with_data(net):
    """`net` with ones in place of its Input layers' pictures: of zeros a power, as in LRN, takes less time."""
    for layer in net.layer:
        if layer.type == "Input":
            layer.type = "DummyData"
            layer.dummy_data_param.shape.extend(layer.input_param.shape)
            layer.dummy_data_param.data_filler.add(type="constant", value="label" not in layer.top)
            layer.ClearField("input_param")
    return net


def setup(folder: str, net: str, batch: int, iterations: int):
    """`seconds` is the command's own mean over `iterations`, after one that it does not count."""
    path = os.path.join(tempfile.mkdtemp(dir=folder), "train.prototxt")
    with open(path, "w") as file:
        file.write(str(with_data(batch_nets.message(net, batch))))
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    command = [shutil.which("caffe", path=beside), "time", "-model", path, "-iterations", str(iterations)]
    said = {**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}

    def sample():
        answer = subprocess.run(command, env=said, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        log = answer.stderr.decode(errors="replace")
        found = AVERAGE.search(log)
        if answer.returncode or not found:
            raise RuntimeError("%s: %s" % (" ".join(command), log.strip().splitlines()[-1:]))
        return {"seconds": float(found.group(1)) / 1000}

    return sample
