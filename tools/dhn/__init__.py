"""What the commands in tools/ share. Rooms, each of which imports only those before it:

layout, files, progress, published; download; datasets and weights; runs; codes; scoring; pages; experiments.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from dhn import layout


def run(main: Callable[[], int]) -> int:
    """The exit status of a command, main()'s; 130, 143 or 129, after one line, where ^C, SIGTERM or SIGHUP ended it."""
    from atomic_writes import ending  # not before it is known to be installed

    return ending.run(main)


def _check_flat_modules() -> None:
    """Raise SystemExit where a module of python_layers/ or prototxt/ would be imported from elsewhere, or not at all.

    They are imported by flat names (labels, net, ...), which a package in site-packages or on PYTHONPATH may have too.
    """
    for folder in (layout.PYTHON_LAYERS, layout.PROTOTXT):
        for path in sorted(folder.glob("*.py")):
            spec = find_spec(path.stem)
            if spec is None:
                problem = "is not installed"
            elif Path(spec.origin or "").resolve() != path:
                problem = f"is not what is imported: {path.stem} comes from {spec.origin}"
            else:
                continue
            raise SystemExit(
                f"{layout.ROOT} {problem}: run `make test` or `pip install -e .` there, take the Python of that "
                "environment, and keep other modules of these names off its path"
            )


# In a checkout the environment must be the one that it was installed into. Of an installed package, `dhn` sees to it.
if not layout.INSTALLED:
    _check_flat_modules()
