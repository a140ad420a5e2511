"""A copy of the project with smaller numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write(project: Path, smaller: Mapping[str, str]) -> None:
    """Write other texts into the table of the data sets of a copy, each for one that stands there once."""
    table = project / "prototxt" / "dataset_table.py"
    text = table.read_text()
    for real, instead in smaller.items():
        assert text.count(real) == 1, f"dataset_table.py has no {real} any more"
        text = text.replace(real, instead)
    table.write_text(text)
