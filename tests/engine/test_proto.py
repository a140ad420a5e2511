"""Messages in their own pool, prototxt errors with file and line, upgrades of old files."""

from __future__ import annotations

import caffe
import pytest
from caffe.proto import caffe_pb2, text
from caffe.proto.upgrade import upgrade_net, upgrade_net_fully, upgrade_solver
from caffe.proto.upgrade_v1 import layer_type


def parse_net(source: str) -> caffe_pb2.NetParameter:
    return upgrade_net(text.parse(source, caffe_pb2.NetParameter()), "test.prototxt")


def test_descriptor_is_the_compiled_proto():
    generate = pytest.importorskip("caffe.proto.generate")
    pytest.importorskip("grpc_tools")
    assert (generate.HERE / "caffe.desc").read_bytes() == generate.compile_descriptor()


def test_messages_and_enums_have_their_names():
    param = caffe_pb2.LayerParameter(name="a", type="ReLU", phase=caffe_pb2.TEST)
    assert caffe_pb2.Phase.Name(param.phase) == "TEST"
    assert param.relu_param.negative_slope == 0
    assert caffe_pb2.PoolingParameter().pool == caffe_pb2.PoolingParameter.MAX
    assert caffe_pb2.SolverParameter().solver_mode == caffe_pb2.SolverParameter.GPU
    with pytest.raises(AttributeError, match="no message or enum 'Nonsense'"):
        caffe_pb2.Nonsense  # noqa: B018


def test_descriptors_have_the_names_of_generated_code():
    assert caffe_pb2._PHASE.values_by_name["TEST"].number == 1
    assert caffe_pb2._LAYERPARAMETER is caffe_pb2.LayerParameter.DESCRIPTOR
    assert caffe_pb2._POOLINGPARAMETER_POOLMETHOD.values_by_name["AVE"].number == 1
    assert caffe_pb2._V1LAYERPARAMETER_LAYERTYPE.values_by_number[14].name == "INNER_PRODUCT"
    assert caffe_pb2._RESUMESTATE_GENERATOR.containing_type is caffe_pb2._RESUMESTATE
    for name, message in caffe_pb2.DESCRIPTOR.message_types_by_name.items():
        assert getattr(caffe_pb2, f"_{name.upper()}") is message
        for nested, enum in message.enum_types_by_name.items():
            assert getattr(caffe_pb2, f"_{name.upper()}_{nested.upper()}") is enum


def test_wire_numbers_are_caffes():
    """A Datum written by BVLC Caffe: channels 1, height 2, width 3, data 4, label 5, float_data 6, encoded 7."""
    datum = caffe_pb2.Datum.FromString(b"\x08\x03\x10\x02\x18\x01\x22\x06abcdef\x28\x07\x38\x01")
    assert (datum.channels, datum.height, datum.width, datum.data) == (3, 2, 1, b"abcdef")
    assert datum.label == 7
    assert datum.encoded


def test_another_copy_of_the_schema_does_not_clash():
    from google.protobuf import descriptor_pb2, descriptor_pool

    other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    other.message_type.add(name="Datum")
    descriptor_pool.Default().Add(other)
    assert caffe_pb2.Datum(label=3).label == 3


@pytest.mark.parametrize(
    "source, line, words",
    [
        ('name: "a"\nlayer { tpye: "ReLU" }', 2, "tpye"),
        ('name: "a"\n\nlayer { name: "b" ', 3, "}"),
        ("force_backward: maybe", 1, "maybe"),
        ("layer {\n  pooling_param { pool: MAXX }\n}", 2, "MAXX"),
    ],
)
def test_a_bad_prototxt_is_answered_with_file_and_line(tmp_path, source, line, words):
    path = tmp_path / "bad.prototxt"
    path.write_text(source)
    with pytest.raises(text.PrototxtError) as error:
        text.read_net(path)
    assert f"{path}:{line}:" in str(error.value)
    assert words in str(error.value)


def test_a_binary_file_is_no_prototxt(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(b"\x0a\x01\xff\xfe\x00")
    with pytest.raises(text.PrototxtError, match="found binary data"):
        text.read_net(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.prototxt, expected a NetParameter prototxt"):
        text.read_net(tmp_path / "nowhere.prototxt")


def test_truncated_binary_is_refused(tmp_path):
    path = tmp_path / "cut.caffemodel"
    message = caffe_pb2.NetParameter(name="x")
    message.layer.add(name="y").blobs.add().data.extend([1.0, 2.0, 3.0])
    path.write_bytes(message.SerializeToString()[:-3])
    with pytest.raises(ValueError, match="truncated"):
        text.read_binary(path, caffe_pb2.NetParameter())


def test_input_fields_become_a_layer():
    dims = " ".join(f"input_dim: {dim}" for dim in range(1, 9))
    param = parse_net(f'input: "a" input: "b" {dims} layer {{ name: "r" type: "ReLU" }}')
    assert [layer.type for layer in param.layer] == ["Input", "ReLU"]
    assert [list(shape.dim) for shape in param.layer[0].input_param.shape] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert not param.input


RELU = 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 4 } } }'


@pytest.mark.parametrize(
    "fields, shapes",
    [
        ('input: "data"', None),  # dropped
        (f'input: "data" {INPUT}', [[4]]),
        ('input: "data" input_shape { dim: 2 } input_shape { dim: 3 }', [[2]]),
        ('input: "data" input_dim: [1, 2, 3, 4, 5]', [[1, 2, 3, 4]]),
        ('input: "data" input_shape { dim: 2 } input_dim: [5, 5]', [[2]]),
        ("input_dim: [1, 2] input_shape { dim: 2 }", None),
    ],
)
def test_input_fields_as_bvlc_takes_them(fields, shapes, tmp_path):
    """In a prototxt and in a caffemodel; what upgrade_net_proto_text gives for the same text."""
    param = parse_net(fields + RELU)
    inputs = [layer for layer in param.layer if layer.type == "Input"]
    assert not param.input
    assert [[list(shape.dim) for shape in layer.input_param.shape] for layer in inputs] == ([shapes] if shapes else [])
    saved = text.parse(fields, caffe_pb2.NetParameter())
    saved.layer.add(name="ip").blobs.add(data=[1, 2], shape={"dim": [1, 2]})
    saved.layer[-1].blobs.add(data=[5], shape={"dim": [1]})
    path = tmp_path / "old.caffemodel"
    path.write_bytes(saved.SerializeToString())
    net = caffe.Net(text.parse(
        INPUT.replace("dim: 4", "dim: 1 dim: 2")
        + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 1 } }',
        caffe_pb2.NetParameter()), caffe.TEST)  # fmt: skip
    net.copy_from(path)
    assert net.params["ip"][0].data.tolist() == [[1, 2]]


@pytest.mark.parametrize("fields", ["input_dim: [1, 2, 3]", 'input: "b" input: "c" input_shape { } input_shape { }'])
def test_too_few_input_fields(fields):
    with pytest.raises(ValueError, match=r"^\S+: net '': Must specify either input_shape OR .*found [23] input_"):
        parse_net(f'input: "a" {fields}')


def test_old_transformation_fields_move():
    param = parse_net('layers { type: DATA data_param { scale: 0.5 mirror: true crop_size: 3 source: "x" } }')
    assert param.layer[0].transform_param.scale == 0.5
    assert param.layer[0].transform_param.crop_size == 3
    assert not param.layer[0].data_param.HasField("scale")


def test_every_v1_type_has_its_v2_name():
    """Each name but the empty one is a type BVLC Caffe 1.0 knows."""
    known = {
        "AbsVal",
        "Accuracy",
        "ArgMax",
        "BNLL",
        "Concat",
        "ContrastiveLoss",
        "Convolution",
        "Deconvolution",
        "Data",
        "Dropout",
        "DummyData",
        "EuclideanLoss",
        "Eltwise",
        "Exp",
        "Flatten",
        "HDF5Data",
        "HDF5Output",
        "HingeLoss",
        "Im2col",
        "ImageData",
        "InfogainLoss",
        "InnerProduct",
        "LRN",
        "MemoryData",
        "MultinomialLogisticLoss",
        "MVN",
        "Pooling",
        "Power",
        "ReLU",
        "Sigmoid",
        "SigmoidCrossEntropyLoss",
        "Silence",
        "Softmax",
        "SoftmaxWithLoss",
        "Split",
        "Slice",
        "TanH",
        "WindowData",
        "Threshold",
    }
    names = {layer_type(name) for name in caffe_pb2.V1LayerParameter.LayerType.keys()}  # noqa: SIM118
    assert names == known | {""}


def test_v1_layer_keeps_its_parameters():
    param = parse_net('layers { name: "ip" type: INNER_PRODUCT bottom: "x" top: "y" blobs_lr: 1 blobs_lr: 2 '
                      'weight_decay: 1 weight_decay: 0 param: "w" inner_product_param { num_output: 3 } '
                      "loss_weight: 0.5 include { phase: TEST } }")  # fmt: skip
    layer = param.layer[0]
    assert (layer.name, layer.type, list(layer.bottom), list(layer.top)) == ("ip", "InnerProduct", ["x"], ["y"])
    assert [(spec.name, spec.lr_mult, spec.decay_mult) for spec in layer.param] == [("w", 1, 1), ("", 2, 0)]
    assert layer.inner_product_param.num_output == 3
    assert layer.loss_weight == [0.5]
    assert layer.include[0].phase == caffe_pb2.TEST


def test_v0_padding_moves_into_the_convolution():
    param = parse_net('layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" } '
                      'layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 5 biasterm: false } '
                      'bottom: "pad1" top: "conv1" }')  # fmt: skip
    (layer,) = param.layer
    assert layer.type == "Convolution"
    assert list(layer.bottom) == ["data"]
    assert (list(layer.convolution_param.pad), list(layer.convolution_param.kernel_size)) == ([2], [5])
    assert layer.convolution_param.bias_term is False


V0_DATA = (
    'layers { layer { name: "d" type: "data" source: "x" batchsize: 2 det_fg_threshold: 0.4 det_crop_mode: "warp" } '
    'top: "data" } layers { layer { name: "r" type: "relu" kernelsize: 5 shuffle_images: true new_num: 3 scale: 2 } '
    'bottom: "data" top: "r" }'
)


def test_v0_leaves_out_what_the_type_does_not_know(capsys):
    """As BVLC's upgrade_net_proto_text has it, with its lines; new_num it passes over."""
    param = text.parse(V0_DATA, caffe_pb2.NetParameter())
    assert upgrade_net_fully(param, "v0.prototxt") is False
    data, relu = param.layer
    assert (data.type, data.data_param.source, data.data_param.batch_size) == ("Data", "x", 2)
    assert not data.HasField("window_data_param")
    assert (relu.type, relu.transform_param.scale) == ("ReLU", 2)
    logged = [line.split(None, 3)[-1] for line in capsys.readouterr().err.splitlines() if line.startswith("E")]
    assert [line.split("] ") for line in logged] == [
        ["upgrade_proto.cpp:494", "Unknown parameter det_fg_threshold for layer type data"],
        ["upgrade_proto.cpp:534", "Unknown parameter det_crop_mode for layer type data"],
        ["upgrade_proto.cpp:295", "Unknown parameter kernelsize for layer type relu"],
        ["upgrade_proto.cpp:458", "Unknown parameter shuffle for layer type relu"],
        ["upgrade_proto.cpp:33", "Warning: had one or more problems upgrading V0NetParameter to NetParameter (see "
         "above); continuing anyway."],
    ]  # fmt: skip


def test_a_v0_layer_without_a_type_has_none():
    (layer,) = parse_net('layers { layer { name: "r" } bottom: "a" top: "b" }').layer
    assert (layer.name, layer.type, list(layer.bottom)) == ("r", "", ["a"])
    with pytest.raises(ValueError, match="Unknown layer type: 'foo'"):
        parse_net('layers { layer { name: "r" type: "foo" } }')


def test_old_and_new_layers_do_not_mix():
    with pytest.raises(ValueError, match="inconsistent NetParameter"):
        parse_net('layers { name: "r" type: RELU } layer { name: "s" type: "ReLU" }')


def test_old_solver_type():
    param = text.parse('net: "n" solver_type: NESTEROV snapshot_prefix: "s"', caffe_pb2.SolverParameter())
    assert upgrade_solver(param, "s.prototxt").type == "Nesterov"
    with pytest.raises(ValueError, match="cannot be both specified"):
        both = text.parse('solver_type: ADAM type: "Adam"', caffe_pb2.SolverParameter())
        upgrade_solver(both, "s.prototxt")


def test_snapshot_prefix_is_completed(tmp_path):
    param = upgrade_solver(caffe_pb2.SolverParameter(), "models/a/solver.prototxt")
    assert param.snapshot_prefix == "models/a/solver"
    param = upgrade_solver(caffe_pb2.SolverParameter(snapshot_prefix=str(tmp_path)), "models/a/solver.prototxt")
    assert param.snapshot_prefix == str(tmp_path / "solver")
