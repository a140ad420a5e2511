"""Databases, lists and prefetching."""

import gc
import os
import sys
import threading
import time
import types

import lmdb
import pytest
from caffe import datasource
from caffe.datasource import Database, read_list
from caffe.prefetch import Prefetcher
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


def test_lmdb_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Cannot open LMDB .*none: No such file .* nothing there \(seen from"):
        Database(str(tmp_path / "none"), LMDB)
    with pytest.raises(FileNotFoundError, match=r"found a folder without data.mdb"):
        Database(str(tmp_path), LMDB)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="found a file"):
        Database(str(tmp_path / "file"), LMDB)
    (tmp_path / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(ValueError, match=r"Cannot open LMDB .*not an LMDB file"):
        Database(str(tmp_path), LMDB)
    with pytest.raises(ValueError, match="holds no record"):
        Database(write_lmdb(tmp_path / "empty", []), LMDB)
    folder = write_lmdb(tmp_path / "open", [(b"a", b"1")])
    with lmdb.open(folder), pytest.raises(ValueError, match="has already open must be closed first"):
        Database(folder, LMDB)


def test_a_truncated_lmdb_is_warned_of(tmp_path, capsys):
    folder = write_lmdb(tmp_path / "db", [(b"%03d" % i, bytes(5000)) for i in range(100)])
    os.truncate(os.path.join(folder, "data.mdb"), os.path.getsize(os.path.join(folder, "data.mdb")) - 4096)
    datasource._Environment(folder)
    assert "looks truncated" in capsys.readouterr().err


def test_leveldb_without_plyvel(monkeypatch):
    monkeypatch.setattr(datasource.importlib.util, "find_spec", lambda name: None)
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


def test_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a b.jpg 3\r\n\nc.jpg  -1 \n")
    assert read_list(str(path)) == [("a b.jpg", 3, 1), ("c.jpg", -1, 3)]


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
