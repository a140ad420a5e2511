"""The tags of a MATLAB file of version 5 to 7.2, looked through before scipy reads it.

scipy takes the type in a tag as the index of a table without a look at its size and its gaps: a damaged one ends the
process.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from typing import BinaryIO, Literal

MATRIX, COMPRESSED = 14, 15  # types
NUMBERS = {*range(1, 8), 9, 12, 13, *range(16, 19)}  # those of numbers and letters; there are no others
FLAGS = 6, 8  # type and bytes of a matrix's first element, whose lowest byte is its class
CONTAINERS = {1, 2, 3, 16, 17}  # classes of matrices of matrices: cells, structures, objects
WHOLE = {5, 6}  # types of a shape
# of a class behind the flags, shape and name among them; one more of a complex matrix; none of MATLAB's own objects, 17
ELEMENTS = {1: 2, 2: 2, 3: 2, 4: 3, 5: 5, 16: 2, **dict.fromkeys(range(6, 16), 3)}
LONGEST, MANY = 128, 10**6  # bytes of a shape; matrices in a matrix that need not all have bytes of their own
IS_COMPLEX = 1 << 11  # in the flags
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
    """The elements of a matrix of so many bytes; none of an empty one."""
    if depth > DEEPEST:
        raise ValueError("cells within cells without end")
    if not size:
        return
    flags = read(16)
    if len(flags) < 16 or size < 16 or tuple(int.from_bytes(flags[at : at + 4], order) for at in (0, 4)) != FLAGS:
        raise ValueError("a matrix has no class")
    size, bits, found = size - 16, int.from_bytes(flags[8:12], order), 0
    types = NUMBERS | {MATRIX} if bits & 0xFF in CONTAINERS else NUMBERS
    needed = ELEMENTS.get(bits & 0xFF, 0)
    needed += bool(needed and bits & IS_COMPLEX)
    while size > 0:
        found += 1
        kind, count, small = _tag(read, order)
        size -= 8
        if kind not in types:
            raise ValueError(f"there is no type {kind} of numbers")
        if small is not None:
            if count > 4 or (found == 1 and needed):
                raise ValueError("an element is cut off")
            continue
        padded = count if kind == MATRIX else -(-count // 8) * 8
        if count > size:
            raise ValueError("an element is cut off")
        if found == 1 and needed:
            many = math.prod(_shape(read, kind, count, order))
            if MATRIX in types and many > max(MANY, size // 8):
                raise ValueError(f"{many} matrices in {size} bytes")
            _skip(read, min(padded, size) - count)
        elif kind == MATRIX:
            _check_elements(read, count, order, depth + 1)
        else:
            _skip(read, min(padded, size))
        size -= padded
    if found < needed:
        raise ValueError(f"a matrix has {found} of {needed} elements")


def _shape(read: Read, kind: int, count: int, order: Order) -> list[int]:
    """The sizes of a matrix, in an element of so many bytes."""
    if kind not in WHOLE or not 8 <= count <= LONGEST or count % 4:
        raise ValueError("a matrix has no shape")
    data = read(count)
    if len(data) < count:
        raise ValueError("an element is cut off")
    sizes = [int.from_bytes(data[at : at + 4], order, signed=True) for at in range(0, count, 4)]
    if min(sizes) < 0:
        raise ValueError(f"a matrix of shape {sizes}")
    return sizes


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
