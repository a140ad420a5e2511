"""Where data layers read from: databases of Datums, list files."""

from __future__ import annotations

import importlib.util
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import lmdb

from caffe import glog
from caffe.proto import caffe_pb2

_environments: weakref.WeakValueDictionary[str, _Environment] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class _Environment:
    """An open LMDB environment. lmdb opens one only once in a process, so the nets of a process share it."""

    def __init__(self, folder: str):
        self.lmdb = lmdb.open(folder, readonly=True, lock=False, create=False)
        needed = (self.lmdb.info()["last_pgno"] + 1) * self.lmdb.stat()["psize"]
        found = os.path.getsize(os.path.join(folder, "data.mdb"))
        if found < needed:
            glog.warning(
                "db_lmdb.cpp:35",
                f"{folder}/data.mdb looks truncated: it speaks of {needed} bytes and has {found}. Where a record lies "
                "in the missing part, the process dies of a bus error: copy or build the LMDB again",
            )


def _environment(folder: str) -> _Environment:
    with _lock:
        key = os.path.realpath(folder)
        found = _environments.get(key)
        if found is None:
            _environments[key] = found = _Environment(folder)
        return found


class _Lmdb:
    """The records of an LMDB, one after the other."""

    def __init__(self, folder: str):
        if not os.path.isfile(os.path.join(folder, "data.mdb")):
            found = "a file" if os.path.isfile(folder) else "a folder without data.mdb"
            raise FileNotFoundError(
                f"Cannot open LMDB {folder}: No such file or directory: expected a folder with data.mdb, "
                f"found {found if os.path.exists(folder) else 'nothing there'} (seen from {os.getcwd()})"
            )
        try:
            self._environment = _environment(folder)
        except lmdb.Error as error:
            raise ValueError(
                f"Cannot open LMDB {folder}: {error}. Expected the LMDB of a Data layer; "
                "an environment that this process has already open must be closed first"
            ) from None
        self._cursor = self._environment.lmdb.begin().cursor()
        glog.info("db_lmdb.cpp:35", f"Opened lmdb {folder}")

    def first(self) -> bool:
        return self._cursor.first()

    def next(self) -> bool:
        return self._cursor.next()

    def seek(self, key: bytes) -> bool:
        return self._cursor.set_key(key)

    def key(self) -> bytes:
        return self._cursor.key()

    def item(self) -> tuple[bytes, bytes]:
        return self._cursor.item()


class _LevelDb:
    """The records of a LevelDB, through the optional package plyvel."""

    def __init__(self, folder: str):
        if importlib.util.find_spec("plyvel") is None:
            raise ModuleNotFoundError(
                f"Cannot open LevelDB {folder}: the package plyvel is not installed. Install it (pip install plyvel), "
                "or convert the data to an LMDB and say `backend: LMDB`"
            )
        import plyvel

        if not os.path.isfile(os.path.join(folder, "CURRENT")):
            raise FileNotFoundError(
                f"Cannot open LevelDB {folder}: expected a LevelDB folder there (seen from {os.getcwd()})"
            )
        try:
            self._database = plyvel.DB(folder, create_if_missing=False)
        except plyvel.Error as error:
            raise ValueError(f"Failed to open leveldb {folder}: {error}") from None
        glog.info("db_leveldb.cpp:18", f"Opened leveldb {folder}")

    def first(self) -> bool:
        self._records = iter(self._database)
        return self.next()

    def seek(self, key: bytes) -> bool:
        self._records = self._database.iterator(start=key)
        return self.next() and self.key() == key

    def key(self) -> bytes:
        return self._item[0]

    def next(self) -> bool:
        self._item = next(self._records, None)
        return self._item is not None

    def item(self) -> tuple[bytes, bytes]:
        return self._item


class Database:
    """A database of Datums read in key order, from the first again after the last.

    Raises:
        FileNotFoundError, ValueError: there is none in `folder`, it is damaged, or it holds no record.
        ModuleNotFoundError: a LevelDB, without the package plyvel.
    """

    def __init__(self, folder: str, backend: int):
        self.folder = folder
        self._records = _Lmdb(folder) if backend == caffe_pb2.DataParameter.LMDB else _LevelDb(folder)
        if not self._records.first():
            raise ValueError(f"{folder} holds no record: expected at least one Datum; build it again")

    def peek(self) -> tuple[str, bytes]:
        """(key, value) of the record that `take` gives next."""
        key, value = self._records.item()
        return key.decode("utf-8", "replace"), value

    def take(self) -> tuple[str, bytes]:
        """(key, value) of the next record."""
        record = self.peek()
        if not self._records.next():
            glog.info("data_layer.cpp:73", "Restarting data prefetching from start.")
            self._records.first()
        return record

    @property
    def key(self) -> bytes:
        """The key of the record that `take` gives next."""
        return self._records.key()

    def seek(self, key: bytes) -> None:
        """Go to the record `key`. Raises ValueError where there is none; `take` then begins with the first."""
        if not self._records.seek(key):
            self._records.first()
            raise ValueError(f"{self.folder} has no record {key.decode('utf-8', 'replace')!r}")

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """(key, value) of each record, once, from the first."""
        more = self._records.first()
        while more:
            yield self.peek()
            more = self._records.next()


def read_list(path: str, labels: int | None = None) -> list[tuple[str, int | list[int], int]]:
    """An image list: (path, label, line number) of each line. The path may hold spaces.

    A line is `path label`; with `labels`, `path label_1 ... label_n`, and the label is the list of these.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line without whole numbers as labels, or no line at all.
    """
    expected = "`path label`, the label a whole number"
    if labels is not None:
        expected = f"`path` and {labels} label{'s, whole numbers' if labels > 1 else ', a whole number'}"
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        reason = f"{error.strerror} (seen from {os.getcwd()})"
        raise FileNotFoundError(f"Cannot read the image list {path}: {reason}") from None
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip()
        if not line:
            continue
        name, *fields = line.rsplit(" " if labels is None else None, labels or 1)
        try:
            found = [int(field) for field in fields]
        except ValueError:
            raise ValueError(f"{path}:{number}: expected {expected}, found {line!r}") from None
        if len(found) != (labels or 1) or not name.strip():
            raise ValueError(f"{path}:{number}: expected {expected}, found only {line!r}")
        entries.append((name.rstrip(), found[0] if labels is None else found, number))
    if not entries:
        raise ValueError(f"{path}: File is empty: expected lines of {expected}")
    return entries
