"""Binary files of any fork of Caffe: fields that BVLC's schema does not define are skipped, and kept.

And strings that are not UTF-8, which C++ takes in prototxt and binary files, as names and as paths.
"""

from __future__ import annotations

import os
from pathlib import Path

import caffe
import h5py
import lmdb
import numpy as np
import pytest
from caffe import solver_state
from caffe.cli import upgrade_proto
from caffe.cli.main import main
from caffe.proto import byte_strings, caffe_pb2, kinds, text, wire
from caffe.proto.wire import _to_varint as varint

# Numbers that forks use: the first free ones, those of SSD, Fast R-CNN, CaffeOnSpark (10001) and protobuf's reserved.
NUMBERS = (149, 150, 200, 203, 206, 1000, 1003, 6802, 9999, *range(10000, 10012), 18999, 19000, 19999, 20000, 8266711)
OWN = 418360000  # from here on the numbers of fields that the engine adds for prototxts
ENGINES = ("ResumeState", "SourceState")
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 2 dim: 2 } } }\n'
NET = (
    INPUT
    + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }
"""
)
SOLVER = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 1 solver_mode: CPU snapshot_prefix: "%s" %s'


def tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def foreign(number: int) -> bytes:
    """A field of each wire type under one number; bytes that are no message, and a group within a group."""
    inner = tag(3, 3) + tag(1, 0) + b"\7" + tag(3, 4)
    return b"".join((
        tag(number, 0) + b"\x96\x01",
        tag(number, 1) + b"\xff" * 8,
        tag(number, 2) + b"\x13com.yahoo.ml.caffe.",
        tag(number, 2) + b"\x03\xff\xff\xff",
        tag(number, 5) + b"\xff" * 4,
        tag(number, 3) + tag(2, 2) + b"\2ab" + inner + tag(number, 4),
    ))  # fmt: skip


FOREIGN = b"".join(map(foreign, NUMBERS))


def add_foreign(message, extra: bytes = FOREIGN, depth: int = 0) -> int:
    """Put `extra` into `message` and all messages in it; returns how many they are."""
    count = 1
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "add") else [value]:
                count += add_foreign(each, extra, depth + 1)
    message.MergeFromString(extra)
    return count


def solver(folder: Path, extra: str = "") -> caffe.SGDSolver:
    net = text.parse(NET, caffe_pb2.NetParameter())
    param = text.parse(SOLVER % (folder / "run", extra), caffe_pb2.SolverParameter())
    param.net_param.CopyFrom(net)
    return caffe.SGDSolver(param)


def weights(net: caffe.Net) -> list[np.ndarray]:
    return [blob.data.copy() for blobs in net.params.values() for blob in blobs]


def test_no_field_beside_bvlcs_has_a_number_that_a_file_may_hold():
    """Of messages that BVLC has; BVLC 1.0's own reach 1002 in V1LayerParameter and 148 elsewhere."""
    for name, message in caffe_pb2.DESCRIPTOR.message_types_by_name.items():
        numbers = {field.number for field in message.fields if field.number < OWN}
        assert name in ENGINES or numbers <= {*range(1, 149)} | ({1001, 1002} if name.startswith("V") else set())
    added = {field.name for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields if field.number >= OWN}
    assert {"pairwise_param", "roi_pooling_param", "interp_param", "norm_param"} <= added
    assert [field.name for field in caffe_pb2.SolverState.DESCRIPTOR.fields if field.number > 4] == []


def test_a_caffemodel(tmp_path):
    made = solver(tmp_path)
    made.step(2)
    made.net.save(tmp_path / "own.caffemodel")
    message = caffe_pb2.NetParameter.FromString((tmp_path / "own.caffemodel").read_bytes())
    message.layer[1].include.add(phase=caffe_pb2.TRAIN)
    assert add_foreign(message) > 20
    path = tmp_path / "foreign.caffemodel"
    path.write_bytes(message.SerializeToString())
    net = caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST, weights=path)
    for found, expected in zip(weights(net), weights(made.net), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert kinds.kind(path) == "a caffemodel"
    # what upgrading writes still holds them
    assert upgrade_proto.net_binary([str(path), str(tmp_path / "again.caffemodel")]) == 0
    assert (tmp_path / "again.caffemodel").read_bytes().count(b"com.yahoo.ml.caffe.") == path.read_bytes().count(
        b"com.yahoo.ml.caffe."
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_each_number_alone(number):
    """`ParseFromString` in a user's script."""
    message = caffe_pb2.NetParameter(name="n")
    layer = message.layer.add(name="l", image_data_param={"source": "x"}, convolution_param={"num_output": 3})
    add_foreign(message, foreign(number))
    message.layers.add(name="v1")
    message = caffe_pb2.NetParameter.FromString(message.SerializeToString())
    assert message.layer[0].convolution_param.num_output == layer.convolution_param.num_output
    assert [field.name for field, _ in message.layer[0].ListFields()] == [
        "name", "convolution_param", "image_data_param",
    ]  # fmt: skip
    assert message.SerializeToString().count(foreign(number)) == 4


def test_source_class_of_caffe_on_spark(tmp_path):
    made = caffe_pb2.NetParameter(name="n")
    made.layer.add(name="data").MergeFromString(wire.header(10001, 23) + b"com.yahoo.ml.caffe.LMDB")
    (tmp_path / "spark.caffemodel").write_bytes(made.SerializeToString())
    read = text.read_binary(tmp_path / "spark.caffemodel", caffe_pb2.NetParameter())
    assert [field.name for field, _ in read.layer[0].ListFields()] == ["name"]


@pytest.mark.parametrize("extra", [FOREIGN, *(tag(10000, 2) + varint(len(each)) + each for each in (
    b"", b"text", b"\x0a\x02\x0a\x00", b"\x0a\x05\x0a\x03tpu"))])  # fmt: skip
def test_a_solverstate(extra, tmp_path):
    made = solver(tmp_path)
    made.step(2)
    path = solver_state.snapshot(made)
    state = caffe_pb2.SolverState.FromString(path.read_bytes())
    state.DiscardUnknownFields()
    add_foreign(state, extra)
    path.write_bytes(state.SerializeToString())
    again = solver(tmp_path)
    again.restore(path)
    assert again.iter == 2
    for found, expected in zip(again.history, made.history, strict=True):
        np.testing.assert_array_equal(found.data, expected.data)
    assert kinds.kind(path) == "a solverstate"


def test_a_solverstate_of_ours_is_bvlcs_to_other_readers(tmp_path):
    made = solver(tmp_path)
    made.step(1)
    path = solver_state.snapshot(made)
    state = caffe_pb2.SolverState.FromString(path.read_bytes())
    assert [field.name for field, _ in state.ListFields()] == ["iter", "learned_net", "history", "current_step"]
    with path.open("rb") as file:
        assert {field.number for field in wire.fields(file, path.stat().st_size)} == {1, 2, 3, 4, OWN}
    assert solver_state._read_resume(path).generator[0].device == "cpu"


@pytest.mark.parametrize("value", [b"\1\2", np.zeros(3), np.float32(1), "text", np.frombuffer(b"\xff\xff", np.uint8)])
def test_a_dataset_of_any_kind_in_an_hdf5_solverstate(value, tmp_path):
    made = solver(tmp_path, "snapshot_format: HDF5")
    made.step(2)
    path = solver_state.snapshot(made)
    with h5py.File(path, "a") as file:
        for name in ("resume", "resume state"):
            if name in file:
                del file[name]
            file[name] = value
    again = solver(tmp_path)
    again.restore(path)
    assert again.iter == 2


def test_a_datum_and_a_mean(tmp_path):
    datum = caffe_pb2.Datum(channels=1, height=2, width=2, data=b"\1\2\3\4", label=7)
    add_foreign(datum)
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as environment, environment.begin(write=True) as writer:
        writer.put(b"0", datum.SerializeToString())
    mean = caffe.io.array_to_blobproto(np.ones((1, 1, 2, 2)))
    add_foreign(mean)
    (tmp_path / "mean.binaryproto").write_bytes(mean.SerializeToString())
    assert kinds.kind(tmp_path / "mean.binaryproto") == "a mean image (binaryproto)"
    net = caffe.Net(text.parse(
        f'layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "{tmp_path}/db" batch_size: 1 '
        f'backend: LMDB }} transform_param {{ mean_file: "{tmp_path}/mean.binaryproto" }} }}',
        caffe_pb2.NetParameter()), caffe.TEST)  # fmt: skip
    net.forward()
    assert net.blobs["data"].data.ravel().tolist() == [0, 1, 2, 3]
    assert net.blobs["label"].data.tolist() == [7]
    vector = caffe_pb2.BlobProtoVector(blobs=[mean])
    assert caffe.io.blobprotovector_str_to_arraylist(vector.SerializeToString())[0].shape == (1, 1, 2, 2)


def test_fields_of_forks_serve_prototxt_and_survive_a_snapshot(tmp_path):
    source = INPUT + (
        'layer { name: "rois" type: "Input" top: "rois" input_param { shape { dim: 1 dim: 5 } } }\n'
        'layer { name: "pool" type: "ROIPooling" bottom: "data" bottom: "rois" top: "pool" '
        "roi_pooling_param { pooled_h: 1 pooled_w: 2 } pairwise_param { l_lambda: 3 } "
        "image_data_param { label_dim: 4 } }"
    )
    net = caffe.Net(text.parse(source, caffe_pb2.NetParameter()), caffe.TEST)
    net.save(tmp_path / "own.caffemodel")
    layer = caffe_pb2.NetParameter.FromString((tmp_path / "own.caffemodel").read_bytes()).layer[2]
    assert (layer.roi_pooling_param.pooled_w, layer.pairwise_param.l_lambda) == (2, 3)
    assert layer.image_data_param.label_dim == 4
    net.copy_from(tmp_path / "own.caffemodel")


@pytest.mark.parametrize("data", [b"\x0b" * 5000, b"\x0a" + b"\xff" * 9 + b"\x7f", b"\x0b\x14", b"\xff" * 30, b"\x0a"])
def test_bytes_that_are_no_message(data, tmp_path):
    """Groups without an end, lengths beyond every file, ends of other groups: no kind, and refused by name."""
    (tmp_path / "x.caffemodel").write_bytes(data)
    assert kinds.kind(tmp_path / "x.caffemodel") is None
    net = caffe.Net(text.parse(INPUT, caffe_pb2.NetParameter()), caffe.TEST)
    with pytest.raises(ValueError, match=r"x.caffemodel: expected a binary NetParameter"):
        net.copy_from(tmp_path / "x.caffemodel")


# -- strings that are not UTF-8

GBK, LATIN = "\u6a21\u578b".encode("gbk"), "caf\u00e9".encode("latin-1")
NAMED = (
    INPUT.encode()
    + b"""
layer { name: "%(n)s" type: "InnerProduct" bottom: "data" top: "%(n)s" # %(n)s
  param { name: '%(n)s' } inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "%(n)s" bottom: "%(n)s" top: "loss" }
"""
)


@pytest.mark.parametrize("name", [GBK, LATIN, "\u6a21\u578b".encode()])
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_names_and_paths_of_any_bytes(name, form, tmp_path):
    """A training whose folder, net file, snapshots, blobs and layers are called so; its files hold the very bytes."""
    folder = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(folder)
    net_file = os.path.join(folder, name + b".prototxt")
    Path(os.fsdecode(net_file)).write_bytes(NAMED % {b"n": name})
    solver_file = Path(os.fsdecode(os.path.join(folder, b"solver.prototxt")))
    solver_file.write_bytes(
        b'net: "%s" # %s\nsnapshot_format: %s\n' % (net_file, name, form.encode())
        + (SOLVER % ("PREFIX", "")).encode().replace(b"PREFIX", os.path.join(folder, name))
    )
    made = caffe.get_solver(str(solver_file))
    made.step(2)
    made.snapshot()
    ending = b".h5" if form == "HDF5" else b""
    stem = name + b"_iter_2"
    assert {stem + b".caffemodel" + ending, stem + b".solverstate" + ending} <= set(os.listdir(folder))
    again = caffe.get_solver(str(solver_file))
    again.restore(os.fsdecode(os.path.join(folder, stem + b".solverstate" + ending)))
    for found, expected in zip(weights(again.net), weights(made.net), strict=True):
        np.testing.assert_array_equal(found, expected)
    model = os.fsdecode(os.path.join(folder, stem + b".caffemodel" + ending))
    if form == "BINARYPROTO":
        assert Path(model).read_bytes().count(name) >= 6  # as BVLC writes them: its nets find their layers by them
    fresh = caffe.Net(os.fsdecode(net_file), caffe.TEST, weights=model)
    assert kinds.kind(os.fsdecode(net_file)) == "a net prototxt"
    assert kinds.kind(solver_file) == "a solver prototxt"
    np.testing.assert_array_equal(weights(fresh)[0], weights(made.net)[0])


def test_commands_take_paths_of_any_bytes(tmp_path):
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), GBK)))
    folder.mkdir()
    (folder / "net.prototxt").write_bytes(NAMED % {b"n": GBK})
    (folder / "solver.prototxt").write_bytes(
        b'net: "%s/net.prototxt" max_iter: 1 base_lr: 0.1 lr_policy: "fixed" solver_mode: CPU' % os.fsencode(folder)
    )
    assert main(["train", "-solver", str(folder / "solver.prototxt")]) == 0  # the solver's name is the snapshots'
    model = str(folder / "solver_iter_1.caffemodel")
    assert main(["train", "-solver", str(folder / "solver.prototxt"), "-weights", model]) == 0
    assert main(["test", "-model", str(folder / "net.prototxt"), "-weights", model, "-iterations", "1"]) == 0
    state = str(folder / "solver_iter_1.solverstate")
    assert main(["train", "-solver", str(folder / "solver.prototxt"), "-snapshot", state]) == 0


def test_a_database_and_a_list_at_paths_of_any_bytes(tmp_path):
    import cv2

    folder = os.path.join(os.fsencode(tmp_path), GBK)
    os.mkdir(folder)
    datum = caffe_pb2.Datum(channels=1, height=1, width=1, data=b"\5", label=1)
    with lmdb.open(os.path.join(folder, b"db"), map_size=1 << 20) as database, database.begin(write=True) as writer:
        writer.put(b"0", datum.SerializeToString())
    image = Path(os.fsdecode(os.path.join(folder, LATIN + b".png")))
    image.write_bytes(cv2.imencode(".png", np.full((1, 1, 3), 9, np.uint8))[1].tobytes())
    Path(os.fsdecode(os.path.join(folder, b"list"))).write_bytes(LATIN + b".png 3\n")
    source = (
        b'layer { name: "d" type: "Data" top: "a" data_param { source: "%(f)s/db" batch_size: 1 backend: LMDB } }\n'
        b'layer { name: "i" type: "ImageData" top: "b" top: "l" image_data_param { source: "%(f)s/list" '
        b'root_folder: "%(f)s/" batch_size: 1 } }'
    ) % {b"f": folder}
    net = caffe.Net(text.parse(source, caffe_pb2.NetParameter()), caffe.TEST)
    net.forward()
    assert net.blobs["a"].data.ravel().tolist() == [5]
    assert net.blobs["b"].data.ravel().tolist() == [9, 9, 9]
    assert net.blobs["l"].data.tolist() == [3]


def test_strings_keep_their_bytes():
    for data in (GBK, LATIN, b"\x80\xff\xc0", "\u6a21\U0001f600".encode(), GBK + "\u6a21".encode(), b""):
        name = byte_strings.decode(data)
        assert byte_strings.encode(name) == data
        message = caffe_pb2.NetParameter(name=name, input=["a", name], layer=[{"name": name, "top": [name]}])
        message.layer[0].blobs.add(data=[1.5])
        binary = byte_strings.serialize(message)
        assert binary.count(data) >= 4
        again = byte_strings.restore(caffe_pb2.NetParameter.FromString(binary))
        assert again == message
        printed = text.to_text(message)
        assert text.parse(printed, caffe_pb2.NetParameter()) == message
    assert 'name: "\\321\\320"' in text.to_text(caffe_pb2.NetParameter(name=byte_strings.decode(b"\xd1\xd0")))
