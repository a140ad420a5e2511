"""Recurrent layers: RNN, LSTM and the step LSTMUnit.

BVLC unrolls RNN and LSTM into a net of small layers; here they are a loop over time, with the same parameters in the
same order, so that caffemodels fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from caffe import fillers, glog
from caffe.blob import Blob
from caffe.layer import Layer, merged, register


def lstm_step(
    gates: torch.Tensor, cell: torch.Tensor, cont: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the LSTM. gates: (..., 4 dim), inputs of the gates i, f, o and of g, in this order. cell: (..., dim),
    the cell before. cont: broadcast to cell, what of it is kept: 0 at a sequence's first step, else 1.

    Returns the cell c = cont f cell + i g and the hidden state o tanh(c).
    """
    i, f, o, g = gates.split(dim, -1)
    cell = cont * torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return cell, torch.sigmoid(o) * torch.tanh(cell)


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of the LSTM of Zaremba and Sutskever 2014.

    Bottoms: the cell before (1, N, D), the gates' inputs (1, N, 4 D) in the order i, f, o, g, and cont (1, N), 0 where
    a sequence begins, else 1. Tops: the cell and the hidden state, (1, N, D).

    The gradient is the derivative for any cont; BVLC's is for 0 and 1 only.
    """

    bottom_count = (3, 3)
    top_count = (2, 2)
    no_gradient = (2,)
    no_force_backward = (2,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        cell, gates, cont = bottom
        shapes = ", ".join(blob.shape_string() for blob in bottom)
        self.check(
            cell.num_axes == gates.num_axes == 3
            and cont.num_axes == 2
            and cell.shape[0] == gates.shape[0] == cont.shape[0] == 1
            and cell.shape[1] == gates.shape[1] == cont.shape[1]
            and gates.shape[2] == 4 * cell.shape[2],
            f"expected bottoms of shapes (1, N, D), (1, N, 4 D) and (1, N); found {shapes}",
        )
        for blob in top:
            blob.reshape_like(cell)

    def compute(self, cell: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return lstm_step(gates, cell, cont.unsqueeze(-1), cell.shape[2])


class Recurrent(Layer):
    """A recurrent layer over T timesteps of N streams.

    Bottoms: x (T, N, ...), of 3 axes or more; cont (T, N), 0 where a stream begins a sequence, else 1; optionally a
    static input (N, ...), seen at each timestep; with expose_hidden the states to begin with, (1, N, num_output) each.
    Tops: the outputs (T, N, num_output); with expose_hidden the last states.

    Without expose_hidden a batch begins with the last states of the batch before it (zeros at first). No gradient
    flows through the states from batch to batch: as in BVLC, exposed ones' diffs are neither read nor written.

    recurrent_param.debug_info logs the mean absolute values of each step's states and output in a forward pass: of
    the lines that BVLC writes about its unrolled net, those of the units.
    """

    bottom_count = (2, None)
    top_count = (1, None)
    no_gradient = (1,)
    no_force_backward = (1,)
    states: int  # how many states the layer has

    def parameters(self, inputs: int, static: int | None, dim: int) -> list[tuple[str, tuple[int, ...]]]:
        """The names and shapes of the blobs. inputs, static: values a timestep and stream; dim: num_output."""
        raise NotImplementedError

    def step(
        self, drive: torch.Tensor, states: list[torch.Tensor], cont: torch.Tensor, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One timestep: (output, the states after it).

        drive: the input's part of the sums, (N, ...). states: (N, num_output) each. cont: (N, 1). weights: the blobs
        after those of x and of the static input.
        """
        raise NotImplementedError

    def shown(self, step: str, output: torch.Tensor, states: list[torch.Tensor]) -> list[tuple[str, str, torch.Tensor]]:
        """What debug_info shows of a timestep, numbered `step` from 1: layers and tops as BVLC names them, values."""
        raise NotImplementedError

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.recurrent_param
        self.exposed = self.states if param.expose_hidden else 0
        least = 2 + self.exposed
        for holds, verb, wanted, found, side in (
            (len(bottom) >= least, "takes at least", least, len(bottom), "bottom blob(s) as input"),
            (len(bottom) <= least + 1, "takes at most", least + 1, len(bottom), "bottom blob(s) as input"),
            (len(top) == 1 + self.exposed, "produces", 1 + self.exposed, len(top), "top blob(s) as output"),
        ):
            self.check(holds, f"{self.type} Layer {verb} {wanted} {side}; found {found}.")
        self.static = len(bottom) > least
        self.dim = param.num_output
        self.check(self.dim > 0, f"num_output must be positive; found {self.dim}")
        self._check_bottoms(bottom)
        self.steps, streams = bottom[0].shape[:2]
        glog.info(
            "recurrent_layer.cpp:20",
            f"Initializing recurrent layer: assuming input batch contains {self.steps} timesteps of {streams} "
            "independent streams.",
        )
        inputs = math.prod(bottom[0].shape[2:])
        static = math.prod(bottom[2].shape[1:]) if self.static else None
        named = self.parameters(inputs, static, self.dim)
        if not self.blobs:
            for index, (name, shape) in enumerate(named):
                self.blobs.add_blob(*shape)
                fillers.fill(self.blobs[-1], param.bias_filler if name.startswith("b_") else param.weight_filler)
                glog.info("recurrent_layer.cpp:150", f"Adding parameter {index}: {name}")
        for (name, shape), blob in zip(named, self.blobs, strict=True):
            self.check(blob.shape == shape, f"expected {name} of shape {shape}, found {blob.shape_string()}")
        self.memory = [Blob((1, streams, self.dim)) for _ in range(self.states)]

    def _check_bottoms(self, bottom: Sequence[Blob]) -> None:
        x, cont = bottom[:2]
        self.check(
            x.num_axes >= 2,
            f"bottom[0] must have at least 2 axes -- (#timesteps, #streams, ...); found {x.shape_string()}",
        )
        x.axis(2)  # raises where the streams have no values
        self.check(
            cont.num_axes == 2,
            f"bottom[1] must have exactly 2 axes -- (#timesteps, #streams); found {cont.shape_string()}",
        )
        self.check(
            cont.shape == x.shape[:2],
            f"bottom[1] must have bottom[0]'s timesteps and streams; found {x.shape_string()}, {cont.shape_string()}",
        )
        if self.static:
            self.check(
                bottom[2].shape[:1] == x.shape[1:2],
                f"the static input must have bottom[0]'s streams as first axis; found {x.shape_string()}, "
                f"{bottom[2].shape_string()}",
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._check_bottoms(bottom)
        self.check(
            bottom[0].shape[0] == self.steps,
            f"input number of timesteps changed: expected {self.steps}, found {bottom[0].shape_string()}",
        )
        state = (1, bottom[0].shape[1], self.dim)
        for index, blob in enumerate(bottom[2 + self.static :], 2 + self.static):
            self.check(
                blob.shape == state,
                f"shape mismatch - recur_input_blobs_[{index - 2 - self.static}]: {Blob(state).shape_string()} vs. "
                f"bottom[{index}]: {blob.shape_string()}; a state is 1 x streams x num_output",
            )
        for blob in self.memory:
            blob.reshape(*state)
        top[0].reshape(self.steps, *state[1:])
        for blob in top[1:]:
            blob.reshape(*state)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.start = [blob.data_tensor[0].clone() for blob in self.memory]
        super().forward(bottom, top)
        for blob, state in zip(self.memory, self.last, strict=True):
            blob.set_data(state, keep=False)

    def snapshot_state(self) -> bytes:
        return np.stack([blob.data for blob in self.memory]).astype("<f4").tobytes()

    def restore_state(self, state: bytes) -> None:
        values, shape = np.frombuffer(state, "<f4"), (len(self.memory), *self.memory[0].shape)
        if values.size != math.prod(shape):
            glog.warning(
                "recurrent_layer.cpp:20",
                f"layer {self.layer_param.name!r}: the solverstate's {values.size} values are not the states of "
                f"{shape[2]} streams: they begin with zeros",
            )
            return
        for blob, each in zip(self.memory, values.reshape(shape), strict=True):
            blob.data[...] = each

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        states = 2 + self.static
        super().backward(top, [*propagate_down[:states], *(False,) * self.exposed], bottom)

    def compute(self, x: torch.Tensor, cont: torch.Tensor, *rest: torch.Tensor) -> list[torch.Tensor]:
        weights = list(self.params)
        input_weight, bias = weights[:2]
        drive = F.linear(merged(x, 2), input_weight, bias)
        if self.static:
            drive = drive + F.linear(merged(rest[0], 1), weights[2])
        exposed = [state.detach()[0] for state in rest[self.static :]]
        states = exposed if self.exposed else [state.to(x.dtype) for state in self.start]
        outputs = []
        for now, keep in zip(drive, cont.unsqueeze(-1), strict=True):
            output, states = self.step(now, states, keep, weights[2 + self.static :])
            outputs.append(output)
            if self.layer_param.recurrent_param.debug_info:
                for unit, top, value in self.shown(str(len(outputs)), output, states):
                    line = f"Layer {self.layer_param.name}_{unit}, top blob {top} data: {value.abs().mean().item():g}"
                    glog.info("net.cpp:593", f"    [Forward] {line}")
        self.last = [state.detach() for state in states]
        return [torch.stack(outputs), *(state.unsqueeze(0) for state in self.last[: self.exposed])]


@register("LSTM")
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), without peepholes. States: h, then c. See Recurrent.

    Blobs: W_xc (4 num_output, values of x), b_c (4 num_output,), W_xc_static with a static input, W_hc
    (4 num_output, num_output); rows in the order of the gates i, f, o and of g.
    """

    states = 2

    def parameters(self, inputs: int, static: int | None, dim: int) -> list[tuple[str, tuple[int, ...]]]:
        of_static = [] if static is None else [("W_xc_static", (4 * dim, static))]
        return [("W_xc", (4 * dim, inputs)), ("b_c", (4 * dim,)), *of_static, ("W_hc", (4 * dim, dim))]

    def step(
        self, drive: torch.Tensor, states: list[torch.Tensor], cont: torch.Tensor, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        hidden, cell = states
        cell, hidden = lstm_step(drive + F.linear(hidden * cont, weights[0]), cell, cont, self.dim)
        return hidden, [hidden, cell]

    def shown(self, step: str, output: torch.Tensor, states: list[torch.Tensor]) -> list[tuple[str, str, torch.Tensor]]:
        return [("unit_" + step, "c_" + step, states[1]), ("unit_" + step, "h_" + step, states[0])]


@register("RNN")
class RNN(Recurrent):
    """h_t = tanh(W_hh h_(t-1) + W_xh x_t + b_h), the output o_t = tanh(W_ho h_t + b_o). State: h. See Recurrent.

    Blobs: W_xh (num_output, values of x), b_h (num_output,), W_xh_static with a static input, W_hh and W_ho
    (num_output, num_output), b_o (num_output,).
    """

    states = 1

    def parameters(self, inputs: int, static: int | None, dim: int) -> list[tuple[str, tuple[int, ...]]]:
        of_static = [] if static is None else [("W_xh_static", (dim, static))]
        square = (dim, dim)
        return [
            ("W_xh", (dim, inputs)),
            ("b_h", (dim,)),
            *of_static,
            ("W_hh", square),
            ("W_ho", square),
            ("b_o", (dim,)),
        ]

    def step(
        self, drive: torch.Tensor, states: list[torch.Tensor], cont: torch.Tensor, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        from_hidden, to_output, bias = weights
        hidden = torch.tanh(drive + F.linear(states[0] * cont, from_hidden))
        return torch.tanh(F.linear(hidden, to_output, bias)), [hidden]

    def shown(self, step: str, output: torch.Tensor, states: list[torch.Tensor]) -> list[tuple[str, str, torch.Tensor]]:
        return [("h_neuron_" + step, "h_" + step, states[0]), ("o_neuron_" + step, "o_" + step, output)]
