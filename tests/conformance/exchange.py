"""Files that Caffe writes, and what is found in them; with either `caffe`, so that one reads what the other wrote.

    python exchange.py write FOLDER [leveldb]
    python exchange.py read FOLDER OUT.npz [leveldb]

`write` fills FOLDER: images and their list, databases and a mean by the command line's tools, HDF5 by an HDF5Output
layer, and of each solver in SOLVERS, after six iterations, a caffemodel and a solverstate, binary and HDF5. It then
trains on, and keeps those losses in trained_on.npz: a solver restored by `read` must repeat them.
"""

from __future__ import annotations

import os
import subprocess
import sys

if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import caffe
import numpy as np
from caffe.proto import caffe_pb2

import fixtures

SIZE, PICTURES, BATCH = 12, 12, 4
BEFORE, MORE = 6, 5  # iterations; BEFORE reads the pictures twice, so that training on starts at the first one
NET = (
    """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mean_file: "FOLDER/mean.binaryproto"
  scale: 0.01 } data_param { source: "FOLDER/lmdb" batch_size: %d backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 5 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "scale" type: "Scale" bottom: "bn" top: "scale" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "scale" top: "relu" }
layer { name: "ip" type: "InnerProduct" bottom: "relu" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
    % BATCH
)
SOLVERS = {
    "sgd": 'type: "SGD" momentum: 0.9 weight_decay: 0.001 base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 4',
    "adam": 'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.005 lr_policy: "multistep" gamma: 0.3 stepvalue: 3',
}
FORMATS = {"BINARYPROTO": "", "HDF5": ".h5"}  # the file's ending
DATABASES = {"lmdb": ["-backend", "lmdb"], "lmdb_encoded": ["-backend", "lmdb", "-encoded", "-encode_type", "png"]}
LEVELDB = {"leveldb": ["-backend", "leveldb"]}


def file_of(folder: str, name: str, text: str) -> str:
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text.replace("FOLDER", folder))
    return path


def command(*words: str) -> None:
    """One of Caffe's commands, of the installation that runs this script."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    subprocess.run(words, check=True, env=dict(os.environ, PATH=path))


def write_databases(folder: str, databases: dict) -> None:
    lines = []
    for index, picture in enumerate(fixtures.pictures(PICTURES, (SIZE, SIZE, 3), seed=21)):
        picture[:, 4 * (index % 3) : 4 * (index % 3) + 4] |= 128
        name = "%d.png" % index
        with open(os.path.join(folder, name), "wb") as file:
            file.write(fixtures.png(picture))
        lines.append("%s %d\n" % (name, index % 3))
    listed = file_of(folder, "list.txt", "".join(lines))
    for name, flags in databases.items():
        command("convert_imageset", *flags, folder + "/", listed, os.path.join(folder, name))
    command("compute_image_mean", os.path.join(folder, "lmdb"), os.path.join(folder, "mean.binaryproto"))


def write_hdf5(folder: str) -> None:
    text = """
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "FOLDER/lmdb" batch_size: 4
  backend: LMDB } }
layer { name: "out" type: "HDF5Output" bottom: "data" bottom: "label" hdf5_output_param { file_name: "FOLDER/out.h5" } }
"""
    net = caffe.Net(file_of(folder, "hdf5_output.prototxt", text), caffe.TRAIN)
    net.forward()


def open_solver(folder: str, name: str, form: str):
    """A solver whose snapshots are NAME-FORM_iter_N.*, its weights drawn."""
    net = file_of(folder, "net.prototxt", NET)
    text = 'train_net: "%s" max_iter: 100 display: 0 solver_mode: CPU snapshot_prefix: "FOLDER/%s-%s" %s '
    text = text % (net, name, form, SOLVERS[name]) + "snapshot_format: %s\n" % form
    solver = caffe.get_solver(file_of(folder, "solver.prototxt", text))
    random = np.random.RandomState(5)
    for layer in ("conv", "scale", "ip"):
        for blob in solver.net.params[layer]:
            blob.data[...] = 0.2 * random.standard_normal(blob.data.shape)
    return solver


def losses(solver, count: int) -> np.ndarray:
    found = []
    for _ in range(count):
        solver.step(1)
        found.append(float(solver.net.blobs["loss"].data))
    return np.array(found, np.float32)


def write(folder: str, databases: dict) -> None:
    write_databases(folder, databases)
    write_hdf5(folder)
    blob = caffe.io.array_to_blobproto(np.random.RandomState(3).standard_normal((1, 3, 4, 5)))
    with open(os.path.join(folder, "array.binaryproto"), "wb") as file:
        file.write(blob.SerializeToString())
    answers = {}
    for name in SOLVERS:
        for form in FORMATS:
            solver = open_solver(folder, name, form)
            solver.step(BEFORE)
            solver.snapshot()
            answers["%s %s: losses" % (name, form)] = losses(solver, MORE)
    np.savez(os.path.join(folder, "trained_on.npz"), **answers)


def read_database(folder: str, name: str, answers: dict) -> None:
    text = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mean_file: "FOLDER/mean.binaryproto" }
  data_param { source: "FOLDER/%s" batch_size: 5 backend: %s } }
"""
    text = text % (name, "LEVELDB" if name == "leveldb" else "LMDB")
    net = caffe.Net(file_of(folder, "read.prototxt", text), caffe.TRAIN)
    for batch in range(3):
        net.forward()
        for top in ("data", "label"):
            answers["%s: %s %d" % (name, top, batch)] = net.blobs[top].data.copy()


def read_hdf5(folder: str, answers: dict) -> None:
    file_of(folder, "hdf5.txt", "FOLDER/out.h5\n")
    text = """
layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "FOLDER/hdf5.txt" batch_size: 3 } }
"""
    net = caffe.Net(file_of(folder, "read.prototxt", text), caffe.TRAIN)
    for batch in range(2):
        net.forward()
        for top in ("data", "label"):
            answers["hdf5: %s %d" % (top, batch)] = net.blobs[top].data.copy()


def read_blob(folder: str, name: str) -> np.ndarray:
    blob = caffe_pb2.BlobProto()
    with open(os.path.join(folder, name), "rb") as file:
        blob.ParseFromString(file.read())
    return caffe.io.blobproto_to_array(blob)


def read_snapshots(folder: str, answers: dict) -> None:
    for name in SOLVERS:
        for form, ending in FORMATS.items():
            key = "%s %s: " % (name, form)
            path = os.path.join(folder, "%s-%s_iter_%d" % (name, form, BEFORE))
            net = caffe.Net(os.path.join(folder, "net.prototxt"), caffe.TEST)
            net.copy_from(path + ".caffemodel" + ending)
            net.forward()
            answers[key + "ip"] = net.blobs["ip"].data.copy()
            for layer, blobs in net.params.items():
                for index, blob in enumerate(blobs):
                    answers["%s%s[%d]" % (key, layer, index)] = blob.data.copy()
            solver = open_solver(folder, name, form)
            solver.restore(path + ".solverstate" + ending)
            answers[key + "iteration"] = np.array(solver.iter)
            answers[key + "losses"] = losses(solver, MORE)


def read(folder: str, databases: dict) -> dict:
    answers: dict = {}
    for name in databases:
        read_database(folder, name, answers)
    read_hdf5(folder, answers)
    for name in ("mean.binaryproto", "array.binaryproto"):
        answers[name] = read_blob(folder, name)
    read_snapshots(folder, answers)
    return answers


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1] not in ("write", "read"):
        print(__doc__)
        return 2
    caffe.set_mode_cpu()
    databases = {**DATABASES, **LEVELDB} if sys.argv[-1] == "leveldb" else DATABASES
    folder = os.path.abspath(sys.argv[2])
    if sys.argv[1] == "write":
        write(folder, databases)
    else:
        np.savez(sys.argv[3], **read(folder, databases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
