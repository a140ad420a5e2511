"""The cases: what both engines are asked. One table a family of layers, and scenarios where a table says too little."""

from __future__ import annotations

from . import (
    losses,
    net_calls,
    nets,
    neurons,
    neurons_more,
    refusals,
    refused_calls,
    refused_commands,
    refused_databases,
    refused_files,
    refused_layers,
    refused_shapes,
    refused_solvers,
    shaping,
    shaping_more,
    solvers,
    sources,
    weighted,
    weights,
    whole,
    wider,
    windows,
)

MODULES = (
    weighted,
    neurons,
    neurons_more,
    shaping,
    shaping_more,
    wider,
    losses,
    sources,
    windows,
    nets,
    net_calls,
    weights,
    solvers,
    whole,
    refusals,
    refused_layers,
    refused_shapes,
    refused_calls,
    refused_commands,
    refused_databases,
    refused_files,
    refused_solvers,
)
ALL = {case.name: case for module in MODULES for case in module.CASES}
