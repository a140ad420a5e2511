"""A sample: MAP of a drawn database's codes, by tools/dhn/scoring or as the authors' scripts compute it."""

from __future__ import annotations

import os
import sys

import numpy as np

from sampling import peak_memory

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools"))
CHUNK = 1 << 18


def draw(count: int, bits: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes float32 (count, bits) that follow the labels uint8 (count, classes), about two an item."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).standard_normal((classes, bits), np.float32)
    codes, labels = np.empty((count, bits), np.float32), np.empty((count, classes), np.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        labels[part] = random.random(labels[part].shape, np.float32) < 2 / classes
        codes[part] = random.standard_normal(codes[part].shape, np.float32)
        codes[part] += labels[part] @ patterns
        codes[part][codes[part] == 0] = 1  # it would have no sign; a net's code is 0 as rarely as the draw is
    return codes, labels


def authors_map(queries: np.ndarray, query_labels: np.ndarray, database: np.ndarray, labels: np.ndarray, top: int):
    """MAP as hash-caffe's script arrives at it: every dot product, every one sorted, then query by query.

    Codes -1 or 1, float64 (Q, K) and (N, K); labels 0 or 1, (Q, C) and (N, C). A query without a hit is left out.
    """
    products = np.dot(database, queries.T)  # (N, Q)
    order = np.argsort(-products, axis=0)
    ranks, precisions = np.arange(1, top + 1), []
    for query in range(len(queries)):
        wanted = np.where(query_labels[query] == 0, -1, query_labels[query])
        hits = np.sum(labels[order[:top, query]] == wanted, axis=1) > 0
        if hits.any():
            precisions.append(np.sum(np.cumsum(hits) / ranks * hits) / hits.sum())
    return np.mean(precisions)


def setup(folder: str, items: int, queries: int, bits: int, classes: int, top: int, authors: bool = False):
    """`grown`: the memory that the arrays and the scoring took, in bytes; `map`: for comparison."""
    few = draw(64, bits, classes, 3)
    if authors:
        held = peak_memory()
        (codes, labels), (database, database_labels) = draw(queries, bits, classes, 1), draw(items, bits, classes, 2)
        codes, database = (np.where(each < 0, -1.0, 1.0) for each in (codes, database))
        given = codes, labels.astype(np.int64), database, database_labels.astype(np.int64)

        def sample():
            return {"map": float(authors_map(*given, top)), "grown": peak_memory() - held}

        return sample
    from dhn.scoring import retrieval

    retrieval.score(*few, *few, "hash-caffe", 10)  # compiles
    held = peak_memory()
    given = (*draw(queries, bits, classes, 1), *draw(items, bits, classes, 2))

    def sample():
        found = retrieval.score(*given, "hash-caffe", top)
        return {"map": found["map"], "low": found["map_low"], "high": found["map_high"], "grown": peak_memory() - held}

    return sample
