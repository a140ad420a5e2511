"""An index: its results against a count of everything by numpy, and its files under writers that are killed."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import threading
import weakref

import forked
import numpy as np
import pytest
from dhn import compiled
from dhn.search import bounds, build, generation, index, kernels
from dhn.search.index import open_index
from dhn.search.items import Items, Options, SearchError


def some_codes(count: int, bits: int, random: np.random.Generator) -> np.ndarray:
    """Real-valued codes (count, bits) as a net gives them: few distinct signs, many ties, some items twice."""
    centres = random.normal(size=(6, bits))
    codes = centres[random.integers(0, 6, count)] + random.normal(0, 0.3, (count, bits))
    codes = np.tanh(codes).astype(np.float32)
    codes[: count // 8] = np.sign(codes[: count // 8])  # products tie too
    codes[-count // 8 :] = codes[random.integers(0, count // 2, len(codes[-count // 8 :]))]
    codes[0] = 0.0
    codes[1] = -0.0
    return codes


def some_items(count: int, bits: int, seed: int = 0) -> Items:
    """Items with three labels and keys whose order is not that of the rows."""
    random = np.random.default_rng(seed)
    numbers = random.permutation(10 * count)[:count]
    keys = [f"{'äz'[number % 2]}{number}" for number in numbers]
    return Items(some_codes(count, bits, random), random.integers(0, 2, (count, 3), np.uint8), keys)


def products(codes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products of codes (n, K) and a query (K,); the order of the sum is part of the definition."""
    sums = np.zeros((4, len(codes)))
    for bit in range(len(query)):
        sums[bit % 4] += codes[:, bit].astype(np.float64) * np.float64(query[bit])
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


class Counted:
    """What a query finds, by distances to all items and a sort of all of them."""

    def __init__(self, items: Items, query: np.ndarray) -> None:
        self.items, self.distances = items, ((items.codes >= 0) != (query >= 0)).sum(1)
        self.products = products(items.codes, query)
        self.keys = np.array([key.encode() for key in items.keys])

    def results(self, top, radius, column, unique, ties) -> list[tuple]:
        """(row, distance, similarity) of each result."""
        rows = np.lexsort((self.keys, -self.products * (ties == "product"), self.distances))
        if radius is not None:
            rows = rows[self.distances[rows] <= radius]
        if column is not None:
            rows = rows[self.items.labels[rows, column] == 1]
        if unique:
            _, first = np.unique(self.items.codes[rows] + 0.0, axis=0, return_index=True)
            rows = rows[np.sort(first)]
        return [(row, self.distances[row], self.products[row]) for row in rows[:top].tolist()]


def found(opened: index.Index, queries: np.ndarray, *options) -> list[list[tuple]]:
    """The results of an index, as Counted has them."""
    return [
        [(each.row, each.distance, each.similarity) for each in results]
        for results in opened.search(queries, Options(*options))
    ]


@pytest.mark.parametrize("ties", ["product", "key"])
@pytest.mark.parametrize("bits", [1, 12, 48, 64, 100, 1000])
def test_results_are_those_of_a_count_of_everything(tmp_path, bits, ties, way):
    items = some_items(240, bits)
    build.build(tmp_path / "index", items)
    opened = open_index(tmp_path / "index", verify=True)
    random = np.random.default_rng(1)
    queries = np.concatenate([items.codes[:12], random.normal(size=(12, bits)).astype(np.float32)])
    counted = [Counted(items, query) for query in queries]
    for top, radius, column, unique in (
        (1, None, None, False), (20, None, None, False), (None, None, None, False), (500, bits // 3, None, False),
        (20, bits // 3, 1, False), (20, None, 2, True), (None, bits // 2, None, True), (30, 0, None, False),
    ):  # fmt: skip
        label = None if column is None else str(column)
        for each, results in zip(counted, found(opened, queries, top, radius, label, unique, ties), strict=True):
            assert results == each.results(top, radius, column, unique, ties)


@pytest.mark.parametrize("ties", ["product", "key"])
def test_a_thousand_queries_over_many_blocks(tmp_path, ties):
    """Also where the distinct codes fill many blocks, the last one in part."""
    random = np.random.default_rng(2)
    codes = np.concatenate([some_codes(3000, 48, random), random.normal(size=(8000, 48))]).astype(np.float32)
    items = Items(codes, None, [f"{row:08d}" for row in random.permutation(len(codes))])
    build.build(tmp_path / "index", items)
    queries = some_codes(1000, 48, random)
    results = found(open_index(tmp_path / "index"), queries, 20, None, None, False, ties)
    keys = np.array(items.keys, "S").astype(int)
    signs = np.where(codes >= 0, 1, -1).astype(np.float32)
    distances = ((48 - np.where(queries >= 0, 1, -1).astype(np.float32) @ signs.T) / 2).astype(int)
    for query, near, mine in zip(queries, distances, results, strict=True):
        rows = np.flatnonzero(near <= np.partition(near, 19)[19])  # the last distance whole
        similar = products(codes[rows], query)
        order = np.lexsort((keys[rows], -similar * (ties == "product"), near[rows]))[:20]
        assert mine == list(zip(rows[order].tolist(), near[rows[order]].tolist(), similar[order].tolist(), strict=True))


@pytest.mark.parametrize("scale", [1, 1e-44, 3e38])
def test_items_of_a_code_are_left_out_by_bounds_of_their_products(tmp_path, scale):
    """Many items of one code, as near to each other as a trained net has them, some equal; also where float32 ends."""
    if kernels.LIBRARY is None:
        pytest.skip("kernels.c is not compiled: no C compiler")
    random = np.random.default_rng(4)
    centres = np.sign(random.normal(size=(2, 20)))
    lengths = 0.5 + 0.4 * random.random((1400, 1))
    codes = (centres[np.arange(1400) % 2] * (lengths + 0.05 * random.random((1400, 20))) * scale).astype(np.float32)
    codes[1000:1200] = codes[200:400]  # ties, which the keys decide
    labels = random.integers(0, 2, (1400, 1), np.uint8)
    items = Items(codes, labels, [f"{row:05d}" for row in random.permutation(1400)])
    build.build(tmp_path / "index", items)
    opened = open_index(tmp_path / "index")
    queries = np.concatenate([codes[:6], random.normal(size=(2, 20)).astype(np.float32)])
    queries[:4, :3] *= np.float32([-1, 0, 1e-9])  # also nearest to a code that is not theirs
    counted = [Counted(items, query) for query in queries]
    for top, column in ((1, None), (20, None), (300, None), (20, 0), (900, None)):
        results = found(opened, queries, top, None, None if column is None else "0", False, "product")
        assert results == [each.results(top, None, column, False, "product") for each in counted]
    assert opened._searched.task._values["has_bounds"].all(), "no bounds were used"


def test_a_line_says_that_numpy_computes(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "LIBRARY", None)
    monkeypatch.setattr(compiled, "_warned", set())
    for _ in range(2):
        assert kernels.products(np.ones((1, 5), np.float32), np.ones(5, np.float32)) == 5
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("search: expected the library that an installation compiles from ")
    assert line.endswith("times slower; install a C compiler (gcc), then this package again")


def test_what_a_result_says(tmp_path):
    codes = np.array([[1, 1], [1, -1], [-1, -1]], np.float32) * 0.5
    labels = np.array([[1, 0, 1], [0, 0, 0], [-1, -1, -1]], np.int8)
    build.build(tmp_path / "index", Items(codes, labels, ["b", "c", "a"], ["x/b.png", "", "x/a.png"]),
                {"label_names": ["cat", "dog", "sea"], "dataset": "mine"})  # fmt: skip
    opened = open_index(tmp_path / "index")
    [results] = opened.search(codes[:1])
    assert [tuple(result) for result in results] == [
        (1, 0, "b", 0, 0.5, ("cat", "sea"), "x/b.png"),
        (2, 1, "c", 1, 0.0, (), None),
        (3, 2, "a", 2, -0.5, None, "x/a.png"),
    ]
    assert opened.about["dataset"] == "mine" and len(opened) == 3 and opened.bits == 2
    assert [opened.row_of(key) for key in "abc"] == [2, 0, 1] and opened.keys_of([2, 0]) == ["a", "b"]
    assert [each.key for each in opened.search(codes[:1], Options(label="sea"))[0]] == ["b"]
    assert opened.search(codes[:1], Options(label="1")) == [[]]  # a number, where no label has that name
    with pytest.raises(SearchError, match=r"label 'cow': expected one of the index's labels \(cat, dog, sea\)"):
        opened.search(codes[:1], Options(label="cow"))
    for wrong, message in (
        ({"top": 0}, "top: expected at least 1, found 0"),
        ({"radius": -1}, "radius: expected a Hamming distance of at least 0, found -1"),
        ({"ties": "row"}, "ties: expected product or key, found 'row'"),
    ):
        with pytest.raises(SearchError, match=message):
            opened.search(codes[:1], Options(**wrong))
    with pytest.raises(SearchError, match=r"expected queries \(Q, 2\), codes of the index's bits, found \(1, 3\)"):
        opened.search(np.ones((1, 3), np.float32))
    with pytest.raises(SearchError, match=r"query 1: expected a code of finite values, found \[1.0, inf\]"):
        opened.search(np.array([[1, 2], [1, np.inf]], np.float32))
    with pytest.raises(SearchError, match="expected the key of one of its 3 items, found '\\\\udcff'"):
        opened.row_of("\udcff")


def test_an_empty_index(tmp_path, way):
    build.build(tmp_path / "index", Items(np.empty((0, 12), np.float32), None, []))
    opened = open_index(tmp_path / "index", verify=True)
    assert opened.search(np.ones((2, 12), np.float32), Options(None)) == [[], []] and len(opened) == 0
    assert opened.search(np.empty((0, 12), np.float32)) == []
    build.append(tmp_path / "index", some_items(5, 12))
    assert len(open_index(tmp_path / "index", verify=True)) == 5
    assert build.delete(tmp_path / "index", list(some_items(5, 12).keys)) == 5
    assert open_index(tmp_path / "index").search(np.ones((1, 12), np.float32), Options(unique=True)) == [[]]


def content(folder) -> dict[str, str]:
    """The digests of an index's files."""
    return {name: entry["sha256"] for name, entry in generation.read_facts(folder)["files"].items()}


def test_append_and_delete_are_what_a_build_of_the_same_items_is(tmp_path):
    items, more = some_items(60, 70), some_items(90, 70, seed=3)
    together = [*items.keys, *(f"new/{key}" for key in more.keys)]
    codes, labels = np.concatenate([items.codes, more.codes]), np.concatenate([items.labels, more.labels])
    build.build(tmp_path / "steps", items)
    build.append(tmp_path / "steps", Items(more.codes, more.labels, together[60:]))
    build.build(tmp_path / "once", Items(codes, labels, together))
    assert content(tmp_path / "steps") == content(tmp_path / "once")
    gone = [3, 59, 60, 149]
    assert build.delete(tmp_path / "steps", [together[row] for row in (*gone, gone[0])]) == 4
    rest = np.delete(np.arange(150), gone)
    build.build(tmp_path / "once", Items(codes[rest], labels[rest], [together[row] for row in rest]))
    assert content(tmp_path / "steps") == content(tmp_path / "once")


def test_labels_that_are_unknown_stay_unknown(tmp_path):
    build.build(tmp_path / "index", Items(np.ones((2, 4), np.float32), np.eye(2, dtype=np.uint8), ["a", "b"]))
    build.append(tmp_path / "index", Items(np.ones((1, 4), np.float32), None, ["c"]))
    opened = open_index(tmp_path / "index", verify=True)
    assert [opened.labels_of(row) for row in range(3)] == [("0",), ("1",), None]
    with pytest.raises(SearchError, match="expected items with the same labels, found 2 and 3 columns"):
        build.append(tmp_path / "index", Items(np.ones((1, 4), np.float32), np.ones((1, 3), np.uint8), ["d"]))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (Items(np.ones((2, 4), np.float32), None, ["new", "a1"]), "a1: expected keys that are unique"),
        (Items(np.ones((1, 5), np.float32), None, ["new"]), "expected codes of 4 bits, found 5"),
        (Items(np.ones((2, 4), np.float32), None, ["new"]), "expected 2 keys, one for each code, found 1"),
        (Items(np.full((1, 4), np.nan, np.float32), None, ["new"]), "new: its code is not finite"),
        (Items(np.ones((1, 4), np.float32), np.ones((1, 2), np.int64), ["new"]), "expected labels .* found int64"),
        (Items(np.ones((1, 4), np.float32), None, ["\ud800"]), "expected keys and paths of text"),
    ],
)  # fmt: skip
def test_items_that_do_not_fit_leave_the_index_as_it_was(tmp_path, items, message):
    build.build(tmp_path / "index", Items(np.ones((2, 4), np.float32), None, ["a1", "a2"]))
    before = content(tmp_path / "index")
    with pytest.raises(SearchError, match=message):
        build.append(tmp_path / "index", items)
    with pytest.raises(SearchError, match="expected the key of one of its 2 items, found 'a3'"):
        build.delete(tmp_path / "index", ["a1", "a3"])
    assert content(tmp_path / "index") == before and len(list((tmp_path / "index").glob("g-*"))) == 1


def test_what_is_no_index_is_not_written_over(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SearchError, match="expected an index or a new folder, found other files"):
        build.build(tmp_path, some_items(3, 4))
    with pytest.raises(SearchError, match=r"expected an index, found no index.json in it; build"):
        build.append(tmp_path, some_items(3, 4))
    with pytest.raises(SearchError, match="expected an index, found no such folder"):
        open_index(tmp_path / "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    build.build(tmp_path / "index", some_items(3, 4))
    with (
        generation.writer(tmp_path / "index"),
        pytest.raises(SearchError, match=f"being written by process {os.getpid()} on"),
    ):
        build.delete(tmp_path / "index", [some_items(3, 4).keys[0]])
    build.delete(tmp_path / "index", [some_items(3, 4).keys[0]])


STEPS = 19  # an append: 13 files, a rename, what may stand next to it (2), index.json, the old generation removed
NEW = 17  # from here on index.json names the new generation


@pytest.mark.parametrize("step", range(STEPS))
def test_a_writer_that_is_killed_leaves_the_old_index_or_the_new_one(tmp_path, step):
    folder = tmp_path / "index"
    build.build(folder, some_items(40, 12))
    old = content(folder)

    def append_until_killed() -> int:
        left = [step]

        def counted(function):
            def call(*arguments, **named):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)

            return call

        generation.Writer.write = counted(generation.Writer.write)
        generation.os.rename, generation.write_json = counted(os.rename), counted(generation.write_json)
        generation.shutil.rmtree = counted(shutil.rmtree)
        build.append(folder, Items(np.ones((1, 12), np.float32), None, ["new"]))
        return 0

    process, output = forked.begin(append_until_killed)
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if step < STEPS - 1 else 0), output.read()
    assert (content(folder) == old) == (step < NEW)
    opened = open_index(folder, verify=True)
    assert len(opened) == 40 + (step >= NEW)
    build.delete(folder, [opened.keys[0]])  # nothing is left that stops the next writer
    names = sorted(path.name for path in folder.iterdir())
    assert names == [generation.read_facts(folder)["generation"], "index.json"]


def test_readers_see_the_old_or_the_new_index_while_it_is_written(tmp_path):
    folder, items = tmp_path / "index", some_items(50, 12)
    build.build(folder, items)
    opened, before = open_index(folder), open_index(folder).search(items.codes)
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(len(open_index(folder, verify=True)))

    reader = threading.Thread(target=read)
    reader.start()
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(lambda: (stop.set(), reader.join()))
        for number in range(8):
            build.append(folder, Items(np.ones((1, 12), np.float32), None, [f"new {number}"]))
            build.delete(folder, [f"new {number}"])
    assert seen == {50, 51}
    assert opened.search(items.codes) == before, "an open index keeps its generation"


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("dtype", [",", "<u8,", "V8", "2<u4", "", "O", "<f16"])
def test_a_type_that_no_array_of_an_index_has_is_named(tmp_path, dtype):
    build.build(tmp_path, some_items(20, 12))
    path = tmp_path / "index.json"
    facts = json.loads(path.read_text())
    facts["files"]["words.npy"]["dtype"] = dtype
    path.write_text(json.dumps(facts))
    with pytest.raises(SearchError, match=r"index\.json: does not say what words\.npy is; build the index again"):
        open_index(tmp_path)


@pytest.mark.parametrize("name", [f"{name}.npy" for name in generation.ARRAYS])
def test_a_damaged_file_is_named(tmp_path, name):
    items = some_items(20, 12)
    build.build(tmp_path, Items(items.codes, items.labels, items.keys, items.keys))
    path = tmp_path / "g-000001" / name
    size = path.stat().st_size
    flip(path)
    with pytest.raises(SearchError, match=f"{name}: is damaged.*; build the index again"):
        open_index(tmp_path, verify=True)
    cut(path)
    with pytest.raises(SearchError, match=f"{name}: expected {size:,} bytes, found {size - 1:,}"):
        open_index(tmp_path)
    path.unlink()
    with pytest.raises(SearchError, match=f"{name} is missing; build the index again"):
        open_index(tmp_path)


@pytest.mark.parametrize("name", [f"{name}.npy" for name in generation.ARRAYS])
def test_an_array_of_another_type_or_shape_in_as_many_bytes_is_refused(tmp_path, name):
    items = some_items(20, 12)
    build.build(tmp_path, Items(items.codes, items.labels, items.keys, items.keys))
    path = tmp_path / "g-000001" / name
    array = np.load(path)
    others = [array.reshape(-1, 1) if array.ndim == 1 else array.reshape(-1), array.reshape(1, *array.shape)]
    others.append(array.view(f"i{array.itemsize}" if array.dtype.kind != "i" else f"u{array.itemsize}"))
    for other in [*others, *([array.astype(array.dtype.newbyteorder(">"))] if array.itemsize > 1 else [])]:
        np.save(path, other)
        with pytest.raises(SearchError, match=f"{name}: expected an array of .*index.json says, found another header"):
            open_index(tmp_path)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("postings", 0, 1 << 40), ("postings", 0, -1), ("postings", 0, 7), ("places", 3, 1 << 40), ("words", 1, 5),
        ("offsets", 1, 1 << 40), ("offsets", 1, -5), ("offsets", -1, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ties", ["product", "key"])
@pytest.mark.parametrize("checked", [0, 1 << 20])
def test_damage_that_a_search_meets_is_an_error(tmp_path, name, at, value, ties, checked, monkeypatch, way):
    """Also without verify, and in an index too large for bounds.check: no wrong result, no read beyond an array."""
    monkeypatch.setattr(bounds, "CHECKED", checked)
    items = some_items(20, 12)
    build.build(tmp_path, items)
    right = open_index(tmp_path).search(items.codes, Options(ties=ties))
    path = tmp_path / "g-000001" / f"{name}.npy"
    array = np.load(path, mmap_mode="r+", allow_pickle=False).reshape(-1)
    kept, array[at] = array[at], value
    array.flush()
    with pytest.raises(SearchError, match=r"is damaged.*; build the index again"):
        open_index(tmp_path).search(items.codes, Options(None, ties=ties))
    with pytest.raises(SearchError, match=f"{name}.npy: is damaged"):
        build.append(tmp_path, Items(items.codes[:1], items.labels[:1], ["new"]))
    array[at] = kept
    array.flush()
    assert open_index(tmp_path).search(items.codes, Options(ties=ties)) == right


PATHS = {"dtype": "|u1", "shape": [1e-45], "offset": 128, "bytes": 128, "sha256": "0"}  # a number that is no integer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: "{", "cannot be read"),
        (lambda facts: "[]", "expected an index of format 2, found None"),
        (lambda facts: json.dumps({**facts, "format": 1}), "expected an index of format 2, found 1"),
        (lambda facts: json.dumps({**facts, "files": {}}), "does not name the files of an index"),
        (lambda facts: json.dumps({**facts, "generation": "../g-000001"}), "does not name the files of an index"),
        (
            lambda facts: json.dumps(facts | {"files": facts["files"] | {"paths.npy": PATHS}}),
            r"index\.json: is damaged: 'files' cannot be ",
        ),
        (lambda facts: '{"format": ' + 100_000 * "[", r"index\.json: cannot be read \(it is not JSON"),
        (lambda facts: json.dumps({**facts, "count": 21}), r"expected int64 \(21,\) as index.json says"),
        (lambda facts: json.dumps({**facts, "bits": "12"}), r"index\.json: is damaged: 'bits' cannot be '12'"),
        (lambda facts: json.dumps({**facts, "sums": {}}), r"index\.json: is damaged: 'sums' cannot be {}"),
        (lambda facts: json.dumps({**facts, "pictures": [{"path": "x"}]}), "is damaged: 'pictures' cannot be "),
        (lambda facts: json.dumps({**facts, "net": {"weights": 1}}), r"index\.json: is damaged: 'net' cannot be "),
    ],
)  # fmt: skip
def test_a_damaged_index_json_is_named(tmp_path, change, message):
    build.build(tmp_path, some_items(20, 12))
    facts = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(change(facts))
    with pytest.raises(SearchError, match=message):
        open_index(tmp_path)


def test_an_index_goes_with_its_last_name(tmp_path):
    build.build(tmp_path / "index", some_items(40, 12))
    opened = open_index(tmp_path / "index")
    opened.search(np.ones((1, 12), np.float32))
    gone = weakref.ref(opened)
    gc.disable()  # a server that opens an index again and again must not wait for it
    try:
        del opened
        assert gone() is None
    finally:
        gc.enable()
