"""Images with label vectors, read by index from an LMDB or from a list file, and the threads that read ahead.

A source has `len(source)`, `name(i)` for messages, `key(i)`, which is the key or path that it lists record i by, and
`read(i)` -> (image uint8 (channels, height, width) in OpenCV's BGR order, labels float32 (C,)). It may be read from
several threads. Labels, lists and pictures follow the rules of
labels.py, image_lists.py and pictures.py.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import image_lists
import labels as label_rule
import lmdb_files
import pictures

_CACHE_BYTES = 256 << 20  # decoded images kept by one source: a data set of this size is decoded once
_open_lmdbs: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class _Lmdb:
    """An open LMDB and the keys of its records."""

    def __init__(self, path: str):
        self.path = path
        self.env = lmdb_files.open_lmdb(path, readahead=False)
        self.keys: list = []
        try:
            with lmdb_files.naming(path), self.env.begin() as txn:
                self.keys.extend(txn.cursor().iternext(values=False))
        except lmdb_files.LmdbFileError as error:
            after = f"after key {self.keys[-1].decode(errors='replace')!r}" if self.keys else "before the first key"
            raise lmdb_files.LmdbFileError(f"{error} ({after})") from None

    def get(self, index: int) -> bytes:
        """The value of record `index`."""
        with lmdb_files.naming(self.path), self.env.begin() as txn:
            return lmdb_files.value(self.path, txn, self.keys[index])

    def __del__(self):
        if hasattr(self, "env"):
            self.env.close()


def _to_channels(image: np.ndarray, gray: bool | None) -> np.ndarray:
    """(height, width, channels) with 1 channel (gray True), 3 (False) or as many as there are (None)."""
    import cv2

    if gray is True and image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:, :, None]
    return np.repeat(image, 3, axis=2) if gray is False and image.shape[2] == 1 else image


def planes(image: np.ndarray, mirrored: bool) -> np.ndarray:
    """An image (channels, height, width) uint8, mirrored or not, each channel's values side by side. One that OpenCV
    decoded has each pixel's: OpenCV parts and mirrors those faster than numpy."""
    if image.shape[0] == 1 or image.strides[0] != 1:
        return image[:, :, ::-1] if mirrored else image
    import cv2

    pixels, channels = image.transpose(1, 2, 0), np.empty(image.shape, np.uint8)
    cv2.split(cv2.flip(pixels, 1) if mirrored else pixels, list(channels))
    return channels


class _Source:
    """What both kinds of source share: resizing and the cache of decoded images."""

    def __init__(self, gray: bool | None, resize: tuple | None):
        self.gray, self.resize = gray, resize
        self._cache: dict = {}
        self._cached_bytes = 0

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(image uint8 (channels, height, width), labels float32 (C,)) of record `index`."""
        if index in self._cache:
            return self._cache[index]
        image, labels = self._load(index)
        if self.resize is not None and image.shape[:2] != self.resize:
            import cv2

            height, width = self.resize
            image = cv2.resize(image, (width, height)).reshape(height, width, -1)
        record = image.transpose(2, 0, 1), labels
        if self._cached_bytes + record[0].nbytes <= _CACHE_BYTES:
            self._cached_bytes += record[0].nbytes
            self._cache[index] = record
        return record


class LmdbSource(_Source):
    """An LMDB of Datums: picture in `data`, label vector in `float_data`, or the class number in `label` alone.

    labels: C, None to take it from the first record. gray, resize: see `pictures.decode`; (height, width). optional:
    records without a label count as unknown, a row of -1 (one column where labels is None). Raises FileNotFoundError
    without an LMDB at `path`, ValueError for one that is damaged or, naming the key, a record that does not fit.
    """

    def __init__(self, path: str, labels: int | None, gray: bool | None, resize: tuple | None, optional: bool = False):
        super().__init__(gray, resize)
        from caffe.proto import caffe_pb2

        self._datum = caffe_pb2.Datum
        if not os.path.exists(os.path.join(path, "data.mdb")):
            raise FileNotFoundError(
                f"source {path!r} must be an LMDB folder (one with a data.mdb) or a list file; "
                f"build it with tools/create_lmdb.py"
            )
        self.path = os.path.realpath(path)
        self._lmdb = _Lmdb(self.path)
        if not self._lmdb.keys:
            raise ValueError(f"LMDB {path!r} must hold at least one record; found none")
        self.labels, self._optional = labels, optional
        if labels is None:
            first = self._parse(0)
            if first.HasField("label") and not len(first.float_data):
                raise ValueError(
                    f"{self.name(0)}: the record has no label vector in float_data, only a class number; "
                    f"say how many classes there are with the key 'labels'"
                )
            self.labels = len(first.float_data) or 1

    def __len__(self) -> int:
        return len(self._lmdb.keys)

    def name(self, index: int) -> str:
        return f"LMDB {self.path!r}, key {self._lmdb.keys[index].decode(errors='replace')!r}"

    def key(self, index: int) -> str:
        return self._lmdb.keys[index].decode(errors="surrogateescape")

    def _parse(self, index: int):
        value = self._lmdb.get(index)
        datum = self._datum()
        try:
            datum.ParseFromString(value)
        except Exception as error:  # protobuf's DecodeError lives elsewhere in each of its implementations
            raise ValueError(
                f"{self.name(index)}: expected a Datum, found {len(value)} bytes that are none "
                f"({error}); rebuild the LMDB"
            ) from None
        floats = len(datum.float_data)
        if floats and not datum.data and floats == datum.channels * datum.height * datum.width:
            raise ValueError(
                f"{self.name(index)}: expected a picture in data and a label vector in float_data, found "
                f"a picture of {floats} values in float_data; only Caffe's Data layer reads such records"
            )
        return datum

    def _vector(self, datum, name: str) -> np.ndarray:
        """The label vector of a record, float32 (C,)."""
        if len(datum.float_data):
            if len(datum.float_data) != self.labels or not {0, 1}.issuperset(datum.float_data):
                label_rule.vectors([list(datum.float_data)], "vectors", self.labels, lambda row: name)
            return np.array(datum.float_data, np.float32)
        if datum.HasField("label") or self._optional:
            return label_rule.one_hot(datum.label if datum.HasField("label") else -1, self.labels, name)
        raise ValueError(f"{name}: expected a label vector in float_data or a class number in label, found neither")

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        datum, name = self._parse(index), self.name(index)
        labels = self._vector(datum, name)
        if datum.encoded:
            return pictures.decode(datum.data, self.gray, name), labels
        shape = datum.channels, datum.height, datum.width
        if len(datum.data) != shape[0] * shape[1] * shape[2] or not len(datum.data):
            raise ValueError(
                f"{name}: expected {shape[0]}x{shape[1]}x{shape[2]} bytes (channels, height, width) in "
                f"data, found {len(datum.data)}"
            )
        image = np.frombuffer(datum.data, np.uint8).reshape(shape).transpose(1, 2, 0)
        return _to_channels(image, self.gray), labels


class ListSource(_Source):
    """The pictures of a list file (image_lists.py): a line is `path l1 ... lC`, or `path label` with a class number.

    Paths are relative to `root`. labels: C, None to take it from the lines; needed for class numbers. gray: None counts
    as False, 3 channels. encoding: of the list. optional: a list without labels counts as unknown, rows of -1 (one
    column where labels is None). Raises FileNotFoundError for a missing list or picture, ValueError naming a line that
    does not fit.
    """

    def __init__(
        self,
        path: str,
        root: str,
        labels: int | None,
        gray: bool | None,
        resize: tuple | None,
        encoding: str = "utf-8",
        optional: bool = False,
    ):
        super().__init__(bool(gray), resize)
        self.path, self.root = path, root
        listed = image_lists.read(path, encoding, "optional" if optional else "required")
        self._names, self._lines = listed.names, listed.lines
        count = len(listed.labels[0])
        if count == 1 and labels is None:
            raise ValueError(
                f"{self._place(0)}: one number a line is a class number; say how many classes there are "
                f"with the key 'labels'"
            )
        if count:
            declared = "classes" if count == 1 else "vectors"
            self._table = label_rule.vectors(listed.labels, declared, labels, self._place)[0]
        else:
            self._table = np.full((len(self._names), labels or 1), -1, np.int8)
        self.labels = self._table.shape[1]

    def __len__(self) -> int:
        return len(self._names)

    def _place(self, index: int | None) -> str:
        return self.path if index is None else f"{self.path}:{self._lines[index]}"

    def name(self, index: int) -> str:
        return f"{self._place(index)}: {self._names[index]}"

    def key(self, index: int) -> str:
        return self._names[index]

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        path = image_lists.locate(self.root, self._names[index])
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise type(error)(
                f"{self.name(index)}: cannot read {path!r} ({error.strerror}); is `root` right?"
            ) from None
        return pictures.decode(data, self.gray, self.name(index)), self._table[index].astype(np.float32)


class Prefetcher:
    """Runs `build(plan, map)` for each plan of an endless iterator in a background thread, at most `depth` ahead.

    `next()` returns the results in the order of the plans, whatever the threads do, and raises what `build` raised.
    `map` is that of a pool of `threads` threads. The thread ends when the Prefetcher is collected or Python exits.
    """

    def __init__(self, plans, build, depth: int, threads: int):
        self._queue: queue.Queue = queue.Queue(depth)
        self._error = None
        stop = threading.Event()
        thread = threading.Thread(target=_fill, args=(plans, build, self._queue, stop, threads), daemon=True)
        self._finalizer = weakref.finalize(self, _end, stop, self._queue, thread)
        thread.start()

    def next(self):
        if self._error is None:
            error, result = self._queue.get()
            if error is None:
                return result
            self._error = error
        raise self._error


def _fill(plans, build, results: queue.Queue, stop: threading.Event, threads: int) -> None:
    try:
        with ThreadPoolExecutor(threads) as pool:
            for plan in plans:
                result = build(plan, pool.map)
                if stop.is_set():
                    return
                results.put((None, result))
                if stop.is_set():
                    return
    except BaseException as error:
        if not stop.is_set():
            results.put((error, None))


def _end(stop: threading.Event, results: queue.Queue, thread: threading.Thread) -> None:
    stop.set()
    while thread.is_alive():
        try:
            results.get(timeout=0.01)  # a thread that waits for room gets some, then sees the stop
        except queue.Empty:
            thread.join(0.01)
