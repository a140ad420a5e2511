"""Cases that both caffes answer: data layers, caffe.io, NetSpec. BVLC Caffe's answers are in recorded/.

python tests/conformance/reference.py python3 tests/engine/support/data_cases.py     # records them again
"""
# ruff: noqa: B905, C408, UP031  (Python 3.9; nets are written with dict() and filled in with %)

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import zlib

import lmdb
import numpy as np

RECORDED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "recorded")


def png(pixels, depth=8):
    """A PNG's bytes. pixels: uint8 or uint16 (H, W, channels): grey, grey and alpha, RGB or RGBA."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u%d" % (depth // 8)).tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures(count, shape, seed):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def write_lmdb(folder, values):
    with lmdb.open(folder, map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for index, value in enumerate(values):
            transaction.put(b"%08d" % index, value)


def write(caffe, folder):
    """The small files that the nets read."""
    datum = caffe.proto.caffe_pb2.Datum

    def raw(pixels, label, **more):
        size = dict(zip(("channels", "height", "width"), pixels.shape))
        return datum(data=pixels.tobytes(), label=label, **dict(size, **more)).SerializeToString()

    def encoded(pixels, label):
        return datum(data=png(pixels), label=label, encoded=True).SerializeToString()

    colour = pictures(7, (3, 8, 7), 1)
    write_lmdb(os.path.join(folder, "raw"), [raw(each, i % 4) for i, each in enumerate(colour)])
    write_lmdb(os.path.join(folder, "encoded"), [encoded(each, i) for i, each in enumerate(pictures(5, (8, 7, 3), 2))])
    write_lmdb(os.path.join(folder, "grey"), [encoded(each, i) for i, each in enumerate(pictures(3, (8, 7, 1), 3))])
    write_lmdb(os.path.join(folder, "rgba"), [encoded(each, i) for i, each in enumerate(pictures(3, (8, 7, 4), 3))])
    sizes = [pictures(1, (3, 6 + i, 9 - i), 4 + i)[0] for i in range(4)]
    write_lmdb(os.path.join(folder, "sizes"), [raw(each, i) for i, each in enumerate(sizes)])
    labels = [1.0, 0.0, 1.0]
    both = pictures(3, (1, 2, 3), 5)
    write_lmdb(os.path.join(folder, "both"), [raw(each, i, float_data=labels) for i, each in enumerate(both)])
    floats = np.random.RandomState(6).standard_normal((3, 12))
    values = [datum(channels=2, height=3, width=2, label=i, float_data=each) for i, each in enumerate(floats)]
    write_lmdb(os.path.join(folder, "float"), [each.SerializeToString() for each in values])
    mean = caffe.proto.caffe_pb2.BlobProto(num=1, channels=3, height=8, width=7, data=colour.mean(axis=0).ravel())
    with open(os.path.join(folder, "mean.binaryproto"), "wb") as file:
        file.write(mean.SerializeToString())
    with open(os.path.join(folder, "list.txt"), "w") as file:
        for index in range(5):
            name = "a picture %d.png" % index
            with open(os.path.join(folder, name), "wb") as image:
                image.write(png(pictures(1, (9 + index, 14 - index, 3 if index % 2 else 1), 20 + index)[0]))
            file.write("%s %d\n" % (name, index - 1))
    for name, channels, depth in (("grey", 1, 8), ("rgb", 3, 8), ("rgba", 4, 8), ("deep", 1, 16)):
        pixels = pictures(1, (4, 3, channels), 30)[0].astype(int) * (257 if depth == 16 else 1)
        with open(os.path.join(folder, name + ".png"), "wb") as image:
            image.write(png(pixels, depth))


def data(folder, name, more="", transform="", batch=3):
    source = "source: '%s/%s' backend: LMDB batch_size: %d" % (folder, name, batch)
    return tops("Data", "data_param { %s %s } transform_param { %s }" % (source, more, transform))


def images(folder, more, transform=""):
    source = "source: '%s/list.txt' root_folder: '%s/'" % (folder, folder)
    return tops("ImageData", "image_data_param { %s %s } transform_param { %s }" % (source, more, transform))


def tops(kind, param):
    return "layer { name: 'd' type: '%s' top: 'data' top: 'label' %s }" % (kind, param)


def net_cases(folder):
    """Name: (net, phase TRAIN 0 or TEST 1, number of forwards)."""
    mean = f"mean_file: '{folder}/mean.binaryproto'"
    return {
        "raw": (data(folder, "raw"), 1, 4),
        "raw_train": (data(folder, "raw", transform="mean_value: 100 scale: 0.0078125"), 0, 2),
        "raw_crop": (data(folder, "raw", transform="crop_size: 4 scale: 0.00390625 mean_value: 104"), 1, 2),
        "raw_mean_values": (data(folder, "raw", transform="mean_value: 1.5 mean_value: 2 mean_value: 3"), 1, 1),
        "raw_mean_file": (data(folder, "raw", transform=mean + " scale: 0.017"), 1, 1),
        "raw_mean_file_crop": (data(folder, "raw", transform=mean + " crop_size: 5"), 1, 1),
        "raw_rand_skip": (data(folder, "raw", more="rand_skip: 5 prefetch: 1"), 1, 1),
        "encoded": (data(folder, "encoded"), 1, 2),
        "encoded_crop": (data(folder, "encoded", transform="crop_size: 6 mean_value: 9"), 1, 1),
        "encoded_gray": (data(folder, "encoded", transform="force_gray: true"), 1, 1),
        "grey": (data(folder, "grey"), 1, 1),
        "grey_forced": (data(folder, "grey", more="force_encoded_color: true"), 1, 1),
        "rgba": (data(folder, "rgba"), 1, 1),
        "grey_color": (data(folder, "grey", transform="force_color: true"), 1, 1),
        "raw_color": (data(folder, "both", transform="force_color: true"), 1, 1),
        "sizes": (data(folder, "sizes", batch=1), 1, 5),
        "sizes_crop": (data(folder, "sizes", transform="crop_size: 5", batch=4), 1, 1),
        "both": (data(folder, "both", batch=2), 1, 2),
        "float": (data(folder, "float", transform="mean_value: 0.5 scale: 3", batch=2), 1, 2),
        "images": (images(folder, "batch_size: 1"), 1, 6),
        "images_resized": (images(folder, "batch_size: 3 new_height: 8 new_width: 11"), 1, 2),
        "images_smaller": (images(folder, "batch_size: 2 new_height: 5 new_width: 4"), 1, 1),
        "images_gray": (images(folder, "batch_size: 2 new_height: 20 new_width: 17 is_color: false"), 1, 1),
        "images_crop": (images(folder, "batch_size: 5", "crop_size: 8 mean_value: [4, 7, 3]"), 1, 1),
        "dummy": (tops("DummyData", "dummy_data_param { num: 2 channels: 3 height: 1 width: 2 width: 4 "
                       "data_filler { value: 1.5 } data_filler { value: -2 } }"), 1, 1),
        "dummy_shape": (tops("DummyData", "dummy_data_param { shape { dim: 2 } }"), 1, 1),
        "input": (tops("Input", "input_param { shape { dim: 2 dim: 3 } }"), 1, 1),
    }  # fmt: skip


def run_net(caffe, text, phase, forwards):
    """Every top of every forward."""
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        net = caffe.Net(file.name, phase)
    answers = []
    for _ in range(forwards):
        net.forward()
        answers += [blob.data.copy() for blob in net.blobs.values()]
    return answers


def run_memory(caffe):
    """A MemoryData layer through a whole turn and a half."""
    param = "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 }"
    text = tops("MemoryData", param + " transform_param { scale: 3 }")
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        net = caffe.Net(file.name, caffe.TEST)
    values = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
    net.set_input_arrays(values, np.arange(4, dtype=np.float32))
    answers = []
    for _ in range(3):
        net.forward()
        answers += [net.blobs["data"].data.copy(), net.blobs["label"].data.copy()]
    return answers


def io_answers(caffe, folder):
    """Name: array, for the functions of caffe.io."""
    io, random, answers = caffe.io, np.random.RandomState(0), {}
    for name, shape, size in (
        ("smaller", (12, 10, 3), (7, 6)),
        ("larger", (5, 7, 3), (9, 16)),
        ("higher", (5, 17, 1), (9, 6)),
        ("alike", (8, 8, 3), (8, 8)),
        ("point", (6, 6, 3), (1, 1)),
        ("two", (6, 9, 2), (9, 5)),
        ("four", (8, 6, 4), (3, 12)),
    ):
        image = random.rand(*shape).astype(np.float32) * 2 - 0.5
        # not 2, 4 and 5 to the same size: there scikit-image's rounding takes the borders for the outside
        for order in (0, 1, 3) if name == "alike" else range(6):
            answers["resize_%s_%d" % (name, order)] = io.resize_image(image, size, order)
    answers["resize_three_dimensions"] = io.resize_image(random.rand(6, 5, 3), (4, 4, 1))
    answers.update(resize_answers(io.resize, random))
    answers["resize_constant"] = io.resize_image(np.full((3, 4, 3), 7.0), (2, 2))
    image = random.rand(11, 9, 3).astype(np.float32)
    transformer = io.Transformer({"data": (1, 3, 6, 5)})
    answers["preprocess_plain"] = transformer.preprocess("data", image.copy())
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117, 123]))
    answers["preprocess"] = transformer.preprocess("data", image.copy())
    transformer.set_mean("data", random.rand(3, 9, 8) * 200)
    answers["mean_resized"] = transformer.mean["data"]
    transformer.set_input_scale("data", 0.1)
    answers["preprocess_mean"] = transformer.preprocess("data", image.copy())
    answers["deprocess"] = transformer.deprocess("data", answers["preprocess_mean"][np.newaxis])
    answers["oversample"] = io.oversample([random.rand(7, 8, 2), random.rand(7, 8, 2)], (4, 3))
    answers["oversample_odd"] = io.oversample([random.rand(8, 9, 1)], (5, 4))
    for name in ("grey", "rgb", "rgba", "deep"):
        answers["load_" + name] = io.load_image(os.path.join(folder, name + ".png"))
    answers["load_rgb_as_grey"] = io.load_image(os.path.join(folder, "rgb.png"), color=False)
    answers["load_grey_as_grey"] = io.load_image(os.path.join(folder, "grey.png"), color=False)
    return answers


def resize_answers(resize, random):
    """Name: array, for caffe.io.resize, which is scikit-image's."""
    floats, bytes_ = random.rand(7, 5, 2).astype(np.float32) - 0.3, random.randint(0, 256, (7, 5)).astype(np.uint8)
    answers = {}
    for mode in ("reflect", "constant", "edge", "symmetric", "wrap"):
        for order in range(6):
            answers["scikit_%s_%d" % (mode, order)] = resize(floats, (4, 8), order=order, mode=mode)
    for name, image, size, more in (
        ("default", floats, (4, 3), {}),
        ("outside", floats, (9, 4), dict(mode="constant", cval=2.0)),
        ("free", floats, (9, 4), dict(order=3, clip=False)),
        ("sharp", floats, (4, 3), dict(anti_aliasing=False)),
        ("sigma", floats, (4, 3), dict(anti_aliasing_sigma=(1, 0.5, 0))),
        ("bytes", bytes_, (4, 8), {}),
        ("labels", bytes_, (4, 8), dict(order=0, preserve_range=True, anti_aliasing=False)),
        ("axis", bytes_, (4, 8, 1), {}),
        ("channels", floats, (3, 7, 4), {}),
        ("transposed", floats, (3, 4, 4), dict(order=0)),
        ("bool", bytes_ > 99, (9, 4), {}),
        ("volume", random.rand(4, 5, 3, 2), (5, 4, 2, 2), {}),
    ):
        answers["scikit_" + name] = resize(image, size, **more)
    return answers


def specs(caffe):
    """Name: a function that gives a NetParameter."""
    L, P = caffe.layers, caffe.params

    def small():
        net = caffe.NetSpec()
        net.data, net.label = L.Data(
            source="lmdb", backend=P.Data.LMDB, batch_size=8, ntop=2, include=dict(phase=caffe.TRAIN),
            transform_param=dict(crop_size=24, mirror=True, mean_value=[104.0, 117, 123.5]))  # fmt: skip
        net.conv1 = L.Convolution(
            net.data, kernel_size=3, pad=1, num_output=4, weight_filler=dict(type="gaussian", std=0.01),
            param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)])  # fmt: skip
        net.relu1 = L.ReLU(net.conv1, in_place=True)
        net.pool1 = L.Pooling(net.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
        net.ip = L.InnerProduct(net.pool1, num_output=3)
        net.loss = L.SoftmaxWithLoss(net.ip, net.label, loss_weight=2)
        return net.to_proto()

    def automatic():
        one = L.Convolution(L.Input(shape=dict(dim=[1, 3, 8, 8])), num_output=2, kernel_size=1)
        two = L.Convolution(one, num_output=2, kernel_size=1)
        return L.Eltwise(one, two, operation=P.Eltwise.SUM, coeff=[1, -1]).to_proto()

    def several_tops():
        a, b, c = L.Slice(L.DummyData(shape=[dict(dim=[6, 2])]), ntop=3, slice_point=[1, 3], axis=0)
        return caffe.to_proto(b, a, L.Concat(a, c))

    def no_top():
        net = caffe.NetSpec()
        net.data = L.Input()
        net.quiet = L.Silence(net.data, ntop=0)
        return net.to_proto()

    def items():
        net = caffe.NetSpec()
        net.x = L.Input()
        net["y"] = L.Power(net["x"], power=2, scale=0.5, shift=1)
        return caffe.to_proto(net.y)

    def in_place_unnamed():
        relu = L.ReLU(L.Input(shape=[dict(dim=[2])]), in_place=True, negative_slope=0.1)
        return L.Dropout(relu, in_place=True, dropout_ratio=0.3).to_proto()

    def python():
        net = caffe.NetSpec()
        net.data, net.label = L.Python(module="m", layer="DataLayer", param_str='{"a": 1}', ntop=2)
        net.loss = L.Python(net.data, net.label, module="m", layer="Loss", loss_weight=1, propagate_down=[True, False])
        return net.to_proto()

    def unknown_type():
        loss = dict(ignore_label=255, normalize=True)
        return L.Mystery(L.Input(), name="given", loss_weight=[1, 2], loss_param=loss).to_proto()

    def phases():
        net = caffe.NetSpec()
        rules = [dict(phase=caffe.TEST, stage=["x", "y"]), dict(phase=caffe.TRAIN, not_stage="z")]
        net.a = L.DummyData(shape=dict(dim=[1, 2]), data_filler=dict(type="constant", value=3), include=rules)
        net.b = L.Accuracy(net.a, net.a, top_k=2, exclude={"phase": caffe.TRAIN})
        return net.to_proto()

    def repeated():
        net = caffe.NetSpec()
        net.a = L.Input(shape=[dict(dim=[1, 2]), dict(dim=3)], ntop=1)
        net.r = L.Reshape(net.a, shape=dict(dim=[0, -1]))
        net.c = L.Convolution(net.a, kernel_size=[3, 5], num_output=1, bias_term=False, param=dict(name="w"))
        net.s = L.Scale(net.c, net.a, axis=0)
        net.b = L.BatchNorm(net.c, use_global_stats=True, param=[dict(lr_mult=0)] * 3)
        return net.to_proto()

    def two_names():
        net = caffe.NetSpec()
        net.x = L.Input()
        net.y = net.x
        net.z = L.TanH(net.y)
        return net.to_proto()

    def named_late():
        net = caffe.NetSpec()
        x = L.Input()
        net.t = L.TanH(x)
        net.x = x
        net.u = L.TanH(L.TanH(net.t))
        return net.to_proto()

    def second_top_named():
        net = caffe.NetSpec()
        a, net.b = L.Slice(L.Input(), ntop=2)
        net.c = L.Sigmoid(a)
        return net.to_proto()

    def empty_dict():
        return L.LRN(L.Input(), local_size=5, alpha=1e-4, lrn_param={}).to_proto()

    cases = (small, automatic, several_tops, no_top, items, in_place_unnamed, python, unknown_type, phases, repeated,
             two_names, named_late, second_top_named, empty_dict)  # fmt: skip
    return {case.__name__: case for case in cases}


def repair_imread():
    """pycaffe's load_image calls imread(as_grey=...), which scikit-image 0.18 has renamed."""
    import skimage.io

    imread = skimage.io.imread
    skimage.io.imread = lambda name, as_grey: imread(name, as_gray=as_grey)


def main():
    import caffe

    sys.path.insert(0, os.path.join(os.path.dirname(RECORDED), "..", "conformance"))
    import bvlc_pictures
    import storage

    repair_imread()
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        write(caffe, folder)
        for name, case in net_cases(folder).items():
            for index, answer in enumerate(run_net(caffe, *case)):
                arrays["net/%s/%d" % (name, index)] = answer
        for index, answer in enumerate(run_memory(caffe)):
            arrays["net/memory/%d" % index] = answer
        for name, answer in io_answers(caffe, folder).items():
            arrays["io/" + name] = answer
    with tempfile.TemporaryDirectory() as folder:
        storage.save(os.path.join(RECORDED, "pictures", "answers.npz"), bvlc_pictures.ask_all(caffe, folder))
    texts = {name: str(case()) for name, case in specs(caffe).items()}
    np.savez_compressed(os.path.join(RECORDED, "data.npz"), **arrays)
    with open(os.path.join(RECORDED, "net_spec.json"), "w") as file:
        json.dump(texts, file, indent=1, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
