"""NetSpec's refusals and what it leaves alone; the nets it writes are in test_recorded_data.py."""
# ruff: noqa: C408  (nets are written with dict())

import copy

import caffe
import pytest
from caffe import layers as L
from caffe import params as P
from caffe.net_spec import assign_proto, param_name_dict
from caffe.proto import caffe_pb2


def test_inputs_must_be_tops():
    with pytest.raises(TypeError, match=r"^ReLU input 0 is not a Top \(type is <class 'int'>\)$"):
        L.ReLU(3)
    with pytest.raises(TypeError, match=r"^Concat input 1 is not a Top \(type is <class 'tuple'>\)$"):
        L.Concat(L.Input(), L.Slice(L.Input(), ntop=2))
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence(L.DummyData(ntop=2), ntop=0)
    with pytest.raises(TypeError, match="ReLU input 0 is not a Top"):
        L.ReLU(L.Silence(L.Input(), ntop=0))


def test_unknown_fields_and_wrong_values():
    with pytest.raises(AttributeError, match=r"ReLU has no parameter 'slope': neither ReLUParameter nor "):
        L.ReLU(L.Input(), slope=1).to_proto()
    with pytest.raises(AttributeError, match=r"FillerParameter has no field 'kind'; its fields: type, value"):
        L.Convolution(L.Input(), weight_filler=dict(kind="x")).to_proto()
    with pytest.raises(AttributeError, match=r"LayerParameter has no field 'size'"):
        L.SoftmaxWithLoss(L.Input(), size=1).to_proto()
    with pytest.raises(TypeError, match=r"ConvolutionParameter.num_output cannot be 'many'"):
        L.Convolution(L.Input(), num_output="many").to_proto()
    with pytest.raises(TypeError, match=r"ConvolutionParameter.pad cannot be"):
        L.Convolution(L.Input(), pad=["x"]).to_proto()
    with pytest.raises(AttributeError):
        P.Pooling.MEDIAN  # noqa: B018
    with pytest.raises(AttributeError, match="no message or enum 'NothingParameter'"):
        P.Nothing.MAX  # noqa: B018


def test_missing_tops():
    net = caffe.NetSpec()
    net.data = L.Input()
    for error in (KeyError, AttributeError):
        with pytest.raises(error, match=r"^the net has no top 'conv'; its tops: data$"):
            net.conv  # noqa: B018
        with pytest.raises(error, match="the net has no top 'conv'"):
            net["conv"]
    assert not hasattr(net, "conv")
    with pytest.raises(TypeError, match=r"out is not a Top .*: assign each top of a layer with several to a name"):
        net.out = L.Slice(net.data, ntop=2)


def test_parameters_are_not_used_up():
    """A layer can be written twice, and the caller's dict stays as it was."""
    keywords = {"ntop": 2, "slice_point": [1]}
    top, _ = L.Slice(L.Input(), **keywords)
    assert top.to_proto() == top.to_proto()
    assert keywords == {"ntop": 2, "slice_point": [1]}


def test_copies():
    net = caffe.NetSpec()
    net.data = L.Input()
    other = copy.deepcopy(net)
    other.relu = L.ReLU(other.data)
    assert [layer.name for layer in other.to_proto().layer] == ["data", "relu"]
    assert [layer.name for layer in net.to_proto().layer] == ["data"]


def test_the_net_runs(tmp_path):
    net = caffe.NetSpec()
    net.data = L.Input(shape=dict(dim=[2, 3]))
    net.twice = L.Power(net.data, scale=2)
    (tmp_path / "net.prototxt").write_text(str(net.to_proto()))
    made = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    made.blobs["data"].data[...] = 4
    made.forward()
    assert (made.blobs["twice"].data == 8).all()


def test_param_name_dict():
    names = param_name_dict()
    assert names["Convolution"] == "convolution"
    assert names["InnerProduct"] == "inner_product"
    assert names["Transformation"] == "transform"


def test_assign_proto():
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "bottom", "a")
    assign_proto(layer, "bottom", ("b", "c"))
    assign_proto(layer, "param", {"lr_mult": 2})
    assert list(layer.bottom) == ["a", "b", "c"]
    assert [each.lr_mult for each in layer.param] == [2]


def test_caffe_layers_is_the_factory_however_it_is_imported():
    import caffe.layers as imported

    assert imported is L is caffe.layers
    assert imported.pooling(name="pool").__class__ is imported.Pooling().__class__  # a layer type, not a module
