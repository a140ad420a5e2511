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

MODULES = (
    weighted,
    neurons,
    neurons_more,
    shaping,
    shaping_more,
    losses,
    sources,
    nets,
    net_calls,
    weights,
    solvers,
    refusals,
)
ALL = {case.name: case for module in MODULES for case in module.CASES}
