"""The command `dhn`: runs a command of the toolkit, `dhn score-map ...` as `python tools/score_map.py ...` does.

It is what `pip install 'dhn-caffe-toolkit[tools]'` gives a user without a checkout. The commands, and the modules that
they import by flat names (labels, net, ...), are not installed where every program would find them. This file alone
puts their folders on sys.path, for the process of a command.
"""

from __future__ import annotations

import ast
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from dhn import begin_imports, layout

NEEDED = (  # pyproject's extra `tools`
    "httptools", "jinja2", "matplotlib", "PIL", "python_multipart", "rich", "starlette", "uvicorn",
)  # fmt: skip


def commands() -> dict[str, Path]:
    """The commands by the names that they are typed by: the files of tools/, and prototxt/net.py."""
    files = [*layout.COMMANDS.glob("*.py"), layout.PROTOTXT / "net.py"]
    return {path.stem.replace("_", "-"): path for path in sorted(files, key=lambda path: path.stem)}


def overview() -> str:
    """What `dhn --help` prints: a line a command, the first of its docstring."""
    lines = ["usage: dhn COMMAND ...", "", "`dhn COMMAND --help` lists a command's options. The commands:", ""]
    for name, path in commands().items():
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        lines.append(f"  {name:<16} {summary}")
    return "\n".join(lines)


def main() -> int:
    """The command line; returns the exit status. A command exits with its own."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    path = commands().get(name)
    if path is None:
        print(f"dhn: there is no command {name!r}; expected one of {', '.join(commands())}", file=sys.stderr)
        return 2
    if missing := [module for module in NEEDED if find_spec(module) is None]:
        remedy = "pip install 'dhn-caffe-toolkit[tools]'"
        print(f"dhn {name} needs {', '.join(missing)}, not installed here; run: {remedy}", file=sys.stderr)
        return 1
    sys.path[:0] = [str(layout.COMMANDS), str(layout.PYTHON_LAYERS), str(layout.PROTOTXT)]
    if path.parent == layout.COMMANDS:
        begin_imports(f"dhn {name}")
    sys.argv = [f"dhn {name}", *arguments]  # what argparse calls the command
    runpy.run_module(path.stem, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
