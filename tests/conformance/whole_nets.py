"""Whole nets that people train with Caffe, written with NetSpec, and what they answer; for either `caffe`.

    python whole_nets.py NET OUT [REFERENCE]

From weights and inputs drawn from the net's name: forward, backward and five SGD updates of a small net, forward of a
large one, into OUT/free.npz; five updates of a large one in OUT/layers.npz (see `layer_by_layer`), REFERENCE being the
folder that the reference filled.
The inputs have their full size, but for `fcn8s` (224x224, channels divided by four); a batch is 2, of the large nets 1.
Dropout, which each engine draws for itself, has ratio 0.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zlib

if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import caffe
import numpy as np

from example_nets import autoencoder, cifar10_full, lenet, lstm, siamese
from large_nets import alexnet, caffenet, fcn8s, googlenet, resnet50

# net: (its function, base_lr)
SMALL = {
    "lenet": (lenet, 0.01),
    "cifar10_full": (cifar10_full, 0.01),
    "siamese": (siamese, 0.001),
    "autoencoder": (autoencoder, 0.0001),
    "lstm": (lstm, 0.1),
}
LARGE = {
    "caffenet": (caffenet, 0.001),
    "alexnet": (alexnet, 0.001),
    "googlenet": (googlenet, 0.001),
    "resnet50": (resnet50, 1e-3),
    "fcn8s": (fcn8s, 1e-7),
}
NETS = {**SMALL, **LARGE}
UPDATES = 5
WHOLE = 1 << 20  # a blob of more values is compared by its norms and by this many samples, evenly spaced
SOLVER = (
    'train_net: "%s" base_lr: %g lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 max_iter: %d '
    "display: 0 solver_mode: CPU snapshot_after_train: false"
)


def text(name: str, in_place: bool = True) -> str:
    """The net's prototxt with dropout_ratio 0. in_place False: a layer in place gets a top of its own, of its name."""
    spec = caffe.NetSpec()
    NETS[name][0](spec)
    net = spec.to_proto()
    renamed: dict = {}
    for layer in net.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
        if not in_place:
            same = list(layer.bottom) == list(layer.top)
            layer.bottom[:] = [renamed.get(bottom, bottom) for bottom in layer.bottom]
            if same:
                renamed[layer.top[0]] = layer.name
                layer.top[0] = layer.name
    return 'name: "%s"\n%s' % (name, net)


def draws_of(name: str) -> np.random.RandomState:
    """What the net's weights and inputs are drawn from."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def draw_weights(net, random: np.random.RandomState) -> None:
    """He's normal for weights (a tenth of it for scores), small biases; scales near 1; BatchNorm keeps its zeros.

    The scale that ends a residual branch is near 0.2, as training such nets begins: with 1 each block amplifies
    rounding, and BVLC's fiftieth layer differs from itself by 1e-4 if the input does by one unit in the last place.
    """
    kinds = {name: layer.type for name, layer in zip(net._layer_names, net.layers)}
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            shape = blob.data.shape
            values = random.standard_normal(shape).astype(np.float32)
            if kinds[name] == "BatchNorm":
                continue
            if len(shape) == 1:
                blob.data[...] = 0.05 * values
                if kinds[name] == "Scale" and index == 0:
                    blob.data[...] += 0.2 if name.endswith("branch2c") else 1
            else:
                blob.data[...] = np.sqrt(2.0 / np.prod(shape[1:])) * values * (0.1 if "score" in name else 1)


def draw_inputs(net, random: np.random.RandomState) -> None:
    """Normal pictures; `label` and `words` below the number of classes, `pair` and `cont` 0 or 1, `unit` in 0 to 1."""
    for index, layer in enumerate(net.layers):
        for top in net._top_ids(index) if layer.type == "Input" else ():
            name = list(net._blob_names)[top]
            blob = net.blobs[name]
            shape = blob.data.shape
            if name in ("label", "words"):
                blob.data[...] = random.randint(0, classes_of(net), shape)
            elif name == "pair":
                blob.data[...] = random.randint(0, 2, shape)
            elif name == "cont":
                blob.data[...] = random.rand(*shape) > 0.2
                blob.data[0] = 0
            elif name == "unit":
                blob.data[...] = random.rand(*shape)
            else:
                blob.data[...] = random.standard_normal(shape)


def classes_of(net) -> int:
    """The channels of the blob `score`, which every net with labels has; the last axis of the LSTM's."""
    shape = net.blobs["score"].data.shape
    return shape[-1] if len(shape) == 3 else shape[1]


def seen(array: np.ndarray, most: int) -> np.ndarray:
    """The array; of one with more than `most` values its largest magnitude, mean magnitude, norm and `most` samples."""
    if array.size <= most:
        return array.copy()
    flat = array.ravel()
    magnitudes = np.abs(flat).astype(np.float64)
    largest = magnitudes.max()
    norms = [largest, magnitudes.mean(), np.sqrt(np.mean(magnitudes**2))]
    return np.concatenate([np.array(norms, np.float32), flat[np.linspace(0, flat.size - 1, most).astype(int)]])


def data_of(net) -> list:
    return [(name, blob.data) for name, blob in net.blobs.items()]


def diffs_of(net) -> list:
    """[(name, array)]: each blob's diff and each parameter's."""
    found = [(name + ".diff", blob.diff) for name, blob in net.blobs.items()]
    for name, blobs in net.params.items():
        found += [("%s[%d].diff" % (name, index), blob.diff) for index, blob in enumerate(blobs)]
    return found


def weights_of(net) -> list:
    return [
        ("%s[%d]" % (name, index), blob.data) for name, blobs in net.params.items() for index, blob in enumerate(blobs)
    ]


def open_solver(name: str, folder: str, in_place: bool):
    model, path = (os.path.join(folder, name + end) for end in ("_net.prototxt", "_solver.prototxt"))
    for each, content in ((model, text(name, in_place)), (path, SOLVER % (model, NETS[name][1], UPDATES))):
        with open(each, "w") as file:
            file.write(content)
    return caffe.get_solver(path)


def free(name: str, folder: str, most: int = WHOLE) -> dict:
    """What forward gives; of a small net the diffs too, and ("after updates ...") all that and the losses of updates.

    folder: where net and solver are written. most: see `seen`.
    """
    random = draws_of(name)
    solver = open_solver(name, folder, in_place=True)
    net = solver.net
    draw_weights(net, random)
    draw_inputs(net, random)
    net.forward()
    if name in LARGE:
        return {key: seen(array, most) for key, array in data_of(net)}
    net.backward()
    answers = {key: seen(array, most) for key, array in data_of(net) + diffs_of(net)}
    losses = []
    for _ in range(UPDATES):
        draw_inputs(net, random)
        solver.step(1)
        losses.append([float(net.blobs[output].data.sum()) for output in net.outputs])
    answers["after updates: losses"] = np.array(losses, np.float32)
    for key, array in data_of(net) + diffs_of(net) + weights_of(net):
        answers["after updates: " + key] = seen(array, most)
    return answers


def layer_by_layer(name: str, folder: str, given) -> dict:
    """Updates in which each layer's forward is fed what the reference's layers before it gave; backward is free.

    given: the reference's answer, None in the reference itself. So both engines differentiate at the same points: a
    ReLU or a maximum whose two sides are a rounding apart cannot send a gradient two ways. Where they go on freely it
    does: by 8 % of CaffeNet's values after five updates, between netlib's BLAS and OpenBLAS under the same BVLC Caffe.
    """
    random = draws_of(name)
    solver = open_solver(name, folder, in_place=False)
    net = solver.net
    draw_weights(net, random)
    names, answers = list(net._blob_names), {}
    for number in range(1, UPDATES + 1):
        draw_inputs(net, random)
        net.clear_param_diffs()
        for index in range(len(net.layers)):
            net._forward(index, index)
            for top in (names[top] for top in net._top_ids(index)):
                key, blob = "update %d: %s" % (number, top), net.blobs[top]
                answers[key] = blob.data.copy()
                if given is not None:
                    fed = given[key]
                    if blob.data.shape != fed.shape:
                        raise ValueError("%s: shape %s, the reference's is %s" % (key, blob.data.shape, fed.shape))
                    blob.data[...] = fed
        net.backward()
        shown = [(key, seen(array, WHOLE)) for key, array in diffs_of(net)]
        solver.apply_update()
        shown += [(key, seen(array, WHOLE)) for key, array in weights_of(net)]
        answers.update(("update %d: %s" % (number, key), array) for key, array in shown)
    return answers


def main() -> int:
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in NETS:
        print(__doc__)
        return 2
    name, out = sys.argv[1:3]
    caffe.set_mode_cpu()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(os.path.join(out, "free.npz"), **free(name, folder))
        if name in LARGE:
            given = np.load(os.path.join(sys.argv[3], "layers.npz"), allow_pickle=False) if len(sys.argv) > 3 else None
            np.savez(os.path.join(out, "layers.npz"), **layer_by_layer(name, folder, given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
