"""What the commands in tools/ share. Rooms, each of which imports only those before it:

files, progress, published, download; datasets and weights; runs; codes; scoring; pages; experiments.
"""

from __future__ import annotations

from importlib.util import find_spec

_MISSING = [name for name in ("labels", "net") if find_spec(name) is None]  # of python_layers/ and prototxt/
if _MISSING:
    raise SystemExit(
        f"this checkout is not installed (Python finds no module {' and no module '.join(_MISSING)}): run `make test`, "
        "or `pip install -e .` in its folder, and take the Python of that environment"
    )
