"""The small data files that cases read: LMDBs, images with their list, a mean image. Made alike with either caffe.

`write(folder)` fills a folder (once; a second call finds it whole):
    lmdb/            12 raw Datums, 3x10x9, labels 0 to 4
    lmdb_encoded/    the same pictures as PNG bytes (encoded: true)
    lmdb_float/      6 Datums whose pixels are in float_data, 2x4x5
    lmdb_train/, lmdb_test/   48 and 16 raw Datums, 1x12x12, of 3 classes that a small net can tell apart
    images/*.png, list.txt    6 colour pictures of one size and their list (path, label)
    list_sizes.txt            4 of several sizes
    mean.binaryproto          a 3x10x9 mean image
    one.h5, two.h5, hdf5.txt  4 and 3 items of "data" (2x2x3) and "label", and the files' list
    infogain.binaryproto      a 3x3 matrix of weights above 0
"""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
from caffe.proto import caffe_pb2


def png(pixels: np.ndarray) -> bytes:
    """A PNG file's bytes. pixels: uint8, (H, W, 3) in RGB order."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def datum(pixels: np.ndarray, label: int, encoded: bool = False) -> bytes:
    """A serialized Datum. pixels: (C, H, W), in BGR order as OpenCV has it; uint8 goes to data, float to float_data."""
    message = caffe_pb2.Datum()
    message.label = label
    if encoded:
        message.encoded = True
        message.data = png(np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0)))
        return message.SerializeToString()
    message.channels, message.height, message.width = pixels.shape
    if pixels.dtype == np.uint8:
        message.data = pixels.tobytes()
    else:
        message.float_data.extend(float(value) for value in pixels.ravel())
    return message.SerializeToString()


def write_lmdb(folder: str, records: list[bytes], map_size: int = 1 << 24) -> None:
    import lmdb

    with lmdb.open(folder, map_size=map_size) as environment, environment.begin(write=True) as transaction:
        for index, record in enumerate(records):
            transaction.put(b"%08d" % index, record)


def write_blob(path: str, values: np.ndarray) -> None:
    """A binaryproto file. values: (C, H, W)."""
    blob = caffe_pb2.BlobProto()
    blob.num, (blob.channels, blob.height, blob.width) = 1, values.shape
    blob.data.extend(float(value) for value in values.ravel())
    with open(path, "wb") as file:
        file.write(blob.SerializeToString())


def write_hdf5(folder: str) -> None:
    import h5py

    random = np.random.RandomState(6)
    paths = [os.path.join(folder, name) for name in ("one.h5", "two.h5")]
    for path, count in zip(paths, (4, 3)):
        with h5py.File(path, "w") as file:
            file["data"] = random.standard_normal((count, 2, 2, 3)).astype(np.float32)
            file["label"] = random.randint(0, 5, count).astype(np.float32)
    with open(os.path.join(folder, "hdf5.txt"), "w") as file:
        file.writelines(path + "\n" for path in paths)


def three_classes(count: int, seed: int) -> list[bytes]:
    """Records of noisy 12x12 pictures, a bright bar at the left, the middle or the right."""
    noise = pictures(count, (1, 12, 12), seed) // 3
    labels = np.random.RandomState(seed + 1).randint(0, 3, count)
    for picture, label in zip(noise, labels):
        picture[:, :, 4 * label : 4 * label + 4] += 120
    return [datum(picture, int(label)) for picture, label in zip(noise, labels)]


def write(folder: str) -> None:
    """Fill a folder with the files named above."""
    done = os.path.join(folder, "whole")
    if os.path.exists(done):
        return
    colour = pictures(12, (3, 10, 9), seed=1)
    floats = np.random.RandomState(2).standard_normal((6, 2, 4, 5)).astype(np.float32)
    write_lmdb(os.path.join(folder, "lmdb"), [datum(p, i % 5) for i, p in enumerate(colour)])
    write_lmdb(os.path.join(folder, "lmdb_encoded"), [datum(p, i % 5, encoded=True) for i, p in enumerate(colour)])
    write_lmdb(os.path.join(folder, "lmdb_float"), [datum(p, i) for i, p in enumerate(floats)])
    write_lmdb(os.path.join(folder, "lmdb_train"), three_classes(48, seed=3))
    write_lmdb(os.path.join(folder, "lmdb_test"), three_classes(16, seed=5))
    os.mkdir(os.path.join(folder, "images"))
    lines = {"list.txt": [], "list_sizes.txt": []}
    for name, sizes in (("list.txt", [(12, 10)] * 6), ("list_sizes.txt", [(12, 10), (7, 9), (16, 16), (12, 20)])):
        for index, size in enumerate(sizes):
            path = "%s_%d.png" % (name[:-4], index)
            picture = pictures(1, (*size, 3), seed=100 + index)[0]
            with open(os.path.join(folder, "images", path), "wb") as file:
                file.write(png(picture))
            lines[name].append("%s %d\n" % (path, (index * 2) % 5))
        with open(os.path.join(folder, name), "w") as file:
            file.writelines(lines[name])
    write_blob(os.path.join(folder, "mean.binaryproto"), colour.mean(axis=0))
    write_blob(os.path.join(folder, "infogain.binaryproto"), np.random.RandomState(4).uniform(0.1, 1, (1, 3, 3)))
    write_hdf5(folder)
    with open(done, "w"):
        pass


if __name__ == "__main__":
    import sys

    write(sys.argv[1])
