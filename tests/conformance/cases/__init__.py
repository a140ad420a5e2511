"""The cases: what both engines are asked. One table a family of layers, and scenarios where a table says too little."""

from __future__ import annotations

from . import losses, neurons, shaping, weighted

ALL = {case.name: case for module in (weighted, neurons, shaping, losses) for case in module.CASES}
