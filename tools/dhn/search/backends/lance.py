"""An index in LanceDB: one table of items, in a folder or in an object store such as s3://bucket/index.

Searched exactly: LanceDB compares every code with the query. A write is one commit, so a reader sees the items as they
were or as they become, and a process that is killed while it writes leaves them as they were. One process writes at a
time. Keys of an object store come from the variables that LanceDB reads (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, ...).

    number   int64               0, 1, ... in the order of adding; deletes leave gaps, and results count without these
    bits     uint8[8 W]          the binary code, words of ranking.pack
    codes    float32[K]          the real-valued code
    labels   list of int32       columns of the labels that the item carries; null where they are unknown
    key, path   bytes            as texts.Texts; "" is no path

The schema's metadata `dhn` is what index.json says of an index besides its files; the metadata `columns` of the field
labels is C, how many columns they have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from atomic_writes import make_folder

from dhn.files import parse_json
from dhn.kinds import fits
from dhn.search import build, generation, kernels, ranking
from dhn.search.backends import Backend
from dhn.search.backends.lance_table import batches, real_codes, schema_of
from dhn.search.generation import ABOUT
from dhn.search.index import check_queries, label_column
from dhn.search.items import DEFAULTS, Items, Options, Result, SearchError

if TYPE_CHECKING:
    import lancedb
    import pyarrow

TABLE = "items"
SPARE = 256  # items beyond `top` that are fetched at once: mostly all ties of the last one are among them
FIELDS = ["number", "codes", "labels", "key", "path", "_distance"]  # of a result


@dataclass(frozen=True)
class View:
    """The items as they are at one time. gaps: numbers, ascending, that deletes left, below the last item's."""

    table: lancedb.table.Table
    count: int
    columns: int
    label_names: list[str]
    gaps: np.ndarray


class Lance(Backend):
    """The items of a LanceDB as a backend. It sees what another process wrote at its next call.

    about: what index.json says of an index besides its files: bits, label_names, net, ...
    """

    def __init__(self, uri: str | os.PathLike, bits: int) -> None:
        """Open the items in a folder or object store, or make a place for items of so many bits there.

        Raises SearchError without LanceDB, for items of other bits, and where the place cannot be read.
        """
        self.uri = os.fspath(uri)
        self._database = _connect(self.uri)
        with _errors(self.uri):
            if TABLE not in _tables(self._database):
                self._database.create_table(TABLE, schema=schema_of(bits, 0, {"bits": bits}))
        self.about = self._read_about()
        if self.bits != bits:
            raise SearchError(f"{self.uri}: expected codes of {bits} bits, found an index of {self.bits}")
        self._gaps: tuple[int, np.ndarray] = -1, np.empty(0, np.int64)  # of a version of the table

    @classmethod
    def open(cls, uri: str | os.PathLike) -> Lance:
        """Open items that are there. Raises SearchError where there are none."""
        return cls(uri, bits_of(uri))

    @property
    def bits(self) -> int:
        """K, bits of a code."""
        return self.about["bits"]

    def add(self, items: Items) -> None:
        """See Backend."""
        part = build.check_items(items)
        if part.codes.shape[1] != self.bits:
            raise SearchError(f"{self.uri}: expected codes of {self.bits} bits, found {part.codes.shape[1]}")
        with _writing(self.uri), _errors(self.uri):
            view = self._view()
            columns = part.labels.shape[1]
            if len({view.columns, columns} - {0}) > 1:
                raise SearchError(
                    f"{self.uri}: expected items with the same labels, found {view.columns} and {columns} columns"
                )
            taken = self._numbers(view, part.keys)
            if taken:
                raise SearchError(f"{next(iter(taken))}: expected keys that are unique, found this one in {self.uri}")
            _check_twins(part)
            if not len(part):
                return
            if columns > view.columns:  # the items that are there have unknown labels, with or without columns
                view.table.update_field_metadata({"path": "labels", "metadata": {"columns": str(columns)}})
            schema = schema_of(self.bits, max(columns, view.columns), self.about)
            view.table.add(batches(part, view.count + len(view.gaps), schema))

    def search(self, queries: np.ndarray, options: Options = DEFAULTS) -> list[list[Result]]:
        """See Backend."""
        return list(self.searches(queries, options))

    def searches(self, queries: np.ndarray, options: Options = DEFAULTS) -> Iterator[list[Result]]:
        """The results of `search`, query by query."""
        queries = check_queries(queries, self.bits)
        with _errors(self.uri):
            view = self._view()
            for query in queries:
                yield self._results(view, query, options)

    def delete(self, keys: Sequence[str]) -> int:
        """See Backend."""
        with _writing(self.uri), _errors(self.uri):
            view = self._view()
            numbers = self._present(view, keys)
            if numbers:
                view.table.delete(f"number IN ({', '.join(map(str, sorted(numbers.values())))})")
        return len(numbers)

    def count(self) -> int:
        """See Backend."""
        with _errors(self.uri):
            return self._database.open_table(TABLE).count_rows()

    @property
    def folder(self) -> Path:
        """Its folder, which paths of the net and its weights are relative to."""
        return folder_of(self.uri)

    def next_number(self) -> int:
        """How many items were ever added, but for those at the end that are no longer there."""
        with _errors(self.uri):
            view = self._view()
            return view.count + len(view.gaps)

    def codes_of(self, keys: Sequence[str]) -> np.ndarray:
        """Real-valued codes (n, K) float32 of keys. Raises SearchError for a key that is not there."""
        with _errors(self.uri):
            view = self._view()
            numbers = self._present(view, keys)
            where = f"number IN ({', '.join(map(str, numbers.values()))})"
            found = view.table.search().where(where).select(["number", "codes"]).to_arrow()
            codes = dict(zip(found["number"].to_pylist(), real_codes(found, self.bits), strict=True))
            return np.stack([codes[numbers[key]] for key in keys])

    def _read_about(self) -> dict[str, Any]:
        with _errors(self.uri):
            metadata = self._database.open_table(TABLE).schema.metadata or {}
        try:
            about = parse_json(metadata[b"dhn"])
        except (KeyError, ValueError):
            about = None
        if not fits(about, ABOUT):
            raise SearchError(f"{self.uri}: expected items that build_index wrote, found another table")
        return about

    def _view(self) -> View:
        """The items as they are now."""
        table = self._database.open_table(TABLE)  # stays at the version that it is opened at
        columns = int(table.schema.field("labels").metadata[b"columns"])
        names = self.about.get("label_names")
        label_names = [*map(str, names)] if names else [str(column) for column in range(columns)]
        version, gaps = self._gaps
        if version != table.version:
            gaps = _find_gaps(table)
            self._gaps = table.version, gaps
        return View(table, table.count_rows(), columns, label_names, gaps)

    def _present(self, view: View, keys: Sequence[str]) -> dict[str, int]:
        """The numbers of the keys. Raises SearchError for one that is not there."""
        numbers = self._numbers(view, keys)
        for key in keys:
            if key not in numbers:
                raise SearchError(f"{self.uri}: expected the key of one of its {view.count:,} items, found {key!r}")
        return numbers

    def _numbers(self, view: View, keys: Sequence[str]) -> dict[str, int]:
        """The numbers of those of the keys that are there."""
        import pyarrow
        import pyarrow.compute

        wanted = pyarrow.array([_encode(key) for key in keys], pyarrow.large_binary())
        numbers: dict[str, int] = {}
        if not len(keys) or not view.count:
            return numbers
        for batch in view.table.search().select(["number", "key"]).to_batches():
            hits = batch.filter(pyarrow.compute.is_in(batch["key"], value_set=wanted))
            texts = (key.decode(errors="surrogateescape") for key in hits["key"].to_pylist())
            numbers.update(zip(texts, hits["number"].to_pylist(), strict=True))
        return numbers

    def _results(self, view: View, query: np.ndarray, options: Options) -> list[Result]:
        """The results of a query (K,)."""
        label, reach, wanted = options.label, options.reach(self.bits), options.wanted(view.count)
        where = None if label is None else f"array_has(labels, {label_column(label, view.label_names)})"
        bits = ranking.pack(query[None]).view(np.uint8)[0]
        size = wanted
        while size:
            found = _closest(view, bits, size, reach, where)
            codes = real_codes(found, self.bits)
            distances, similarities = found["_distance"].to_numpy(), ranking.products(codes, query)
            keys = [key.decode(errors="surrogateescape") for key in found["key"].to_pylist()]
            places = np.array(ranking.order(distances, similarities, keys, options.ties), np.int64)
            if options.unique:
                places = places[ranking.first_of_each(codes[places])]
            if len(places) >= wanted or len(found) < size or size >= view.count:
                found = found.take(places[:wanted])
                return _result_rows(view, found, similarities[places[:wanted]])
            size = min(max(2 * size, len(found) + 1), view.count)
        return []


def write(uri: str | os.PathLike, items: Items, about: dict) -> None:
    """Write an index of items to a folder or an object store; one that stands there is replaced.

    about: as of build.build. Raises SearchError.
    """
    part = build.check_items(items)
    _check_twins(part)
    bits, columns = part.codes.shape[1], part.labels.shape[1]
    schema = schema_of(bits, columns, {**about, "bits": bits})
    with _writing(os.fspath(uri)), _errors(os.fspath(uri)):
        _connect(os.fspath(uri)).create_table(TABLE, batches(part, 0, schema), schema=schema, mode="overwrite")


def bits_of(uri: str | os.PathLike) -> int:
    """K, bits of the codes of an index. Raises SearchError where there is none."""
    uri = os.fspath(uri)
    with _errors(uri):
        database = _connect(uri)
        if TABLE not in _tables(database):
            raise SearchError(f"{uri}: expected an index in LanceDB, found none; build it with --backend lancedb")
        return database.open_table(TABLE).schema.field("codes").type.list_size


def is_place(text: str) -> bool:
    """Whether a text names a LanceDB: a URI of an object store, or a folder that holds the items."""
    return "://" in text or Path(text, f"{TABLE}.lance").is_dir()


def folder_of(uri: str) -> Path:
    """The folder of a place that is one; of an object store the folder that the process works in."""
    return Path.cwd() if "://" in uri else Path(uri)


def _connect(uri: str) -> lancedb.DBConnection:
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of each new table
    try:
        import lancedb
    except ImportError:
        raise SearchError(
            f"{uri}: the backend lancedb is not installed here; run: pip install 'dhn-caffe-toolkit[lancedb]'"
        ) from None
    with _errors(uri):
        return lancedb.connect(uri)


def _tables(database: lancedb.DBConnection) -> list[str]:
    return database.list_tables().tables


@contextmanager
def _writing(uri: str) -> Iterator[None]:
    """Hold a folder of items against another writer. An object store has no locks."""
    with ExitStack() as held:
        if "://" not in uri:
            make_folder(Path(uri).absolute().parent)
            held.enter_context(generation.holding(Path(uri), Path(uri)))
        yield


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """What LanceDB raises, as a SearchError of one line that names the place."""
    try:
        yield
    except SearchError:
        raise
    # of damaged files LanceDB and Arrow raise nearly everything, and Rust's panics are no Exception
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SearchError(f"{uri}: LanceDB cannot do it ({line})") from error


def _encode(key: str) -> bytes | None:
    """A key as it is stored; None for one that no file can have."""
    try:
        return key.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return None


def _check_twins(part: build.Part) -> None:
    order = part.keys.order()
    twin = kernels.find_twin(part.keys.data, part.keys.offsets, order)
    if twin >= 0:
        raise SearchError(f"{part.keys[twin]}: expected keys that are unique, found this one twice")


def _find_gaps(table: lancedb.table.Table) -> np.ndarray:
    """The numbers that deletes left, below the last item's."""
    count = table.count_rows()
    if not count or not table.count_rows(f"number >= {count}"):
        return np.empty(0, np.int64)  # they are 0 to count - 1
    numbers = [batch["number"].to_numpy() for batch in table.search().select(["number"]).to_batches()]
    present = np.sort(np.concatenate(numbers))
    return np.setdiff1d(np.arange(present[-1]), present, assume_unique=True)


def _closest(view: View, bits: np.ndarray, size: int, reach: int, where: str | None) -> pyarrow.Table:
    """At least `size` items within the distance `reach` with all ties of the last one, or all of them."""

    def fetch(limit: int, farthest: int) -> pyarrow.Table:
        search: Any = view.table.search(bits, vector_column_name="bits")  # LanceDB's types do not know "hamming"
        search = search.distance_type("hamming").bypass_vector_index().distance_range(upper_bound=farthest + 1)
        search = search if where is None else search.where(where, prefilter=True)
        return search.select(FIELDS).limit(limit).to_arrow()

    limit = min(size + SPARE, view.count)
    found = fetch(limit, reach)
    if len(found) < limit or limit == view.count:
        return found
    distances = found["_distance"].to_numpy()
    complete = int((distances < distances[-1]).sum())
    return found.slice(0, complete) if complete >= size else fetch(view.count, int(distances[size - 1]))


def _result_rows(view: View, found: pyarrow.Table, similarities: np.ndarray) -> list[Result]:
    """Results of a table in their order."""
    numbers = found["number"].to_numpy()
    rows = (numbers - np.searchsorted(view.gaps, numbers)).tolist()
    columns = zip(
        rows, found["key"].to_pylist(), found["_distance"].to_pylist(), similarities.tolist(),
        found["labels"].to_pylist(), found["path"].to_pylist(), strict=True,
    )  # fmt: skip
    results = []
    for rank, (row, key, distance, similarity, labels, path) in enumerate(columns, 1):
        names = None if labels is None else tuple(view.label_names[column] for column in labels)
        key, path = (text.decode(errors="surrogateescape") for text in (key, path))
        results.append(Result(rank, row, key, int(distance), similarity, names, path or None))
    return results
