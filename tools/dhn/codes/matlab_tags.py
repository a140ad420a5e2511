"""The tags of a MATLAB file of version 5 to 7.2, looked through before scipy reads it.

scipy takes the type in a tag as the index of a table without a look at its size: a damaged one ends the process.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import BinaryIO, Literal

MATRIX, COMPRESSED, TYPES = 14, 15, range(1, 19)
HEADER, BLOCK, DEEPEST = 128, 1 << 16, 50

Read = Callable[[int], bytes]
Order = Literal["little", "big"]


def check(path: str) -> None:
    """Raise ValueError where an element of the file has a type that there is none of, or is cut off."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        head = stream.read(HEADER)
        if head[126:128] not in (b"IM", b"MI"):
            return  # of version 4, which has no tags
        order: Order = "little" if head[126:128] == b"IM" else "big"
        while stream.tell() < size:
            kind, count, small = _tag(stream.read, order)
            if small or count > size - stream.tell():
                raise ValueError("an element is cut off")
            end = stream.tell() + count
            if kind == COMPRESSED:
                read = _inflated(stream, end)
                kind, count, _ = _tag(read, order)
                if kind == MATRIX:
                    _check_elements(read, count, order)
            elif kind == MATRIX:
                _check_elements(stream.read, count, order)
            stream.seek(end)


def _tag(read: Read, order: Order) -> tuple[int, int, bytes | None]:
    """(type, bytes of data, the data if they stand in the tag itself)."""
    raw = read(8)
    if len(raw) < 8:
        raise ValueError("an element is cut off")
    first = int.from_bytes(raw[:4], order)
    if first >> 16:
        return first & 0xFFFF, first >> 16, raw[4:]
    return first, int.from_bytes(raw[4:], order), None


def _check_elements(read: Read, size: int, order: Order, depth: int = 0) -> None:
    """The elements of a matrix of so many bytes."""
    if depth > DEEPEST:
        raise ValueError("cells within cells without end")
    while size > 0:
        kind, count, small = _tag(read, order)
        size -= 8
        if kind not in TYPES:
            raise ValueError(f"there is no type {kind}")
        if small is not None:
            if count > 4:
                raise ValueError("an element is cut off")
            continue
        padded = count if kind == MATRIX else -(-count // 8) * 8
        if count > size:
            raise ValueError("an element is cut off")
        if kind == MATRIX:
            _check_elements(read, count, order, depth + 1)
        else:
            _skip(read, min(padded, size))
        size -= padded


def _skip(read: Read, count: int) -> None:
    while count > 0:
        block = read(min(count, BLOCK))
        if not block:
            raise ValueError("an element is cut off")
        count -= len(block)


def _inflated(stream: BinaryIO, end: int) -> Read:
    """Reads what the compressed bytes of a stream up to `end` hold."""
    inflate, ready = zlib.decompressobj(), b""

    def read(count: int) -> bytes:
        nonlocal ready
        while len(ready) < count and not inflate.eof:
            packed = inflate.unconsumed_tail or stream.read(min(BLOCK, end - stream.tell()))
            if not packed:
                break
            try:
                ready += inflate.decompress(packed, BLOCK)
            except zlib.error as error:
                raise ValueError(str(error)) from None
        found, ready = ready[:count], ready[count:]
        return found

    return read
