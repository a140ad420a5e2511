"""Picture files as pixels: the one decoder of the data layers and the tools.

8 bits a channel (16 are brought to 8), palettes and CMYK as BGR, alpha dropped, the first frame of several, and turned
upright as the EXIF orientation of a JPEG, PNG or WebP says. A picture that is cut short is refused.
"""

from __future__ import annotations

import struct

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_FLOAT_FILES = (b"PF", b"Pf", b"\x76\x2f\x31\x01")  # PFM, OpenEXR: OpenCV would cut their values to 0 and 1


class PictureError(ValueError):
    """A picture that cannot be read completely, or not be used as the settings are. Names the picture."""


def decode(data: bytes, gray: bool | None, name: str) -> np.ndarray:
    """The pixels of an encoded picture, uint8 (height, width, channels), channels in OpenCV's BGR order.

    gray: True: 1 channel; False: 3; None: 1 or 3, as stored. name: of the picture, for messages. Any type counts that
    OpenCV can read. Raises PictureError.
    """
    import cv2

    flags = {True: cv2.IMREAD_GRAYSCALE, False: cv2.IMREAD_COLOR, None: cv2.IMREAD_ANYCOLOR}[gray]
    found = damage(data)
    if found is not None:
        raise PictureError(f"{name}: expected a picture, found {found}; leave it out or replace it")
    if data.startswith(_FLOAT_FILES):
        raise PictureError(f"{name}: expected 8 or 16 bits a channel, found floating-point pixels; convert the picture")
    try:  # turned here, not in OpenCV: its older versions know the orientation of a JPEG only
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # e.g. more pixels than OpenCV allows
        image = None
    if image is None:
        raise PictureError(
            f"{name}: expected a picture that OpenCV {cv2.__version__} can decode, found {len(data)} "
            f"bytes that begin with {bytes(data[:8])!r}: another type of file, or cut short; leave it "
            f"out or replace it"
        )
    image = image.reshape(image.shape[0], image.shape[1], -1)
    return np.ascontiguousarray(_upright(image, orientation(data)))


def damage(data: bytes) -> str | None:
    """No bytes, a JPEG that ends too early, or a PNG or GIF whose sizes cannot be right, in words; else None.

    OpenCV before 5 fills what is missing of a JPEG with other pixels. OpenCV 5 makes room for what a PNG's chunk or a
    GIF's screen says it takes: 4 or 7 GB for a damaged file of a kilobyte.
    """
    count = f"{len(data)} bytes"
    if not len(data):
        return count
    if data[:2] == b"\xff\xd8" and data.find(b"\xff\xd9", _jpeg_segments(data)[1]) < 0:
        return f"a JPEG that is cut short ({count}, no end marker)"
    if data[:8] == _PNG:
        for name, start, stop in _chunks(data, 8, ">", 4):
            if stop > len(data):
                return f"a PNG that is cut short or damaged ({count}, a chunk of {stop - start:,} from byte {start} on)"
            if name == b"IEND":
                break
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        if width * height > max(1 << 24, 4096 * len(data)):  # a code of 12 bits stands for less than 4096
            return f"a damaged GIF ({count} for {width} x {height} pixels)"
    return None


def orientation(data: bytes) -> int:
    """The EXIF orientation of an encoded JPEG, PNG or WebP picture, 1 to 8; 1 (upright) where there is none."""
    exif = _exif(data)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            (tag,) = struct.unpack_from(order + "H", exif, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + "H", exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the block is cut short
        pass
    return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A picture (height, width, channels) of an EXIF orientation, turned upright."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _exif(data: bytes) -> bytes:
    """The EXIF block of a JPEG, PNG or WebP picture; empty where it has none."""
    if data[:2] == b"\xff\xd8":
        blocks = [data[start + 6 : stop] for start, stop in _jpeg_segments(data)[0] if data[start : start + 6] == _EXIF]
    elif data[:8] == _PNG:
        blocks = [data[start:stop] for name, start, stop in _chunks(data, 8, ">", 4) if name == b"eXIf"]
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        blocks = [data[start:stop] for name, start, stop in _chunks(data, 12, "<", 0) if name == b"EXIF"]
        blocks = [block[6:] if block[:6] == _EXIF else block for block in blocks]
    else:
        return b""
    return bytes(blocks[0]) if blocks else b""


_EXIF = b"Exif\0\0"


def _jpeg_segments(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """((start, stop) of the content of each APP1 segment of a JPEG, where its first scan begins)."""
    found, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a byte that fills
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker == 0xE1:
            found.append((place + 4, place + 2 + length))
        place += 2 + length
        if marker == 0xDA:
            break
    return found, place


def _chunks(data: bytes, place: int, order: str, checksum: int):
    """(name, start, stop) of the content of each chunk of a PNG (length, name, content, checksum) or RIFF file (name,
    length, content, padded to 2 bytes), from `place` on."""
    while place + 8 <= len(data):
        name, length = (
            (data[place + 4 : place + 8], data[place : place + 4])
            if checksum
            else (data[place : place + 4], data[place + 4 : place + 8])
        )
        (length,) = struct.unpack(order + "I", length)
        yield bytes(name), place + 8, place + 8 + length
        place += 8 + length + (checksum or length % 2)
