"""Fields and layer types of forks: where they come from, and how a fork's own messages are added."""

from __future__ import annotations

import sys

import caffe
import pytest
from caffe import layer
from caffe.cli import draw_net
from caffe.cli.main import main
from caffe.proto import caffe_pb2, forks, text, wire


@pytest.fixture
def messages():
    """Messages as they were, after the test."""
    before = dict(vars(caffe_pb2))
    yield
    vars(caffe_pb2).clear()
    vars(caffe_pb2).update(before)


def refused(prototxt: str) -> str:
    with pytest.raises(text.PrototxtError) as error:
        text.parse(prototxt, caffe_pb2.NetParameter(), "net.prototxt")
    return str(error.value)


@pytest.mark.parametrize(
    "prototxt, words",
    [
        ("layer {\n multibox_loss_param { } }", 'net.prototxt:2:2:.*"multibox_loss_param".*comes from SSD'),
        ("layer { transform_param { expand_param { } } }", "comes from SSD"),
        ("layer { convolution_param { hole: 2 } }", "comes from DeepLab"),
        ("layer { psroi_pooling_param { } }", "comes from R-FCN"),
        ("layer { bn_param { } }", "comes from SegNet, ENet or PSPNet"),
        ("layer { dropout_param { scale_train: false } }", "comes from Faster R-CNN"),
        ("layer { batch_norm_param { scale_filler { } } }", "comes from NVIDIA"),
        ("layer { correlation_param { } }", "comes from FlowNet"),
        ("layer { botom: 'x' }", "Did you mean 'bottom'.*-proto FORK.proto"),
        ("layer { relu_param { engine: MKLDNN } }", "knows DEFAULT, CAFFE, CUDNN"),
        ("layers { type: ROI_POOLING }", "knows NONE, ABSVAL"),
    ],
)
def test_an_unknown_field_names_its_fork(prototxt, words):
    import re

    assert re.search(words, refused(prototxt), re.S)


def test_every_field_of_the_table_is_unknown_to_the_engine():
    known = {
        f"{name}.{field}" for name, each in caffe_pb2.DESCRIPTOR.message_types_by_name.items()
        for field in each.fields_by_name
    }  # fmt: skip
    assert not known & set(forks._FORK_OF_FIELD)
    assert not set(caffe.layer_type_list()) & set(forks._FORK_OF_TYPE)


def test_an_unknown_type_names_its_fork():
    param = caffe_pb2.LayerParameter(name="x", type="MultiBoxLoss")
    with pytest.raises(ValueError, match=r"Unknown layer type: MultiBoxLoss.*comes from SSD"):
        layer.create(param)


FORK = """
syntax = "proto2";
package caffe;
message FillerParameter { optional float value = 2; }
message TwiceParameter { optional float by = 1 [default = 2]; optional FillerParameter filler = 2; }
message LayerParameter {
  optional string name = 1;
  optional TwiceParameter twice_param = 147;
  optional int32 free = 6802;
}
message V1LayerParameter { enum LayerType { RELU = 18; TWICE = 77; TWO = 18000; } }
message ReLUParameter { enum Engine { MKLDNN = 2; } }
"""


class Twice(layer.Layer):
    def compute(self, x):
        return x * self.layer_param.twice_param.by


def test_a_forks_messages_are_added(tmp_path, messages, monkeypatch, capfd):
    (tmp_path / "fork.proto").write_text(FORK)
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }\n'
        'layer { name: "y" type: "Twice" bottom: "x" top: "y" twice_param { by: 3 filler { value: 1 } } free: 4 '
        "relu_param { engine: MKLDNN } }\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["time", "-model", "net.prototxt", "-iterations", "1"]) == 1
    assert 'no field named "twice_param"' in capfd.readouterr().err
    monkeypatch.setitem(layer._registry, "Twice", Twice)
    assert main(["time", "-model", "net.prototxt", "-iterations", "1", "-proto", "fork.proto"]) == 0
    assert draw_net.main(["net.prototxt", "net.dot", "--proto", "fork.proto"]) == 0
    assert "(Twice)" in (tmp_path / "net.dot").read_text()
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.blobs["x"].data[...] = 5
    net.forward()
    assert net.blobs["y"].data.tolist() == [15, 15]
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    assert fields["twice_param"].number >= 418370000  # 147 is BVLC's swish_param
    assert fields["free"].number == 6802
    types = caffe_pb2.V1LayerParameter.LayerType
    assert (types.Value("RELU"), types.Value("TWO")) == (18, 18000)
    spec = caffe.NetSpec()
    spec.x = caffe.layers.Input(shape={"dim": [1]})
    spec.y = caffe.layers.Twice(spec.x, by=7)
    assert spec.to_proto().layer[1].twice_param.by == 7


NUMBERED = """
syntax = "proto2";
package caffe;
message ROIPoolingParameter { optional uint32 pooled_h = 2; optional uint32 pooled_w = 1; optional int32 more = 3; }
message InterpParameter { optional string height = 1; }
message LayerParameter {
  optional ROIPoolingParameter roi_pooling_param = 8266711;
  optional InterpParameter interp_param = 10001;
  optional string source_class = 10002;
}
"""


def test_binary_files_are_read_by_a_declared_forks_numbers(tmp_path, messages):
    """What the engine knows of a fork without its caffe.proto takes the fork's own numbers, in its messages too."""
    layer = wire.header(8266711, 6) + b"\x08\x07\x10\x03\x18\x09" + wire.header(10002, 4) + b"LMDB"
    before = caffe_pb2.LayerParameter.FromString(layer)
    assert before.ListFields() == [] and before.SerializeToString() == layer
    (tmp_path / "fork.proto").write_text(NUMBERED)
    forks.add(tmp_path / "fork.proto")
    read = caffe_pb2.LayerParameter.FromString(layer)
    assert read.source_class == "LMDB"
    pooling = read.roi_pooling_param
    assert (pooling.pooled_w, pooling.pooled_h, pooling.more, pooling.spatial_scale) == (7, 3, 9, 1)
    text.parse("layer { roi_pooling_param { pooled_h: 2 spatial_scale: 0.5 } }", caffe_pb2.NetParameter())
    height = caffe_pb2.InterpParameter.DESCRIPTOR.fields_by_name["height"]
    assert height.type == height.TYPE_INT32  # another kind of field than the engine's layer reads: that stays


@pytest.mark.parametrize("number", [10001, 8266711, 418360000])
def test_a_file_of_another_fork_is_read_beside_a_declared_one(number, tmp_path, messages):
    """Its field under a number of the declared one, or of the engine's, is a string, and no message."""
    (tmp_path / "fork.proto").write_text(NUMBERED)
    forks.add(tmp_path / "fork.proto")
    saved = caffe_pb2.NetParameter(layer=[{"name": "ip", "blobs": [{"data": [1, 2], "shape": {"dim": [2]}}]}])
    saved.layer[0].top.append("t")
    layer = saved.layer[0].SerializeToString() + wire.header(number, 3) + b"\xff\xff\xff"
    path = tmp_path / "other.caffemodel"
    path.write_bytes(wire.header(100, len(layer)) + layer)
    assert text.read_binary(path, caffe_pb2.NetParameter()) == saved
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        text.read_binary(path, caffe_pb2.NetParameter())


def test_what_cannot_be_added(tmp_path, messages, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"expected a fork.s \.proto file"):
        forks.add(tmp_path / "none.proto")
    (tmp_path / "bad.proto").write_text("message {")
    with pytest.raises(ValueError, match="protoc refuses"):
        forks.add(tmp_path / "bad.proto")
    monkeypatch.setitem(sys.modules, "grpc_tools", None)
    with pytest.raises(ModuleNotFoundError, match="pip install grpcio-tools"):
        forks.add(tmp_path / "bad.proto")
