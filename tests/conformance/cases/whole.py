"""Whole nets, small enough to be recorded: forward, backward, five updates; a blob by its norms and a few samples."""

from __future__ import annotations

import whole_nets

from .scenario import collector

CASES, scenario = collector()
SAMPLES = 6


def _ask(name):
    def ask(folder):
        return whole_nets.free(name, folder, SAMPLES)

    return ask


for _name in whole_nets.SMALL:
    scenario("WholeNet/" + _name)(_ask(_name))
