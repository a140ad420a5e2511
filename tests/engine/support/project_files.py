"""A small project as people write them for BVLC Caffe: a data layer in Python, a net, a solver, two scripts.

`write(folder)` makes it in a folder, with 24 pictures of three classes. Nothing in it knows which `caffe` it runs on.
"""

from __future__ import annotations

import os

import cv2
import numpy as np

DATA_LAYER = """
import json
import os

import caffe
import numpy as np


class PictureLayer(caffe.Layer):
    \"\"\"Pictures and labels from a list, in an order shuffled anew each epoch.\"\"\"

    def setup(self, bottom, top):
        params = json.loads(self.param_str)
        self.batch_size, self.folder = params["batch_size"], params["folder"]
        with open(params["list"]) as lines:
            self.items = [line.split() for line in lines]
        self.random = np.random.RandomState(params["seed"])
        self.order = []
        self.transformer = caffe.io.Transformer({"data": (self.batch_size, 3, 16, 16)})
        self.transformer.set_transpose("data", (2, 0, 1))
        self.transformer.set_channel_swap("data", (2, 1, 0))
        self.transformer.set_raw_scale("data", 255)
        self.transformer.set_mean("data", np.array([104, 117, 123]))
        self.transformer.set_input_scale("data", 0.01)

    def reshape(self, bottom, top):
        top[0].reshape(self.batch_size, 3, 16, 16)
        top[1].reshape(self.batch_size)

    def forward(self, bottom, top):
        for place in range(self.batch_size):
            if not self.order:
                self.order = list(self.random.permutation(len(self.items)))
            name, label = self.items[self.order.pop()]
            picture = caffe.io.load_image(os.path.join(self.folder, name))
            top[0].data[place, ...] = self.transformer.preprocess("data", picture)
            top[1].data[place] = int(label)

    def backward(self, top, propagate_down, bottom):
        pass
"""

BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 8 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 3 } }
layer { name: "fc2" type: "InnerProduct" bottom: "pool1" top: "fc2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""

TRAIN_VAL = (
    """
name: "pictures"
layer { name: "data" type: "Python" top: "data" top: "label" include { phase: TRAIN }
  python_param { module: "picture_layer" layer: "PictureLayer"
    param_str: '{"list": "train.txt", "folder": "pictures", "batch_size": 6, "seed": 1}' } }
layer { name: "data" type: "Python" top: "data" top: "label" include { phase: TEST }
  python_param { module: "picture_layer" layer: "PictureLayer"
    param_str: '{"list": "test.txt", "folder": "pictures", "batch_size": 6, "seed": 2}' } }
"""
    + BODY
    + """
layer { name: "accuracy" type: "Accuracy" bottom: "fc2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc2" bottom: "label" top: "loss" }
"""
)

DEPLOY = (
    """
name: "pictures"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }
"""
    + BODY
    + 'layer { name: "prob" type: "Softmax" bottom: "fc2" top: "prob" }\n'
)

SOLVER = """
net: "train_val.prototxt"
test_iter: 2
test_interval: 20
base_lr: 0.05
momentum: 0.9
weight_decay: 0.0005
lr_policy: "step"
gamma: 0.1
stepsize: 50
display: 10
max_iter: 60
snapshot: 60
snapshot_prefix: "snapshots/pictures"
solver_mode: CPU
random_seed: 3
"""

TRAIN = """
import sys

sys.path.insert(0, "layers")
import caffe
import numpy as np

caffe.set_mode_cpu()
solver = caffe.get_solver("solver.prototxt")
losses, accuracies = [], []
for it in range(60):
    solver.step(1)
    losses.append(float(solver.net.blobs["loss"].data))
    if it % 20 == 19:
        solver.test_nets[0].forward()
        accuracies.append(float(solver.test_nets[0].blobs["accuracy"].data))
solver.net.save("pictures.caffemodel")
print("loss %.4f to %.4f, accuracy %.2f" % (np.mean(losses[:5]), np.mean(losses[-5:]), accuracies[-1]))
"""

PREDICT = """
import sys

import caffe
import numpy as np

classifier = caffe.Classifier(
    "deploy.prototxt",
    "pictures.caffemodel",
    image_dims=(20, 20),
    mean=np.array([104, 117, 123]),
    input_scale=0.01,
    raw_scale=255,
    channel_swap=(2, 1, 0),
)
for path in sys.argv[1:]:
    for oversample in (False, True):
        prob = classifier.predict([caffe.io.load_image(path)], oversample)
        print(path, prob[0].argmax(), "%.3f" % prob[0].max())
"""

FILES = {
    "layers/picture_layer.py": DATA_LAYER,
    "train_val.prototxt": TRAIN_VAL,
    "deploy.prototxt": DEPLOY,
    "solver.prototxt": SOLVER,
    "train.py": TRAIN,
    "predict.py": PREDICT,
}


def write(folder: str) -> None:
    """folder: an empty one."""
    for name in ("layers", "pictures", "snapshots"):
        os.mkdir(os.path.join(folder, name))
    for name, text in FILES.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text.lstrip("\n"))
    random = np.random.RandomState(0)
    lines = {"train.txt": [], "test.txt": []}
    for index in range(24):
        label = index % 3
        picture = random.randint(0, 120, (16, 16, 3)).astype(np.uint8)
        picture[:, :, label] += 120  # mostly blue, green or red
        name = f"{index:02d}.png"
        cv2.imwrite(os.path.join(folder, "pictures", name), picture)
        lines["train.txt" if index < 18 else "test.txt"].append(f"{name} {label}\n")
    for name, listed in lines.items():
        with open(os.path.join(folder, name), "w") as file:
            file.writelines(listed)


if __name__ == "__main__":
    import sys

    write(sys.argv[1])
