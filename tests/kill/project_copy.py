"""A copy of what the commands need of the project, with the recipe of Fashion-MNIST made small."""

from __future__ import annotations

import shutil
from pathlib import Path

import smaller_numbers

FOLDERS = ("engine", "python_layers", "tools", "prototxt")
SMALLER = {  # of prototxt/dataset_table.py, for Fashion-MNIST
    '("test_iter", 10, "10 batches of 100': '("test_iter", 1, "1 batch of 8',
    '("test_interval", 500, "a look at the test losses costs less': '("test_interval", 4, "a look costs less',
    '("max_iter", 600, "8 epochs': '("max_iter", 4, "an epoch',
    '("display", 50, "a line every few': '("display", 1, "a line every few',
    '"batch_size": 64, "mirror": True},\n        test={"source": "data/fashion_mnist/query_lmdb", "batch_size": 100}':
    '"batch_size": 8},\n        test={"source": "data/fashion_mnist/query_lmdb", "batch_size": 8}',
    '("snapshot", 500, "a killed training loses at most a minute"),\n            ("random_seed", 1':
    '("snapshot", 2, "small"),\n            ("random_seed", 1',
}  # fmt: skip


def make(folder: Path, project: Path) -> None:
    """Write it into a new folder."""
    for name in FOLDERS:
        shutil.copytree(project / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "released"))
    smaller_numbers.write(folder, SMALLER)
