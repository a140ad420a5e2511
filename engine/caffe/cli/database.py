"""Writing the databases that a Data layer reads: LMDB, and LevelDB through the package plyvel."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
from atomic_writes import reserve
from atomic_writes.folders import recover, replacing_folder

from caffe import glog
from caffe.atomic_files import check_folder
from caffe.proto import caffe_pb2

BATCH = 1000  # records of one transaction, as BVLC's tools
_LOCK_BYTES = 8192  # of lock.mdb, as liblmdb makes it
_FIRST_MAP = 10 << 20  # bytes; doubled whenever it is full


class _Lmdb:
    def __init__(self, folder: str):
        reserve(Path(folder) / "lock.mdb", _LOCK_BYTES, folder)
        self._environment = lmdb.open(folder, map_size=_FIRST_MAP, sync=False, meminit=False)

    def write(self, records: list[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)

    def close(self) -> None:
        self._environment.sync(True)
        self._environment.close()


class _LevelDb:
    def __init__(self, folder: str):
        try:
            import plyvel
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "cannot write a LevelDB: the package plyvel is not installed. "
                "Install it (pip install plyvel), or write an LMDB"
            ) from None
        self._database = plyvel.DB(folder, create_if_missing=True, error_if_exists=True)

    def write(self, records: list[tuple[bytes, bytes]]) -> None:
        with self._database.write_batch() as batch:
            for key, value in records:
                batch.put(key, value)

    def close(self) -> None:
        self._database.close()


_BACKENDS: dict[str, type[_Lmdb] | type[_LevelDb]] = {"lmdb": _Lmdb, "leveldb": _LevelDb}


def backend(name: str) -> int:
    """DataParameter's number of the backend `name`. Raises ValueError for an unknown one."""
    if name not in _BACKENDS:
        raise ValueError(f"Unknown database backend {name!r}: expected {' or '.join(_BACKENDS)}")
    return caffe_pb2.DataParameter.DB.Value(name.upper())


class Writer:
    """Records put one by one, written BATCH at a time."""

    def __init__(self, database: _Lmdb | _LevelDb):
        self._database = database
        self._waiting: list[tuple[bytes, bytes]] = []
        self.count = 0

    def put(self, key: str, record: bytes) -> None:
        """Add a record, a message in wire form. `key`: the name of a file may be in it, in the bytes the system gave
        it."""
        self._waiting.append((os.fsencode(key), record))
        self.count += 1
        if len(self._waiting) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._database.write(self._waiting)
            self._waiting = []


@contextlib.contextmanager
def new(folder: str, kind: str) -> Iterator[Writer]:
    """A Writer into a database that does not exist yet: built as `folder.partial`, renamed when it is
    complete.

    Raises:
        FileExistsError: there is something at `folder`.
        ValueError: an unknown `kind` (lmdb, leveldb).
        ModuleNotFoundError: a LevelDB, without the package plyvel.
    """
    backend(kind)
    path = Path(folder)
    recover(path)
    if path.exists():
        raise FileExistsError(f"cannot build the {kind} {folder}: it exists already; remove it or take another name")
    check_folder(folder)
    with replacing_folder(path) as partial:
        try:
            with contextlib.closing(_BACKENDS[kind](str(partial))) as database:
                glog.info(f"db_{kind}.cpp:{35 if kind == 'lmdb' else 18}", f"Opened {kind} {folder}")
                writer = Writer(database)
                yield writer
                writer.flush()
        except lmdb.Error as error:
            reason = (
                "not enough memory to map it" if isinstance(error, lmdb.MemoryError) else f"{error}; is the disk full?"
            )
            raise OSError(f"cannot write the LMDB {folder}: {reason}") from None
