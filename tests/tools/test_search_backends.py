"""The contract of a backend: every one answers as a count by brute force does, result by result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from dhn.search import index, ranking
from dhn.search.backends import faiss_file, lance
from dhn.search.backends.scan import Scan
from dhn.search.items import DEFAULTS, Items, Options, Result, SearchError

ROOT = Path(__file__).resolve().parents[2]


class FaissFile(Scan):
    """An index folder with the file that faiss reads next to it, searched by faiss with the ids and bits it documents.

    What faiss does not know (labels, the order of ties) is the index's.
    """

    def __init__(self, folder, bits):
        super().__init__(folder, bits)
        self.path = self.folder / "codes.faiss"
        self._write()

    def add(self, items):
        super().add(items)
        self._write()

    def delete(self, keys):
        gone = super().delete(keys)
        self._write()
        return gone

    def _write(self):
        opened = self.index()
        faiss_file.write(self.path, Items(opened.codes, None, opened.keys))

    def search(self, queries, options=DEFAULTS):
        import faiss

        opened, file = self.index(), faiss.read_index_binary(str(self.path))
        queries = index.check_queries(queries, self.bits)
        reach = options.reach(self.bits)
        column = None if options.label is None else index.label_column(options.label, opened.label_names)
        if not len(queries):
            return []
        bits = np.packbits(queries >= 0, axis=1, bitorder="little")
        bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
        limits, distances, rows = file.range_search(bits, reach + 1)  # faiss leaves out the radius itself
        results = []
        for query, first, end in zip(queries, limits[:-1].tolist(), limits[1:].tolist(), strict=True):
            near, far = rows[first:end], distances[first:end]
            if column is not None:
                carries = opened.labels[near, column] > 0
                near, far = near[carries], far[carries]
            products, keys = ranking.products(opened.codes_of(near), query), opened.keys_of(near)
            order = np.array(ranking.order(far, products, keys, options.ties), np.int64)
            if options.unique:
                order = order[ranking.first_of_each(opened.codes_of(near[order]))]
            results.append(
                [
                    Result(rank, int(near[i]), keys[i], int(far[i]), float(products[i]), opened.labels_of(int(near[i])),
                           opened.path_of(int(near[i])))
                    for rank, i in enumerate(order[: options.top].tolist(), 1)
                ]
            )  # fmt: skip
        return results


BACKENDS = {"scan": Scan, "lancedb": lance.Lance, "faiss": FaissFile}
NEEDED = {"lancedb": "lancedb", "faiss": "faiss"}
COUNT, COLUMNS = 300, 3


@pytest.fixture(params=BACKENDS)
def name(request):
    if request.param in NEEDED:
        pytest.importorskip(NEEDED[request.param], reason=f"{NEEDED[request.param]} is not installed")
    return request.param


@pytest.fixture
def place(name, tmp_path):
    """Opens the backend in a folder, for codes of so many bits."""
    return lambda bits: BACKENDS[name](tmp_path / "index", bits)


def draw(count, bits, seed=0, start=0, labels=True):
    """Items whose codes are nearly all ties: few distinct real-valued codes near fewer binary ones."""
    rng = np.random.default_rng(seed)
    centres = np.sign(rng.standard_normal((6, bits))) * 0.5
    flips = np.where(rng.random((25, bits)) < 1.5 / bits, -1, 1)
    values = (centres[rng.integers(0, 6, 25)] * flips * rng.choice([0.5, 1, 2], (25, 1))).astype(np.float32)
    codes = values[rng.integers(0, 25, count)]
    vectors = rng.integers(0, 2, (count, COLUMNS)).astype(np.int8)
    vectors[rng.random(count) < 0.1] = -1
    keys = [f"{'é' * (row % 3)}k'{row % 7}-{row}" for row in range(start, start + count)]
    return Items(codes, vectors if labels else None, keys, [f"{key}.png" for key in keys])


def joined(*parts):
    labels = [np.full((len(each.codes), COLUMNS), -1) if each.labels is None else each.labels for each in parts]
    keys, paths = ([text for each in parts for text in getattr(each, field)] for field in ("keys", "paths"))
    return Items(np.concatenate([each.codes for each in parts]), np.concatenate(labels), keys, paths)


def without(items, rows):
    keep = np.delete(np.arange(len(items.codes)), rows)
    texts = ([getattr(items, field)[row] for row in keep] for field in ("keys", "paths"))
    return Items(items.codes[keep], items.labels[keep], *texts)


def by_brute_force(items, query, top=20, radius=None, label=None, unique=False, ties="product"):
    """Results as tuples, each item compared with the query."""
    found, seen = [], set()
    distances = ((items.codes >= 0) != (query >= 0)).sum(1).tolist()
    each = np.pad(items.codes.astype(np.float64) * query, ((0, 0), (0, -len(query) % 4)))
    sums = np.cumsum(each.reshape(len(each), -1, 4), axis=1)[:, -1]  # bit after bit, of every fourth bit
    products = ((sums[:, 0] + sums[:, 1]) + (sums[:, 2] + sums[:, 3])).tolist()
    for row, (code, key) in enumerate(zip(items.codes, items.keys, strict=True)):
        distance, product, vector = distances[row], products[row], items.labels[row]
        if (radius is None or distance <= radius) and (label is None or vector[int(label)] > 0):
            names = None if (vector < 0).any() else tuple(str(column) for column in np.flatnonzero(vector))
            tie = -product if ties == "product" else 0
            found.append(((distance, tie, key.encode()), row, key, distance, product, names, items.paths[row], code))
    results = []
    for _, *fields, code in sorted(found, key=lambda each: each[0]):
        if not (unique and code.tobytes() in seen) and (top is None or len(results) < top):
            seen.add(code.tobytes())
            results.append((len(results) + 1, *fields))
    return results


def search(backend, query, **options):
    return [tuple(result) for result in backend.search(query[None], Options(**options))[0]]


OPTIONS = [
    {},
    {"ties": "key"},
    {"top": 1},
    {"top": COUNT * 2},
    {"top": None, "radius": 2},
    {"top": 7, "radius": 0},
    {"label": "1", "top": 50},
    {"label": "2", "radius": 3, "ties": "key"},
    {"unique": True},
    {"unique": True, "top": 40, "ties": "key"},
    {"unique": True, "label": "0", "top": 5},
]


@pytest.mark.parametrize("bits", [12, 64, 100, 1000])
def test_results_are_those_of_brute_force(place, bits):
    backend, items = place(bits), draw(COUNT, bits)
    backend.add(items)
    assert (backend.count(), backend.bits) == (COUNT, bits)
    far = np.random.default_rng(9).standard_normal((2, bits)).astype(np.float32)
    queries = np.concatenate([items.codes[[0]], far, np.zeros((1, bits), np.float32)])
    for options in OPTIONS:
        answers = [[tuple(result) for result in results] for results in backend.search(queries, Options(**options))]
        assert answers == [by_brute_force(items, query, **options) for query in queries], options
    within = backend.range(queries[:2], 2, Options(label="1", ties="key"))
    assert [[tuple(each) for each in results] for results in within] == [
        by_brute_force(items, query, None, 2, "1", ties="key") for query in queries[:2]
    ]


def test_after_adding_and_deleting(place):
    first, second = draw(200, 48), draw(150, 48, seed=1, start=200, labels=False)
    backend = place(48)
    backend.add(first)
    backend.add(second)
    items = joined(first, second)
    gone = [0, 3, 199, 200, 349]
    assert backend.delete([items.keys[row] for row in gone]) == len(gone)
    items = without(items, gone)
    backend.add(third := draw(20, 48, seed=2, start=1000))
    items = joined(items, third)
    gone = list(range(5, 100))
    backend.delete([items.keys[row] for row in gone])
    items = without(items, gone)
    assert backend.count() == len(items.codes)
    for query in items.codes[[0, 100, -1]]:
        for options in ({"top": None}, {"label": "1"}, {"ties": "key", "unique": True}):
            assert search(backend, query, **options) == by_brute_force(items, query, **options)


def test_what_one_process_wrote_another_reads(name, place, tmp_path):
    place(64).add(draw(30, 64))
    backend, other = place(64), place(64)
    other.add(draw(30, 64, seed=1, start=30))
    assert backend.count() == 60
    other.delete(draw(1, 64, start=1).keys)
    assert backend.count() == 59 and len(search(backend, np.ones(64, np.float32), top=None)) == 59
    with pytest.raises(SearchError, match="64"):
        BACKENDS[name](tmp_path / "index", 48).add(draw(5, 48, start=70))


def test_an_empty_index(place):
    backend = place(48)
    query = np.ones(48, np.float32)
    assert (backend.count(), search(backend, query), backend.range(query[None], 48)) == (0, [], [[]])
    assert backend.search(np.empty((0, 48), np.float32)) == []
    backend.add(Items(np.empty((0, 48), np.float32), None, []))
    assert backend.count() == 0 and backend.delete([]) == 0
    with pytest.raises(SearchError, match="expected the key of one of its 0 items, found 'k'"):
        backend.delete(["k"])
    items = draw(5, 48)
    backend.add(items)
    assert search(backend, query) == by_brute_force(items, query)
    backend.delete(items.keys)
    assert (backend.count(), search(backend, query)) == (0, [])


def test_what_is_refused_changes_nothing(place):
    backend, items = place(48), draw(40, 48)
    backend.add(items)
    query = items.codes[0]
    before = search(backend, query, top=None)
    more = draw(10, 48, seed=1, start=100)
    twice = Items(more.codes, more.labels, [*more.keys[:9], more.keys[0]], more.paths)
    there = Items(more.codes, more.labels, [*more.keys[:9], items.keys[7]], more.paths)
    for wrong, text in (
        (twice, "expected keys that are unique, found this one"),
        (there, "expected keys that are unique, found this one"),
        (draw(10, 32, start=100), "expected codes of 48 bits, found 32"),
        (Items(more.codes, more.labels[:, :2], more.keys), "expected items with the same labels"),
        (Items(more.codes * np.nan, more.labels, more.keys), "is not finite"),
        (Items(more.codes, more.labels, more.keys[:3]), "expected 10 keys"),
    ):
        with pytest.raises(SearchError, match=text):
            backend.add(wrong)
    with pytest.raises(SearchError, match="expected the key of one of its 40 items, found 'none'"):
        backend.delete([items.keys[0], "none"])
    for options, text in (
        ({"top": 0}, "top: expected at least 1"),
        ({"radius": -1}, "radius: expected"),
        ({"ties": "id"}, "ties: expected product or key"),
        ({"label": "cat"}, "label 'cat': expected one of the index's labels"),
    ):
        with pytest.raises(SearchError, match=text):
            search(backend, query, **options)
    with pytest.raises(SearchError, match="expected queries"):
        backend.search(np.ones((1, 47), np.float32))
    with pytest.raises(SearchError, match="finite"):
        search(backend, query * np.inf)
    assert search(backend, query, top=None) == before


KILLED = """
import sys
sys.path[:0] = [{tools!r}, {layers!r}, {tests!r}]
import test_search_backends as contract
backend = contract.BACKENDS[{name!r}]({folder!r}, 48)
print("ready", flush=True)
for start in range(0, 100000, 50):
    backend.add(contract.draw(50, 48, seed=start, start=start))
    print(start + 50, flush=True)
"""


def test_killed_while_writing_it_has_every_complete_batch(name, place, tmp_path):
    text = KILLED.format(
        tools=str(ROOT / "tools"),
        layers=str(ROOT / "python_layers"),
        tests=str(Path(__file__).parent),
        name=name,
        folder=str(tmp_path / "index"),
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(3)]
    time.sleep(0.003 * (os.getpid() % 10))  # somewhere in a write
    os.kill(process.pid, signal.SIGKILL)
    lines += process.communicate()[0].splitlines()
    written = int(lines[-1])
    if name == "faiss":
        import faiss

        assert faiss.read_index_binary(str(tmp_path / "index" / "codes.faiss")).ntotal in (written, written + 50)
    backend = place(48)
    assert backend.count() in (written, written + 50)
    items = joined(*(draw(50, 48, seed=start, start=start) for start in range(0, backend.count(), 50)))
    for query in items.codes[:3]:
        assert search(backend, query, top=None) == by_brute_force(items, query, None)
    more = draw(50, 48, seed=1, start=10**6)
    backend.add(more)
    assert search(backend, more.codes[0]) == by_brute_force(joined(items, more), more.codes[0])


@pytest.mark.slow
def test_lancedb_in_an_object_store(monkeypatch):
    """An S3-compatible server on loopback: pip install 'moto[s3]' flask flask-cors."""
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[s3]' flask flask-cors")
    store = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    try:
        endpoint = "http://{}:{}".format(*store.get_host_and_port())
        settings = {"ACCESS_KEY_ID": "user", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}
        for key, value in {**settings, "ENDPOINT": endpoint, "ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(f"AWS_{key}", value)
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
        items, more = draw(200, 48), draw(100, 48, seed=1, start=200)
        lance.write("s3://bucket/index", items, {"label_names": ["a", "b", "c"]})
        backend = lance.Lance.open("s3://bucket/index")
        backend.add(more)
        backend.delete(items.keys[:5])
        items = without(joined(items, more), list(range(5)))
        backend = lance.Lance.open("s3://bucket/index")
        assert backend.count() == len(items.codes)
        for options in ({}, {"label": "1", "top": None}, {"unique": True, "ties": "key"}):
            expected = by_brute_force(items, more.codes[0], **options)
            named = [
                (*each[:5], each[5] if each[5] is None else tuple("abc"[int(label)] for label in each[5]), each[6])
                for each in expected
            ]
            assert search(backend, more.codes[0], **options) == named
        with pytest.raises(SearchError, match=r"s3://nowhere/index: LanceDB cannot do it"):
            lance.Lance("s3://nowhere/index", 48)
    finally:
        store.stop()


def test_a_damaged_lancedb_is_named(tmp_path):
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    lance.Lance(tmp_path / "index", 8).add(draw(30, 8))
    query, rng, refused = draw(1, 8, seed=1).codes, np.random.default_rng(0), 0
    files = [
        path for path in (tmp_path / "index").rglob("*") if path.suffix in (".lance", ".manifest") and path.is_file()
    ]
    for path in files:
        content = path.read_bytes()
        for _ in range(8):
            at = int(rng.integers(len(content)))
            path.write_bytes(content[:at] if at % 2 else content[:at] + b"\xff" * 4 + content[at + 4 :])
            try:
                lance.Lance.open(tmp_path / "index").search(query)
            except SearchError as error:
                refused += 1
                assert str(tmp_path / "index") in str(error) and "\n" not in str(error)
        path.write_bytes(content)
    assert len(files) > 1 and refused > 4
