"""Whether the places that an index's arrays name are there: a damaged one would be read beyond the end of an array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dhn.search.items import SearchError

CHECKED = 1 << 28  # bytes of places that are looked at when an index is opened: 20 ms of a core for 10^6 items


def check(folder: Path, arrays: Mapping[str, np.ndarray], pictures: int) -> None:
    """Raise SearchError, naming the file in `folder`, where an array names a place that is not there.

    arrays: those of generation.py by their names. pictures: how many places index.json has for pictures. Of more than
    CHECKED bytes nothing is looked at: `search.py --verify` compares all digests.
    """
    count = len(arrays["codes"])
    ends = {"offsets": count, "key_offsets": len(arrays["keys"]), "path_offsets": len(arrays["paths"])}
    rows = dict.fromkeys(("postings", "places", "key_order", "key_ranks"), (0, count)) | {"sources": (-1, pictures)}
    chosen = {name: arrays[name] for name in (*ends, *rows) if name in arrays}
    if sum(array.nbytes for array in chosen.values()) > CHECKED:
        return
    for name, array in chosen.items():
        if name in ends:
            expected = f"numbers that rise from 0 to {ends[name]}"
            fits = array[0] == 0 and array[-1] == ends[name] and bool((array[1:] >= array[:-1]).all())
        else:
            low, high = rows[name]
            expected = f"numbers from {low} to {high - 1}"
            fits = not len(array) or (low <= array.min() and array.max() < high)
        if not fits:
            raise SearchError(f"{folder / name}.npy: is damaged: expected {expected}; build the index again")
