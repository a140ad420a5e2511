"""What a picture file says beside its pixels: which way up it is shown (EXIF), and whether it is damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # the tag's number
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_END_OF_IMAGE = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_GIF = (b"GIF87a", b"GIF89a")
_GIF_PIXELS = 4096  # that a byte can stand for: a code of 12 bits, for less than 4096
_PNG_CHUNKS = (8, ">4x4s", ">I4x", 4)  # from byte 8 on: length, name, content, checksum


def orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP file, 1 to 8; 1, upright, where it says none."""
    block = _block(data)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, directory + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the block ends before it should
        pass
    return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W) or (H, W, C) that is stored in `orientation`, as it is meant to be seen."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def damage(data: bytes) -> str | None:
    """A JPEG that ends before it should, or a PNG or GIF whose sizes cannot be right, in words; None for all others.

    OpenCV 4 fills what is missing of a JPEG, and says nothing. OpenCV 5 makes room for what a PNG's chunk or a GIF's
    screen says it takes: 4 or 7 GB for a damaged file of a kilobyte.
    """
    if _is_jpeg(data) and data.rfind(_END_OF_IMAGE, _jpeg_header(data)[1]) < 0:
        return f"a JPEG cut short ({len(data)} bytes, no end-of-image marker)"
    if data.startswith(_PNG):
        for name, start, size in _chunks(data, *_PNG_CHUNKS):
            if start + size > len(data):
                return f"a PNG cut short or damaged ({len(data)} bytes, a chunk of {size:,} from byte {start} on)"
            if name == b"IEND":
                break
    if data.startswith(_GIF) and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        if width * height > max(1 << 24, _GIF_PIXELS * len(data)):
            return f"a damaged GIF ({len(data)} bytes for {width} x {height} pixels)"
    return None


def _is_jpeg(data: bytes) -> bool:
    return data[:2] == b"\xff\xd8"


def _block(data: bytes) -> bytes:
    """The EXIF block, in the format of a TIFF file; empty where there is none."""
    if _is_jpeg(data):
        return _jpeg_header(data)[0]
    if data.startswith(_PNG):
        return _chunk(data, b"eXIf", *_PNG_CHUNKS)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _chunk(data, b"EXIF", 12, "<4s4x", "<4xI", 0).removeprefix(_EXIF)  # name, length, content
    return b""


def _chunk(data: bytes, wanted: bytes, place: int, name: str, length: str, checksum: int) -> bytes:
    """The content of the first chunk of a name; empty where there is none."""
    found = (data[at : at + size] for kind, at, size in _chunks(data, place, name, length, checksum) if kind == wanted)
    return next(found, b"")


def _chunks(data: bytes, place: int, name: str, length: str, checksum: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its content begins, bytes of it) of each chunk from `place` on.

    name, length: formats of a chunk's head. checksum: bytes behind the content; without, RIFF pads to two bytes.
    """
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(length, data, place)
        yield struct.unpack_from(name, data, place)[0], place + 8, size
        place += 8 + size + (checksum or size % 2)


def _jpeg_header(data: bytes) -> tuple[bytes, int]:
    """(the EXIF block, where the first scan begins) of a JPEG. Its segments are 0xFF, marker, length, content."""
    block, place = b"", 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        start, place = place + 4, place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _APP1 and not block and data.startswith(_EXIF, start):
            block = data[start + len(_EXIF) : place]
        if marker == _START_OF_SCAN:
            break
    return block, place
