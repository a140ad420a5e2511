"""What the commands in tools/ share. Rooms, each of which imports only those before it:

layout, files, progress, published; download; datasets and weights; runs; codes; scoring; pages; experiments.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dhn import layout

# In a checkout the environment must be the one that it was installed into. Of an installed package, `dhn` sees to it.
for _name, _folder in () if layout.INSTALLED else (("labels", layout.PYTHON_LAYERS), ("net", layout.PROTOTXT)):
    _module = find_spec(_name)
    if _module is None or Path(_module.origin or "").resolve().parent != _folder:
        _place = "is not installed" if _module is None else f"is not the one that is installed (found {_module.origin})"
        raise SystemExit(
            f"{layout.ROOT} {_place}: run `make test` or `pip install -e .` there, and take the Python of that "
            "environment"
        )
