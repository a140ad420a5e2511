"""LMDBs opened to be read: refused where the file was cut off, their errors in sentences.

A record beyond the end of its file, or a damaged page, ends the process by a signal, which no Python code can catch. So
the file's size is compared with what its header says before a record is read, and with the engine all of its pages are
checked (stock BVLC Caffe has no such check).
"""

from __future__ import annotations

import contextlib
import os
import threading

_REMEDY = "copy it or build it again"


class LmdbFileError(ValueError):
    """An LMDB that cannot be read. Names its folder."""


def open_lmdb(path: str, **options):
    """An lmdb.Environment for reading, also where a script of the same process has it open or opens it later.

    options: lmdb.open's. Raises LmdbFileError where there is no LMDB, or one that is damaged or cut off.
    """
    _check_pages(path)
    with naming(path):
        environment = _open(path, readonly=True, lock=False, create=False, **options)
        expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = os.path.getsize(os.path.join(path, "data.mdb"))
    if found < expected:
        environment.close()
        raise LmdbFileError(
            f"LMDB {path!r} cannot be read: data.mdb was cut off: expected {expected} bytes, found {found}; {_REMEDY}"
        )
    return environment


def _check_pages(path: str) -> None:
    try:
        from caffe.data import lmdb_pages
    except ImportError:  # stock BVLC Caffe
        return
    try:
        lmdb_pages.check(path)
    except lmdb_pages.PageError as error:
        raise LmdbFileError(f"LMDB {path!r} cannot be read: {error}; {_REMEDY}") from None
    except OSError:
        pass  # no data.mdb: lmdb.open tells it


def _open(path: str, **options):
    """lmdb.open. From version 3 on, it refuses to open the same files twice, for the sake of the locks on them. This
    takes none, so it is left out of the list of open files, which py-lmdb keeps by what lmdb._envid says. The engine's
    caffe.data.databases does the same."""
    import lmdb

    try:
        from lmdb import _envid
    except ImportError:  # before version 3
        return lmdb.open(path, **options)
    with vars(_envid).setdefault("opening", threading.Lock()):  # one lock with caffe.data.databases
        listed = _envid.env_keys
        try:
            _envid.env_keys = lambda path, subdir: ()
            return lmdb.open(path, **options)
        finally:
            _envid.env_keys = listed


@contextlib.contextmanager
def naming(path: str, place: str = ""):
    """An error of LMDB's own, of a damaged file, as a LmdbFileError that names the LMDB and the place in it."""
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise LmdbFileError(f"LMDB {path!r} cannot be read{place}: {error}; {_REMEDY}") from None


def value(path: str, transaction, key: bytes) -> bytes:
    """The record of a key that the LMDB lists. Raises LmdbFileError, naming the key, where it cannot be read."""
    shown = repr(key.decode(errors="replace"))
    with naming(path, f" at key {shown}"):
        found = transaction.get(key)
    if found is None:  # what is sorted wrongly is listed and not found
        raise LmdbFileError(f"LMDB {path!r} lists the key {shown} and does not find it: it is damaged; build it again")
    return found
