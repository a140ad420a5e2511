"""LMDBs with damaged pages: refused before liblmdb, which they would crash, reads them."""

from __future__ import annotations

import contextlib
import random

import forked
import lmdb
import pytest
from caffe.data import lmdb_pages

SIZES = (0, 10, 1000, 5000, 30000)


def write(folder, count):
    """An LMDB of `count` records, many of them in overflow pages, of which every third was deleted again."""
    with lmdb.open(str(folder), map_size=1 << 25) as environment:
        with environment.begin(write=True) as transaction:
            for number in range(count):
                transaction.put(b"%05d" % number, bytes([number % 251]) * SIZES[number % len(SIZES)])
        with environment.begin(write=True) as transaction:
            for number in range(0, count, 3):
                transaction.delete(b"%05d" % number)
    return folder


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_good_one_passes(tmp_path, count):
    lmdb_pages.check(write(tmp_path / "db", count))


def damage(content: bytes, page: int, seed: int) -> bytes:
    """One to three bytes or an integer of a page's header, offsets or nodes, or of a meta page, changed."""
    data, rng = bytearray(content), random.Random(seed)
    start = page * 4096
    for _ in range(rng.choice([1, 1, 3])):
        at = start + rng.choice([rng.randrange(16, 152) if page < 2 else rng.randrange(16), rng.randrange(4096)])
        if rng.random() < 0.5:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at : at + 2] = rng.choice([b"\0\0", b"\xff\xff", b"\x10\0"])
    return bytes(data[: len(content)])


def read(folder) -> None:
    """Every record by liblmdb, without a check."""
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            assert len(key) + len(value) >= 0


def test_liblmdb_survives_what_passes(tmp_path):
    folder = write(tmp_path / "db", 300)
    content = (folder / "data.mdb").read_bytes()
    pages = [0, 1, *(page for page in range(2, len(content) // 4096) if content[page * 4096 + 10] in (1, 2))]
    assert len(pages) > 4, "leaves and a branch"

    def child() -> int:
        refused = 0
        for seed in range(400):
            (folder / "data.mdb").write_bytes(damage(content, pages[seed % len(pages)], seed))
            try:
                lmdb_pages.check(folder)
            except lmdb_pages.PageError:
                refused += 1
                continue
            with contextlib.suppress(lmdb.Error):
                read(folder)
        print(f"{refused} refused")
        return 0

    process, output = forked.begin(child)
    text = output.read()
    process.join()
    assert process.exitcode == 0, text
    assert 80 < int(text.split()[0]) < 380


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (16, b"\0", "not an LMDB file of version 1: meta page 0 begins with 0xbeefc000, 1"),
        (40, b"\1\2", "meta page 0: expected pages of 512 to 65536 bytes, found 513"),
    ],
)
def test_what_is_said_of_a_meta_page(tmp_path, at, value, message):
    file = write(tmp_path / "db", 3) / "data.mdb"
    data = bytearray(file.read_bytes())
    data[at : at + len(value)] = value
    file.write_bytes(data)
    with pytest.raises(lmdb_pages.PageError, match=message):
        lmdb_pages.check(tmp_path / "db")


def test_what_is_said_of_a_page(tmp_path):
    file = write(tmp_path / "db", 2) / "data.mdb"
    content = file.read_bytes()
    for at, value, message in (
        (10, b"\1", "a leaf"),
        (0, b"\1", "its own number in its header"),
        (12, b"\xff\xff", "its free space within it"),
        (16, b"\xff\xff", "nodes within it"),
    ):
        data = bytearray(content)
        for start in range(2 * 4096, len(content), 4096):
            data[start + at : start + at + len(value)] = value
        file.write_bytes(data)
        with pytest.raises(lmdb_pages.PageError, match=f"page [0-9]+ of data.mdb is damaged: expected {message}"):
            lmdb_pages.check(tmp_path / "db")
    file.write_bytes(content[:-4096])
    with pytest.raises(lmdb_pages.PageError, match=r"was cut off: expected [0-9]+ bytes, found [0-9]+"):
        lmdb_pages.check(tmp_path / "db")
