"""What the tools of the command line are run on, and what BVLC's tools made of it.

    python tests/conformance/reference.py python3 tests/engine/support/cli_cases.py

in the checkout runs BVLC's tools and writes what they made to tests/engine/cli_recorded/. Runs on Python 3.9 too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

import cv2
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDED = os.path.join(os.path.dirname(HERE), "cli_recorded")

NETS = {
    "v0": """
name: "v0"
input: "data"
input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 stride: 2 blobs_lr: 1. blobs_lr: 2.
  weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0.1 }
  weight_decay: 1. weight_decay: 0. } bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.0001 beta: 0.75 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.5 } bottom: "norm1" top: "norm1" }
layers { layer { name: "fc8" type: "innerproduct" num_output: 10 biasterm: false weight_filler { type: "xavier" } }
  bottom: "norm1" top: "fc8" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc8" top: "prob" }
""",
    "v0_data": """
name: "v0_data"
layers { layer { name: "data" type: "data" source: "train_leveldb" meanfile: "mean.binaryproto" batchsize: 256
  cropsize: 227 mirror: true scale: 0.00390625 rand_skip: 3 } top: "data" top: "label" }
layers { layer { name: "im" type: "images" source: "list" batchsize: 2 new_height: 5 new_width: 6
  shuffle_images: true } top: "im" top: "l2" }
layers { layer { name: "win" type: "window_data" source: "w" batchsize: 4 det_fg_threshold: 0.5 det_bg_threshold: 0.4
  det_fg_fraction: 0.2 det_context_pad: 16 det_crop_mode: "warp" meanfile: "m" cropsize: 7 } top: "w" top: "l3" }
layers { layer { name: "c" type: "concat" concat_dim: 0 } bottom: "data" bottom: "im" top: "c" }
layers { layer { name: "s" type: "softmax_loss" } bottom: "c" bottom: "label" }
""",
    "v1": """
name: "v1"
layers { name: "data" type: DATA top: "data" top: "label" include { phase: TRAIN } data_param { source: "x"
  batch_size: 3 backend: LMDB scale: 0.5 mean_file: "m.bp" crop_size: 5 mirror: true } }
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  weight_decay: 0 param: "a" param: "b" blob_share_mode: PERMISSIVE convolution_param { num_output: 4 kernel_size: 3
  engine: CAFFE weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "e" type: EUCLIDEAN_LOSS bottom: "conv1" bottom: "label" top: "e" loss_weight: 0.25 }
layers { name: "sc" type: SIGMOID_CROSS_ENTROPY_LOSS bottom: "conv1" bottom: "label" top: "sc" }
layers { name: "h5" type: HDF5_OUTPUT bottom: "conv1" bottom: "label" hdf5_output_param { file_name: "x" } }
layers { name: "mvn" type: MVN bottom: "conv1" top: "m" mvn_param { eps: 1e-9 } }
""",
    "inputs_and_batch_norm": """
name: "bn"
input: "a" input: "b"
input_shape { dim: 1 dim: 2 dim: 3 dim: 4 }
input_shape { dim: 5 }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "bn" param { lr_mult: 1 } param { lr_mult: 0 }
  param { lr_mult: 0 decay_mult: 3 name: "q" } batch_norm_param { eps: 0.001 } }
layer { name: "w" type: "WindowData" top: "w" top: "l" window_data_param { source: "s" scale: 2 mean_file: "m"
  mirror: true crop_size: 3 } }
""",
    "new": """
name: "new"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "t\\303\\251\\"q" type: "Threshold" bottom: "data" top: "t" threshold_param { threshold: 1e10 } }
layer { name: "u" type: "Power" bottom: "t" top: "u" power_param { scale: 16777215 shift: 123456 } }
""",
}
SOLVERS = {
    "old_solver": 'net: "n.prototxt" base_lr: 0.01 solver_type: ADAGRAD momentum: 0.9 lr_policy: "fixed" max_iter: 100',
    "new_solver": 'net: "n.prototxt" base_lr: 0.01 type: "Adam" stepvalue: 10 stepvalue: 20',
}
FEATURES = """
layer { name: "data" type: "Data" top: "data" top: "label"
  data_param { source: "small" batch_size: 2 backend: LMDB } transform_param { scale: 0.00390625 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "constant" value: 0.1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "constant" value: 0.01 } } }
"""
IMAGES = ("a.png", "sub/b c.png", "g.png", "E.PNG", "noext")
# database: the flags of convert_imageset, the list, and the root folder
DATABASES = {
    "raw": "img/ list.txt",
    "encoded": "-encoded img/ named.txt",
    "encoded_grey": "--encode_type=bmp --gray img/ list.txt",
    "small": "--resize_height 4 -resize_width=5 --backend lmdb img/ list.txt",
    "one_size_only": "-nogray -resize_height 4 img/ list.txt",
}
FEATURE_COMMAND = "features.caffemodel features.prototxt conv,ip conv_features,ip_features 3 lmdb"


def write(folder):
    """The images, lists and prototxts, in `folder`."""
    random = np.random.RandomState(0)
    for name in IMAGES:
        path = os.path.join(folder, "img", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        pixels = random.randint(0, 256, (7, 9) if name == "g.png" else (7, 9, 3), dtype=np.uint8)
        with open(path, "wb") as file:
            file.write(cv2.imencode(".bmp", pixels)[1].tobytes())  # the same bytes in every OpenCV; content counts
    lines = [f"{name} {label}\n" for label, name in enumerate(IMAGES)] + ["missing.png 9\n"]
    with open(os.path.join(folder, "list.txt"), "w") as file:
        file.write("".join(lines))
    with open(os.path.join(folder, "named.txt"), "w") as file:
        file.write("".join(line for line in lines if not line.startswith("noext")))
    for name, text in dict(NETS, **SOLVERS, features=FEATURES).items():
        with open(os.path.join(folder, name + ".prototxt"), "w") as file:
            file.write(text)


def records(folder):
    """{key: value} of an LMDB."""
    import lmdb

    environment = lmdb.open(folder, readonly=True, lock=False)
    with environment.begin() as transaction:
        found = {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}
    environment.close()
    return found


def digests(folder):
    """{key: a short digest of its value}, of an LMDB."""
    return {key: hashlib.sha256(value).hexdigest()[:16] for key, value in records(folder).items()}


def features(folder, caffe_pb2):
    """{key: [shape, values]} of an LMDB that extract_features wrote."""
    found = {}
    for key, value in records(folder).items():
        datum = caffe_pb2.Datum.FromString(value)
        values = [float(f"{each:.4g}") for each in datum.float_data]
        found[key] = [[datum.channels, datum.height, datum.width], values]
    return found


def main():
    os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112
    import caffe
    from google.protobuf import text_format

    pb2 = caffe.proto.caffe_pb2
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    write(folder)
    made = {"databases": {}, "features": {}}
    for name, words in DATABASES.items():
        subprocess.check_call(["convert_imageset", *words.split(), name])
        made["databases"][name] = digests(name)
    subprocess.check_call(["compute_image_mean", "small", "mean.binaryproto"])
    with open("mean.binaryproto", "rb") as file:
        made["mean"] = hashlib.sha256(file.read()).hexdigest()[:16]
    caffe.Net("features.prototxt", caffe.TEST).save("features.caffemodel")
    subprocess.check_call(["extract_features", *FEATURE_COMMAND.split()])
    for name in ("conv_features", "ip_features"):
        made["features"][name] = features(name, pb2)
    for name in NETS:
        target = os.path.join(RECORDED, name + ".prototxt")
        subprocess.check_call(["upgrade_net_proto_text", name + ".prototxt", target])
        message = text_format.Merge(NETS[name], pb2.NetParameter())
        with open(name + ".bin", "wb") as file:
            file.write(message.SerializeToString())
        subprocess.check_call(["upgrade_net_proto_binary", name + ".bin", name + ".new"])
        with open(name + ".new", "rb") as file:
            made.setdefault("binary", {})[name] = hashlib.sha256(file.read()).hexdigest()[:16]
    for name in SOLVERS:
        target = os.path.join(RECORDED, name + ".prototxt")
        subprocess.check_call(["upgrade_solver_proto_text", name + ".prototxt", target])
    with open(os.path.join(RECORDED, "made.json"), "w") as file:
        json.dump(made, file, indent=1, sort_keys=True)
        file.write("\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
