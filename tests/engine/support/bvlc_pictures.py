"""One table of small pictures, of every kind that a decoder can get wrong, and what shows them: each way into a net.

Answered by both caffes (data_cases.py records BVLC's). Python 3.9, numpy and lmdb.
"""
# ruff: noqa: UP031  (Python 3.9)

from __future__ import annotations

import base64
import io
import os
import struct
import zlib

import lmdb
import numpy as np

# A smooth picture, (4, 6, 3) RGB, no two corners alike: enlarged from six colours.
PIXELS = np.array(
    [
        [[136, 182, 161], [155, 144, 133], [194, 68, 78], [205, 57, 88], [186, 110, 162], [177, 137, 199]],
        [[144, 181, 158], [160, 153, 141], [193, 96, 106], [198, 88, 115], [175, 131, 166], [164, 152, 192]],
        [[160, 180, 152], [170, 170, 155], [190, 151, 161], [184, 151, 168], [152, 172, 175], [137, 182, 179]],
        [[168, 179, 149], [175, 179, 162], [189, 178, 189], [178, 183, 194], [141, 192, 179], [123, 197, 172]],
    ],
    np.uint8,
)
ALPHA = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6, 1)
GREY = PIXELS[:, :, :1]

# What Pillow and OpenCV wrote of it, in base64.
FILES = {
    "jpeg": """
        /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGB
        YUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAARCAAE
        AAYDAREAAhEBAxEB/8QAFAABAAAAAAAAAAAAAAAAAAAAB//EAB4QAAEDBAMAAAAAAAAAAAAAAAQCAxEABRIWMTIz/8QAFQEBAQAAAAAAAAAAAA
        AAAAAAAgX/xAAcEQABBAMBAAAAAAAAAAAAAAACAQMEEQAFEzH/2gAMAwEAAhEDEQA/AGjVbaM+s9tjEor1XPaOKUR0mG+gLSl7k/bbmbEiMRWj
        oBukz//Z""",
    "grey_jpeg": """
        /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGB
        YUGBIUFRT/wAALCAAEAAYBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAB//EAB4QAAEDBAMAAAAAAAAAAAAAAAQCAxEABRIWMTIz/9oACAEBAAA/
        AGjVbaM+s9tjEor1XPaOK//Z""",
    "cmyk_jpeg": """
        /9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFB
        gSFBUU/8AAFAgABAAGBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAcJ/8QAIhAAAQMDBAMBAAAAAAAAAAAABQMEBgAREgETISIC
        BzE0/9oADgRDAE0AWQBLAAA/AFGenXkYj4RuPV2Uu/W16cw/q2OOj5QwoxyIPcd9XLXtb5TZFwrSOtvI0xS2SJT9St7548acVVOv/9k=""",
    "progressive_jpeg": """
        /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGB
        YUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wgARCAAE
        AAYDAREAAhEBAxEB/8QAFAABAAAAAAAAAAAAAAAAAAAABv/EABUBAQEAAAAAAAAAAAAAAAAAAAEE/9oADAMBAAIQAxAAAAFoz//EABcQAAMBAA
        AAAAAAAAAAAAAAAAECAxT/2gAIAQEAAQUCyzU//8QAGREAAgMBAAAAAAAAAAAAAAAAAQMAAgQh/9oACAEDAQE/AdexylUVU8E//8QAGREAAgMB
        AAAAAAAAAAAAAAAAAQIAAxJB/9oACAECAQE/AamKLodn/8QAGRAAAQUAAAAAAAAAAAAAAAAAAQACEiIx/9oACAEBAAY/ApgWdq//xAAXEAEAAw
        AAAAAAAAAAAAAAAAARADFR/9oACAEBAAE/IXS3tn//2gAMAwEAAgADAAAAEB//xAAWEQEBAQAAAAAAAAAAAAAAAAARAAH/2gAIAQMBAT8QH2xl
        /8QAFxEAAwEAAAAAAAAAAAAAAAAAAAERMf/aAAgBAgEBPxC6Y9H/xAAXEAADAQAAAAAAAAAAAAAAAAAAMUFh/9oACAEBAAE/ENPRwj//2Q==""",
    "two_frames_gif": """
        R0lGODdhBgAEAIQAALK3wqC0mJC1no3As3vFrIm2s4i2ob2yva+zoqizlZisr6qqm6CZjb6XobiXqKSYwJuQhbGJx6+DprpuosFgasZYc8JETs
        05WAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACwAAAAABgAEAAAIHgANQLBwYUIEAQwoVJDwIMCCBg4UFEiA4ACAAQQCAgAh+QQBAAAYACwAAAAA
        BgAEAISyt8KgtJiQtZ6NwLN7xayJtrOItqG9sr2vs6Kos5WYrK+qqpugmY2+l6G4l6ikmMCbkIWxicevg6a6bqLBYGrGWHPCRE7NOVgAAAAAAA
        AAAAAAAAAAAAAAAAAAAAAAAAAIHgATIDgAYACBAAsaOFBQQAADChUkPDAAwcKFCRECAgA7""",
    "webp": """
        UklGRo4AAABXRUJQVlA4TIEAAAAvBcAAAL/AJgCANLi+cpGBn/5VKOA6qcEgAMAys9W/06pY9xVFktTckfnzxAMCMIJ/AzmHqvmPGEM9B/9bi2
        puOHYyRhKAbb4icFbwoIaiUDJUZRQBNG3Zdr/4UojmvQjpZSsFeF19QWHbRmrq+J4ZIvofYyPInYtYT8pupcbwX+sA""",
    "tiff": """
        SUkqAAgAAAAKAAABBAABAAAABgAAAAEBBAABAAAABAAAAAIBAwADAAAAhgAAAAMBAwABAAAAAQAAAAYBAwABAAAAAgAAABEBBAABAAAAjAAAAB
        UBAwABAAAAAwAAABYBBAABAAAABAAAABcBBAABAAAASAAAABwBAwABAAAAAQAAAAAAAAAIAAgACACItqGbkIXCRE7NOVi6bqKxiceQtZ6gmY3B
        YGrGWHOvg6akmMCgtJiqqpu+l6G4l6iYrK+JtrOos5Wvs6K9sr2yt8KNwLN7xaw=""",
}
FILES = {name: base64.b64decode("".join(text.split())) for name, text in FILES.items()}


def png(width, height, depth, kind, rows, *chunks):
    """A PNG's bytes. kind: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA; rows: bytes; chunks: (name, content)."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def png_of(pixels, *chunks):
    """The PNG of an array (H, W, channels), uint8 or uint16."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = [row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels]
    return png(width, height, 8 * pixels.dtype.itemsize, kind, rows, *chunks)


def exif(orientation, order="<"):
    """An EXIF block that says an orientation and nothing else."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def exif_jpeg(orientation, order="<"):
    block = b"Exif\0\0" + exif(orientation, order)
    return FILES["jpeg"][:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + FILES["jpeg"][2:]


def exif_webp(orientation):
    """The WebP in its extended form, with the canvas of 6x4 and an EXIF chunk."""
    block = exif(orientation) + b"\0" * (len(exif(orientation)) % 2)
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, 8) + struct.pack("<I", 5)[:3] + struct.pack("<I", 3)[:3]
    body += FILES["webp"][12:] + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bitmap():
    """A BMP of 24 bits."""
    rows = b"".join(row[:, ::-1].tobytes() + b"\0\0" for row in PIXELS[::-1])
    head = struct.pack("<IIIIiiHHIIiiII", 54 + len(rows), 0, 54, 40, 6, 4, 1, 24, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + head + rows


def turned(image, orientation):
    """An image (H, W, ...) as it is seen that is stored in an EXIF orientation."""
    flips = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "th", 7: "thv", 8: "tv"}[orientation]
    image = np.swapaxes(image, 0, 1) if "t" in flips else image
    image = image[:, ::-1] if "h" in flips else image
    return image[::-1] if "v" in flips else image


PALETTE = [(b"PLTE", bytes([136, 182, 161, 194, 68, 78, 123, 197, 172, 20, 30, 40]))]
INDICES = [bytes([0, 1, 2, 3, 1, 0]), bytes([3, 2, 1, 0, 0, 0]), bytes([1] * 6), bytes([0, 0, 0, 2, 2, 2])]

# name: bytes. The name's end says the type of file; "turned" and a number: the EXIF orientation.
PICTURES = {
    "rgb.png": png_of(PIXELS),
    "grey.png": png_of(GREY),
    "bit.png": png(6, 4, 1, 0, [bytes([0b10110100]), bytes([0b01001000]), bytes([0b11100100]), bytes([0])]),
    "palette.png": png(6, 4, 8, 3, INDICES, *PALETTE),
    "palette_alpha.png": png(6, 4, 8, 3, INDICES, *PALETTE, (b"tRNS", bytes([255, 0, 128]))),
    "grey_alpha.png": png_of(np.concatenate([GREY, ALPHA], 2)),
    "rgba.png": png_of(np.concatenate([PIXELS, ALPHA], 2)),
    "grey16.png": png_of(GREY.astype(np.uint16) * 250 + 77),
    "rgb16.png": png_of(PIXELS.astype(np.uint16) * 250 + 77),
    "rgb.jpg": FILES["jpeg"],
    "grey.jpg": FILES["grey_jpeg"],
    "cmyk.jpg": FILES["cmyk_jpeg"],
    "progressive.jpg": FILES["progressive_jpeg"],
    "rgb.bmp": bitmap(),
    "rgb.tif": FILES["tiff"],
    "rgb.webp": FILES["webp"],
    "two_frames.gif": FILES["two_frames_gif"],
    **{"turned%d.jpg" % way: exif_jpeg(way) for way in range(1, 9)},
    "turned_6_big_endian.jpg": exif_jpeg(6, ">"),
    "turned_9.jpg": exif_jpeg(9),  # there is no such orientation
    "turned6.png": png_of(PIXELS, (b"eXIf", exif(6))),
    "turned8.webp": exif_webp(8),
}

# Pictures that are not all there, and what is none.
DAMAGED = {
    "cut.jpg": FILES["jpeg"][:-30],
    "cut_at_the_end.jpg": FILES["jpeg"][:-2],
    "cut_turned.jpg": exif_jpeg(6)[:-40],
    "cut_progressive.jpg": FILES["progressive_jpeg"][:-100],
    "cut_header.jpg": FILES["jpeg"][:40],
    "cut.png": PICTURES["rgb.png"][:-30],
    "cut.bmp": PICTURES["rgb.bmp"][:-20],
    "cut.gif": FILES["two_frames_gif"][:60],
    "cut.webp": FILES["webp"][:-20],
    "cut.tif": FILES["tiff"][:60],
    "empty.jpg": b"",
    "text.png": b"no image\n",
}


# -- ways into a net. Each gives what a net sees: float32 (C, H, W), in BGR order

NET = "layer { name: 'd' type: '%s' top: 'data' top: 'label' %s }"


def forward(caffe, folder, kind, param):
    path = os.path.join(folder, "net.prototxt")
    with open(path, "w") as file:
        file.write(NET % (kind, param))
    net = caffe.Net(path, caffe.TEST)
    net.forward()
    return net.blobs["data"].data[0].copy()


def image_data(caffe, folder, name, color):
    path = os.path.join(folder, "list.txt")
    with open(path, "w") as file:
        file.write(name + " 0\n")
    param = "image_data_param { source: '%s' root_folder: '%s/' batch_size: 1 is_color: %s }"
    return forward(caffe, folder, "ImageData", param % (path, folder, str(color).lower()))


def data(caffe, folder, name, transform=""):
    path = os.path.join(folder, name + "_lmdb")
    if not os.path.exists(path):
        with open(os.path.join(folder, name), "rb") as file:
            datum = caffe.proto.caffe_pb2.Datum(data=file.read(), encoded=True)
        with lmdb.open(path, map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
            transaction.put(name.encode(), datum.SerializeToString())
    param = "data_param { source: '%s' backend: LMDB batch_size: 1 } transform_param { %s }"
    return forward(caffe, folder, "Data", param % (path, transform))


def window_data(caffe, folder, name):
    """The upper left 4x4 pixels."""
    path = os.path.join(folder, "windows.txt")
    with open(path, "w") as file:
        file.write("# 0\n%s 3 4 6 2\n1 1 0 0 3 3\n0 0 0 0 3 3\n" % name)
    param = "window_data_param { source: '%s' root_folder: '%s/' batch_size: 1 fg_fraction: 1 }"
    return forward(caffe, folder, "WindowData", param % (path, folder) + " transform_param { crop_size: 4 }")


def load_image(caffe, folder, name, color):
    """In bytes, so that the others can be compared."""
    image = caffe.io.load_image(os.path.join(folder, name), color)
    return (image[:, :, ::-1].transpose(2, 0, 1) * 255).astype(np.float32)


READERS = {
    "image_data": lambda *where: image_data(*where, True),
    "image_data_gray": lambda *where: image_data(*where, False),
    "window_data": window_data,
    "data": data,
    "data_color": lambda *where: data(*where, "force_color: true"),
    "data_gray": lambda *where: data(*where, "force_gray: true"),
    "load_image": lambda *where: load_image(*where, True),
    "load_image_gray": lambda *where: load_image(*where, False),
}


def write(folder):
    for name, content in dict(PICTURES, **DAMAGED).items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)


def ask_all(caffe, folder):
    """Name, reader: what the reader shows of the picture; left out where it stops, which ends BVLC's process."""
    write(folder)
    answers = {}
    for name in dict(PICTURES, **DAMAGED):
        for reader, ask in READERS.items():
            read, write_end = os.pipe()
            child = os.fork()
            if not child:
                os.close(read)
                try:
                    content = io.BytesIO()
                    np.save(content, ask(caffe, folder, name))
                    os.write(write_end, content.getvalue())
                finally:
                    os._exit(0)
            os.close(write_end)
            with os.fdopen(read, "rb") as pipe:
                content = pipe.read()
            os.waitpid(child, 0)
            if content:
                answers.setdefault(name, {})[reader] = np.load(io.BytesIO(content))
    return answers
