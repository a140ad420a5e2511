"""Databases, lists and prefetching."""

import gc
import os
import re
import sys
import threading
import time
import types

import lmdb
import pytest
from caffe.data import databases
from caffe.data.databases import Database, read_list
from caffe.data.prefetch import Prefetcher
from caffe.proto.caffe_pb2 import DataParameter

LMDB, LEVELDB = DataParameter.LMDB, DataParameter.LEVELDB


def write_lmdb(folder, values):
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in values:
            transaction.put(key, value)
    return str(folder)


def test_lmdb_in_key_order_and_round_again(tmp_path):
    database = Database(write_lmdb(tmp_path / "db", [(b"b", b"2"), (b"a", b"1"), (b"c", b"3")]), LMDB)
    assert database.peek() == ("a", b"1")
    assert [database.take()[0] for _ in range(7)] == list("abcabca")


def test_lmdb_goes_to_a_key(tmp_path):
    database = Database(write_lmdb(tmp_path / "db", [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]), LMDB)
    database.seek(b"b")
    assert database.key == b"b"
    assert [database.take()[0] for _ in range(3)] == list("bca")
    with pytest.raises(ValueError, match="db has no record 'bb'"):
        database.seek(b"bb")
    assert database.take() == ("a", b"1")


def test_lmdb_is_released(tmp_path):
    folder = write_lmdb(tmp_path / "db", [(b"a", b"1")])
    databases = [Database(folder, LMDB), Database(folder + "/.", LMDB)]
    assert [each.take() for each in databases] == [("a", b"1")] * 2
    del databases
    gc.collect()
    lmdb.open(folder).close()


def test_a_script_opens_the_lmdb_after_the_engine_has(tmp_path):
    """Also in a process in which nothing else has opened one: py-lmdb imports its _envid with the first, the engine
    before. py-lmdb goes on refusing what the script itself has open."""
    folder = write_lmdb(tmp_path / "db", [(b"a", b"1")])
    guarded = int(lmdb.__version__.split(".")[0]) >= 3
    assert databases._envid is (sys.modules["lmdb._envid"] if guarded else None)
    database = Database(folder, LMDB)
    with lmdb.open(folder) as environment:
        assert environment.stat()["entries"] == 1 and database.take() == ("a", b"1")
        if guarded:
            with pytest.raises(lmdb.Error, match="already open in this process"):
                lmdb.open(folder)


def test_an_lmdb_that_grew_or_was_built_again_is_read_as_it_is_now(tmp_path):
    """Whatever an older net still holds."""
    folder = write_lmdb(tmp_path / "db", [(b"a", b"1")])
    older = [Database(folder, LMDB)]
    with lmdb.open(folder, map_size=1 << 27) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"b", bytes(1 << 25))
    assert [key for key, _ in Database(folder, LMDB)] == ["a", "b"]
    older.append(Database(folder, LMDB))
    os.rename(folder, folder + "_old")
    write_lmdb(folder, [(b"c", b"3")])
    assert Database(folder, LMDB).take() == ("c", b"3")
    assert [database.take() for database in older] == [("a", b"1")] * 2


def test_lmdb_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Cannot open LMDB .*none: No such file .* nothing there \(seen from"):
        Database(str(tmp_path / "none"), LMDB)
    with pytest.raises(FileNotFoundError, match=r"found a folder without data.mdb"):
        Database(str(tmp_path), LMDB)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="found a file"):
        Database(str(tmp_path / "file"), LMDB)
    (tmp_path / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(ValueError, match=r"Cannot read LMDB .*not an LMDB file"):
        Database(str(tmp_path), LMDB)
    with pytest.raises(ValueError, match="holds no record"):
        Database(write_lmdb(tmp_path / "empty", []), LMDB)


def test_an_lmdb_that_was_cut_off_is_refused(tmp_path):
    """Wherever it was cut: a record in the missing part would kill the process by SIGBUS."""
    folder = write_lmdb(tmp_path / "db", [(b"%03d" % i, bytes(5000)) for i in range(30)])
    file = os.path.join(folder, "data.mdb")
    for size in range(os.path.getsize(file) - 1, -1, -1500):
        os.truncate(file, size)
        with pytest.raises(ValueError, match=f"Cannot read LMDB {folder}: .*complete: copy or build"):
            Database(folder, LMDB)


def test_a_damaged_lmdb_is_refused_by_the_place_in_it(tmp_path):
    folder = write_lmdb(tmp_path / "db", [(b"%03d" % i, bytes(1000)) for i in range(30)])
    with open(os.path.join(folder, "data.mdb"), "r+b") as file:
        content = bytearray(file.read())
        root = int.from_bytes(content[4096 + 128 : 4096 + 136], "little") * 4096  # of the newer header
        assert content[root + 10] == 1, "a branch"
        node = root + int.from_bytes(content[root + 26 : root + 28], "little")  # of its sixth page
        content[node : node + 4] = b"\xff" * 4  # the number of a page that is not there
        file.seek(0)
        file.write(content)
    with pytest.raises(ValueError, match=r"Cannot read LMDB .*db: page \d+ of data.mdb is damaged: expected a number"):
        Database(folder, LMDB)


def test_leveldb_without_plyvel(monkeypatch):
    monkeypatch.setattr(databases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"package plyvel is not installed\. Install it"):
        Database("db", LEVELDB)


def test_leveldb(tmp_path, monkeypatch):
    """Through plyvel's interface: a database is iterated in key order."""
    plyvel = types.ModuleType("plyvel")
    plyvel.__spec__ = types.SimpleNamespace(name="plyvel")
    plyvel.Error = type("Error", (Exception,), {})

    def opened(name, create_if_missing):
        assert not create_if_missing
        if name.endswith("locked"):
            raise plyvel.Error("IO error: lock")
        return [(b"a", b"1"), (b"b", b"2")] if name.endswith("db") else []

    plyvel.DB = opened
    monkeypatch.setitem(sys.modules, "plyvel", plyvel)
    for name in ("db", "empty", "locked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "CURRENT").write_text("")
    database = Database(str(tmp_path / "db"), LEVELDB)
    assert database.peek() == ("a", b"1")
    assert [database.take()[0] for _ in range(5)] == list("ababa")
    with pytest.raises(ValueError, match="holds no record"):
        Database(str(tmp_path / "empty"), LEVELDB)
    with pytest.raises(ValueError, match=r"Failed to open leveldb .*locked: IO error"):
        Database(str(tmp_path / "locked"), LEVELDB)
    with pytest.raises(FileNotFoundError, match="expected a LevelDB folder there"):
        Database(str(tmp_path / "none"), LEVELDB)


def test_a_real_leveldb(tmp_path):
    plyvel = pytest.importorskip("plyvel")
    made = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    for key in (b"b", b"a", b"c"):
        made.put(key, key * 2)
    made.close()
    database = Database(str(tmp_path / "db"), LEVELDB)
    assert [database.take() for _ in range(4)] == [("a", b"aa"), ("b", b"bb"), ("c", b"cc"), ("a", b"aa")]
    database.seek(b"c")
    assert database.key == b"c" and [database.take()[0] for _ in range(2)] == ["c", "a"]
    for key in (b"bb", b"d"):
        with pytest.raises(ValueError, match="has no record"):
            database.seek(key)
        assert database.key == b"a"


def lines(tmp_path, content, labels=None):
    (tmp_path / "list.txt").write_bytes(content)
    return read_list(str(tmp_path / "list.txt"), labels)


def test_list(tmp_path):
    assert lines(tmp_path, b"a b.jpg 3\r\n\nc.jpg  -1 \n") == [("a b.jpg", 3, 1), ("c.jpg", -1, 3)]
    assert lines(tmp_path, b"a b.jpg 3 0\r\n\nc.jpg\t-1  1\n", 2) == [("a b.jpg", [3, 0], 1), ("c.jpg", [-1, 1], 3)]


# The path and label that BVLC's ImageData and convert_imageset, which agree, make of a line.
BVLC_READS = {
    b"x.png 3": ("x.png", 3),
    b"a b.png 3": ("a b.png", 3),
    b"x.png 3\r": ("x.png", 3),
    b"x.png 3\t": ("x.png", 3),
    b"x.png \t3": ("x.png", 3),
    b"x.png \x0b5": ("x.png", 5),
    b"x.png -1": ("x.png", -1),
    b"x.png +4": ("x.png", 4),
    b"x.png 007": ("x.png", 7),
    b"x.png 2.0": ("x.png", 2),
    b"x.png 1,": ("x.png", 1),
    b"x.png 3;4": ("x.png", 3),
    b"x.png 3#c": ("x.png", 3),
    b"x.png 1e3": ("x.png", 1),
    b"x.png 1_000": ("x.png", 1),
    b"x.png 0x10": ("x.png", 0),
    b"x.png 3\xc2\xa0": ("x.png", 3),  # a no-break space
    b"x.png 3\0": ("x.png", 3),
    b'x.png "3"': ("x.png", 0),
    b"x.png abc": ("x.png", 0),
    b"x.png \xc2\xb2": ("x.png", 0),  # a superscript 2, which Python calls a digit
    b"x.png \xd9\xa3": ("x.png", 0),  # an Arabic 3, which int() takes
    b"x.png": ("x.png", 0),
    b"x.png ": ("x.png", 0),
    b"17.png": ("17.png", 17),
    b"x.png 2147483647": ("x.png", 2147483647),
    b"x.png 2147483648": ("x.png", -2147483648),
    b"x.png -2147483649": ("x.png", 2147483647),
    b"x.png 99999999999": ("x.png", 1215752191),
    b"x.png 99999999999999999999": ("x.png", -1),
    b"x.png -99999999999999999999": ("x.png", 0),
    b"a b.png": ("a", 0),
    b"x.png 1 2": ("x.png 1", 2),
    b" x.png 3": (" x.png", 3),
}
# What the engine makes of lines whose paths BVLC takes for longer than they are, so that it finds no file.
BVLC_FINDS_NO_FILE = {
    b"x.png  3": ("x.png", 3),
    b"x.png 3 ": ("x.png", 3),
    b"x.png\t3": ("x.png", 3),
    b"a b.png\t3": ("a b.png", 3),
    b"17.png\t3": ("17.png", 3),
    b"\xef\xbb\xbfx.png 3": ("x.png", 3),  # a byte order mark
}
WHOLE = re.compile(rb".*\S[ \t\v]+[+-]?0*[0-9]{1,9}[ \t\r]*")


@pytest.mark.parametrize("line", [*BVLC_READS, *BVLC_FINDS_NO_FILE])
def test_a_line_is_read_as_bvlc_reads_it(tmp_path, capfd, line):
    expected = {**BVLC_READS, **BVLC_FINDS_NO_FILE}[line]
    assert lines(tmp_path, line + b"\n\nlast.png 1") == [(*expected, 1), ("last.png", 1, 3)]
    said = capfd.readouterr().err
    if WHOLE.fullmatch(line) or line == b"x.png 2147483647":
        assert not said
    else:
        assert f"list.txt:1: read as path {expected[0]!r} and label {expected[1]}, from " in said
        assert "Lines like this: 1 of 2" in said


def test_a_list_refuses(tmp_path):
    for content, found in ((b"a.png 1\n  2\n", "list.txt:2: .* found '  2'"),
                           ("a.png 1\n".encode("utf-16"), r"list.txt:1: .*save the list as UTF-8"),
                           (b"\n \n", "File is empty: expected lines of `path label`")):  # fmt: skip
        with pytest.raises(ValueError, match=found):
            lines(tmp_path, content)
    for content in (b"a.png 1\n", b"a.png 1 2.0\n", b"a.png 1 x\n", b"1 2\n", b"a.png 1 99999999999\n"):
        with pytest.raises(ValueError, match=r"list.txt:1: expected `path` and 2 labels, whole numbers, found '"):
            lines(tmp_path, content, 2)


def test_prefetcher_runs_ahead_in_order_and_no_further():
    made = []

    def produce():
        made.append(len(made))
        return made[-1]

    ahead = Prefetcher(produce, 3)
    assert made == []
    assert ahead.next() == 0
    deadline = time.time() + 5
    while len(made) < 5 and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3, 4]  # one given out, three ready, one waiting for room
    assert [ahead.next() for _ in range(10)] == list(range(1, 11))


def test_prefetcher_gives_what_was_made_before_the_error():
    results = iter([1, 2])

    def produce():
        for result in results:
            return result
        raise RuntimeError("no more")

    ahead = Prefetcher(produce, 2)
    assert [ahead.next(), ahead.next()] == [1, 2]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no more"):
            ahead.next()


@pytest.mark.parametrize("failing", [False, True])
def test_prefetcher_begins_anew_after_stop(failing):
    numbers = iter(range(100))

    def produce():
        number = next(numbers)
        if failing and number == 1:
            raise RuntimeError("no more")
        return number

    ahead = Prefetcher(produce, 3)
    ahead.stop()
    assert ahead.next() == 0
    if failing:
        with pytest.raises(RuntimeError, match="no more"):
            ahead.next()
    thread = ahead._thread
    ahead.stop()
    assert not thread.is_alive()
    made = next(numbers)
    assert [ahead.next(), ahead.next()] == [made + 1, made + 2]


@pytest.mark.parametrize("depth", [1, 4])
def test_prefetcher_thread_ends(depth):
    ahead = Prefetcher(lambda: 1, depth)
    ahead.next()
    thread = ahead._thread
    assert thread in threading.enumerate()
    del ahead
    gc.collect()
    assert not thread.is_alive()
