"""Where the library built from kernels.c is. Apart, for the build hook: it runs where there is no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")


def library_file(source: Path = SOURCE) -> Path:
    """The file for what is built from `source` and the C files next to it, which it includes: its name has their
    digest, so that no other's is loaded."""
    digest = hashlib.sha256()
    for file in sorted(source.parent.glob("*.[ch]")):
        digest.update(file.read_bytes())
    return source.with_name(f"kernels-{digest.hexdigest()[:12]}.so")
