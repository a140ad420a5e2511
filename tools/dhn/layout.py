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

_COMMANDS = {  # a target's, if named otherwise
    "data": "get-data", "resume": "train --resume", "score": "score-run", "index": "build-index",
}  # fmt: skip
_VARIABLES = {"allow-missing": "MISSING"}  # an option's, if named otherwise


def target_command(target: str, dataset: str, **options: object) -> str:
    """What a user types for a target of the Makefile; options that are None are left out.

    `make train DATASET=cifar10 BITS=48`, and where there is no Makefile `dhn train cifar10 --bits 48`.
    """
    start = f"dhn {_COMMANDS.get(target, target)} {dataset}" if INSTALLED else f"make {target} DATASET={dataset}"
    return " ".join([start, *(option(name, value) for name, value in options.items() if value is not None)])


def option(name: str, value: object = None) -> str:
    """An option of a target as it is typed, `WEIGHTS=w.caffemodel`, and where there is no Makefile
    `--weights w.caffemodel`. A switch has no value: `ALLOW_OVERLAP=1`, `--allow-overlap`."""
    if INSTALLED:
        return f"--{name}" if value is None else f"--{name} {value}"
    return f"{_VARIABLES.get(name, name.upper().replace('-', '_'))}={1 if value is None else value}"


def tool_command(command: str) -> str:
    """How a command is called: `python tools/score_map.py`, installed `dhn score-map`."""
    folder = "prototxt" if command == "net" else "tools"
    return f"dhn {command.replace('_', '-')}" if INSTALLED else f"python {folder}/{command}.py"
