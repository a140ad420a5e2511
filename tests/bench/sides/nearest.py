"""A sample: the nearest items of some queries, by an index of tools/dhn/search or by faiss; or the index opened, built.

The codes are drawn: all bits random, or clustered as those of the demo are: 4,672 distinct codes of 64,000, ten of them
with 79 % of the items, and values whose size is nearly one for all bits of an item (SIZES, as measured there).
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools"))
CHUNK, TOP, QUERIES = 1 << 18, 100, 10
SECONDS = 0.05  # that a sample takes at least
HEADS, SHARE = 10, 0.79  # of the clustered codes: how many hold this share of the items
SIZES = (0.88, 0.12), 0.05  # of their values: mean and standard deviation over items, and over the bits of an item


def draw(items: int, bits: int, distinct: int | None, seed: int = 0) -> np.ndarray:
    """Real-valued codes float32 (items, bits): random, or with so many distinct binary codes."""
    random = np.random.default_rng(seed)
    codes = np.empty((items, bits), np.float32)
    centres = np.random.default_rng(1).standard_normal((distinct or 1, bits), np.float32)
    for start in range(0, items, CHUNK):
        part = codes[start : start + CHUNK]
        part[:] = random.standard_normal(part.shape, np.float32)
        if distinct:
            which = np.where(
                random.random(len(part)) < SHARE,
                random.integers(0, HEADS, len(part)),
                random.integers(HEADS, distinct, len(part)),
            )
            (mean, spread), within = SIZES
            sizes = random.normal(mean, spread, (len(part), 1)) + within * part
            part[:] = np.copysign(sizes.clip(0.01, 1), centres[which])
    return codes


def index_of(folder: str, items: int, bits: int, distinct: int | None, net: str | None = None) -> str:
    """The folder of an index of drawn codes, built in the run's folder by the first who asks.

    net: the folder of a released net that is to turn pictures into codes, at 131x131.
    """
    from dhn.files import sha256
    from dhn.search import build, places
    from dhn.search.items import Items
    from dhn.search.texts import Texts

    path = os.path.join(folder, f"index-{items}-{bits}-{distinct}" + ("-net" if net else ""))
    if not os.path.exists(os.path.join(path, "index.json")):
        about = None
        if net:
            files = {"model": "deploy.prototxt", "weights": "dhn_iter_800.caffemodel"}
            entry = {"blob": "hash_layer", "prepared": {"mean_value": [104, 117, 123], "resize": 144}, "size": None}
            for name, file in files.items():
                file = os.path.join(net, file)
                entry[name] = {**places.located(file, path), "sha256": sha256(file)}
            about = {"net": entry}
        build.build(path, Items(draw(items, bits, distinct), None, Texts.numbers(0, items)), about)
    return path


def setup(folder: str, what: str, items: int, bits: int, distinct: int | None = None, ties: str = "key"):
    """what: `index` or `faiss` search for rows and distances of TOP items of each of QUERIES, given together, on one
    core: `seconds` are those of the processor. `open` opens the index with none of its files in memory; `build`
    builds it. ties: the index's rule; faiss ranks ties by row, which is the order of the keys here."""
    from dhn.search import build, index
    from dhn.search.items import Items, Options
    from dhn.search.texts import Texts

    if what == "build":
        drawn = Items(draw(items, bits, distinct), None, Texts.numbers(0, items))
        return lambda: build.build(os.path.join(folder, "built_index"), drawn)
    path = index_of(folder, items, bits, distinct)
    if what == "open":

        def opened():
            for where, _, names in os.walk(path):
                for name in names:
                    with open(os.path.join(where, name), "rb") as stream:
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            index.open_index(path)
            return {"seconds": time.perf_counter() - start}

        return opened
    loaded = index.open_index(path)
    queries = draw(QUERIES, bits, distinct, seed=2)
    if what == "index":

        def search():
            list(loaded.rankings(queries, Options(TOP, ties=ties)))

        search()  # reads the codes
        return on_processor(search)
    import faiss

    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(8 * -(-bits // 8))  # as few bytes as the bits need
    for start in range(0, items, CHUNK):
        flat.add(packed(loaded.codes_of(np.arange(start, min(start + CHUNK, items)))))
    bytes_of_queries = packed(queries)
    nearest = list(loaded.rankings(queries, Options(TOP, ties="key")))
    distances, rows = flat.search(bytes_of_queries, TOP)
    for place, found in enumerate(nearest):
        assert np.array_equal(distances[place], found.distances), "faiss finds other distances"
        below = distances[place] < distances[place, -1]  # of the last distance, faiss keeps those that it likes
        assert np.array_equal(rows[place][below], found.rows[below]), "faiss finds other items"

    def search_flat():
        flat.search(bytes_of_queries, TOP)

    return on_processor(search_flat)


def on_processor(sample):
    """A sample whose seconds are the processor's, of one thread: what other programs take is left out.

    They are the mean of as many calls as take SECONDS: a single one of a fraction of a millisecond is that of a process
    that just woke.
    """

    def measured():
        start, calls = time.process_time(), 0
        while calls == 0 or time.process_time() - start < SECONDS:
            sample()
            calls += 1
        return {"seconds": (time.process_time() - start) / calls}

    return measured


def packed(codes: np.ndarray) -> np.ndarray:
    """Binary codes of real-valued ones, uint8 (n, bytes)."""
    return np.packbits(codes >= 0, axis=1, bitorder="little")
