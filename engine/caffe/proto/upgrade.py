"""Old spellings of nets and solvers, brought to the current form as BVLC Caffe does on reading.

Each upgrade is a small function that changes the message and says whether it did.
"""

from __future__ import annotations

import os
from pathlib import Path

from caffe import glog
from caffe.proto import byte_strings, caffe_pb2
from caffe.proto.upgrade_v1 import upgrade_v0, upgrade_v1

_V1 = caffe_pb2.V1LayerParameter
_DATA_TYPES = {
    _V1.DATA: "data_param",
    _V1.IMAGE_DATA: "image_data_param",
    _V1.WINDOW_DATA: "window_data_param",
}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_NOTE = "Note that future Caffe releases will only support"


def upgrade_net(param: caffe_pb2.NetParameter, source: str) -> caffe_pb2.NetParameter:
    """Bring `param` to the current form in place and return it; `source` names the file in messages."""
    upgrade_net_fully(param, source)
    return param


def upgrade_net_fully(param: caffe_pb2.NetParameter, source: str) -> bool:
    """`upgrade_net`; returns whether nothing of `param` was left out.

    In BVLC's order, and with its lines in the log: layers of the V0 form, the data layers' own transformation fields,
    layers of the V1 form, input fields, the learning rates of BatchNorm.
    """
    complete = upgrade_v0(param, source)
    if _move_transformation(param):
        _log(46, "transformation parameters", source, "data transformation parameters.")
        glog.warning("upgrade_proto.cpp:51", f"{_NOTE} transform_param messages for transformation fields.")
    upgrade_v1(param, source)
    if _input_fields_to_layers(param, source):
        _log(69, "input fields", source, "input fields.")
        glog.warning("upgrade_proto.cpp:74", f"{_NOTE} input layers and not input fields.")
    if _batch_norm_params(param):
        tried = f"Attempting to upgrade batch norm layers using deprecated params: {source}"
        glog.info("upgrade_proto.cpp:79", tried)
        glog.info("upgrade_proto.cpp:82", "Successfully upgraded batch norm layers using deprecated params.")
    _warn_of_idle_fields(param, source)
    return complete


def net_needs_upgrade(param: caffe_pb2.NetParameter) -> bool:
    """Whether `upgrade_net` would change `param`."""
    return bool(param.layers or param.input or any(_old_batch_norm(layer) for layer in param.layer))


def _log(line: int, what: str, source: str, done: str) -> None:
    tried = f"Attempting to upgrade input file specified using deprecated {what}: {source}"
    glog.info(f"upgrade_proto.cpp:{line}", tried)
    glog.info(f"upgrade_proto.cpp:{line + 3}", f"Successfully upgraded file specified using deprecated {done}")


def upgrade_solver(param: caffe_pb2.SolverParameter, source: str) -> caffe_pb2.SolverParameter:
    """Turn the old enum `solver_type` into the string `type`, and complete snapshot_prefix, in place.

    Without a prefix, or with a folder as one, snapshots take the solver file's name, as in BVLC Caffe.

    Raises:
        ValueError: one of its paths can be none.
    """
    try:
        for name in (param.net, param.train_net, *param.test_net, param.snapshot_prefix, *param.weights):
            byte_strings.path(name)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    _snapshot_prefix(param, source)
    return upgrade_solver_type(param, source)


def upgrade_solver_type(param: caffe_pb2.SolverParameter, source: str) -> caffe_pb2.SolverParameter:
    """Turn the old enum `solver_type` into the string `type`, in place.

    Raises:
        ValueError: both are there.
    """
    if not param.HasField("solver_type"):
        return param
    field = "'solver_type' field (enum)"
    glog.info(
        "upgrade_proto.cpp:1084", f"Attempting to upgrade input file specified using deprecated {field}': {source}"
    )
    if param.HasField("type"):
        raise ValueError(
            f"{source}: Failed to upgrade solver: old solver_type field (enum) and new type field (string) "
            "cannot be both specified in solver proto text; keep `type`"
        )
    names = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp",
             "ADADELTA": "AdaDelta", "ADAM": "Adam"}  # fmt: skip
    param.type = names[caffe_pb2.SolverParameter.SolverType.Name(param.solver_type)]
    param.ClearField("solver_type")
    done = f"Successfully upgraded file specified using deprecated {field} to 'type' field (string)."
    glog.info("upgrade_proto.cpp:1091", done)
    glog.warning("upgrade_proto.cpp:1093", f"{_NOTE} 'type' field (string) for a solver's type.")
    return param


def _snapshot_prefix(param: caffe_pb2.SolverParameter, source: str) -> None:
    folder = Path(byte_strings.path(param.snapshot_prefix))
    if not param.HasField("snapshot_prefix"):
        param.snapshot_prefix = byte_strings.from_path(Path(source).with_suffix(""))
        message = f"snapshot_prefix was not specified and is set to {param.snapshot_prefix}"
    elif os.path.isdir(folder):  # False for a name that no file can have
        param.snapshot_prefix = byte_strings.from_path(folder / Path(source).stem)
        message = f"snapshot_prefix was a directory and is replaced to {param.snapshot_prefix}"
    else:
        return
    glog.info("upgrade_proto.cpp:1106", message)


def _move_transformation(param: caffe_pb2.NetParameter) -> bool:
    """V1 data layers once held scale, mean_file, crop_size and mirror themselves; now transform_param does."""
    changed = False
    for layer in param.layers:
        if layer.type not in _DATA_TYPES:
            continue
        own = getattr(layer, _DATA_TYPES[layer.type])
        for name in _TRANSFORM_FIELDS:
            if own.HasField(name):
                setattr(layer.transform_param, name, getattr(own, name))
                own.ClearField(name)
                changed = True
    return changed


def _warn_of_idle_fields(param: caffe_pb2.NetParameter, source: str) -> None:
    """BVLC moves these fields out of V1 layers only; in others nothing reads them."""
    for layer in param.layer:
        for name in _DATA_TYPES.values():
            if not layer.HasField(name):
                continue
            own = getattr(layer, name)
            idle = [field for field in _TRANSFORM_FIELDS if own.HasField(field)]
            if idle:
                glog.warning(
                    "upgrade_proto.cpp:51",
                    f"{source}: layer '{layer.name}': {name} has {', '.join(idle)}, which Caffe reads in "
                    "transform_param only: without effect here",
                )


def _input_fields_to_layers(param: caffe_pb2.NetParameter, source: str) -> bool:
    """`input: "data"` with input_shape or input_dim becomes an Input layer at the front.

    Without either the field is dropped, as in BVLC Caffe: old deploy nets feed a layer, or have an Input layer too.
    """
    if not param.input:
        return False
    count = len(param.input)
    shapes = [list(shape.dim) for shape in param.input_shape]
    if not shapes:
        shapes = [list(param.input_dim[i : i + 4]) for i in range(0, len(param.input_dim), 4)]
    if shapes:
        _add_input_layer(param, shapes[:count], source)
    for name in ("input", "input_shape", "input_dim"):
        param.ClearField(name)
    return True


def _add_input_layer(param: caffe_pb2.NetParameter, shapes: list[list[int]], source: str) -> None:
    count = len(param.input)
    if len(shapes) not in (1, count) or (not param.input_shape and len(shapes[-1]) != 4):
        found = f"{len(param.input_shape)} input_shape" if param.input_shape else f"{len(param.input_dim)} input_dim"
        raise ValueError(
            f"{source}: net {param.name!r}: Must specify either input_shape OR deprecated input_dim, an input_shape or "
            f"four input_dim for each of its {count} inputs; found {found}"
        )
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=list(param.input))
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    rest = list(param.layer)
    del param.layer[:]
    param.layer.add().CopyFrom(layer)
    param.layer.extend(rest)


def _old_batch_norm(layer: caffe_pb2.LayerParameter) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _batch_norm_params(param: caffe_pb2.NetParameter) -> bool:
    """BatchNorm's three blobs are statistics: lr_mult in old files is dropped, so that 0 holds for all of them."""
    old = [layer for layer in param.layer if _old_batch_norm(layer)]
    for layer in old:
        for spec in layer.param:
            spec.lr_mult = 0.0
            spec.decay_mult = 0.0
    return bool(old)
