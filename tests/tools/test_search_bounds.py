"""An index whose files name places that are not there is refused, by the file, before a search reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dhn.search import bounds, build
from dhn.search.index import open_index
from dhn.search.items import Items, SearchError


@pytest.fixture
def folder(tmp_path):
    """An index of 20 items, opened once."""
    codes = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    build.build(tmp_path / "index", Items(codes, np.ones((20, 1), np.uint8), [f"{row:03d}" for row in range(20)]))
    open_index(tmp_path / "index")
    return tmp_path / "index"


def spoil(folder, name: str, place: int, value: int) -> None:
    """Write a number into an array of the index."""
    facts = json.loads((folder / "index.json").read_text())
    path, entry = folder / facts["generation"] / f"{name}.npy", facts["files"][f"{name}.npy"]
    array = np.memmap(path, entry["dtype"], "r+", entry["offset"], tuple(entry["shape"]))
    array[place] = value
    array.flush()


@pytest.mark.parametrize("value", [-1, 1 << 40])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("offsets", "numbers that rise from 0 to 20"),
        ("key_offsets", "numbers that rise from 0 to 60"),
        ("path_offsets", "numbers that rise from 0 to 0"),
        ("postings", "numbers from 0 to 19"),
        ("key_order", "numbers from 0 to 19"),
        ("key_ranks", "numbers from 0 to 19"),
    ],
)
def test_a_place_that_is_not_there(folder, name, expected, value):
    spoil(folder, name, 3, value)
    with pytest.raises(
        SearchError, match=rf"g-0+1/{name}\.npy: is damaged: expected {expected}; build the index again"
    ):
        open_index(folder)


def test_pictures_of_a_place_that_is_not_there(folder):
    spoil(folder, "sources", 0, 0)
    with pytest.raises(SearchError, match=r"sources\.npy: is damaged: expected numbers from -1 to -1"):
        open_index(folder)


def test_a_large_index_is_not_read_through(folder, monkeypatch):
    spoil(folder, "key_ranks", 3, 1 << 40)
    monkeypatch.setattr(bounds, "CHECKED", 100)
    open_index(folder)
