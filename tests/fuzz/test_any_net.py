"""Nets that nobody would write: each layer with bottoms of any shape, and with anything about it changed.

A result, or one sentence that names the layer, is what is expected: no error of torch's, numpy's or Python's.
"""

import itertools
import random
from collections.abc import Callable, Iterator

import caffe
import fuzz
import good_nets
import pytest
from caffe import errors
from caffe.proto import caffe_pb2, text

SHAPES = [(), (0,), (1,), (3,), (2, 3), (2, 0), (2, 3, 8, 8), (0, 3, 8, 8), (1,) * 33]
MORE_SHAPES = [(2, 3, 4), (1, 1, 1, 1), (2, 3, 4, 5, 6), (2, 1), (2, 8)]
TRIPLES, CHANGED = 40, 150  # how many are drawn of a layer of three bottoms; of a net's changes
TYPES = [name for name in caffe.layer_type_list() if name != "HDF5Output"]  # which would write files
NETS = {
    name: text.parse(source, caffe_pb2.NetParameter())
    for name, source in good_nets.NETS.items()
    if name not in ("old", "oldest", "output", "shared")  # of old forms; with files
}


def answer(net: caffe_pb2.NetParameter) -> str | None:
    """The sentence on a net that cannot be computed; None for one that can."""
    try:
        made = caffe.Net(net, caffe.TRAIN)
        made.forward()
        made.backward()
    except Exception as error:
        said = errors.sentence(error)
        if said is None:
            raise
        assert "layer" in said or "net" in said or "blob" in said, said
        assert not fuzz.MISTAKE.search(said), said
        return said
    return None


def layers(net: caffe_pb2.NetParameter) -> Iterator[caffe_pb2.LayerParameter]:
    """Its layers that have bottoms, each with bottoms b0, b1 ... and without the rest of the net."""
    for layer in net.layer:
        if layer.bottom and layer.type != "HDF5Output":
            alone = caffe_pb2.LayerParameter()
            alone.CopyFrom(layer)
            if len(layer.top) == 1 and layer.top[0] in layer.bottom:
                alone.top[0] = "b0"
            alone.bottom[:] = [f"b{number}" for number in range(len(layer.bottom))]
            yield alone


@pytest.mark.parametrize("name", NETS)
def test_bottoms_of_any_shape(name):
    rng, computed = random.Random(name), 0
    for layer in layers(NETS[name]):
        count = len(layer.bottom)
        shapes = itertools.product([*SHAPES, *MORE_SHAPES] if count == 1 else SHAPES, repeat=count)
        chosen = list(shapes) if count < 3 else [rng.choices(SHAPES, k=count) for _ in range(TRIPLES)]
        for each in chosen:
            net = caffe_pb2.NetParameter(force_backward=True)
            for bottom, shape in zip(layer.bottom, each, strict=True):
                net.layer.add(name=bottom, type="Input", top=[bottom]).input_param.shape.add(dim=shape)
            net.layer.add().CopyFrom(layer)
            computed += answer(net) is None
    assert computed  # and not only refused


Change = Callable[[caffe_pb2.NetParameter, caffe_pb2.LayerParameter], object]


def changes(net: caffe_pb2.NetParameter, layer: caffe_pb2.LayerParameter) -> Iterator[Change]:
    """What may become of a layer of a net."""
    blobs = [*sorted({top for each in net.layer for top in each.top}), "new", ""]
    for kind in TYPES:
        yield lambda _, it, kind=kind: setattr(it, "type", kind)
    for field in ("top", "bottom"):
        yield lambda _, it, field=field: it.ClearField(field)
        for blob in blobs:
            yield lambda _, it, field=field, blob=blob: getattr(it, field).append(blob)
            for place in range(len(getattr(layer, field))):
                yield lambda _, it, field=field, blob=blob, place=place: getattr(it, field).__setitem__(place, blob)
    for weights in ([1], [1, 2], [0, 0, 0], [float("nan")], [-1], [1e38]):
        yield lambda _, it, weights=weights: it.loss_weight.__setitem__(slice(None), weights)
    for down in ([True], [False], [True, False], [False, True], [True] * 3):
        yield lambda _, it, down=down: it.propagate_down.__setitem__(slice(None), down)
    for count in range(1, 6):
        yield lambda _, it, count=count: it.param.extend([caffe_pb2.ParamSpec(lr_mult=count)] * count)
        yield lambda _, it, count=count: it.param.extend([caffe_pb2.ParamSpec(name="s")] * count)
    for shape in ((), (0,), (1,), (8,), (2, 3), (1, 1, 1, 1)):
        yield lambda _, it, shape=shape: it.blobs.add(data=[1.0]).shape.dim.extend(shape)
    for name in ("", net.layer[0].name, "a/b", "x" * 300, "\n"):
        yield lambda _, it, name=name: setattr(it, "name", name)
    yield lambda _, it: setattr(it, "phase", caffe.TEST)
    yield lambda _, it: it.include.add(phase=caffe.TEST)
    yield lambda whole, it: whole.layer.remove(it)
    for field, _ in layer.ListFields():
        if field.name.endswith("_param"):
            yield lambda _, it, field=field: it.ClearField(field.name)
    for other in range(len(net.layer)):
        yield lambda whole, it, other=other: it.CopyFrom(whole.layer[other])


@pytest.mark.parametrize("name", NETS)
def test_a_net_with_one_thing_or_two_changed(name):
    rng, good = random.Random(name), NETS[name]
    assert answer(good) is None
    every = [(place, change) for place, layer in enumerate(good.layer) for change in changes(good, layer)]
    for count in (1, 1, 2):
        for _ in range(CHANGED // 3):
            net = caffe_pb2.NetParameter()
            net.CopyFrom(good)
            net.force_backward = rng.random() < 0.3
            for place, change in rng.sample(every, count):
                if place < len(net.layer):
                    change(net, net.layer[place])
            answer(net)
