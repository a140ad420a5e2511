"""Cases that both caffes answer: names, Classifier, Detector, coord_map, draw. BVLC Caffe's answers are in recorded/.

python tests/conformance/reference.py python3 tests/engine/support/pycaffe_cases.py     # records them again
"""
# ruff: noqa: B905, C408, UP031  (Python 3.9; nets are written with dict() and filled in with %)

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import tempfile
import types

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDED = os.path.join(os.path.dirname(HERE), "recorded")

# -- names

MODULES = ("caffe", "caffe.io", "caffe.draw", "caffe.detector", "caffe.classifier", "caffe.coord_map", "caffe.net_spec",
           "caffe.pycaffe", "caffe._caffe")  # fmt: skip
SOLVERS = ("SGDSolver", "NesterovSolver", "AdaGradSolver", "RMSPropSolver", "AdaDeltaSolver", "AdamSolver")

# What scripts use of a Net although it begins with an underscore.
USED = ("_backward", "_batch", "_blob_loss_weights", "_blob_names", "_blobs", "_bottom_ids", "_forward", "_inputs",
        "_layer_names", "_outputs", "_set_input_arrays", "_top_ids")  # fmt: skip


def own(name, value):
    """Whether a module's name is Caffe's: neither private nor imported from elsewhere."""
    if inspect.ismodule(value):
        return value.__name__.startswith("caffe.")
    module = getattr(value, "__module__", None) or "caffe"  # compiled functions and constants have none
    return module.split(".")[0] in ("caffe", "Boost") and not name.startswith("_")


def public(kind):
    return sorted(name for name in dir(kind) if not name.startswith("_") or name in USED)


def names(objects, keep):
    """{module or class: its names}. objects: instances, whose attributes count too, by class name.

    keep: which of a module's names count.
    """
    found = {}
    for path in MODULES:
        module = importlib.import_module(path)
        found[path] = sorted(name for name in dir(module) if keep(name, getattr(module, name)))
    for name, value in objects.items():
        found[name] = public(value)
    return found


def instances(caffe, folder):
    """An object of each class that scripts use."""
    net, weights = small_net(caffe, folder)
    solver_file = os.path.join(folder, "solver.prototxt")
    with open(solver_file, "w") as file:
        file.write('net: "%s" base_lr: 0.1 lr_policy: "fixed" snapshot_prefix: "%s"\n' % (net, folder))
    found = {name: getattr(caffe, name)(write_solver(folder, name)) for name in SOLVERS}
    made = caffe.Net(net, caffe.TEST)
    return dict(
        found,
        Net=made,
        Blob=made.blobs["data"],
        BlobVec=made.layers[1].blobs,
        Layer=made.layers[1],
        Classifier=caffe.Classifier(net, weights),
        Detector=caffe.Detector(net, weights),
        Timer=caffe.Timer(),
        NCCL=caffe.NCCL,
        NetSpec=caffe.NetSpec(),
        Transformer=caffe.io.Transformer({"data": (1, 3, 4, 4)}),
        Top=caffe.layers.Input(),
        Function=caffe.layers.Input().fn,
    )


def write_solver(folder, name):
    path = os.path.join(folder, name + ".prototxt")
    with open(path, "w") as file:
        file.write('net: "%s" base_lr: 0.1 lr_policy: "fixed"\n' % os.path.join(folder, "small.prototxt"))
        file.write('snapshot_prefix: "%s" snapshot_after_train: false type: "%s"\n' % (folder, name[:-6]))
    return path


# -- Classifier and Detector

NET = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 5 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 6 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def small_net(caffe, folder):
    """(prototxt, caffemodel) of a small net with drawn weights."""
    prototxt, weights = (os.path.join(folder, "small." + end) for end in ("prototxt", "caffemodel"))
    with open(prototxt, "w") as file:
        file.write(NET)
    net, random = caffe.Net(prototxt, caffe.TEST), np.random.RandomState(7)
    for name in ("conv", "ip"):
        for blob in net.params[name]:
            blob.data[...] = random.normal(size=blob.data.shape) * 0.3
    net.save(weights)
    return prototxt, weights


def images(count=3, seed=11):
    random = np.random.RandomState(seed)
    return [random.uniform(size=(13 + 4 * i, 17 - 2 * i, 3)).astype(np.float32) for i in range(count)]


def preprocessing(dims=(9, 9)):
    random = np.random.RandomState(5)
    return {
        "plain": {},
        "channels": dict(mean=np.array([0.4, 0.5, 0.3]), channel_swap=(2, 1, 0), input_scale=2.0),
        "pixels": dict(mean=random.uniform(90, 130, (3, *dims)), raw_scale=255.0, channel_swap=(2, 0, 1),
                       input_scale=0.02),
    }  # fmt: skip


def classifier_answers(caffe, folder):
    net = small_net(caffe, folder)
    answers = {}
    for name, options in preprocessing().items():
        for dims in (None, (12, 15), [13, 9]):
            classifier = caffe.Classifier(*net, image_dims=dims, **options)
            for oversample in (True, False):
                key = "%s/%s/%s" % (name, "x".join(map(str, dims or ["input"])), "ten" if oversample else "centre")
                answers[key] = classifier.predict(images(), oversample)
    classifier = caffe.Classifier(*net, (10, 10), np.array([0.1, 0.2, 0.3]), 0.5, 3.0, (1, 0, 2))
    answers["by_position"] = classifier.predict([images()[0]], False)
    answers["dims"] = np.array([*classifier.crop_dims, *classifier.image_dims])
    return answers


WINDOWS = [[2, 3, 11, 12], [0, 0, 5, 16], [6, 9, 13, 17], [1, 1, 4, 3]]


def detector_answers(caffe, folder, png):
    net = small_net(caffe, folder)
    random = np.random.RandomState(3)
    files = []
    for index, shape in enumerate(((14, 18, 3), (16, 17, 3))):
        files.append(os.path.join(folder, "image%d.png" % index))
        with open(files[-1], "wb") as file:
            file.write(png(random.randint(0, 256, shape).astype(np.uint8)))
    windows = [np.array(window) for window in WINDOWS]
    answers = {}
    for name, options in preprocessing().items():
        for context in (None, 1, 2):
            detector = caffe.Detector(*net, context_pad=context, **options)
            found = detector.detect_windows(list(zip(files, (windows, windows[:2]))))
            key = "%s/%s/" % (name, context)
            assert [os.path.basename(one["filename"]) for one in found] == ["image0.png"] * 4 + ["image1.png"] * 2
            assert [list(one["window"]) for one in found] == WINDOWS + WINDOWS[:2]
            answers[key + "prediction"] = np.array([one["prediction"] for one in found])
            image = caffe.io.load_image(files[0])
            for index, window in enumerate(windows):
                answers[key + "crop%d" % index] = np.asarray(detector.crop(image, window), np.float32)
            answers[key + "crop_dims"] = np.array(detector.crop_dims)
    return answers


# -- coord_map


def coord_maps(caffe):
    """{case: [axis, scale, shift] or the error's class}, as pycaffe's own tests and FCN's nets use them."""
    from caffe import coord_map as maps

    L = caffe.layers

    def conv(bottom, **options):
        return L.Convolution(bottom, num_output=2, **options)

    def deconv(bottom, **options):
        return L.Deconvolution(bottom, convolution_param=dict(num_output=2, **options))

    data = L.Input(shape=dict(dim=[2, 1, 30, 40]))
    conv1 = conv(data, kernel_size=5, pad=2, stride=1)
    pool1 = L.Pooling(L.ReLU(conv1, in_place=True), kernel_size=2, stride=2)
    down = conv(pool1, kernel_size=3, pad=10, dilation=2)
    up = deconv(down, kernel_size=4, stride=2)
    cases = {
        "conv": (data, conv1),
        "conv_back": (conv1, data),
        "pool": (data, pool1),
        "chain": (data, down),
        "up": (up, data),
        "up_from_data": (data, up),
        "siblings": (up, conv1),
        "pointwise": (data, L.TanH(data)),
        "padded": (conv(data, kernel_size=[3, 5], pad=[100, 50], stride=[2, 1]), data),
        "im2col": (L.Im2col(data, convolution_param=dict(kernel_size=3, stride=2, pad=1)), data),
        "eltwise": (L.Eltwise(conv1, conv(data, kernel_size=1)), data),
        "crop": (data, L.Crop(conv(data, kernel_size=3, pad=6), data, crop_param=dict(axis=2, offset=[3, 4]))),
        "other_axis": (data, conv(conv(data, kernel_size=3, axis=2), kernel_size=3)),
        "axis": (data, conv(L.ReLU(conv(data, kernel_size=3, axis=2)), kernel_size=3, axis=2)),
        "inner_product": (data, L.InnerProduct(data, num_output=3)),
        "apart": (data, L.Input()),
        "no_kernel": (data, conv(data)),
        "legacy": (data, conv(data, kernel_size=3, pad_h=1)),
    }

    def crop(top_from, top_to):
        made = maps.crop(top_from, top_to).fn
        return [made.type_name, made.params["crop_param"]["axis"], list(map(int, made.params["crop_param"]["offset"]))]

    crops = {
        "crop_up": (up, data),
        "crop_offset": (conv(data, kernel_size=3, pad=[3, 5]), data),
        "crop_scale": (pool1, data),
        "crop_negative": (conv(data, kernel_size=3, pad=0), data),
        "crop_fraction": (conv(data, kernel_size=4, pad=3), data),
    }
    answers = {name: _answer(_numbers, maps.coord_map_from_to, *tops) for name, tops in cases.items()}
    answers.update({name: _answer(list, crop, *tops) for name, tops in crops.items()})
    return answers


def _answer(convert, call, *arguments):
    try:
        return convert(call(*arguments))
    except Exception as error:
        return type(error).__name__


def _numbers(found):
    axis, scale, shift = found
    return [axis, *(np.array(value, float).ravel().tolist() for value in (scale, shift))]


# -- draw

DRAWN = """name: "drawn"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param { batch_size: 3 } }
layer { name: "test" type: "Data" top: "data" top: "label" include { phase: TEST } data_param { batch_size: 7 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "conv1x1" type: "Deconvolution" bottom: "conv" top: "conv1x1" convolution_param { num_output: 4 } }
layer { name: "relu" type: "ReLU" bottom: "conv1x1" top: "conv1x1" }
layer { name: "pool" type: "Pooling" bottom: "conv1x1" top: "pool" pooling_param { pool: AVE kernel_size: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" exclude { phase: TEST } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" param { lr_mult: 0 }
        inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def fake_pydot():
    """A module with the part of pydot that caffe.draw uses, which notes what it is told."""

    class Node:
        def __init__(self, name, **style):
            self.name, self.style = name, style

    class Edge:
        def __init__(self, source, target, label):
            self.told = [source.name, target.name, label]

    class Dot:
        def __init__(self, name, **options):
            self.told = {"name": name, "options": options, "nodes": [], "edges": []}

        def add_node(self, node):
            self.told["nodes"].append([node.name, node.style])

        def add_edge(self, edge):
            self.told["edges"].append(edge.told)

    module = types.ModuleType("pydot")
    module.Node, module.Edge, module.Dot = Node, Edge, Dot
    return module


def drawings(caffe):
    from caffe import draw
    from google.protobuf import text_format

    net = text_format.Parse(DRAWN, caffe.proto.caffe_pb2.NetParameter())
    calls = {
        "all": dict(rankdir="LR"),
        "train": dict(rankdir="TB", phase=caffe.TRAIN, display_lrm=True),
        "test": dict(rankdir="BT", phase=caffe.TEST, label_edges=False),
    }
    answers = {name: draw.get_pydot_graph(net, **options).told for name, options in calls.items()}
    answers["pooling"] = {str(number): name for number, name in draw.get_pooling_types_dict().items()}
    answers["colors"] = {name: draw.choose_color_by_layertype(name) for name in ("Pooling", "InnerProduct", "Slice")}
    answers["lr"] = [_answer(list, draw.get_layer_lr_mult, layer) for layer in net.layer]
    return answers


# -- recording


def repair_pycaffe():
    """What Debian's numpy, scikit-image and Python 3 have broken in pycaffe: nothing that changes a number."""
    import data_cases

    data_cases.repair_imread()
    import caffe.detector

    class WholeNumbers:
        """numpy, but clip gives whole numbers, which numpy now wants as the window's borders."""

        def __getattr__(self, name):
            return getattr(np, name)

        def clip(self, *arguments):
            return np.clip(*arguments).astype(int)

    caffe.detector.np = WholeNumbers()


def main():
    sys.path.insert(0, HERE)
    sys.modules["pydot"] = fake_pydot()
    import caffe
    import data_cases

    with tempfile.TemporaryDirectory() as folder:
        found = names(instances(caffe, folder), own)
        repair_pycaffe()
        arrays = {"classifier/" + name: answer for name, answer in classifier_answers(caffe, folder).items()}
        for name, answer in detector_answers(caffe, folder, data_cases.png).items():
            arrays["detector/" + name] = answer
    np.savez_compressed(os.path.join(RECORDED, "pycaffe.npz"), **arrays)
    answers = {"names": found, "coord_map": coord_maps(caffe), "draw": drawings(caffe)}
    with open(os.path.join(RECORDED, "pycaffe.json"), "w") as file:
        json.dump(answers, file, indent=1, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
