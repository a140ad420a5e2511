"""What the commands in tools/ share. Rooms, each of which imports only those before it:

files, progress, published; download; datasets and weights; runs; codes; scoring; pages; experiments.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
for _name, _folder in (("labels", "python_layers"), ("net", "prototxt")):
    _module = find_spec(_name)
    if _module is None or Path(_module.origin or "").resolve().parent != _ROOT / _folder:
        _place = "is not installed" if _module is None else f"is not the one that is installed (found {_module.origin})"
        raise SystemExit(
            f"{_ROOT} {_place}: run `make test` or `pip install -e .` there, and take the Python of that environment"
        )
