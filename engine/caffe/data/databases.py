"""Where data layers read from: databases of Datums, list files."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import lmdb

try:
    from lmdb import _envid  # where py-lmdb asks by what it knows the files that are open
except ImportError:
    _envid = None  # type: ignore[assignment]  # no module before version 3

from caffe import glog
from caffe.data import lmdb_pages
from caffe.proto import byte_strings, caffe_pb2

T = TypeVar("T")


def open_lmdb(folder: str, **options: Any) -> lmdb.Environment:
    """An LMDB to be read, also where a script has it open already or opens it later. `options`: lmdb.open's.

    From version 3 on, py-lmdb refuses to open the same files twice in a process: the locks that liblmdb takes belong to
    the process, and the first environment to be closed would release those of the other. This one takes no locks, so
    it is left out of py-lmdb's list of open files. Without locks a reader does not keep its records from being
    overwritten: nobody may write into the LMDB meanwhile.
    """
    if _envid is None:
        return lmdb.open(os.fsencode(folder), readonly=True, lock=False, create=False, **options)
    with vars(_envid).setdefault("opening", threading.Lock()):  # one lock with python_layers/image_records.py
        listed = _envid.env_keys
        try:
            _envid.env_keys = lambda path, subdir: ()
            return lmdb.open(os.fsencode(folder), readonly=True, lock=False, create=False, **options)
        finally:
            _envid.env_keys = listed


class _Lmdb:
    """The records of an LMDB, one after the other. Raises ValueError, naming the folder, for one that is damaged.

    liblmdb takes pages as they are, and a damaged one ends the process: they are checked first.
    """

    def __init__(self, folder: str):
        if not os.path.isfile(os.path.join(folder, "data.mdb")):
            found = "a file" if os.path.isfile(folder) else "a folder without data.mdb"
            raise FileNotFoundError(
                f"Cannot open LMDB {folder}: No such file or directory: expected a folder with data.mdb, "
                f"found {found if os.path.exists(folder) else 'nothing there'} (seen from {os.getcwd()})"
            )
        self.folder = folder
        self._last = ""  # the key that was read last, for messages
        self._checked(lmdb_pages.check, folder)
        self._environment = self._checked(open_lmdb, folder)
        self._cursor = self._checked(lambda: self._environment.begin().cursor())
        glog.info("db_lmdb.cpp:35", f"Opened lmdb {folder}")

    def _checked(self, call: Callable[..., T], *arguments: Any) -> T:
        """call(*arguments), its errors naming the folder and the record before."""
        try:
            return call(*arguments)
        except (lmdb.Error, lmdb_pages.PageError) as error:
            after = f" after key {self._last!r}" if self._last else ""
            if isinstance(error, lmdb.MemoryError):
                raise MemoryError(f"Cannot read LMDB {self.folder}{after}: not enough memory to map it") from None
            raise ValueError(
                f"Cannot read LMDB {self.folder}{after}: {error}. Expected the LMDB of a Data layer, complete: copy or "
                "build it again"
            ) from None

    def first(self) -> bool:
        return self._checked(self._cursor.first)

    def next(self) -> bool:
        return self._checked(self._cursor.next)

    def seek(self, key: bytes) -> bool:
        return self._checked(self._cursor.set_key, key)

    def key(self) -> bytes:
        return self._checked(self._cursor.key)

    def item(self) -> tuple[bytes, bytes]:
        key, value = self._checked(self._cursor.item)
        self._last = key.decode("utf-8", "replace")
        return key, value


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
        item = next(self._records, None)
        if item is None:
            return False
        self._item: tuple[bytes, bytes] = item
        return True

    def item(self) -> tuple[bytes, bytes]:
        return self._item


class Database:
    """A database of Datums read in key order, from the first again after the last.

    Raises:
        FileNotFoundError, ValueError: there is none in `folder`, it is damaged, or it holds no record.
        ModuleNotFoundError: a LevelDB, without the package plyvel.
    """

    def __init__(self, folder: str, backend: int):
        self.folder = folder = byte_strings.path(folder)
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


ListEntry = tuple[str, int | list[int], int]  # path, label or labels, line number
_BLANKS = " \t\r\v\f"
_NUMBER = re.compile(r"[+-]?[0-9]+")  # ASCII: int() knows more digits than C


@overload
def read_list(path: str, labels: None = None) -> list[tuple[str, int, int]]: ...


@overload
def read_list(path: str, labels: int) -> list[tuple[str, list[int], int]]: ...


def read_list(path: str, labels: int | None = None) -> Sequence[ListEntry]:
    """An image list: (path, label, line number) of each line. The path may hold spaces.

    A line is `path label`; with `labels`, `path label_1 ... label_n`, and the label is the list of these. Lines of one
    label are read as BVLC Caffe reads them: the path ends at the last space, or tab where the label follows one, and
    the label is C's atoi of the rest, 0 where there is no number. The first line whose label is no whole number is
    warned of. Empty lines and a byte order mark are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line without a path or, with `labels`, without as many whole numbers; no line at all.
    """
    expected = "`path label`, the label a whole number"
    if labels is not None:
        expected = f"`path` and {labels} label{'s, whole numbers' if labels > 1 else ', a whole number'}"
    try:
        text = Path(byte_strings.path(path)).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        reason = f"{error.strerror} (seen from {os.getcwd()})"
        raise FileNotFoundError(f"Cannot read the image list {path}: {reason}") from None
    entries: list[ListEntry] = []
    guessed: list[tuple[int, str]] = []  # lines that had no whole number
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.rstrip(_BLANKS)
        if not line:
            continue
        name, label, is_whole = _split_line(line) if labels is None else _split_labels(line, labels)
        if not name or "\0" in name or (labels is not None and not is_whole):
            hint = "; save the list as UTF-8" if "\0" in name else ""
            raise ValueError(f"{path}:{number}: expected {expected}, found {line!r}{hint}")
        if not is_whole:
            guessed.append((number, f"path {name!r} and label {label}, from {line!r}"))
        entries.append((name, label, number))
    if guessed:
        number, reading = guessed[0]
        glog.warning(
            "image_data_layer.cpp:44",
            f"{path}:{number}: read as {reading}, as BVLC Caffe reads it; expected {expected}. Lines like this: "
            f"{len(guessed)} of {len(entries)}",
        )
    if not entries:
        raise ValueError(f"{path}: File is empty: expected lines of {expected}")
    return entries


def _split_line(line: str) -> tuple[str, int, bool]:
    """(path, label, whether the label is a whole number and nothing else) of a line `path label`."""
    name, space, field = line.rpartition(" ")
    if not space:
        name = line
    label, is_whole = _atoi(field)
    if not is_whole and (not space or not _NUMBER.match(field.lstrip(_BLANKS))):
        before, tab, last = line.rpartition("\t")
        if tab and _NUMBER.fullmatch(last):
            name, (label, is_whole) = before, _atoi(last)
    return name.rstrip(_BLANKS), label, is_whole


def _split_labels(line: str, count: int) -> tuple[str, list[int], bool]:
    """(path, labels, whether they are `count` whole numbers) of a line `path label_1 ... label_count`."""
    fields = re.fullmatch(rf"(.*?)((?:[{_BLANKS}]+[^{_BLANKS}]+){{{count}}})", line)
    if fields is None:
        return line, [], False
    found = [_atoi(field) for field in fields[2].split()]
    return fields[1], [label for label, _ in found], all(is_whole for _, is_whole in found)


def _atoi(text: str) -> tuple[int, bool]:
    """(what C's atoi makes of `text`, whether that is the whole number that stands there)."""
    text = text.lstrip(_BLANKS)
    digits = _NUMBER.match(text)
    if digits is None:
        return 0, False
    number = max(-(1 << 63), min(int(digits[0][:30]), (1 << 63) - 1))  # strtol stops at a long's limits
    label = (number + (1 << 31)) % (1 << 32) - (1 << 31)  # and its result is cut to an int
    return label, digits.end() == len(text) and label == number
