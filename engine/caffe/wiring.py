"""Wiring: from a NetParameter to set-up layers and blobs, parameters shared, backward trimmed (BVLC's Net::Init)."""

from __future__ import annotations

from dataclasses import dataclass, field

from caffe import errors, glog
from caffe import layer as layer_registry
from caffe.blob import AxisError, Blob
from caffe.layer import Layer
from caffe.net_param import filter_net, insert_splits
from caffe.proto import caffe_pb2, text


@dataclass
class LayerEntry:
    """A layer and what it is wired to. Blobs go by their numbers in `Wiring.blobs`.

    Attributes:
        bottom_need_backward: for each bottom whether backward fills its diff.
        need_backward: whether the layer takes part in backward.
        loss_weights: one a top.
    """

    layer: Layer
    name: str
    bottoms: list[int] = field(default_factory=list)
    tops: list[int] = field(default_factory=list)
    bottom_need_backward: list[bool] = field(default_factory=list)
    need_backward: bool = False
    loss_weights: list[float] = field(default_factory=list)


@dataclass
class BlobEntry:
    """A top, under the name that the net gives it; in-place layers write to the blob of their bottom."""

    blob: Blob
    name: str
    need_backward: bool = False
    loss_weight: float = 0.0


@dataclass
class ParamEntry:
    """Parameter `index` of layer number `layer`.

    Attributes:
        learnable: its number in `learnable_params`.
        owner: the number of the parameter whose memory it shares; None: it has its own.
    """

    blob: Blob
    layer: int
    index: int
    learnable: int
    owner: int | None = None


class Wiring:
    """What a net is made of, before it runs: the layers, the blobs and the parameters of `param`.

    BVLC's lines in the log, in its order, are part of the contract.

    Attributes:
        param: the net's message after filtering, with Split layers for tops that several layers read.
        layers, blobs, params: see the entries. Parameters are in the layers' order.
        inputs, outputs: numbers of the Input layers' tops, and of the blobs that no layer reads, these by name.
        learnable_params, params_lr, params_decay: the parameters that own their memory, and what their lr_mult and
            decay_mult say; None: nothing.

    Raises:
        ValueError: the net is not sound; the message names the layer.
    """

    def __init__(self, param: caffe_pb2.NetParameter):
        self.phase: int = param.state.phase
        filtered = filter_net(param)
        if glog.enabled():
            glog.info("net.cpp:53", f"Initializing net from parameters: \n{text.to_text(filtered)}")
        self.param = insert_splits(filtered)
        self.layers: list[LayerEntry] = []
        self.blobs: list[BlobEntry] = []
        self.params: list[ParamEntry] = []
        self.learnable_params: list[Blob] = []
        self.params_lr: list[float | None] = []
        self.params_decay: list[float | None] = []
        self._param_names: dict[str, int] = {}  # of params that layers may share, to the number of the owner
        self._by_name: dict[str, int] = {}  # blobs
        self._available: dict[str, int] = {}  # blobs that no layer has read yet
        memory = 0
        for layer_param in self.param.layer:
            memory += self._add_layer(layer_param)
            glog.info("net.cpp:139", f"Memory required for data: {4 * memory}")
        self._trim_backward()
        if self.param.force_backward:
            self._force_backward()
        self._set_propagate_flags()
        self.inputs = [i for entry in self.layers if entry.layer.type == "Input" for i in entry.tops]
        self.outputs = [self._available[name] for name in sorted(self._available)]
        for name in sorted(self._available):
            glog.info("net.cpp:244", f"This network produces output {name}")
        self._share_params()
        glog.info("net.cpp:257", "Network initialization done.")

    # -- layers and blobs

    def _add_layer(self, layer_param: caffe_pb2.LayerParameter) -> int:
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
        entry = LayerEntry(layer, layer_param.name)
        for j in range(len(layer_param.bottom)):
            self._append_bottom(entry, layer_param, j)
        for j in range(len(layer_param.top)):
            self._append_top(entry, layer_param, j)
        if layer.auto_tops:
            for _ in range(len(layer_param.top), layer.top_count[0]):
                entry.tops.append(self._new_blob(layer_param, "(automatic)"))
        self.layers.append(entry)
        tops = [self.blobs[i].blob for i in entry.tops]
        self._set_up(entry, tops)
        glog.info("net.cpp:124", f"Setting up {entry.name}")
        for top, weight in zip(tops, entry.loss_weights, strict=True):
            glog.info("net.cpp:131", f"Top shape: {top.shape_string()}")
            if weight:
                glog.info("net.cpp:134", f"    with loss weight {weight:g}")
        learns = self._append_params(layer_param)
        entry.need_backward = learns or any(self.blobs[i].need_backward for i in entry.bottoms)
        if entry.need_backward:
            for i in entry.tops:
                self.blobs[i].need_backward = True
        return sum(top.count for top in tops)

    def _append_bottom(self, entry: LayerEntry, layer_param: caffe_pb2.LayerParameter, j: int) -> None:
        name = layer_param.bottom[j]
        if name not in self._available:
            raise ValueError(f"Unknown bottom blob '{name}' (layer '{layer_param.name}', bottom index {j})")
        number = self._by_name[name]
        glog.info("net.cpp:408", f"{layer_param.name} <- {name}")
        del self._available[name]
        entry.bottoms.append(number)
        flags = layer_param.propagate_down
        entry.bottom_need_backward.append(flags[j] if flags else self.blobs[number].need_backward)

    def _append_top(self, entry: LayerEntry, layer_param: caffe_pb2.LayerParameter, j: int) -> None:
        name = layer_param.top[j]
        if j < len(layer_param.bottom) and name == layer_param.bottom[j]:
            glog.info("net.cpp:369", f"{layer_param.name} -> {name} (in-place)")
            number = self._by_name[name]
            last = next(before for before in reversed(self.layers) if number in before.tops)
            entry.layer.may_overwrite = not last.layer.keeps_top
        elif name in self._by_name:
            raise ValueError(
                f"Top blob '{name}' produced by multiple sources. Layer {layer_param.name!r} makes it again "
                "(a layer may write over its own bottom only, at the same position)"
            )
        else:
            self._by_name[name] = number = self._new_blob(layer_param, name)
        entry.tops.append(number)
        self._available[name] = number

    def _new_blob(self, layer_param: caffe_pb2.LayerParameter, name: str) -> int:
        """Make a blob for a top; returns its number."""
        glog.info("net.cpp:382", f"{layer_param.name} -> {name}")
        self.blobs.append(BlobEntry(Blob(), name))
        return len(self.blobs) - 1

    def _set_up(self, entry: LayerEntry, tops: list[Blob]) -> None:
        """BVLC's Layer::SetUp: counts checked, set-up, shapes, loss weights into the tops' diffs."""
        layer, bottoms = entry.layer, [self.blobs[i].blob for i in entry.bottoms]
        layer.check_counts(bottoms, tops)
        try:
            layer.setup(bottoms, tops)
            layer.shape_tops(bottoms, tops)
        except AxisError as error:
            layer.check(False, str(error))
        except Exception as error:
            errors.name_layer(error, layer)
            raise
        weights = list(layer.layer_param.loss_weight)
        if not weights and layer.is_loss:
            weights = [1.0]
            layer.layer_param.loss_weight.append(1.0)
        layer.check(
            not weights or len(weights) == len(tops),
            "loss_weight must be unspecified or specified once per top blob: "
            f"expected {len(tops)} values, found {len(weights)}",
        )
        entry.loss_weights = weights or [0.0] * len(tops)
        for i, top, weight in zip(entry.tops, tops, entry.loss_weights, strict=True):
            self.blobs[i].loss_weight = weight
            if weight:
                top.fill(diff=weight)

    # -- parameters

    def _append_params(self, layer_param: caffe_pb2.LayerParameter) -> bool:
        """Note the last layer's parameters as the net's; returns whether one of them learns."""
        layer = self.layers[-1].layer
        layer.check(
            len(layer_param.param) <= len(layer.blobs),
            f"Too many params specified for layer {layer_param.name}: "
            f"expected at most {len(layer.blobs)}, found {len(layer_param.param)}",
        )
        layer.param_propagate_down = []
        for j, blob in enumerate(layer.blobs):
            spec = layer.layer_param.param[j] if j < len(layer.layer_param.param) else caffe_pb2.ParamSpec()
            layer.param_propagate_down.append((spec.lr_mult if spec.HasField("lr_mult") else 1.0) != 0)
            self._append_param(j, blob, spec)
        return any(layer.param_propagate_down)

    def _append_param(self, j: int, blob: Blob, spec: caffe_pb2.ParamSpec) -> None:
        entry = ParamEntry(blob, len(self.layers) - 1, j, len(self.learnable_params))
        lr = spec.lr_mult if spec.HasField("lr_mult") else None
        decay = spec.decay_mult if spec.HasField("decay_mult") else None
        if spec.name in self._param_names:
            entry.owner = self._param_names[spec.name]
            entry.learnable = self.params[entry.owner].learnable
            self._check_sharing(entry, spec)
            self._share_multiplier(self.params_lr, "lr_mult", entry, spec, lr)
            self._share_multiplier(self.params_decay, "decay_mult", entry, spec, decay)
        else:
            if spec.name:
                self._param_names[spec.name] = len(self.params)
            self.learnable_params.append(blob)
            self.params_lr.append(lr)
            self.params_decay.append(decay)
        self.params.append(entry)

    def _check_sharing(self, entry: ParamEntry, spec: caffe_pb2.ParamSpec) -> None:
        """Log that a parameter shares its owner's memory, and check that it can."""
        blob, owner = entry.blob, self._owner(entry)
        owner_name, this_name = self.layers[owner.layer].name, self.layers[entry.layer].name
        glog.info(
            "net.cpp:471", f"Sharing parameters '{spec.name}' owned by layer '{owner_name}', param index {owner.index}"
        )
        permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
        if (blob.count != owner.blob.count) if permissive else (blob.shape != owner.blob.shape):
            raise ValueError(
                f"Cannot share param '{spec.name}' owned by layer '{owner_name}' with layer '{this_name}'; "
                f"{'count' if permissive else 'shape'} mismatch.  Owner layer param shape is "
                f"{owner.blob.shape_string()}; sharing layer expects shape {blob.shape_string()}"
            )

    def _share_multiplier(
        self,
        multipliers: list[float | None],
        what: str,
        entry: ParamEntry,
        spec: caffe_pb2.ParamSpec,
        value: float | None,
    ) -> None:
        """Note a shared parameter's lr_mult or decay_mult: the layers that share it may not contradict each other."""
        before = multipliers[entry.learnable]
        if value is None:
            return
        if before is not None and before != value:
            raise ValueError(
                f"Shared param '{spec.name}' has mismatched {what}: "
                f"{before:g} in layer '{self.layers[self._owner(entry).layer].name}', "
                f"{value:g} in layer '{self.layers[entry.layer].name}'"
            )
        multipliers[entry.learnable] = value

    def _owner(self, entry: ParamEntry) -> ParamEntry:
        return entry if entry.owner is None else self.params[entry.owner]

    def _share_params(self) -> None:
        for entry in self.params:
            if entry.owner is not None:
                owner = self._owner(entry)
                entry.blob.share_data(owner.blob)
                entry.blob.share_diff(owner.blob)

    # -- who needs backward

    def _trim_backward(self) -> None:
        """Layers that no loss depends on, or behind which nothing learns, are left out of backward."""
        under_loss: set[int] = set()
        skipped: set[int] = set()
        for entry in reversed(self.layers):
            contributes = any(entry.loss_weights) or any(i in under_loss for i in entry.tops)
            nothing_below = all(i in skipped for i in entry.tops)
            if entry.need_backward and nothing_below:
                entry.need_backward = False
                entry.bottom_need_backward = [False] * len(entry.bottoms)
            if not contributes:
                entry.need_backward = False
            if entry.need_backward:
                glog.info("net.cpp:200", f"{entry.name} needs backward computation.")
            else:
                glog.info("net.cpp:202", f"{entry.name} does not need backward computation.")
            for j, i in enumerate(entry.bottoms):
                if contributes:
                    under_loss.add(i)
                else:
                    entry.bottom_need_backward[j] = False
                if not entry.bottom_need_backward[j]:
                    skipped.add(i)

    def _force_backward(self) -> None:
        for entry in self.layers:
            entry.need_backward = True
            for j, i in enumerate(entry.bottoms):
                if j not in entry.layer.no_force_backward:
                    entry.bottom_need_backward[j] = True
                if entry.bottom_need_backward[j]:
                    self.blobs[i].need_backward = True
            entry.layer.param_propagate_down = [True] * len(entry.layer.blobs)

    def _set_propagate_flags(self) -> None:
        """Where nothing learns a layer records nothing: its flags say so."""
        for entry in self.layers:
            layer = entry.layer
            if entry.need_backward:
                layer.propagate_down = list(entry.bottom_need_backward)
            else:
                layer.propagate_down = [False] * len(entry.bottoms)
                layer.param_propagate_down = [False] * len(layer.blobs)
