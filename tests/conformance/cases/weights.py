"""Weights in and out of nets: caffemodel, HDF5, older formats, sharing."""

from __future__ import annotations

import os

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from .scenario import collector, fill, open_net, parameters
from .table import write_net
from .text import INPUT, LABEL, ip, layer, softmax_loss, source

CASES, scenario = collector()

NET = (
    'name: "weights"\n'
    + INPUT
    + LABEL
    + ip("a", "data", outputs=4)
    + ip("b", "a")
    + layer("c", "InnerProduct", "a", "c", "inner_product_param { num_output: 3 bias_term: false }")
    + layer("sum", "Eltwise", "b c", "sum")
    + softmax_loss("sum")
)
CONV = (
    source("data", 2, 3, 5, 5)
    + layer("conv", "Convolution", "data", "conv", "convolution_param { num_output: 4 kernel_size: 2 }")
    + layer("ip", "InnerProduct", "conv", "ip", "inner_product_param { num_output: 3 }")
)


def read(path):
    message = caffe_pb2.NetParameter()
    with open(path, "rb") as file:
        message.ParseFromString(file.read())
    return message


def write(path, message):
    with open(path, "wb") as file:
        file.write(message.SerializeToString())
    return path


@scenario("Weights/saved")
def saved(folder):
    net = open_net(folder, "Weights/saved", NET)
    net.forward()
    net.backward()
    path = os.path.join(folder, "saved.caffemodel")
    net.save(path)
    message = read(path)
    answer = {}
    for each in message.layer:
        for index, blob in enumerate(each.blobs):
            answer["%s[%d]" % (each.name, index)] = np.array(blob.data, np.float32).reshape(tuple(blob.shape.dim))
            answer["%s[%d] diffs" % (each.name, index)] = np.array(len(blob.diff))
            blob.ClearField("data")
    answer["text"] = np.array(text_format.MessageToString(message))
    return answer


@scenario("Weights/copied_by_name")
def copied_by_name(folder):
    net = open_net(folder, "Weights/copied_by_name", NET)
    path = os.path.join(folder, "copied.caffemodel")
    net.save(path)
    other = open_net(folder, "Weights/copied_by_name_other", INPUT + ip("new", "data") + ip("a", "data", outputs=4))
    before = parameters(other)
    other.copy_from(path)
    return {**{"before " + k: v for k, v in before.items()}, **parameters(other)}


@scenario("Weights/in_constructor")
def in_constructor(folder):
    net = open_net(folder, "Weights/in_constructor", NET)
    model, path = (
        os.path.join(folder, "Weights-in_constructor.prototxt"),
        os.path.join(folder, "constructor.caffemodel"),
    )
    net.save(path)
    answer = {}
    for name, other in (
        ("old", caffe.Net(model, path, caffe.TEST)),
        ("keyword", caffe.Net(model, caffe.TEST, weights=path)),
        ("named", caffe.Net(network_file=model, phase=caffe.TEST, level=0, stages=[], weights=path)),
    ):
        answer.update({name + " " + k: v for k, v in parameters(other).items()})
    return answer


@scenario("Weights/hdf5")
def hdf5(folder):
    net = open_net(folder, "Weights/hdf5", NET)
    path = os.path.join(folder, "weights.h5")
    net.save_hdf5(path)
    other = open_net(folder, "Weights/hdf5_other", NET)
    other.load_hdf5(path)
    third = open_net(folder, "Weights/hdf5_third", NET)
    third.copy_from(path)
    return {**parameters(other), **{"copy_from " + k: v for k, v in parameters(third).items()}}


@scenario("Weights/shared_with")
def shared_with(folder):
    net = open_net(folder, "Weights/shared_with", NET)
    other = open_net(folder, "Weights/shared_with_other", NET)
    other.share_with(net)
    net.params["a"][0].data[...] += 1
    answer = parameters(other)
    other.params["b"][1].data[...] = 9
    answer["b[1] of the first"] = net.params["b"][1].data.copy()
    return answer


@scenario("Weights/shared_params_saved")
def shared_params_saved(folder):
    text = (
        INPUT
        + ip("a", "data", more='param { name: "w" } param { name: "v" }')
        + ip("b", "a", more='param { name: "w" } param { name: "v" }')
    )
    net = open_net(folder, "Weights/shared_params_saved", text)
    path = os.path.join(folder, "shared.caffemodel")
    net.save(path)
    message = read(path)
    answer = {"blobs": np.array(["%s %d" % (each.name, len(each.blobs)) for each in message.layer])}
    other = open_net(folder, "Weights/shared_params_saved_other", text)
    other.copy_from(path)
    return {**answer, **parameters(other)}


def legacy(blob, shape, seed, double=False):
    """Fill a BlobProto as Caffe did before blobs had a shape. shape: num, channels, height, width."""
    blob.num, blob.channels, blob.height, blob.width = shape
    values = np.random.RandomState(seed).standard_normal(int(np.prod(shape)))
    (blob.double_data if double else blob.data).extend(float(value) for value in values)


@scenario("Weights/legacy_4d")
def legacy_4d(folder):
    message = caffe_pb2.NetParameter()
    for name, shapes in (("conv", ((4, 3, 2, 2), (1, 1, 1, 4))), ("ip", ((1, 1, 3, 64), (1, 1, 1, 3)))):
        each = message.layer.add()
        each.name, each.type = name, "Convolution" if name == "conv" else "InnerProduct"
        for index, shape in enumerate(shapes):
            legacy(each.blobs.add(), shape, seed=len(name) + index)
    net = open_net(folder, "Weights/legacy_4d", CONV)
    net.copy_from(write(os.path.join(folder, "legacy.caffemodel"), message))
    return parameters(net)


@scenario("Weights/version_1")
def version_1(folder):
    message = caffe_pb2.NetParameter()
    for name, kind, shapes in (
        ("conv", caffe_pb2.V1LayerParameter.CONVOLUTION, ((4, 3, 2, 2), (1, 1, 1, 4))),
        ("ip", caffe_pb2.V1LayerParameter.INNER_PRODUCT, ((1, 1, 3, 64), (1, 1, 1, 3))),
    ):
        each = message.layers.add()
        each.name, each.type = name, kind
        for index, shape in enumerate(shapes):
            legacy(each.blobs.add(), shape, seed=10 + len(name) + index, double=name == "ip")
    net = open_net(folder, "Weights/version_1", CONV)
    net.copy_from(write(os.path.join(folder, "version_1.caffemodel"), message))
    return parameters(net)


@scenario("Weights/batch_norm_v0")
def batch_norm_without_lr(folder):
    """A BatchNorm saved with param entries (an older way): the upgrade drops them; blobs load as they are."""
    text = INPUT + (
        'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" param { lr_mult: 0 decay_mult: 0 }'
        " param { lr_mult: 0 } param { lr_mult: 0 } batch_norm_param { use_global_stats: true } }\n"
    )
    net = open_net(folder, "Weights/batch_norm_v0", text, caffe.TEST)
    path = os.path.join(folder, "bn.caffemodel")
    net.save(path)
    other = open_net(folder, "Weights/batch_norm_v0_other", text, caffe.TEST)
    other.copy_from(path)
    return parameters(other)


@scenario("Weights/two_files")
def two_files(folder):
    answer = {}
    paths = []
    for name in ("a", "b"):
        net = open_net(folder, "Weights/two_files_" + name, INPUT + ip(name, "data", outputs=3))
        paths.append(os.path.join(folder, name + ".caffemodel"))
        net.save(paths[-1])
    path = write_net(folder, "Weights/two_files", INPUT + ip("a", "data") + ip("b", "a"))
    net = caffe.Net(path, caffe.TEST)
    fill(net, "Weights/two_files")
    for each in paths:
        net.copy_from(each)
    answer.update(parameters(net))
    return answer
