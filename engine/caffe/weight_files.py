"""A net's parameters in and out of files and other nets: caffemodel (binary protobuf or HDF5), sharing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from caffe import glog, hdf5_files
from caffe.atomic_files import check_folder, write_atomic, write_atomic_hdf5
from caffe.blob import Blob
from caffe.blob_proto import proto_shape
from caffe.proto import byte_strings, caffe_pb2, kinds, text
from caffe.proto.upgrade import upgrade_net

if TYPE_CHECKING:
    import h5py  # functions import it where they need it: it takes 0.1 s, and few trainings have to do with HDF5

    from caffe.net import Net

_PROTOBUF_LIMIT = 2**31 - 1


def copy_trained(net: Net, path: str | Path) -> None:
    """Copy the parameters of the layers that net and caffemodel name alike (Net::CopyTrainedLayersFrom).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a caffemodel (the message names what it is), or a layer's parameters do not fit the net's.
    """
    kinds.check(path, "a caffemodel", "an HDF5 caffemodel")
    if kinds.is_hdf5(path):
        copy_hdf5(net, path)
        return
    param = upgrade_net(text.read_binary(path, caffe_pb2.NetParameter()), str(path))
    if not param.layer:
        raise ValueError(f"{path}: expected a caffemodel, found a file without layers: is it a solverstate?")
    targets = dict(zip(net._layer_names, net._layers, strict=True))
    for source in param.layer:
        if source.name not in targets:
            glog.info("net.cpp:746", f"Ignoring source layer {source.name}")
            continue
        blobs = targets[source.name].blobs
        if len(blobs) != len(source.blobs):
            raise ValueError(
                f"{path}: Incompatible number of blobs for layer {source.name}: "
                f"expected {len(blobs)}, found {len(source.blobs)}"
            )
        for j, (blob, proto) in enumerate(zip(blobs, source.blobs, strict=True)):
            if not blob.shape_equals(proto):
                raise ValueError(_mismatch(path, j, source.name, proto_shape(proto), blob))
            try:
                blob.from_proto(proto, reshape=False)
            except ValueError as error:
                raise ValueError(f"{path}: layer '{source.name}', param {j}: {error}") from None


def _mismatch(path: str | Path, j: int, name: str, found: tuple[int, ...], blob: Blob) -> str:
    count = 1
    for dim in found:
        count *= dim
    shape = "".join(f"{dim} " for dim in found) + f"({count})"
    return (
        f"Cannot copy param {j} weights from layer '{name}'; shape mismatch.  Source param shape is {shape}; "
        f"target param shape is {blob.shape_string()}. To learn this layer's parameters from scratch rather than "
        f"copying from a saved net, rename the layer. (file {path})"
    )


def share_trained(net: Net, other: Net) -> None:
    """Use the parameter memory of `other`'s layers of the same names (Net::ShareTrainedLayersWith)."""
    targets = dict(zip(net._layer_names, net._layers, strict=True))
    for name, source in zip(other._layer_names, other._layers, strict=True):
        if name not in targets:
            glog.info("net.cpp:675", f"Ignoring source layer {name}")
            continue
        blobs = targets[name].blobs
        if len(blobs) != len(source.blobs):
            raise ValueError(
                f"Incompatible number of blobs for layer {name}: expected {len(blobs)}, found {len(source.blobs)}"
            )
        for j, (blob, shared) in enumerate(zip(blobs, source.blobs, strict=True)):
            if blob.shape != shared.shape:
                raise ValueError(
                    f"Cannot share param {j} weights from layer '{name}'; shape mismatch.  Source param shape is "
                    f"{shared.shape_string()}; target param shape is {blob.shape_string()}"
                )
            blob.share_data(shared)


def to_proto(net: Net, write_diff: bool = False) -> caffe_pb2.NetParameter:
    """The NetParameter of the net with its parameters in it."""
    param = caffe_pb2.NetParameter(name=net.name)
    for layer in net._layers:
        message = param.layer.add()
        message.CopyFrom(layer.layer_param)
        del message.blobs[:]
        for blob in layer.blobs:
            blob.to_proto(message.blobs.add(), write_diff)
    return param


def save(net: Net, path: str | Path, write_diff: bool = False) -> None:
    """Write a binary caffemodel, whole or not at all.

    Raises:
        FileNotFoundError: there is no folder to write into.
        ValueError: the parameters exceed protobuf's 2 GB; save_hdf5 has no such limit.
    """
    size = sum(4 * blob.count for layer in net._layers for blob in layer.blobs) * (2 if write_diff else 1)
    if size > _PROTOBUF_LIMIT:
        raise ValueError(
            f"cannot write {path}: {size} bytes of parameters, and a binary caffemodel holds at most "
            f"{_PROTOBUF_LIMIT}; use HDF5 (save_hdf5, or snapshot_format: HDF5)"
        )
    check_folder(path)
    write_atomic(path, byte_strings.serialize(to_proto(net, write_diff)))


def save_hdf5(net: Net, path: str | Path, write_diff: bool = False) -> None:
    """Write an HDF5 caffemodel: /data/<layer>/<param index>, shared parameters under their owner only.

    Raises:
        FileNotFoundError: there is no folder to write into.
        ValueError: two layers have one name, or one has none, or is called what HDF5 has another use for.
    """
    check_folder(path)
    twice = [name for name, count in Counter(net._layer_names).items() if count > 1]
    if twice:
        raise ValueError(
            f"Error saving weights to {path}: HDF5 keeps them under the layers' names, and several layers are called "
            f"{twice[0]!r}; name them apart, or save a binary caffemodel"
        )

    def fill(file: h5py.File) -> None:
        param_id = 0
        groups = [("data", file.create_group("data"))]
        if write_diff:
            groups.append(("diff", file.create_group("diff")))
        for name, layer in zip(net._layer_names, net._layers, strict=True):
            try:
                sides = [(side, group.create_group(byte_strings.encode(name))) for side, group in groups]
                for j, blob in enumerate(layer.blobs):
                    if net._param_owner[param_id] is None:
                        for side, group in sides:
                            group.create_dataset(str(j), data=getattr(blob, side))
                    param_id += 1
            except ValueError as error:  # an empty name, or `a` after `a/b`
                raise ValueError(
                    f"Error saving weights to {path}: HDF5 cannot keep them under the layer's name {name!r} ({error}); "
                    "give the layer another name, or save a binary caffemodel"
                ) from None

    write_atomic_hdf5(path, fill)


def copy_hdf5(net: Net, path: str | Path) -> None:
    """Copy the parameters of the layers that net and HDF5 caffemodel name alike.

    Raises:
        FileNotFoundError, ValueError: no such file; not an HDF5 caffemodel; a parameter is missing or does not fit.
    """
    path = byte_strings.path(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"Couldn't open {path}: expected an HDF5 caffemodel there")
    import h5py

    with hdf5_files.reading(path, "an HDF5 caffemodel") as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise ValueError(f"{path}: Error reading weights: expected a group 'data', found {sorted(file)}")
        targets = dict(zip(net._layer_names, net._layers, strict=True))
        owners = _owners(net)
        for key, layer in file["data"].items():
            name = byte_strings.from_path(key)
            if name not in targets:
                glog.info("net.cpp:800", f"Ignoring source layer {name}")
                continue
            blobs = targets[name].blobs
            if not isinstance(layer, h5py.Group):
                raise ValueError(f"{path}: Error reading weights: expected a group data/{name}, found a dataset")
            if len(layer) > len(blobs):
                raise ValueError(
                    f"{path}: Incompatible number of blobs for layer {name}: expected {len(blobs)}, found {len(layer)}"
                )
            for j, blob in enumerate(blobs):
                if str(j) not in layer:
                    if owners[name][j]:
                        raise ValueError(f"{path}: Incompatible number of blobs for layer {name}: param {j} is missing")
                    continue
                values = layer[str(j)]
                if isinstance(values, h5py.Dataset) and values.shape != blob.shape:
                    raise ValueError(_mismatch(path, j, name, values.shape, blob))
                blob.data[...] = hdf5_files.values(values, f"param {j} of layer {name!r}")


def _owners(net: Net) -> dict[str, list[bool]]:
    """For each layer, which of its parameters are its own (not shared from another layer)."""
    owners = iter(net._param_owner)
    return {
        name: [next(owners) is None for _ in layer.blobs]
        for name, layer in zip(net._layer_names, net._layers, strict=True)
    }
