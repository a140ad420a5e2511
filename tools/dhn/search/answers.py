"""The answers of a search: objects for JSON (the same for the command and for the API), CSV, and a page of pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictures import PictureError, decode

from dhn.files import write_text
from dhn.search.index import Index
from dhn.search.items import Options, Result, SearchError

COLUMNS = ("query", *Result._fields)
ON_A_PAGE = 200  # queries: their pictures stand in the page itself


def answer(query: Mapping[str, Any], options: Options, results: Sequence[Result]) -> dict:
    """One query's answer: {"query": {...}, "results": [{"rank", "row", "key", "distance", "similarity", "labels",
    "path"}, ...]}.

    query: what was asked, such as {"key": ...}, {"image": name} or {"codes": file, "row": number}; in the answer the
    options that say something stand behind it.
    """
    settings = {name: value for name, value in vars(options).items() if value not in (None, False)}
    return {"query": {**query, **settings}, "results": [result._asdict() for result in results]}


def csv_text(queries: Iterable[tuple[str, Sequence[Result]]], head: bool = True) -> str:
    """Results as CSV, a line each: the query's name, then the fields of Result; several labels with | between them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if head:
        writer.writerow(COLUMNS)
    for name, results in queries:
        for result in results:
            labels = "|".join(result.labels or ())
            writer.writerow([name, *result[:5], labels, result.path or ""])
    return text.getvalue()


@dataclass(frozen=True)
class Asked:
    """A query of a page: its name, its results, its labels (None: unknown), its picture or, of an item of the index,
    its row (None: it has none)."""

    name: str
    results: Sequence[Result]
    labels: tuple[str, ...] | None = None
    picture: bytes | None = None
    row: int | None = None

    def is_hit(self, result: Result) -> bool | None:
        """True if the result shares a label with the query; None where the labels of one are unknown."""
        if self.labels is None or result.labels is None:
            return None
        return bool(set(self.labels) & set(result.labels))

    def precision(self) -> tuple[int, int] | None:
        """How many results share a label with the query, of how many that this is known of; None of none.

        The query itself, where it is an item of the index, does not count.
        """
        others = (result for result in self.results if result.row != self.row)
        known = [hit for hit in map(self.is_hit, others) if hit is not None]
        return (sum(known), len(known)) if known else None


def write_page(path: Path, index: Index, queries: Sequence[Asked], order: str) -> None:
    """Write the results as one HTML file that opens from disk, their pictures in it.

    order: of the results, in words. Raises SearchError for more than ON_A_PAGE queries.
    """
    from dhn.pages.page import environment

    if len(queries) > ON_A_PAGE:
        raise SearchError(
            f"{path}: expected at most {ON_A_PAGE} queries on a page, found {len(queries)}; ask for --json"
        )
    rows = {result.row for asked in queries for result in asked.results}
    page = environment().get_template("search_page.html").render(
        index=index, order=order, queries=queries, shown={row: _thumbnail(index, row) for row in sorted(rows)},
        asked=[_thumbnail(index, asked.row, asked.picture) for asked in queries],
    )  # fmt: skip
    write_text(path, page)


def _thumbnail(index: Index, row: int | None, picture: bytes | None = None) -> tuple[str, bool] | None:
    """A picture, or that of a row, as data_uri has it; None where it is not to be had."""
    from dhn.pages.gallery import data_uri  # and with it Caffe

    try:
        if picture is None and row is not None:
            picture = index.picture(row)[0]
        return None if picture is None else data_uri(decode(picture, None, "picture"))
    except (SearchError, PictureError):
        return None
