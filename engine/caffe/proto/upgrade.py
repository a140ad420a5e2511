"""Old spellings of nets and solvers, brought to the current form as BVLC Caffe does on reading.

Each upgrade is a small function that changes the message and says whether it did.
"""

from __future__ import annotations

from pathlib import Path

from caffe import glog
from caffe.proto import caffe_pb2
from caffe.proto.upgrade_v1 import upgrade_layers

_DATA_TYPES = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade_net(param: caffe_pb2.NetParameter, source: str) -> caffe_pb2.NetParameter:
    """Bring `param` to the current form in place and return it; `source` names the file in messages."""
    if param.layers:
        upgrade_layers(param, source)
    for changed, what, note in (
        (_move_transformation(param), "transformation parameters", ""),
        (_input_fields_to_layers(param), "input fields", "input layers and not input fields"),
        (_batch_norm_params(param), "batch norm layer params", ""),
    ):
        if changed:
            tried = f"Attempting to upgrade input file specified using deprecated {what}: {source}"
            glog.info("upgrade_proto.cpp:69", tried)
            glog.info("upgrade_proto.cpp:72", f"Successfully upgraded file specified using deprecated {what}.")
        if changed and note:
            glog.warning("upgrade_proto.cpp:74", f"Note that future Caffe releases will only support {note}.")
    return param


def upgrade_solver(param: caffe_pb2.SolverParameter, source: str) -> caffe_pb2.SolverParameter:
    """Turn the old enum `solver_type` into the string `type`, and complete snapshot_prefix, in place.

    Without a prefix, or with a folder as one, snapshots take the solver file's name, as in BVLC Caffe.
    """
    _snapshot_prefix(param, source)
    if param.HasField("solver_type"):
        if param.HasField("type"):
            raise ValueError(
                f"{source}: Failed to upgrade solver: old solver_type field (enum) and new type field (string) "
                "cannot be both specified in solver proto text; keep `type`"
            )
        names = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp",
                 "ADADELTA": "AdaDelta", "ADAM": "Adam"}  # fmt: skip
        param.type = names[caffe_pb2.SolverParameter.SolverType.Name(param.solver_type)]
        param.ClearField("solver_type")
        glog.warning(
            "upgrade_proto.cpp:1129",
            "Note that future Caffe releases will only support 'type' field (string) for a solver's type.",
        )
    return param


def _snapshot_prefix(param: caffe_pb2.SolverParameter, source: str) -> None:
    if not param.HasField("snapshot_prefix"):
        param.snapshot_prefix = str(Path(source).with_suffix(""))
        message = f"snapshot_prefix was not specified and is set to {param.snapshot_prefix}"
    elif Path(param.snapshot_prefix).is_dir():
        param.snapshot_prefix = str(Path(param.snapshot_prefix) / Path(source).stem)
        message = f"snapshot_prefix was a directory and is replaced to {param.snapshot_prefix}"
    else:
        return
    glog.info("upgrade_proto.cpp:1106", message)


def _move_transformation(param: caffe_pb2.NetParameter) -> bool:
    """Data layers once held scale, mean_file, crop_size and mirror themselves; now transform_param does."""
    changed = False
    for layer in param.layer:
        if layer.type not in _DATA_TYPES:
            continue
        own = getattr(layer, _DATA_TYPES[layer.type])
        for name in _TRANSFORM_FIELDS:
            if own.HasField(name):
                setattr(layer.transform_param, name, getattr(own, name))
                own.ClearField(name)
                changed = True
    return changed


def _input_fields_to_layers(param: caffe_pb2.NetParameter) -> bool:
    """`input: "data"` with input_shape or input_dim becomes an Input layer at the front."""
    if not param.input:
        return False
    shapes = [list(shape.dim) for shape in param.input_shape]
    if not shapes and param.input_dim:
        shapes = [list(param.input_dim[i : i + 4]) for i in range(0, len(param.input_dim), 4)]
    if len(shapes) != len(param.input) and len(shapes) != 1:
        raise ValueError(
            f"net {param.name!r}: Must specify either input_shape OR deprecated input_dim, one for each of its "
            f"{len(param.input)} inputs; found {len(shapes)}"
        )
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=list(param.input))
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    rest = list(param.layer)
    del param.layer[:]
    param.layer.add().CopyFrom(layer)
    param.layer.extend(rest)
    for name in ("input", "input_shape", "input_dim"):
        param.ClearField(name)
    return True


def _batch_norm_params(param: caffe_pb2.NetParameter) -> bool:
    """BatchNorm's three blobs are statistics: lr_mult in old files is dropped, so that 0 holds for all of them."""
    changed = False
    for layer in param.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = 0.0
                spec.decay_mult = 0.0
            changed = True
    return changed
