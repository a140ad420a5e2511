"""Where the library built from kernels.c is. Apart, for the build hook: it runs where there is no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")


def library_file(source: Path = SOURCE) -> Path:
    """The file for what is built from `source`: its name has the source's digest, so that no other's is loaded."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    return source.with_name(f"kernels-{digest}.so")
