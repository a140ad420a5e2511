"""Twenty SGD iterations of the demo's net, Python layers and LMDB with whichever `caffe` Python imports.

    python demo_net.py FOLDER OUT.npz

FOLDER holds train_val.prototxt and solver.prototxt. Started from the repository's root. OUT: each loss after each
iteration, and the weights after the last. The weights start from one seed, not from the fillers (each engine draws its
own), and the data layer's order depends on its own seed alone. Dropout, the one other thing drawn, is set to 0 in the
copy of the net that is run; the solver's copy has no test net and no snapshots.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile

os.environ.setdefault("GLOG_minloglevel", "2")
sys.path.insert(0, "python_layers")

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

ITERATIONS = 20


def copy_of(folder: str, scratch: str) -> str:
    """Write the net without dropout, and a solver for it, into scratch; the solver's path."""
    with open(os.path.join(folder, "train_val.prototxt")) as file:
        net = re.sub(r"dropout_ratio: *[\d.]+", "dropout_ratio: 0", file.read())
    path = os.path.join(scratch, "train_val.prototxt")
    with open(path, "w") as file:
        file.write(net)
    solver = caffe_pb2.SolverParameter()
    with open(os.path.join(folder, "solver.prototxt")) as file:
        text_format.Merge(file.read(), solver)
    for field in ("test_iter", "test_interval", "snapshot", "snapshot_prefix", "display", "net"):
        solver.ClearField(field)
    solver.train_net, solver.max_iter, solver.snapshot_after_train = path, ITERATIONS, False
    path = os.path.join(scratch, "solver.prototxt")
    with open(path, "w") as file:
        file.write(text_format.MessageToString(solver))
    return path


def draw_weights(net) -> None:
    """Xavier's range for weights (0.01 gaussian for the hash layer), 0 for biases, from one seed."""
    random = np.random.RandomState(1)
    for name, (weights, bias) in net.params.items():
        fan_in = int(np.prod(weights.data.shape[1:]))
        limit = np.sqrt(3.0 / fan_in)
        uniform, normal = random.uniform(-limit, limit, weights.data.shape), random.standard_normal(weights.data.shape)
        weights.data[...] = 0.01 * normal if name == "hash_layer" else uniform
        bias.data[...] = 0


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    caffe.set_mode_cpu()
    with tempfile.TemporaryDirectory() as scratch:
        solver = caffe.get_solver(copy_of(sys.argv[1], scratch))
        draw_weights(solver.net)
        answers = {"loss of " + name: [] for name in solver.net.outputs}
        for _ in range(ITERATIONS):
            solver.step(1)
            for name in solver.net.outputs:
                answers["loss of " + name].append(float(solver.net.blobs[name].data.sum()))
        for name, blobs in solver.net.params.items():
            for index, blob in enumerate(blobs):
                answers["%s[%d]" % (name, index)] = blob.data.copy()
    np.savez_compressed(sys.argv[2], **answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
