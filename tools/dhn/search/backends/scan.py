"""The index folder itself: exact, by a scan of its distinct codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dhn.search import build
from dhn.search.backends import Backend
from dhn.search.generation import read_facts
from dhn.search.index import Index, open_index
from dhn.search.items import DEFAULTS, Items, Options, Result


class Scan(Backend):
    """An index folder as a backend. It sees what another process wrote to the folder at its next call."""

    def __init__(self, folder: str | os.PathLike, bits: int) -> None:
        """Open the index in a folder, or make an empty one of so many bits there."""
        self.folder = Path(folder)
        if not (self.folder / "index.json").exists():
            build.build(self.folder, Items(np.empty((0, bits), np.float32), None, []))
        self._index = open_index(self.folder)

    @property
    def bits(self) -> int:
        """K, bits of a code."""
        return self._index.bits

    def index(self) -> Index:
        """The index as it is now."""
        if read_facts(self.folder) != self._index.about:
            self._index = open_index(self.folder)
        return self._index

    def add(self, items: Items) -> None:
        """See Backend."""
        build.append(self.folder, items)

    def search(self, queries: np.ndarray, options: Options = DEFAULTS) -> list[list[Result]]:
        """See Backend."""
        return self.index().search(queries, options)

    def delete(self, keys: Sequence[str]) -> int:
        """See Backend."""
        return build.delete(self.folder, keys)

    def count(self) -> int:
        """See Backend."""
        return len(self.index())
