"""pycaffe's calls of a net: forward and backward in part, reshape, and what a net and its blobs show of themselves."""

from __future__ import annotations

import numpy as np

from .nets import NETS
from .scenario import collector, open_net, values
from .text import INPUT, ip, layer

CASES, scenario = collector()

CHAIN = (
    "force_backward: true\n"
    + INPUT
    + ip("a", "data")
    + layer("r", "ReLU", "a", "r")
    + ip("b", "r")
    + layer("t", "TanH", "b", "t")
)


@scenario("Net/forward_from_to")
def forward_from_to(folder):
    net = open_net(folder, "Net/forward_from_to", CHAIN)
    first = net.forward(end="r")
    answer = {"first_keys": np.array(sorted(first), dtype=str), "r": first["r"].copy()}
    net.blobs["r"].data[...] += 1
    second = net.forward(start="b")
    answer["t"] = second["t"].copy()
    third = net.forward(blobs=["a", "r"])
    answer.update({"third_" + key: value.copy() for key, value in third.items()})
    return answer


@scenario("Net/forward_with_inputs")
def forward_with_inputs(folder):
    net = open_net(folder, "Net/forward_with_inputs", CHAIN)
    data = np.random.RandomState(5).standard_normal((4, 3)).astype(np.float32)
    answer = {"t": net.forward(data=data)["t"].copy()}
    everything = net.forward_all(data=np.concatenate([data, data[:3] * 2]), blobs=["a"])
    answer.update({"all_" + key: np.array(value) for key, value in everything.items()})
    return answer


@scenario("Net/backward_from_to")
def backward_from_to(folder):
    net = open_net(folder, "Net/backward_from_to", CHAIN)
    net.forward()
    net.blobs["t"].diff[...] = 1
    answer = {}
    for name, found in (
        ("all", net.backward()),
        ("with_diffs", net.backward(t=np.full((4, 3), 2, np.float32), diffs=["a"])),
        ("to", net.backward(end="b")),
        ("from", net.backward(start="r", diffs=["r"])),
    ):
        answer.update({"%s_%s" % (name, key): np.array(value) for key, value in found.items()})
    answer["accumulated"] = net.params["a"][0].diff.copy()
    net.clear_param_diffs()
    answer["cleared"] = net.params["a"][0].diff.copy()
    return answer


@scenario("Net/reshape")
def reshape(folder):
    net = open_net(folder, "Net/reshape", NETS["convnet"])
    answer = {}
    for count, size in ((3, 9), (2, 9), (5, 9)):
        net.blobs["data"].reshape(count, 2, size, size)
        net.blobs["label"].reshape(count)
        net.reshape()
        answer["shapes_%d" % count] = np.array([str(tuple(b.data.shape)) for b in net.blobs.values()], dtype=str)
        random = np.random.RandomState(count)
        net.blobs["data"].data[...] = random.standard_normal((count, 2, size, size))
        net.blobs["label"].data[...] = random.randint(0, 3, count)
        net.forward()
        net.backward()
        answer.update({"%s@%d" % (key, count): value for key, value in values(net).items()})
        net.clear_param_diffs()
    return answer


@scenario("Net/blob_attributes")
def blob_attributes(folder):
    net = open_net(folder, "Net/blob_attributes", NETS["convnet"])
    conv, ip_ = net.blobs["conv"], net.blobs["ip"]
    return {
        "legacy": np.array([conv.num, conv.channels, conv.height, conv.width, conv.count]),
        "legacy_of_two_axes": np.array([ip_.num, ip_.channels, ip_.height, ip_.width, ip_.count]),
        "shape": np.array(list(conv.shape)),
        "types": np.array([str(conv.data.dtype), str(ip_.diff.dtype)]),
        "blob_names": np.array(list(net._blob_names), dtype=str),
        "top_names": np.array(["%s %s" % (k, list(v)) for k, v in net.top_names.items()], dtype=str),
        "bottom_names": np.array(["%s %s" % (k, list(v)) for k, v in net.bottom_names.items()], dtype=str),
        "layer_dict": np.array(["%s %s" % (k, v.type) for k, v in net.layer_dict.items()], dtype=str),
        "layer_blobs": np.array([len(layer.blobs) for layer in net.layers]),
    }
