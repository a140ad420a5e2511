"""Layer: the contract every layer keeps, and the registry of layer types.

A layer is its forward: `compute` takes the bottoms' tensors and gives the tops', in torch, and the gradient comes from
autograd, layer by layer. A layer overrides `forward` or `backward` only where Caffe does something else.

A layer states facts as class attributes, and `check_counts` turns them into BVLC's checks and messages:

    bottom_count, top_count   (least, most) number of blobs; most None: any number
    same_count                one top for each bottom
    is_loss                   the first top has loss weight 1 unless the prototxt says otherwise
    auto_tops                 missing tops are made, nameless, up to the least number
    no_gradient               bottoms (by index) that cannot be back-propagated to: labels
    no_force_backward         bottoms that force_backward leaves alone
    keeps_top                 backward needs the tops as they were computed, or may need them
    reuses_output_buffers     compute and its gradient fill tensors of `new_output`
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeVar, overload

import torch
from torch.autograd.graph import GradientEdge

from caffe import precision
from caffe.blob import Blob, BlobVec
from caffe.gradients import leaf_gradients
from caffe.output_buffers import OutputBuffers
from caffe.proto import caffe_pb2, forks


def blobs_of(protos: Iterable[caffe_pb2.BlobProto]) -> BlobVec:
    """Parameters that come with a layer's message."""
    blobs = BlobVec()
    for proto in protos:
        blobs.append(Blob())
        blobs[-1].from_proto(proto)
    return blobs


def merged(x: torch.Tensor, axis: int) -> torch.Tensor:
    """x with its axes from `axis` on as one, of size 1 where there are none. (A size of -1 fails without values.)"""
    return x.reshape(*x.shape[:axis], math.prod(x.shape[axis:]))


@dataclass(frozen=True)
class Recorded:
    """A forward that autograd has recorded.

    Attributes:
        edges: for each top where backward begins in autograd's graph; None where no gradient flows. They stand for the
            outputs themselves: an output that is overwritten in place and that no gradient needs is memory for others.
        inputs: the bottoms' values, leaves of the graph.
        params: the parameters' values, leaves of the graph.
    """

    edges: Sequence[GradientEdge | None]
    inputs: Sequence[torch.Tensor]
    params: Sequence[torch.Tensor]

    @property
    def learning(self) -> list[torch.Tensor]:
        """The leaves that want a gradient."""
        return [leaf for leaf in (*self.inputs, *self.params) if leaf.requires_grad]

    def reaches(self, propagate_down: Sequence[bool]) -> bool:
        """Whether each bottom asked for was recorded as one that wants a gradient."""
        return all(leaf.requires_grad for wanted, leaf in zip(propagate_down, self.inputs, strict=False) if wanted)


class Layer:
    """The base of every layer. Subclasses say what they compute in `setup`, `reshape` and `compute`.

    Attributes:
        layer_param: the LayerParameter, with the net's phase in it.
        phase: caffe.TRAIN or caffe.TEST.
        blobs: the parameters, learned or kept.
        propagate_down: for each bottom, whether its gradient is wanted; the net sets it.
        param_propagate_down: the same for each parameter.
        may_overwrite: of a layer in place, whether nobody needs its bottom any more; the net sets it.
    """

    bottom_count: tuple[int, int | None] = (1, 1)
    top_count: tuple[int, int | None] = (1, 1)
    same_count = False
    is_loss = False
    auto_tops = False
    no_gradient: tuple[int, ...] = ()
    no_force_backward: tuple[int, ...] = ()
    keeps_top = True
    reuses_output_buffers = False

    def __init__(self, layer_param: caffe_pb2.LayerParameter):
        self.layer_param = layer_param
        self.phase = layer_param.phase
        try:
            self.blobs = blobs_of(layer_param.blobs)
        except (ValueError, MemoryError) as error:
            self.check(False, f"blobs: {error}")
        self.propagate_down: list[bool] = []
        self.param_propagate_down: list[bool] = []
        self.may_overwrite = False
        self._buffers = OutputBuffers()
        self.new_output = self._buffers.new_output  # (like, shape): an uninitialized tensor for compute to fill
        self._record: Recorded | None = None  # what backward needs of the last forward

    @property
    def type(self) -> str:
        """The layer type, as the prototxt writes it."""
        return self.layer_param.type

    @property
    def public(self) -> object:
        """What `net.layers` shows: the layer itself, or the object of a user's class."""
        return self

    # -- what a layer type defines

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the parameters, check them, make and fill `blobs` (unless they came with the layer)."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give each top its shape. Runs before every forward."""
        for one in top:
            if one is not bottom[0]:
                one.reshape_like(bottom[0])

    def _no_compute(self, *bottoms: torch.Tensor) -> torch.Tensor | Sequence[torch.Tensor]:
        raise NotImplementedError(f"{self.type} Layer has no compute")

    compute: Callable[..., torch.Tensor | Sequence[torch.Tensor]] = _no_compute
    """The tops from the bottoms, of the shapes `reshape` gave, differentiable. A layer type defines it as a method with
    one argument for each of its bottoms."""

    # -- forward and backward

    def shape_tops(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """`reshape`. Raises ValueError where a layer in place gives its bottom another shape: BVLC computes on what it
        has overwritten then. A user's own layer may know what it does."""
        in_place = [(blob, blob.shape) for blob, one in zip(bottom, top, strict=False) if blob is one]
        self.reshape(bottom, top)
        for blob, shape in in_place:
            self.check(
                blob.shape == shape or self.public is not self,
                f"cannot compute in place: its top has the shape {blob.shape_string()} and its bottom {shape}; "
                "give the top another name",
            )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Fill the tops' data."""
        self.forget_forward()
        read = {id(blob.data_memory) for blob in (*bottom, *self.blobs)}
        self._buffers.take(
            (blob.data_memory for blob in top if id(blob.data_memory) not in read), self.reuses_output_buffers
        )
        if any(self.propagate_down) or any(self.param_propagate_down):
            outputs, self._record = self._run(bottom, top)
        else:
            with torch.no_grad():
                outputs = self._tops(precision.computed(self, [blob.data_tensor for blob in bottom]))
        self._buffers.clear()
        addresses = {blob.data_memory.tensor.data_ptr() for blob in (*bottom, *self.blobs)}
        for blob, value in zip(top, outputs, strict=True):
            blob.set_data(value, keep=value.untyped_storage().data_ptr() not in addresses)

    def forget_forward(self) -> None:
        """Let go of what backward would need of the last forward."""
        self._record = None

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Fill the diffs of the bottoms asked for, and add to the diffs of the learned parameters."""
        self._refuse_gradients(propagate_down)
        record = self._record
        if record is None or not record.reaches(propagate_down):
            record = self._record = self._run(bottom, top, propagate_down)[1]
        gradients = self._gradients(record, top, propagate_down, bottom)
        # Autograd may hand out a top's diff itself, or one gradient for several leaves: a blob that takes over
        # memory which is in use already gets a copy.
        in_use = {
            blob.diff_memory.tensor.data_ptr() for edge, blob in zip(record.edges, top, strict=True) if edge is not None
        }
        self._store_bottom_diffs(record, gradients, propagate_down, bottom, in_use)
        self._add_param_diffs(record, gradients, in_use)

    def _refuse_gradients(self, propagate_down: Sequence[bool]) -> None:
        for index in self.no_gradient:
            if index < len(propagate_down) and propagate_down[index]:
                raise ValueError(
                    f"{self.type} Layer {self.layer_param.name!r} cannot backpropagate to "
                    f"{'label inputs' if self.is_loss else f'bottom {index}'}"
                )

    def _gradients(
        self, record: Recorded, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> dict[int, torch.Tensor | None]:
        """The gradient of each leaf by the leaf's id; None, or no entry, where no gradient reaches it."""
        edges, leaves = record.edges, record.learning
        roots = [(edge, blob) for edge, blob in zip(edges, top, strict=True) if edge is not None]
        still_read = {id(blob.diff_memory) for blob in (*top, *self.blobs)}
        unread = (blob.diff_memory for blob, wanted in zip(bottom, propagate_down, strict=False)
                  if wanted and id(blob.diff_memory) not in still_read)  # fmt: skip
        self._buffers.take(unread, self.reuses_output_buffers)
        gradients: Sequence[torch.Tensor | None] = ()
        if roots and leaves:
            gradients = leaf_gradients([edge for edge, _ in roots], leaves, [blob.diff_tensor for _, blob in roots])
        self._buffers.clear()
        return {id(leaf): gradient for leaf, gradient in zip(leaves, gradients, strict=False)}

    def _store_bottom_diffs(
        self,
        record: Recorded,
        gradients: dict[int, torch.Tensor | None],
        propagate_down: Sequence[bool],
        bottom: Sequence[Blob],
        in_use: set[int],
    ) -> None:
        """Set the diffs of the bottoms asked for; zeros where no gradient reaches them."""
        for leaf, blob, wanted in zip(record.inputs, bottom, propagate_down, strict=False):
            if not wanted:
                continue
            gradient = gradients.get(id(leaf))
            if gradient is None:
                blob.fill(diff=0.0)
            else:
                blob.set_diff(gradient, keep=gradient.untyped_storage().data_ptr() not in in_use)
                in_use.add(blob.diff_memory.tensor.data_ptr())

    def _add_param_diffs(self, record: Recorded, gradients: dict[int, torch.Tensor | None], in_use: set[int]) -> None:
        """Add to the diffs of the parameters that learn."""
        for leaf, blob in zip(record.params, self.blobs, strict=True):
            gradient = gradients.get(id(leaf))
            if gradient is not None:
                memory = gradient.untyped_storage().data_ptr()
                blob.add_diff(gradient, keep=memory not in in_use)
                in_use.add(memory)

    def _run(
        self, bottom: Sequence[Blob], top: Sequence[Blob], propagate_down: Sequence[bool] | None = None
    ) -> tuple[list[torch.Tensor], Recorded]:
        """compute, recorded by autograd; returns the outputs and what backward needs."""
        wanted = list(self.propagate_down if propagate_down is None else propagate_down)
        wanted += [False] * (len(bottom) - len(wanted))
        inputs = []
        for blob, want in zip(bottom, wanted, strict=True):
            value = blob.data_tensor.detach()
            memory = blob.data_memory
            if any(blob is one for one in top) and (memory.exposed or memory.tensor.numel() != blob.count):
                value = value.clone()  # the top will be written over this bottom, which backward still needs
            inputs.append(value.requires_grad_(want))
        flags = list(self.param_propagate_down) + [True] * (len(self.blobs) - len(self.param_propagate_down))
        params = [blob.data_tensor.detach().requires_grad_(want)
                  for blob, want in zip(self.blobs, flags, strict=True)]  # fmt: skip
        self._leaves = params
        try:
            with torch.enable_grad():
                outputs = self._tops(precision.computed(self, inputs))
        finally:
            self._leaves = None
        edges = [torch.autograd.graph.get_gradient_edge(value) if value.requires_grad else None for value in outputs]
        return outputs, Recorded(edges, inputs, params)

    # -- what a solverstate keeps

    def snapshot_state(self) -> bytes | None:
        """What a resumed training needs of the layer beside `blobs`: where its data stand. None: nothing."""
        return None

    def restore_state(self, state: bytes) -> None:
        """Go on from what `snapshot_state` gave. Raises ValueError, without naming the layer, where it does not fit."""
        raise ValueError("the layer keeps no state")

    _leaves: list[torch.Tensor] | None = None

    @property
    def params(self) -> list[torch.Tensor]:
        """The tensors of `blobs` for use in `compute`: leaves of the recorded graph where it is recorded."""
        return self._leaves if self._leaves is not None else [blob.data_tensor for blob in self.blobs]

    @staticmethod
    def _tops(result: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [result] if isinstance(result, torch.Tensor) else list(result)

    # -- checks

    @overload
    def check(self, holds: Literal[False], message: str) -> NoReturn: ...

    @overload
    def check(self, holds: bool, message: str) -> None: ...

    def check(self, holds: bool, message: str) -> None:
        """Raise ValueError, naming the layer, unless `holds`."""
        if not holds:
            raise ValueError(f"layer {self.layer_param.name!r} ({self.type}): {message}")

    def check_counts(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """BVLC's CheckBlobCounts, from the facts of the class."""
        facts = type(self)
        sides = (
            (facts.bottom_count, len(bottom), "takes", "bottom blob(s) as input"),
            (facts.top_count, len(top), "produces", "top blob(s) as output"),
        )
        for (least, most), found, verb, noun in sides:
            if least == most:
                self.check(found == least, f"{self.type} Layer {verb} {least} {noun}; found {found}.")
            self.check(found >= least, f"{self.type} Layer {verb} at least {least} {noun}; found {found}.")
            if most is not None:
                self.check(found <= most, f"{self.type} Layer {verb} at most {most} {noun}; found {found}.")
        if facts.same_count:
            self.check(
                len(bottom) == len(top),
                f"{self.type} Layer produces one top blob as output for each bottom blob input; "
                f"found {len(bottom)} bottoms and {len(top)} tops.",
            )


class LossLayer(Layer):
    """A layer whose first top is a loss: a scalar, of loss weight 1 by default, from (predictions, labels)."""

    bottom_count: tuple[int, int | None] = (2, 2)
    is_loss = True
    auto_tops = True
    no_gradient: tuple[int, ...] = (1,)
    no_force_backward: tuple[int, ...] = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            bottom[0].shape[bottom[0].axis(0)] == bottom[1].shape[bottom[1].axis(0)],
            "The data and label should have the same first dimension; "
            f"found {bottom[0].shape_string()} and {bottom[1].shape_string()}",
        )
        top[0].reshape()


LayerFactory = TypeVar("LayerFactory", bound=Callable[[caffe_pb2.LayerParameter], Layer])  # a class of layers, mostly
_registry: dict[str, Callable[[caffe_pb2.LayerParameter], Layer]] = {}


def register(name: str) -> Callable[[LayerFactory], LayerFactory]:
    """Class decorator: make the class the layer type `name` of prototxt files. Raises ValueError for one there is."""
    importlib.import_module("caffe.layer_types")  # Caffe's own come first; while they do, this does nothing

    def add(cls: LayerFactory) -> LayerFactory:
        if name in _registry:
            raise ValueError(f"Layer type {name} already registered.")
        _registry[name] = cls
        return cls

    return add


def layer_type_list() -> list[str]:
    """The registered layer types, sorted."""
    importlib.import_module("caffe.layer_types")  # Caffe's own, where nobody has asked for one yet
    return sorted(_registry)


def create(layer_param: caffe_pb2.LayerParameter) -> Layer:
    """The layer that `layer_param.type` names: registered here, or by a plug-in (entry-point group caffe.layer_types).

    Raises:
        ValueError: no such type.
    """
    types = layer_type_list()
    name = layer_param.type
    if name not in _registry:
        for entry in importlib.metadata.entry_points(group="caffe.layer_types", name=name):
            _registry[name] = entry.load()
    if name not in _registry:
        fork = forks.of_type(name)
        origin = f" It comes from {fork}." if fork else ""
        raise ValueError(
            f"Unknown layer type: {name} (known types: {', '.join(types)}); layer {layer_param.name!r} asks for it."
            f"{origin} "
            "A plug-in can give it through the entry-point group caffe.layer_types"
        )
    return _registry[name](layer_param)
