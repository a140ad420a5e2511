"""Write an index: build, append, delete. Each is atomic: a reader sees the index as it was, or as it becomes.

One writer at a time holds the folder; a second one is refused with the first one's process id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dhn.search import generation, kernels
from dhn.search.index import Index, open_index
from dhn.search.items import Items, SearchError
from dhn.search.ranking import pack
from dhn.search.texts import Texts

ROWS = 1 << 18  # rows that are written at a time


@dataclass(frozen=True)
class Part:
    """Items that go into an index. words (N, W): their binary codes. places (N,): of their real-valued codes among
    codes; None: as they stand. sources (N,): see generation.py. rows: which of the items, None for all."""

    codes: np.ndarray
    words: np.ndarray
    labels: np.ndarray
    keys: Texts
    paths: Texts
    sources: np.ndarray
    places: np.ndarray | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.codes) if self.rows is None else len(self.rows)

    def codes_of(self, items: np.ndarray) -> np.ndarray:
        """Real-valued codes of some of the items by their numbers."""
        rows = items if self.rows is None else self.rows[items]
        return self.codes[rows if self.places is None else self.places[rows]]

    def chunks(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """The rows of one of its arrays, ROWS at a time."""
        for begin in range(0, len(self), ROWS):
            chosen = slice(begin, begin + ROWS)
            yield values[chosen] if self.rows is None else values[self.rows[chosen]]

    def texts(self, texts: Texts) -> Texts:
        """Its keys or paths, of the rows alone."""
        return texts if self.rows is None else texts.take(self.rows)


def build(folder: str | os.PathLike, items: Items, about: dict | None = None, pictures: dict | None = None) -> None:
    """Write an index of items into a folder; one that stands there is replaced.

    about: what index.json says besides: data set, split, net, label_names. pictures: where the items' pictures lie
    (places.place); None: nowhere. Raises SearchError.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or not _is_ours(folder)):
        raise SearchError(f"{folder}: expected an index or a new folder, found other files; name another folder")
    part = check_items(items, -1 if pictures is None else 0)
    with generation.writer(folder) as writer:
        facts = {**(about or {}), "pictures": [] if pictures is None else [pictures]}
        _write(writer, [part], facts)


def append(folder: str | os.PathLike, items: Items, pictures: dict | None = None) -> None:
    """Add items to an index. pictures: as of build. Raises SearchError for codes of other bits or a key that is there
    already."""
    folder = Path(folder)
    generation.read_facts(folder)  # no lock where there is no index
    with generation.writer(folder) as writer:
        index = open_index(folder, verify=True)  # else the copy of what is damaged would have a right digest
        known = list(index.about["pictures"])
        if pictures is not None and pictures not in known:
            known.append(pictures)
        part = check_items(items, -1 if pictures is None else known.index(pictures))
        if part.codes.shape[1] != index.bits:
            raise SearchError(f"{folder}: expected codes of {index.bits} bits, found {part.codes.shape[1]}")
        _write(writer, [_part_of(index), part], {**index.about, "pictures": known})


def delete(folder: str | os.PathLike, keys: Sequence[str]) -> int:
    """Remove the items of these keys from an index; returns how many. Raises SearchError for an unknown key."""
    folder = Path(folder)
    generation.read_facts(folder)
    with generation.writer(folder) as writer:
        index = open_index(folder, verify=True)
        gone = np.unique(np.array([index.row_of(key) for key in keys], np.int64))
        keep = np.delete(np.arange(len(index)), gone)
        _write(writer, [_part_of(index, keep)], index.about)
    return len(gone)


def _is_ours(folder: Path) -> bool:
    names = os.listdir(folder)
    return not names or generation.FACTS in names or generation.LOCK in names


def check_items(items: Items, source: int = -1) -> Part:
    """Items as what is written. source: of their pictures, see generation.py. Raises SearchError."""
    codes = np.ascontiguousarray(items.codes, np.float32)
    if codes.ndim != 2 or codes.shape[1] < 1:
        raise SearchError(f"expected codes (N, bits), found {codes.shape}")
    count = len(codes)
    labels = np.zeros((count, 0), np.uint8) if items.labels is None else np.asarray(items.labels)
    if labels.dtype not in (np.uint8, np.int8) or labels.ndim != 2:
        raise SearchError(f"expected labels (N, C) of 0 and 1, uint8 or int8, found {labels.dtype} {labels.shape}")
    try:
        keys, paths = Texts.of(items.keys), Texts.of(items.paths if items.paths is not None else [""] * count)
    except UnicodeEncodeError as error:
        raise SearchError(f"expected keys and paths of text, found {error.object!r}") from None
    for name, size in (("labels", len(labels)), ("keys", len(keys)), ("paths", len(paths))):
        if size != count:
            raise SearchError(f"expected {count} {name}, one for each code, found {size}")
    is_finite = np.isfinite(codes.sum(1, np.float64))  # of float32, no sum overflows
    if not is_finite.all():
        row = int((~is_finite).argmax())
        raise SearchError(f"{keys[row]}: its code is not finite; did the training diverge?")
    return Part(codes, pack(codes), labels, keys, paths, np.full(count, source, np.int64))


def _part_of(index: Index, rows: np.ndarray | None = None) -> Part:
    """What an index holds, or these rows of it."""
    codes, words, places = index.grouped_codes()
    return Part(codes, words, index.labels, index.keys, index.paths, index.sources, places, rows)


def _write(writer: generation.Writer, parts: list[Part], about: dict) -> None:
    """Write a generation of all parts, one behind the other, and make it the index."""
    count, bits = sum(map(len, parts)), parts[0].codes.shape[1]
    labels, kind, columns = _labels(parts)
    writer.write("labels", (count, columns), _chunks(labels, kind))
    writer.write("sources", (count,), _chunks([part.chunks(part.sources) for part in parts], np.int64))

    keys = Texts.joined(part.texts(part.keys) for part in parts)
    order = keys.order()
    twin = kernels.find_twin(keys.data, keys.offsets, order)
    if twin >= 0:
        raise SearchError(f"{keys[twin]}: expected keys that are unique, found this one twice")
    ranks = np.empty(count, np.int64)
    ranks[order] = np.arange(count)
    paths = Texts.joined(part.texts(part.paths) for part in parts)
    writer.write("keys", keys.data.shape, [keys.data])
    writer.write("key_offsets", (count + 1,), [keys.offsets])
    writer.write("key_order", (count,), [order])
    writer.write("key_ranks", (count,), [ranks])
    writer.write("paths", paths.data.shape, [paths.data])
    writer.write("path_offsets", (count + 1,), [paths.offsets])

    packed = [part.words if part.rows is None else part.words[part.rows] for part in parts]
    words, offsets, postings = group(np.concatenate(packed), order)
    places = np.empty(count, np.int64)
    places[postings] = np.arange(count)
    writer.write("words", words.shape, [words])
    writer.write("offsets", offsets.shape, [offsets])
    writer.write("postings", postings.shape, [postings])
    writer.write("places", places.shape, [places])
    writer.write("codes", (count, bits), _chunks([_codes_of(parts, postings)], np.float32))
    sums = {
        name: kernels.checksum(array.reshape(-1).view(np.uint64))
        for name, array in (("words", words), ("offsets", offsets))
    }
    writer.commit({**about, "bits": bits, "count": count, "distinct": len(words), "sums": sums})


def group(packed: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """words (D, W), offsets (D + 1,) and postings (N,) of binary codes (N, W), as generation.py has them.

    order (N,): the rows in the order of their keys, in which each code's postings stand.
    """
    packed = packed[order]
    alone = packed.shape[1] == 1
    places = np.argsort(packed[:, 0], kind="stable") if alone else np.lexsort(packed.T[::-1])  # both stable
    packed = packed[places]
    first = np.ones(len(packed), np.bool_)
    first[1:] = (packed[1:] != packed[:-1]).any(1)
    offsets = np.append(np.flatnonzero(first), len(packed))
    return packed[first], offsets, order[places]


def _chunks(parts: Sequence[Iterator[np.ndarray]], kind: type) -> Iterator[np.ndarray]:
    """All chunks as one type; an empty one first, for the parts may hold nothing."""
    yield np.empty(0, kind)
    for chunks in parts:
        for chunk in chunks:
            yield chunk.astype(kind, copy=False)


def _codes_of(parts: list[Part], numbers: np.ndarray) -> Iterator[np.ndarray]:
    """The real-valued codes of the items of all parts by their numbers, ROWS at a time."""
    for begin in range(0, len(numbers), ROWS):
        chunk, first = numbers[begin : begin + ROWS], 0
        codes = np.empty((len(chunk), parts[0].codes.shape[1]), np.float32)
        for part in parts:
            inside = (chunk >= first) & (chunk < first + len(part))
            codes[inside] = part.codes_of(chunk[inside] - first)
            first += len(part)
        yield codes


def _labels(parts: list[Part]) -> tuple[list[Iterator[np.ndarray]], type, int]:
    """The labels of all parts in chunks, their type (int8 where some are unknown), and how many columns they have.

    The labels of a part without columns next to one with columns are unknown.
    """
    widths = {part.labels.shape[1] for part in parts if len(part)} or {0}
    columns = max(widths)
    if len(widths - {0}) > 1:
        raise SearchError(
            f"expected items with the same labels, found {' and '.join(map(str, sorted(widths)))} columns"
        )
    kind = np.int8 if len(widths) > 1 or any(part.labels.dtype == np.int8 for part in parts) else np.uint8

    def chunks(part: Part) -> Iterator[np.ndarray]:
        for chunk in part.chunks(part.labels):
            yield chunk if chunk.shape[1] == columns else np.full((len(chunk), columns), -1, np.int8)

    return [chunks(part) for part in parts], kind, columns
