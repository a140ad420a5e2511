"""Small pictures as files of every kind, with the pixels that each decoder must see.

`pictures()` gives {name: (bytes, pixels (H, W, C) uint8 as stored, tolerance)}; `broken()` {name: bytes}.
"""

import base64
import struct
import zlib

import cv2
import numpy as np

RED, GREEN, BLUE, GRAY = (40, 60, 200), (70, 180, 60), (190, 90, 50), (120, 120, 120)  # BGR
# 2 x 2 blocks of 8 x 12 pixels, so that a turned picture is another one
COLOR = np.repeat(np.repeat(np.array([[RED, GREEN], [BLUE, GRAY]], np.uint8), 8, 0), 12, 1)
PALE = np.ascontiguousarray(np.repeat(np.repeat(np.array([[0, 90], [180, 255]], np.uint8), 8, 0), 12, 1)[:, :, None])
INDICES = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 8, 0), 12, 1)  # of COLOR's colours
# 8 x 8 pixels, two halves
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwANCQoLCggNCwoLDg4NDxMgFRMSEhMnHB4XIC4pMTAuKS0sMzpKPjM2RjcsLUBXQUZMTlJTUjI+WmFaUGBK"
    "UVJP/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAUH/8QAHBAAAQQDAQAAAAAAAAAAAAAAAAdFg8IFQ4HB/9oADgRD"
    "AE0AWQBLAAA/AEVRa5aCKXOkVxFLnSK5Qshr74f/2Q=="
)
CMYK_PIXELS = np.repeat(np.array([[[58, 58, 254], [212, 212, 48]]], np.uint8), 4, 1).repeat(8, 0)
# what each EXIF orientation makes of a stored picture
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


def encode(suffix, image, *options):
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def tiff_block(orientation, order="<"):
    """The EXIF block that says an orientation, after an entry of another tag."""
    mark = {"<": b"II", ">": b"MM"}[order]
    entries = [struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in ((0x0100, 6), (0x0112, orientation))]
    return (
        mark
        + struct.pack(order + "HI", 42, 8)
        + struct.pack(order + "H", 2)
        + b"".join(entries)
        + struct.pack(order + "I", 0)
    )


def turned_jpeg(jpeg, orientation, order="<"):
    block = b"Exif\0\0" + tiff_block(orientation, order)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def turned_png(png, orientation):
    return png[:33] + png_chunk(b"eXIf", tiff_block(orientation, ">")) + png[33:]


def turned_webp(orientation):
    """COLOR as a lossless WebP of the extended form, its EXIF block behind the picture."""
    picture = encode(".webp", COLOR, cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    header = b"\x08\0\0\0" + struct.pack("<I", 24 - 1)[:3] + struct.pack("<I", 16 - 1)[:3]
    block = tiff_block(orientation)
    chunks = b"".join(
        name + struct.pack("<I", len(content)) + content for name, content in ((b"VP8X", header), (b"EXIF", block))
    )
    body = b"WEBP" + chunks[:18] + picture + chunks[18:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def palette_png():
    """COLOR as a PNG with a palette of four colours, 8 bits an index."""
    rows = b"".join(b"\0" + row.tobytes() for row in INDICES)
    colors = b"".join(bytes(color[::-1]) for color in (RED, GREEN, BLUE, GRAY))
    header = struct.pack(">IIBBBBB", 24, 16, 8, 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"PLTE", colors)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def gif():
    """COLOR as the first of a GIF's two frames; each row begins with the code that clears the table: not compressed."""
    colors = b"".join(bytes(color[::-1]) for color in (RED, GREEN, BLUE, GRAY)).ljust(3 * 128, b"\0")

    def frame(indices):
        blocks = b"".join(bytes([len(row) + 1, 0x80]) + row.tobytes() for row in indices)
        return b"\x2c" + struct.pack("<HHHHB", 0, 0, 24, 16, 0) + b"\x07" + blocks + b"\x01\x81\0"

    header = b"GIF89a" + struct.pack("<HHBBB", 24, 16, 0xF6, 0, 0)
    return header + colors + frame(INDICES) + frame(INDICES[::-1]) + b"\x3b"


def pictures():
    png, jpeg = encode(".png", COLOR), encode(".jpg", COLOR, cv2.IMWRITE_JPEG_QUALITY, 100)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    deep, deep_gray = COLOR.astype(np.uint16) * 257, PALE.astype(np.uint16) * 257
    table = {
        "color.png": (png, COLOR, 0),
        "gray.png": (encode(".png", PALE), PALE, 0),
        "palette.png": (palette_png(), COLOR, 0),
        "16-bit.png": (encode(".png", deep), COLOR, 0),
        "16-bit gray.png": (encode(".png", deep_gray), PALE, 0),
        "16-bit.tif": (encode(".tif", deep), COLOR, 0),
        "alpha.png": (encode(".png", np.dstack([COLOR, PALE])), COLOR, 0),
        "color.jpg": (jpeg, decoded, 0),
        "gray.jpg": (encode(".jpg", PALE), PALE, 12),
        "cmyk.jpg": (CMYK_JPEG, CMYK_PIXELS, 8),
        "bytes after the end.jpg": (jpeg + b"\xff\xd8 more", decoded, 0),
        "orientation 9.jpg": (turned_jpeg(jpeg, 9), decoded, 0),
        "broken exif.jpg": (turned_jpeg(jpeg, 6).replace(b"II\x2a\0\x08\0", b"II\x2a\0\xff\xff"), decoded, 0),
        "color.bmp": (encode(".bmp", COLOR), COLOR, 0),
        "color.ppm": (encode(".ppm", COLOR), COLOR, 0),
        "color.webp": (encode(".webp", COLOR, cv2.IMWRITE_WEBP_QUALITY, 101), COLOR, 0),
    }
    for orientation, upright in UPRIGHT.items():
        for order in "<>":
            stored = turned_jpeg(jpeg, orientation, order)
            table[f"orientation {orientation} {order}.jpg"] = stored, upright(decoded), 0
        table[f"orientation {orientation}.png"] = turned_png(png, orientation), upright(COLOR), 0
        table[f"orientation {orientation}.webp"] = turned_webp(orientation), upright(COLOR), 0
    if cv2.haveImageWriter("x.gif"):  # OpenCV 4.11 and later
        table["color.gif"] = gif(), COLOR, 0
    return table


def broken():
    jpeg, png = encode(".jpg", COLOR), encode(".png", COLOR)
    whole = {
        "jpeg": jpeg,
        "png": png,
        "progressive jpeg": encode(".jpg", COLOR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "bmp": encode(".bmp", COLOR),
        "webp": encode(".webp", COLOR),
        "tiff": encode(".tif", COLOR),
    }
    thumbnail = b"\xff\xe2" + struct.pack(">H", len(jpeg) + 2) + jpeg
    return {
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html>not found</html>",
        "zeros.png": bytes(100),
        "float.pfm": encode(".pfm", COLOR.astype(np.float32)),
        # which OpenCV 5 would make room for: 4 and 7 GB
        "long chunk.png": png[:33] + struct.pack(">I", 0xFFFFFF00) + png[37:],
        "large screen.gif": b"GIF89a" + struct.pack("<HH", 16383, 65535) + bytes(100),
        "cut behind a thumbnail.jpg": jpeg[:2] + thumbnail + jpeg[2:-2],
        **{
            f"cut {kind} {place}": data[:place]
            for kind, data in whole.items()
            for place in (4, len(data) // 2, len(data) - 2)
        },
    }
