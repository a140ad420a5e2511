"""N texts in two arrays: what keys and paths are kept in, so that they open by memmap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from dhn.search import kernels


class Texts(Sequence[str]):
    """N texts: text i is data[offsets[i] : offsets[i + 1]], in UTF-8; bytes that are none come back as Python has them
    in names of files (surrogateescape). data: uint8; offsets (N + 1,): int64."""

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """These texts."""
        if isinstance(texts, Texts):
            return texts
        return cls.of_bytes([text.encode(errors="surrogateescape") for text in texts])

    @classmethod
    def of_bytes(cls, texts: Sequence[bytes]) -> Texts:
        """These texts, encoded."""
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(texts), np.uint8), offsets)

    @classmethod
    def numbers(cls, start: int, count: int, digits: int = 8) -> Texts:
        """The numbers from `start` on, with zeros in front: their order as texts is their order as numbers."""
        digits = max(digits, len(str(start + count)))
        numbers, data = np.arange(start, start + count), np.empty((count, digits), np.uint8)
        for place in range(digits - 1, -1, -1):
            numbers, data[:, place] = np.divmod(numbers, 10)
        return cls((data + ord("0")).ravel(), np.arange(count + 1, dtype=np.int64) * digits)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def bytes_at(self, place: int) -> bytes:
        """Text `place`, encoded."""
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes()

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Texts: ...
    def __getitem__(self, place: int | slice) -> str | Texts:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return self.bytes_at(range(len(self))[place]).decode(errors="surrogateescape")

    def at(self, places: np.ndarray) -> list[str]:
        """The texts at these places, one by one: for few of many."""
        starts, ends = self.offsets[places].tolist(), self.offsets[places + 1].tolist()
        return [
            self.data[start:end].tobytes().decode(errors="surrogateescape")
            for start, end in zip(starts, ends, strict=True)
        ]

    def take(self, places: np.ndarray) -> Texts:
        """The texts at these places."""
        starts, lengths = self.offsets[places], self.offsets[places + 1] - self.offsets[places]
        offsets = np.zeros(len(places) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Texts(self.data[np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets)

    @classmethod
    def joined(cls, parts: Iterable[Texts]) -> Texts:
        """The texts of all parts, one behind the other."""
        parts = list(parts)
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate(data), offsets)

    def order(self) -> np.ndarray:
        """Places (N,) of the texts in the order of their bytes; equal ones in the order of their places."""
        if kernels.is_ascending(np.asarray(self.data), np.asarray(self.offsets)):
            return np.arange(len(self))
        texts = [self.bytes_at(place) for place in range(len(self))]
        return np.array(sorted(range(len(self)), key=texts.__getitem__), np.int64)

    def find(self, text: str, order: np.ndarray) -> int | None:
        """The place of a text; None where it is none of them. order: of `order`."""
        try:
            wanted = text.encode(errors="surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            return None
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.bytes_at(order[middle]) < wanted:
                low = middle + 1
            else:
                high = middle
        return int(order[low]) if low < len(self) and self.bytes_at(order[low]) == wanted else None
