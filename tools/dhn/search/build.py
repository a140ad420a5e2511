"""Write an index: build, append, delete. Each is atomic: a reader sees the index as it was, or as it becomes.

One writer at a time holds the folder; a second one is refused with the first one's process id.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from dhn.search.items import Items


def build(folder: str | os.PathLike, items: Items, about: dict) -> None:
    """Write an index of items into a folder; one that stands there is replaced.

    about: what index.json says besides: data set, split, net, label_names, pictures. Raises SearchError.
    """
    raise NotImplementedError


def append(folder: str | os.PathLike, items: Items, about: dict | None = None) -> None:
    """Add items to an index. Raises SearchError for codes of other bits or a key that is there already."""
    raise NotImplementedError


def delete(folder: str | os.PathLike, keys: Sequence[str]) -> int:
    """Remove the items of these keys from an index; returns how many. Raises SearchError for an unknown key."""
    raise NotImplementedError
