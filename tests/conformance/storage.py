"""The answers' files: an .npz a group of cases, packed so that a thousand small arrays stay small.

`numbers` holds all numeric arrays one after the other as float32; `index` is UTF-8 JSON, [[case, value, shape, texts or
null], ...] in the numbers' order, the texts standing in the index itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def save(path: str, answers: dict) -> None:
    """answers: {case: {value: array of numbers or of text}}."""
    index, numbers = [], [np.zeros(0, np.float32)]
    for case, values in answers.items():
        for value, array in values.items():
            texts = array.ravel().tolist() if array.dtype.kind == "U" else None
            index.append([case, value, list(array.shape), texts])
            if texts is None:
                numbers.append(array.astype(np.float32).ravel())
    packed = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(path, numbers=np.concatenate(numbers), index=packed)


def load(folder: Path) -> dict:
    """{case: {value: array}} of all the .npz files in a folder."""
    answers: dict = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(str(path), allow_pickle=False) as file:
            numbers, index = file["numbers"], json.loads(file["index"].tobytes().decode())
        start = 0
        for case, value, shape, texts in index:
            if texts is None:
                count = int(np.prod(shape, dtype=int))
                array = numbers[start : start + count].reshape(shape)
                start += count
            else:
                array = np.array(texts, dtype=str).reshape(shape)
            answers.setdefault(case, {})[value] = array
    return answers
