"""Net: the wired layers, run forward and backward (BVLC's net.cpp), with pycaffe's interface."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe import errors, glog, net_debug, value_checks, weight_files
from caffe.blob import Blob, BlobVec
from caffe.layer_types.data import MemoryDataLayer
from caffe.layer_types.python import python_layers_next_to
from caffe.proto import caffe_pb2, text
from caffe.wiring import Wiring


class Net:
    """A Caffe net.

    Args:
        network_file: the path of a prototxt, or a NetParameter.
        phase: caffe.TRAIN or caffe.TEST.
        level, stages: the rest of the NetState that include and exclude rules are held against.
        weights: a caffemodel to copy the parameters from, layer by layer, by name.

    The old form `Net(network_file, weights, phase)` works, with a warning.

    Raises:
        FileNotFoundError, PrototxtError: the prototxt cannot be read; the message names file and line.
        ValueError: the net is not sound; the message names the layer.
    """

    def __init__(
        self,
        network_file: str | Path | caffe_pb2.NetParameter,
        phase: int | str | Path,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | Path | None = None,
    ):
        if isinstance(phase, str | Path):
            glog.warning("_caffe.cpp:169", "DEPRECATION WARNING - deprecated use of Python interface")
            glog.warning("_caffe.cpp:170", 'Use this instead (with the named "weights" parameter):')
            glog.warning("_caffe.cpp:172", f"Net('{network_file}', {level}, weights='{phase}')")
            weights, phase, level = phase, level, 0
        if phase not in (caffe_pb2.TRAIN, caffe_pb2.TEST):
            raise ValueError(f"Net: phase must be caffe.TRAIN (0) or caffe.TEST (1), found {phase!r}")
        param = caffe_pb2.NetParameter()
        is_message = isinstance(network_file, caffe_pb2.NetParameter)
        param.CopyFrom(network_file if is_message else text.read_net(network_file))
        param.state.phase = phase
        param.state.level = level
        param.state.stage.extend(stages or [])
        with python_layers_next_to(None if is_message else network_file):
            self._init(param)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def from_param(cls, param: caffe_pb2.NetParameter) -> Net:
        """The net of `param`, whose own `state` says phase, level and stages."""
        net = cls.__new__(cls)
        net._init(param)
        return net

    def _init(self, param: caffe_pb2.NetParameter) -> None:
        self._callbacks: dict[str, list[Callable[[int], None]]] = {
            when: [] for when in ("before_forward", "after_forward", "before_backward", "after_backward")
        }
        wiring = Wiring(param)
        self.name: str = wiring.param.name
        self.phase = wiring.phase
        self.debug_info: bool = wiring.param.debug_info
        # Layers and blobs have numbers: `_layers[i]` is called `_layer_names[i]`, reads the blobs `_bottom_vecs[i]` and
        # writes the blobs `_top_vecs[i]`; `_layer_losses[i]` are its tops' loss weights.
        self._layers = [entry.layer for entry in wiring.layers]
        self._layer_names = [entry.name for entry in wiring.layers]
        self._bottom_vecs = [entry.bottoms for entry in wiring.layers]
        self._top_vecs = [entry.tops for entry in wiring.layers]
        self._bottom_need_backward = [entry.bottom_need_backward for entry in wiring.layers]
        self._layer_need_backward = [entry.need_backward for entry in wiring.layers]
        self._layer_losses = [entry.loss_weights for entry in wiring.layers]
        self._blobs = [entry.blob for entry in wiring.blobs]
        self._blob_names = [entry.name for entry in wiring.blobs]
        self._blob_loss_weights = [entry.loss_weight for entry in wiring.blobs]
        self._inputs, self._outputs = wiring.inputs, wiring.outputs
        self._param_owner = [entry.owner for entry in wiring.params]  # None: it has its own memory
        self.learnable_params = wiring.learnable_params
        self.params_lr, self.params_decay = wiring.params_lr, wiring.params_decay

    def _bottoms(self, index: int) -> list[Blob]:
        return [self._blobs[i] for i in self._bottom_vecs[index]]

    def _tops(self, index: int) -> list[Blob]:
        return [self._blobs[i] for i in self._top_vecs[index]]

    # -- running

    def _forward(self, start: int, end: int) -> float:
        """Run the layers `start` to `end`, both included; returns the weighted sum of their losses."""
        loss = float(self._forward_loss(start, end))
        value_checks.raise_noted(self._layers)
        return loss

    def _forward_loss(self, start: int, end: int) -> torch.Tensor:
        """`_forward`, its loss left on the device, and `value_checks` to be raised: a look there waits for it."""
        if not self._layers:
            raise ValueError(f"net {self.name!r} has no layer: expected at least one in its prototxt")
        if start < 0 or end >= len(self._layers):
            raise ValueError(f"Invalid layer id: expected 0 to {len(self._layers) - 1}, found {start} to {end}")
        losses = []
        for layer in self._layers[start : end + 1]:  # old blobs that they hold make room for new ones
            layer.forget_forward()
        for index in range(start, end + 1):
            self._call("before_forward", index)
            layer, bottoms, tops = self._layers[index], self._bottoms(index), self._tops(index)
            try:
                layer.shape_tops(bottoms, tops)
                layer.forward(bottoms, tops)
            except Exception as error:
                errors.name_layer(error, layer)
                raise
            for top, weight in zip(tops, self._layer_losses[index], strict=True):
                if weight:  # the diff of a loss holds its weight
                    losses.append(torch.dot(top.data_tensor.reshape(-1), top.diff_tensor.reshape(-1)))
            if self.debug_info:
                net_debug.forward(self, index)
            self._call("after_forward", index)
        return torch.stack(losses).sum() if losses else torch.zeros(())

    def _backward(self, start: int, end: int) -> None:
        """Run backward the layers `start` down to `end`, both included."""
        if end < 0 or start >= len(self._layers):
            raise ValueError(f"Invalid layer id: expected 0 to {len(self._layers) - 1}, found {start} to {end}")
        for index in range(start, end - 1, -1):
            self._call("before_backward", index)
            if self._layer_need_backward[index]:
                layer = self._layers[index]
                try:
                    layer.backward(self._tops(index), self._bottom_need_backward[index], self._bottoms(index))
                except Exception as error:
                    errors.name_layer(error, layer)
                    raise
                if self.debug_info:
                    net_debug.backward(self, index)
            self._call("after_backward", index)
        if self.debug_info and start == len(self._layers) - 1 and end == 0:
            net_debug.params(self)

    def _call(self, when: str, index: int) -> None:
        for callback in self._callbacks[when]:
            callback(index)

    def before_forward(self, callback: Callable[[int], None]) -> None:
        """Call `callback(layer index)` before each layer's forward."""
        self._callbacks["before_forward"].append(callback)

    def after_forward(self, callback: Callable[[int], None]) -> None:
        """Call `callback(layer index)` after each layer's forward."""
        self._callbacks["after_forward"].append(callback)

    def before_backward(self, callback: Callable[[int], None]) -> None:
        """Call `callback(layer index)` before each layer's backward."""
        self._callbacks["before_backward"].append(callback)

    def after_backward(self, callback: Callable[[int], None]) -> None:
        """Call `callback(layer index)` after each layer's backward."""
        self._callbacks["after_backward"].append(callback)

    def clear_param_diffs(self) -> None:
        """Set the parameters' diffs to zero; backward adds to them."""
        for blob in self.learnable_params:
            blob.fill(diff=0.0)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs' shapes."""
        for index, layer in enumerate(self._layers):
            try:
                layer.shape_tops(self._bottoms(index), self._tops(index))
            except Exception as error:
                errors.name_layer(error, layer)
                raise

    # -- pycaffe's views, made once: a net's wiring does not change

    @cached_property
    def layers(self) -> list:
        """The layers in order; a user's Python layer is the user's own object."""
        return [layer.public for layer in self._layers]

    @cached_property
    def layer_dict(self) -> OrderedDict:
        """The layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @cached_property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name, in the order the net makes them."""
        return OrderedDict(zip(self._blob_names, self._blobs, strict=True))

    @cached_property
    def params(self) -> OrderedDict[str, BlobVec]:
        """The parameter blobs by layer name: weights first, then bias."""
        return OrderedDict(
            (name, layer.blobs) for name, layer in zip(self._layer_names, self._layers, strict=True) if layer.blobs
        )

    @cached_property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Each blob's weight in the loss, by name."""
        return OrderedDict(zip(self._blob_names, self._blob_loss_weights, strict=True))

    @cached_property
    def inputs(self) -> list[str]:
        """The tops of the net's Input layers."""
        return [self._blob_names[i] for i in self._inputs]

    @cached_property
    def outputs(self) -> list[str]:
        """The tops that no layer of the net reads."""
        return [self._blob_names[i] for i in self._outputs]

    @cached_property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Each layer's tops, by name."""
        return self._names(self._top_vecs)

    @cached_property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Each layer's bottoms, by name."""
        return self._names(self._bottom_vecs)

    def _names(self, vecs: list[list[int]]) -> OrderedDict[str, list[str]]:
        named = ([self._blob_names[i] for i in vec] for vec in vecs)
        return OrderedDict(zip(self._layer_names, named, strict=True))

    def _top_ids(self, index: int) -> list[int]:
        return self._ids(self._top_vecs, index)

    def _bottom_ids(self, index: int) -> list[int]:
        return self._ids(self._bottom_vecs, index)

    @staticmethod
    def _ids(vecs: Sequence[Sequence[int]], index: int) -> list[int]:
        if not 0 <= index < len(vecs):
            raise ValueError(f"Invalid layer id: expected 0 to {len(vecs) - 1}, found {index}")
        return list(vecs[index])

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run the net forward, or its layers from `start` to `end` (by name, both included).

        Args:
            blobs: further blobs to return.
            inputs: an array for each of the net's inputs, of the batch's size.

        Returns:
            The data of the net's outputs (or of the tops of `end`) and of `blobs`, by name: live views.
        """
        first = 0 if start is None else self._layer_index(start)
        last = len(self._layers) - 1 if end is None else self._layer_index(end)
        names = [*(self.outputs if end is None else self.top_names[end]), *(blobs or [])]
        self._fill(inputs, self.inputs, "data", "Input blob arguments do not match net inputs.", "Input")
        self._forward_loss(first, last)
        value_checks.raise_noted(self._layers)
        by_name = self.blobs
        return {name: self._blob(by_name, name).data for name in names}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **tops: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run the net backward, or its layers from `start` down to `end` (by name, both included).

        Parameters' diffs are added to: see `clear_param_diffs`.

        Args:
            diffs: further blobs whose diffs to return.
            tops: an array for the diff of each of the net's outputs.

        Returns:
            The diffs of the net's inputs (or of the bottoms of `end`) and of `diffs`, by name: live views.
        """
        first = len(self._layers) - 1 if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        names = [*(self.inputs if end is None else self.bottom_names[end]), *(diffs or [])]
        self._fill(tops, self.outputs, "diff", "Top diff arguments do not match net outputs.", "Diff")
        self._backward(first, last)
        by_name = self.blobs
        return {name: self._blob(by_name, name).diff for name in names}

    def _layer_index(self, name: str) -> int:
        if name not in self._layer_names:
            raise ValueError(f"net {self.name!r} has no layer {name!r}; its layers: {', '.join(self._layer_names)}")
        return self._layer_names.index(name)

    def _blob(self, by_name: OrderedDict[str, Blob], name: str) -> Blob:
        if name not in by_name:
            raise KeyError(f"net {self.name!r} has no blob {name!r}; its blobs: {', '.join(by_name)}")
        return by_name[name]

    def _fill(self, arrays: dict, expected: list[str], side: str, mismatch: str, what: str) -> None:
        if not arrays:
            return
        if set(arrays) != set(expected):
            raise ValueError(f"{mismatch} Expected {sorted(expected)}, found {sorted(arrays)}")
        by_name = self.blobs
        for name, values in arrays.items():
            blob = by_name[name]
            values = np.asarray(values)
            if not values.shape or values.shape[0] != blob.shape[0]:
                raise ValueError(
                    f"{what} is not batch sized: blob {name!r} has shape {blob.shape}, found {values.shape}; "
                    "reshape the blob or use forward_all"
                )
            getattr(blob, side)[...] = values

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run any number of inputs through the net in batches; returns their outputs, stacked."""
        if not inputs:
            raise ValueError(
                f"forward_all: expected arrays for the net's inputs {self.inputs}, found none; see forward"
            )
        results: dict[str, list] = {}
        for batch in self._batch(inputs):
            for name, values in self.forward(blobs, **batch).items():
                results.setdefault(name, []).extend(values.copy())
        return self._unpadded(results, inputs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run inputs and top diffs through the net in batches; returns (outputs, input diffs), stacked."""
        inputs = {name: values for name, values in arrays.items() if name in self.inputs}
        tops = {name: values for name, values in arrays.items() if name in self.outputs}
        outputs: dict[str, list] = {}
        gradients: dict[str, list] = {}
        nothing: dict[str, Any] = {}
        for data, diff in zip_longest(self._batch(inputs), self._batch(tops), fillvalue=nothing):
            for name, values in self.forward(blobs, **data).items():
                outputs.setdefault(name, []).extend(values.copy())
            for name, values in self.backward(diffs, **diff).items():
                gradients.setdefault(name, []).extend(values.copy())
        return self._unpadded(outputs, inputs), self._unpadded(gradients, inputs)

    @staticmethod
    def _unpadded(results: dict[str, list], inputs: dict) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values()))) if inputs else None
        return {name: np.asarray(values)[:count] for name, values in results.items()}

    def _batch(self, arrays: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """Cut arrays into batches of the net's size; the last one is filled up with zeros."""
        if not arrays:
            return
        count = len(next(iter(arrays.values())))
        size = next(iter(self.blobs.values())).shape[0]
        for begin in range(0, count, size):
            batch = {name: np.asarray(values[begin : begin + size]) for name, values in arrays.items()}
            for name, values in batch.items():
                padding = np.zeros((size - len(values), *values.shape[1:]), values.dtype)
                batch[name] = np.concatenate([values, padding])
            yield batch

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Give the net's MemoryData layer (its first layer) float32 arrays: (N, C, H, W) and N labels."""
        self._set_input_arrays(data, labels)

    def _set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        first = self._layers[0]
        if not isinstance(first, MemoryDataLayer):
            raise RuntimeError(
                "set_input_arrays may only be called if the first layer is a MemoryDataLayer; "
                f"found {first.type} layer {self._layer_names[0]!r}"
            )
        first.reset(data, labels)

    # -- weights in and out

    def copy_from(self, path: str | Path) -> None:
        """Copy parameters, layer by layer by name, from a caffemodel (binary or HDF5)."""
        weight_files.copy_trained(self, path)

    def share_with(self, other: Net) -> None:
        """Use the parameters of `other`'s layers of the same names: one memory for both nets."""
        weight_files.share_trained(self, other)

    def save(self, path: str | Path) -> None:
        """Write the net with its parameters as a binary caffemodel."""
        weight_files.save(self, path)

    def save_hdf5(self, path: str | Path) -> None:
        """Write the parameters as an HDF5 caffemodel."""
        weight_files.save_hdf5(self, path)

    def load_hdf5(self, path: str | Path) -> None:
        """Copy parameters from an HDF5 caffemodel."""
        weight_files.copy_hdf5(self, path)
