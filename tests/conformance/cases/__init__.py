"""The cases: what both engines are asked. One table a family of layers, and scenarios where a table says too little."""

from __future__ import annotations

from . import (
    losses,
    net_calls,
    nets,
    neurons,
    neurons_more,
    refusals,
    shaping,
    shaping_more,
    solvers,
    sources,
    weighted,
    weights,
)

LAYERS = (weighted, neurons, neurons_more, shaping, shaping_more, losses, sources)
WHOLES = (nets, net_calls, weights, solvers, refusals)
ALL = {case.name: case for module in LAYERS + WHOLES for case in module.CASES}
OF_A_TYPE = {case.name: case.name.split("/")[0] for module in LAYERS for case in module.CASES}  # case: its layer type
