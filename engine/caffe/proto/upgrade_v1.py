"""The layered net formats before `layer { ... }`: V0 (`layers { layer { ... } }`) and V1 (`layers { ... }`) to V2.

Tables of what moved where, as BVLC's upgrade_proto.cpp moves it.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from caffe import glog
from caffe.proto import caffe_pb2

_V1 = caffe_pb2.V1LayerParameter

# V1 enum -> V2 type, where it is not the enum's words in capitals joined ("INNER_PRODUCT" -> "InnerProduct").
_IRREGULAR = {
    "NONE": "", "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU", "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}  # fmt: skip

# V0 type -> V1 enum, where it is not the type in capitals.
_V0_TYPES = {"conv": "CONVOLUTION", "images": "IMAGE_DATA", "innerproduct": "INNER_PRODUCT", "pool": "POOLING"}

# V0 field -> {V0 type: (V1 parameter message, its field)}; "*" is any type.
_V0_FIELDS = {
    "num_output": {"conv": ("convolution_param", "num_output"), "innerproduct": ("inner_product_param", "num_output")},
    "biasterm": {"conv": ("convolution_param", "bias_term"), "innerproduct": ("inner_product_param", "bias_term")},
    "weight_filler": {
        "conv": ("convolution_param", "weight_filler"),
        "innerproduct": ("inner_product_param", "weight_filler"),
    },
    "bias_filler": {
        "conv": ("convolution_param", "bias_filler"),
        "innerproduct": ("inner_product_param", "bias_filler"),
    },
    "pad": {"conv": ("convolution_param", "pad"), "pool": ("pooling_param", "pad")},
    "kernelsize": {"conv": ("convolution_param", "kernel_size"), "pool": ("pooling_param", "kernel_size")},
    "group": {"conv": ("convolution_param", "group")},
    "stride": {"conv": ("convolution_param", "stride"), "pool": ("pooling_param", "stride")},
    "pool": {"pool": ("pooling_param", "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {
        "data": ("data_param", "source"),
        "hdf5_data": ("hdf5_data_param", "source"),
        "images": ("image_data_param", "source"),
        "window_data": ("window_data_param", "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "scale": {"*": ("transform_param", "scale")},
    "meanfile": {"*": ("transform_param", "mean_file")},
    "batchsize": {
        "data": ("data_param", "batch_size"),
        "hdf5_data": ("hdf5_data_param", "batch_size"),
        "images": ("image_data_param", "batch_size"),
        "window_data": ("window_data_param", "batch_size"),
    },
    "cropsize": {"*": ("transform_param", "crop_size")},
    "mirror": {"*": ("transform_param", "mirror")},
    "rand_skip": {"data": ("data_param", "rand_skip"), "images": ("image_data_param", "rand_skip")},
    "shuffle_images": {"images": ("image_data_param", "shuffle")},
    "new_height": {"images": ("image_data_param", "new_height")},
    "new_width": {"images": ("image_data_param", "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": ("window_data_param", "fg_threshold")},
    "det_bg_threshold": {"window_data": ("window_data_param", "bg_threshold")},
    "det_fg_fraction": {"window_data": ("window_data_param", "fg_fraction")},
    "det_context_pad": {"window_data": ("window_data_param", "context_pad")},
    "det_crop_mode": {"window_data": ("window_data_param", "crop_mode")},
    "hdf5_output_param": {"hdf5_output": ("hdf5_output_param", "")},
}


# V0 field: the line of BVLC's upgrade_proto.cpp that says so where a layer type does not know it.
_V0_LINES = {
    "num_output": 237, "biasterm": 249, "weight_filler": 261, "bias_filler": 273, "pad": 283, "kernelsize": 295,
    "group": 304, "stride": 316, "pool": 341, "dropout_ratio": 350, "local_size": 359, "alpha": 367, "beta": 375,
    "k": 383, "source": 403, "batchsize": 429, "rand_skip": 449, "shuffle_images": 458, "new_height": 467,
    "new_width": 476, "concat_dim": 485, "det_fg_threshold": 494, "det_bg_threshold": 504, "det_fg_fraction": 514,
    "det_context_pad": 524, "det_crop_mode": 534, "hdf5_output_param": 544,
}  # fmt: skip


def upgrade_v0(param: caffe_pb2.NetParameter, source: str) -> bool:
    """Turn `layers` of the V0 form into the V1 form, in place; `source` names the file in errors.

    Returns whether all was taken over: a field that the layer's type does not know is logged and left out, as in BVLC
    Caffe.
    """
    if not any(layer.HasField("layer") for layer in param.layers):
        return True
    _refuse_mixture(param, source)
    tried = f"Attempting to upgrade input file specified using deprecated V0LayerParameter: {source}"
    glog.info("upgrade_proto.cpp:28", tried)
    complete = True
    new = []
    for old in _without_padding(list(param.layers), source):
        new.append(_v0_layer(old, source))
        complete &= _move_v0_fields(old.layer, new[-1])
    param.ClearField("layers")
    param.layers.extend(new)
    if complete:
        glog.info("upgrade_proto.cpp:36", "Successfully upgraded file specified using deprecated V0LayerParameter")
    else:
        glog.error(
            "upgrade_proto.cpp:33",
            "Warning: had one or more problems upgrading V0NetParameter to NetParameter (see above); continuing "
            "anyway.",
        )
    glog.warning(
        "upgrade_proto.cpp:39",
        "Note that future Caffe releases will not support V0NetParameter; use ./build/tools/upgrade_net_proto_text "
        "for prototxt and ./build/tools/upgrade_net_proto_binary for model weights upgrade this and any other net "
        "protos to the new format.",
    )
    return complete


def upgrade_v1(param: caffe_pb2.NetParameter, source: str) -> None:
    """Turn the `layers` of `param` into `layer`, in place; `source` names the file in errors."""
    if not param.layers:
        return
    tried = f"Attempting to upgrade input file specified using deprecated V1LayerParameter: {source}"
    glog.info("upgrade_proto.cpp:55", tried)
    _refuse_mixture(param, source)
    for layer in param.layers:
        _v1_layer(layer, param.layer.add())
    param.ClearField("layers")
    glog.info("upgrade_proto.cpp:63", "Successfully upgraded file specified using deprecated V1LayerParameter")


def _refuse_mixture(param: caffe_pb2.NetParameter, source: str) -> None:
    if param.layer:
        raise ValueError(
            f"{source}: Refusing to upgrade inconsistent NetParameter input; it has {len(param.layers)} `layers {{}}` "
            f"in the old form and {len(param.layer)} `layer {{}}` in the new one; write all of them in one form"
        )


def _v1_layer(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.LayerParameter) -> None:
    fields = {field.name for field, _ in old.ListFields()}
    new.name = old.name
    new.type = layer_type(_V1.LayerType.Name(old.type))
    for name in ("bottom", "top", "loss_weight"):
        getattr(new, name).extend(getattr(old, name))
    for name in ("include", "exclude", "blobs"):
        getattr(new, name).extend(getattr(old, name))
    count = max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))
    specs = [new.param.add() for _ in range(count)]
    for values, field in (
        (old.param, "name"),
        (old.blob_share_mode, "share_mode"),
        (old.blobs_lr, "lr_mult"),
        (old.weight_decay, "decay_mult"),
    ):
        for spec, value in zip(specs, values, strict=False):
            setattr(spec, field, value)
    for name in fields:
        if name.endswith("_param"):
            getattr(new, name).CopyFrom(getattr(old, name))


def layer_type(enum_name: str) -> str:
    """The type string of a V1 layer type's enum name."""
    if enum_name in _IRREGULAR:
        return _IRREGULAR[enum_name]
    return "".join(word.capitalize() for word in enum_name.split("_"))


def _v0_layer(old: caffe_pb2.V1LayerParameter, source: str) -> caffe_pb2.V1LayerParameter:
    """One V0 connection (`layers { layer { ... } bottom top }`) in V1 form, without the parameters of its type."""
    new = caffe_pb2.V1LayerParameter(bottom=list(old.bottom), top=list(old.top))
    v0 = old.layer
    new.name = v0.name
    if v0.HasField("type"):
        name = _V0_TYPES.get(v0.type, v0.type.upper())
        if name not in _V1.LayerType.keys():  # noqa: SIM118  (an enum wrapper, no dict)
            raise ValueError(f"{source}: Unknown layer type: {v0.type!r} of layer {v0.name!r} in the V0 form")
        new.type = _V1.LayerType.Value(name)
    for name in ("blobs", "blobs_lr", "weight_decay"):
        getattr(new, name).extend(getattr(v0, name))
    return new


def _move_v0_fields(v0: caffe_pb2.V0LayerParameter, new: caffe_pb2.V1LayerParameter) -> bool:
    """Put the parameters of a V0 layer into the V1 layer's messages; returns whether its type knows all of them."""
    complete = True
    for field, places in _V0_FIELDS.items():
        if not v0.HasField(field):
            continue
        place = places.get(v0.type) or places.get("*")
        if place:
            _put(getattr(new, place[0]), place[1], getattr(v0, field))
            continue
        complete = False
        name = "shuffle" if field == "shuffle_images" else field
        glog.error(f"upgrade_proto.cpp:{_V0_LINES[field]}", f"Unknown parameter {name} for layer type {v0.type}")
    return complete


def _put(message: Message, target: str, value: Any) -> None:
    """Set or append to the field `target`; without a target, `message` itself."""
    if not target:
        message.CopyFrom(value)
        return
    current = getattr(message, target)
    if hasattr(current, "extend"):
        current.append(value)
    elif hasattr(current, "CopyFrom"):
        current.CopyFrom(value)
    else:
        setattr(message, target, value)


def _without_padding(layers: list[caffe_pb2.V1LayerParameter], source: str) -> list[caffe_pb2.V1LayerParameter]:
    """V0 had padding layers before convolutions and poolings: their pad moves into those."""
    padding = {}  # top -> the padding layer that made it
    kept = []
    for old in layers:
        if old.layer.type == "padding":
            padding.update(dict.fromkeys(old.top, old))
            continue
        layer = caffe_pb2.V1LayerParameter()
        layer.CopyFrom(old)
        for j, name in enumerate(layer.bottom):
            if name not in padding:
                continue
            pad = padding[name]
            if layer.layer.type not in ("conv", "pool"):
                raise ValueError(
                    f"{source}: Padding layer input to non-convolutional / non-pooling layer type {layer.layer.type} "
                    f"(layer {layer.layer.name!r})"
                )
            for what, ends in (
                ("Conv Layer takes a single blob as input", layer.bottom),
                ("Padding Layer takes a single blob as input", pad.bottom),
                ("Padding Layer produces a single blob as output", pad.top),
            ):
                if len(ends) != 1:
                    raise ValueError(f"{source}: {what}; found {len(ends)} (layer {layer.layer.name!r})")
            layer.layer.pad = pad.layer.pad
            layer.bottom[j] = pad.bottom[0]
        kept.append(layer)
    return kept
