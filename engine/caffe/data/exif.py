"""What a picture file says beside its pixels: which way up it is shown (EXIF), and whether a JPEG is complete."""

from __future__ import annotations

import struct

import numpy as np

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # the tag's number
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_END_OF_IMAGE = b"\xff\xd9"


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


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG ends before its end-of-image marker: OpenCV 4 fills what is missing, and says nothing."""
    return _is_jpeg(data) and data.rfind(_END_OF_IMAGE, _jpeg_header(data)[1]) < 0


def _is_jpeg(data: bytes) -> bool:
    return data[:2] == b"\xff\xd8"


def _block(data: bytes) -> bytes:
    """The EXIF block, in the format of a TIFF file; empty where there is none."""
    if _is_jpeg(data):
        return _jpeg_header(data)[0]
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _chunk(data, b"eXIf", 8, ">4x4s", ">I4x", 4)  # length, name, content, checksum
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _chunk(data, b"EXIF", 12, "<4s4x", "<4xI", 0).removeprefix(_EXIF)  # name, length, content
    return b""


def _chunk(data: bytes, wanted: bytes, place: int, name: str, length: str, checksum: int) -> bytes:
    """The content of the first chunk of a name; empty where there is none. name, length: formats of a chunk's head."""
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(length, data, place)
        if struct.unpack_from(name, data, place)[0] == wanted:
            return data[place + 8 : place + 8 + size]
        place += 8 + size + (checksum or size % 2)  # RIFF pads to two bytes
    return b""


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
