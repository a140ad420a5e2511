"""Where the project's parts are, in a checkout or in the package that pip installed, and how its commands are typed.

            checkout          installed (hatch_build.py)   what
commands    tools/*.py        dhn/commands/                a file is a command
layers      python_layers/    dhn/python_layers/           modules that a net or a command imports by their flat names
nets        prototxt/*.py     dhn/prototxt/                net.py and its tables
recipes     data/*/           dhn/data/*/                  recipes and label names of the built-in data sets
data, runs  data/ runs/       the working directory's      what the commands read and write
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
INSTALLED = (_PACKAGE / "commands").is_dir()
_PARTS = _PACKAGE if INSTALLED else _PACKAGE.parents[1]

COMMANDS = _PACKAGE / "commands" if INSTALLED else _PACKAGE.parent
PYTHON_LAYERS = _PARTS / "python_layers"
PROTOTXT = _PARTS / "prototxt"
RECIPES = _PARTS / "data"
ROOT = Path.cwd() if INSTALLED else _PARTS  # of data/ and runs/

_COMMANDS = {"data": "get-data", "resume": "train --resume", "score": "score-run"}  # a target's, if named otherwise


def target_command(target: str, dataset: str, **options: object) -> str:
    """What a user types for a target of the Makefile; options that are None are left out.

    `make train DATASET=cifar10 BITS=48`, and where there is no Makefile `dhn train cifar10 --bits 48`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if INSTALLED:
        return " ".join(["dhn", _COMMANDS.get(target, target), dataset, *(f"--{name} {given[name]}" for name in given)])
    return " ".join(["make", target, f"DATASET={dataset}", *(f"{name.upper()}={given[name]}" for name in given)])


def tool_command(command: str) -> str:
    """How a command is called: `python tools/score_map.py`, installed `dhn score-map`."""
    folder = "prototxt" if command == "net" else "tools"
    return f"dhn {command.replace('_', '-')}" if INSTALLED else f"python {folder}/{command}.py"
