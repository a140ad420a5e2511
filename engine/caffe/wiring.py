"""Wiring: from a NetParameter to set-up layers and blobs, parameters shared, backward trimmed (BVLC's Net::Init)."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

from caffe import glog
from caffe import layer as layer_registry
from caffe.blob import AxisError, Blob
from caffe.net_param import filter_net, insert_splits
from caffe.proto import caffe_pb2, text


class Wiring:
    """What a net is made of, before it runs. `Net` adds running it.

    Layers and blobs have numbers: `_layers[i]` is called `_layer_names[i]`, reads the blobs `_bottom_vecs[i]` and
    writes the blobs `_top_vecs[i]`; `_layer_losses[i]` are its tops' loss weights.
    """

    def _init(self, param: caffe_pb2.NetParameter) -> None:
        self.phase = param.state.phase
        filtered = filter_net(param)
        if glog.enabled():
            glog.info("net.cpp:53", f"Initializing net from parameters: \n{text.to_text(filtered)}")
        self._param = insert_splits(filtered)
        self.name = self._param.name
        self.debug_info = self._param.debug_info
        self._layers: list[layer_registry.Layer] = []
        self._layer_names: list[str] = []
        self._blobs: list[Blob] = []
        self._blob_names: list[str] = []
        self._blob_need_backward: list[bool] = []
        self._bottom_vecs: list[list[int]] = []
        self._top_vecs: list[list[int]] = []
        self._bottom_need_backward: list[list[bool]] = []
        self._layer_need_backward: list[bool] = []
        self._layer_losses: list[list[float]] = []
        self._blob_loss_weights: list[float] = []
        self._init_params()
        available: dict[str, int] = {}  # blobs that no layer has read yet
        by_name: dict[str, int] = {}
        memory = 0
        for index, layer_param in enumerate(self._param.layer):
            memory += self._add_layer(index, layer_param, available, by_name)
            glog.info("net.cpp:139", f"Memory required for data: {4 * memory}")
        self._trim_backward()
        if self._param.force_backward:
            self._force_backward()
        self._set_propagate_flags()
        self._inputs = [i for layer, tops in zip(self._layers, self._top_vecs, strict=True)
                        if layer.type == "Input" for i in tops]  # fmt: skip
        self._outputs = [available[name] for name in sorted(available)]
        for name in sorted(available):
            glog.info("net.cpp:244", f"This network produces output {name}")
        self._share_params()
        glog.info("net.cpp:257", "Network initialization done.")

    @cached_property
    def layers(self) -> list:
        """The layers in order; a user's Python layer is the user's own object."""
        return [layer.public for layer in self._layers]

    @cached_property
    def layer_dict(self) -> OrderedDict:
        """The layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    def _add_layer(
        self,
        index: int,
        layer_param: caffe_pb2.LayerParameter,
        available: dict[str, int],
        by_name: dict[str, int],
    ) -> int:
        """Make one layer, wire and set it up; returns how many values its tops hold."""
        if not layer_param.HasField("phase"):
            layer_param.phase = self.phase
        if layer_param.propagate_down and len(layer_param.propagate_down) != len(layer_param.bottom):
            raise ValueError(
                f"layer {layer_param.name!r}: propagate_down param must be specified either 0 or bottom_size times: "
                f"expected {len(layer_param.bottom)}, found {len(layer_param.propagate_down)}"
            )
        glog.info("layer_factory.hpp:77", f"Creating layer {layer_param.name}")
        layer = layer_registry.create(layer_param)
        glog.info("net.cpp:86", f"Creating Layer {layer_param.name}")
        self._layers.append(layer)
        self._layer_names.append(layer_param.name)
        self._bottom_vecs.append([])
        self._bottom_need_backward.append([])
        self._top_vecs.append([])
        for j in range(len(layer_param.bottom)):
            self._append_bottom(index, layer_param, j, available, by_name)
        need_backward = any(self._blob_need_backward[i] for i in self._bottom_vecs[-1])
        for j in range(len(layer_param.top)):
            self._append_top(layer_param, j, available, by_name)
        if type(layer).auto_tops:
            for _ in range(len(layer_param.top), type(layer).top_count[0]):
                self._top_vecs[-1].append(self._new_blob(layer_param, "(automatic)"))
        bottoms, tops = self._bottoms(index), self._tops(index)
        self._set_up(layer, bottoms, tops)
        glog.info("net.cpp:124", f"Setting up {layer_param.name}")
        for top, weight in zip(tops, self._layer_losses[-1], strict=True):
            glog.info("net.cpp:131", f"Top shape: {top.shape_string()}")
            if weight:
                glog.info("net.cpp:134", f"    with loss weight {weight:g}")
        need_backward |= self._append_params(index, layer, layer_param)
        self._layer_need_backward.append(need_backward)
        if need_backward:
            for blob_id in self._top_vecs[-1]:
                self._blob_need_backward[blob_id] = True
        return sum(top.count for top in tops)

    def _append_bottom(
        self,
        index: int,
        layer_param: caffe_pb2.LayerParameter,
        j: int,
        available: dict[str, int],
        by_name: dict[str, int],
    ) -> None:
        name = layer_param.bottom[j]
        if name not in available:
            raise ValueError(f"Unknown bottom blob '{name}' (layer '{layer_param.name}', bottom index {j})")
        blob_id = by_name[name]
        glog.info("net.cpp:408", f"{layer_param.name} <- {name}")
        del available[name]
        self._bottom_vecs[index].append(blob_id)
        need = self._blob_need_backward[blob_id]
        if layer_param.propagate_down:
            need = layer_param.propagate_down[j]
        self._bottom_need_backward[index].append(need)

    def _append_top(
        self, layer_param: caffe_pb2.LayerParameter, j: int, available: dict[str, int], by_name: dict[str, int]
    ) -> None:
        name = layer_param.top[j]
        if j < len(layer_param.bottom) and name == layer_param.bottom[j]:
            glog.info("net.cpp:369", f"{layer_param.name} -> {name} (in-place)")
            blob_id = by_name[name]
            last = next(i for i in reversed(range(len(self._top_vecs) - 1)) if blob_id in self._top_vecs[i])
            self._layers[-1].may_overwrite = not self._layers[last].keeps_top
        elif name in by_name:
            raise ValueError(
                f"Top blob '{name}' produced by multiple sources. Layer {layer_param.name!r} makes it again "
                "(a layer may write over its own bottom only, at the same position)"
            )
        else:
            by_name[name] = blob_id = self._new_blob(layer_param, name)
        self._top_vecs[-1].append(blob_id)
        available[name] = blob_id

    def _new_blob(self, layer_param: caffe_pb2.LayerParameter, name: str) -> int:
        """Make a blob for a top; returns its number."""
        glog.info("net.cpp:382", f"{layer_param.name} -> {name}")
        self._blobs.append(Blob())
        self._blob_names.append(name)
        self._blob_need_backward.append(False)
        self._blob_loss_weights.append(0.0)
        return len(self._blobs) - 1

    def _set_up(self, layer: layer_registry.Layer, bottoms: list[Blob], tops: list[Blob]) -> None:
        """BVLC's Layer::SetUp: counts checked, set-up, shapes, loss weights into the tops' diffs."""
        layer.check_counts(bottoms, tops)
        try:
            layer.setup(bottoms, tops)
            layer.reshape(bottoms, tops)
        except AxisError as error:
            layer.check(False, str(error))
        given = list(layer.layer_param.loss_weight)
        if not given and type(layer).is_loss:
            given = [1.0]
            layer.layer_param.loss_weight.append(1.0)
        layer.check(
            not given or len(given) == len(tops),
            "loss_weight must be unspecified or specified once per top blob: "
            f"expected {len(tops)} values, found {len(given)}",
        )
        self._layer_losses.append(given or [0.0] * len(tops))
        for blob_id, top, weight in zip(self._top_vecs[-1], tops, self._layer_losses[-1], strict=True):
            self._blob_loss_weights[blob_id] = weight
            if weight:
                top.fill(diff=weight)

    # -- parameters

    def _init_params(self) -> None:
        self._params: list[Blob] = []
        self._param_owner: list[int] = []  # -1: it owns itself; else the index into _params of the owner
        self._param_names: dict[str, int] = {}
        self._param_layers: list[tuple[int, int]] = []
        self._learnable_ids: list[int] = []
        self.learnable_params: list[Blob] = []
        self.params_lr: list[float | None] = []
        self.params_decay: list[float | None] = []

    def _append_params(self, index: int, layer: layer_registry.Layer, layer_param: caffe_pb2.LayerParameter) -> bool:
        """Note the layer's parameters as the net's; returns whether one of them learns."""
        layer.check(
            len(layer_param.param) <= len(layer.blobs),
            f"Too many params specified for layer {layer_param.name}: "
            f"expected at most {len(layer.blobs)}, found {len(layer_param.param)}",
        )
        layer.param_propagate_down = []
        for j, blob in enumerate(layer.blobs):
            spec = layer.layer_param.param[j] if j < len(layer.layer_param.param) else caffe_pb2.ParamSpec()
            layer.param_propagate_down.append((spec.lr_mult if spec.HasField("lr_mult") else 1.0) != 0)
            self._append_param(index, j, blob, spec)
        return any(layer.param_propagate_down)

    def _append_param(self, index: int, j: int, blob: Blob, spec: caffe_pb2.ParamSpec) -> None:
        param_id = len(self._params)
        self._params.append(blob)
        self._param_layers.append((index, j))
        lr = spec.lr_mult if spec.HasField("lr_mult") else None
        decay = spec.decay_mult if spec.HasField("decay_mult") else None
        owner = self._param_names.get(spec.name) if spec.name else None
        if owner is None:
            if spec.name:
                self._param_names[spec.name] = param_id
            self._param_owner.append(-1)
            self._learnable_ids.append(len(self.learnable_params))
            self.learnable_params.append(blob)
            self.params_lr.append(lr)
            self.params_decay.append(decay)
            return
        self._param_owner.append(owner)
        owner_name = self._layer_names[self._param_layers[owner][0]]
        this_name = self._layer_names[index]
        glog.info("net.cpp:471", f"Sharing parameters '{spec.name}' owned by layer '{owner_name}', "
                  f"param index {self._param_layers[owner][1]}")  # fmt: skip
        owner_blob = self._params[owner]
        permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
        if (blob.count != owner_blob.count) if permissive else (blob.shape != owner_blob.shape):
            raise ValueError(
                f"Cannot share param '{spec.name}' owned by layer '{owner_name}' with layer '{this_name}'; "
                f"{'count' if permissive else 'shape'} mismatch.  Owner layer param shape is "
                f"{owner_blob.shape_string()}; sharing layer expects shape {blob.shape_string()}"
            )
        learnable = self._learnable_ids[owner]
        self._learnable_ids.append(learnable)
        for value, known, what in ((lr, self.params_lr, "lr_mult"), (decay, self.params_decay, "decay_mult")):
            if value is None:
                continue
            if known[learnable] is not None and known[learnable] != value:
                raise ValueError(
                    f"Shared param '{spec.name}' has mismatched {what}: "
                    f"{known[learnable]:g} in layer '{owner_name}', {value:g} in layer '{this_name}'"
                )
            known[learnable] = value

    def _share_params(self) -> None:
        for blob, owner in zip(self._params, self._param_owner, strict=True):
            if owner >= 0:
                blob.share_data(self._params[owner])
                blob.share_diff(self._params[owner])

    # -- who needs backward

    def _trim_backward(self) -> None:
        """Layers that no loss depends on, or behind which nothing learns, are left out of backward."""
        under_loss: set[int] = set()
        skipped: set[int] = set()
        for index in reversed(range(len(self._layers))):
            tops = self._top_vecs[index]
            contributes = any(self._layer_losses[index]) or any(i in under_loss for i in tops)
            nothing_below = all(i in skipped for i in tops)
            if self._layer_need_backward[index] and nothing_below:
                self._layer_need_backward[index] = False
                self._bottom_need_backward[index] = [False] * len(self._bottom_vecs[index])
            if not contributes:
                self._layer_need_backward[index] = False
            name = self._layer_names[index]
            if self._layer_need_backward[index]:
                glog.info("net.cpp:200", f"{name} needs backward computation.")
            else:
                glog.info("net.cpp:202", f"{name} does not need backward computation.")
            for j, blob_id in enumerate(self._bottom_vecs[index]):
                if contributes:
                    under_loss.add(blob_id)
                else:
                    self._bottom_need_backward[index][j] = False
                if not self._bottom_need_backward[index][j]:
                    skipped.add(blob_id)

    def _force_backward(self) -> None:
        for index, layer in enumerate(self._layers):
            self._layer_need_backward[index] = True
            for j, blob_id in enumerate(self._bottom_vecs[index]):
                if j not in type(layer).no_force_backward:
                    self._bottom_need_backward[index][j] = True
                if self._bottom_need_backward[index][j]:
                    self._blob_need_backward[blob_id] = True
            layer.param_propagate_down = [True] * len(layer.blobs)

    def _set_propagate_flags(self) -> None:
        """Where nothing learns a layer records nothing: its flags say so."""
        for index, layer in enumerate(self._layers):
            if self._layer_need_backward[index]:
                layer.propagate_down = list(self._bottom_need_backward[index])
            else:
                layer.propagate_down = [False] * len(self._bottom_vecs[index])
                layer.param_propagate_down = [False] * len(layer.blobs)

    def _bottoms(self, index: int) -> list[Blob]:
        return [self._blobs[i] for i in self._bottom_vecs[index]]

    def _tops(self, index: int) -> list[Blob]:
        return [self._blobs[i] for i in self._top_vecs[index]]
