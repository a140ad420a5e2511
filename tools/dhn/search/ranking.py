"""What backends that rank by distance alone need for the order of results that all share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhn.search import kernels
from dhn.search.items import Ties


def pack(codes: np.ndarray) -> np.ndarray:
    """Binary codes (n, W) uint64 of real-valued codes (n, K): at least 0 is 1; bit k is bit k % 64 of word k // 64."""
    return kernels.pack(np.ascontiguousarray(codes, np.float32))


def products(codes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products (n,) float64 of real-valued codes (n, K) and a query (K,), summed as kernels.py has it:
    the same on every machine and in every backend."""
    return kernels.products(np.ascontiguousarray(codes, np.float32), np.ascontiguousarray(query, np.float32))


def order(distances: np.ndarray, similarities: np.ndarray, keys: Sequence[str], ties: Ties) -> list[int]:
    """Places of candidates (n) in the order of results: distance, with ties="product" the greater similarity, key."""

    def place(item: int) -> tuple:
        tie = -float(similarities[item]) if ties == "product" else 0.0
        return int(distances[item]), tie, keys[item].encode(errors="surrogateescape")

    return sorted(range(len(distances)), key=place)


def first_of_each(codes: np.ndarray) -> np.ndarray:
    """Places, ascending, of the items (n, K) that have no equal real-valued code in front of them; -0 is 0."""
    codes = np.ascontiguousarray(codes, np.float32) + np.float32(0)
    if not len(codes):
        return np.empty(0, np.int64)
    rows = codes.view(np.dtype((np.void, codes.itemsize * codes.shape[1])))[:, 0]
    return np.sort(np.unique(rows, return_index=True)[1])
