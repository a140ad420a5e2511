"""Search an index: the items nearest to pictures, to items of the index, or to codes.

    python tools/search.py INDEX --image q.jpg [more.png ...] [--top 20] [--radius 4] [--label cat] [--unique]
    python tools/search.py INDEX --key 00000017_17
    python tools/search.py INDEX --codes query.npz [--json | --csv | --html page.html]

INDEX is a folder that tools/build_index.py wrote, or the data set of a run (--variant, --bits, --net, --seed) whose
folder holds one, or the URI of a LanceDB that it wrote. A picture goes through the net that made the index, prepared as
tools/extract_codes.py does it. The order is the Hamming distance, then the greater inner product of the real-valued
codes, then the key (bytes of UTF-8); with --ties key it is distance, then key. All items of the last distance are
compared before the results are cut at --top, so that nothing but these rules decides.

--json prints an object a query and line: {"query": {...}, "results": [{"rank", "row", "key", "distance", "similarity",
"labels", "path"}, ...]}: row is the position in the codes file, from 0; similarity the inner product; labels null where
they are unknown. --csv prints a line a result. --html writes one page with the pictures in it. Several queries are
computed in parallel.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dhn  # first: it says so where the project is not installed

# isort: split
import numpy as np
from atomic_writes.command_lines import Parser
from dhn.codes.files import MEANINGS
from dhn.progress import console, printable, say
from dhn.search import answers
from dhn.search.backends import lance
from dhn.search.code_file import read_codes
from dhn.search.command_line import add_index, find_index
from dhn.search.index import Index, open_index
from dhn.search.items import TIES, Options, Result, SearchError
from rich import box
from rich.table import Table
from rich.text import Text

ORDERS = {"product": "distance, then the greater inner product, then the key", "key": "distance, then the key"}


@dataclass(frozen=True)
class Query:
    """What is asked: the answer's `query`, the code (K,), labels (None: unknown), the picture or the index's row."""

    entry: dict
    code: np.ndarray
    labels: tuple[str, ...] | None = None
    picture: bytes | None = None
    row: int | None = None

    @property
    def name(self) -> str:
        """What it is called: the picture's path, the key, or the row of a file."""
        *_, last = self.entry.values()
        return f"{self.entry['codes']}: {last}" if "codes" in self.entry else str(last)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("GLOG_minloglevel", "1")  # warnings, but not a line for every layer and blob
    try:
        index = _open(options)
        queries = _queries(index, options)
        how = Options(options.top, options.radius, options.label, options.unique, options.ties)
        found = index.searches(np.stack([query.code for query in queries]), how)
        _show(index, options, how, queries, found)
    except BrokenPipeError:  # who read what was printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, RuntimeError) as error:
        print(f"search: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    add_index(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--image", nargs="+", metavar="FILE", help="pictures")
    asked.add_argument("--key", nargs="+", metavar="K", help="keys of items of the index")
    asked.add_argument("--codes", metavar="Q.npz", help="file of real-valued codes, a query a row")
    parser.add_argument("--codes-are", metavar="MEANING", default="sign", help=f"what the codes are: {MEANINGS}")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="results a query (default: 20)")
    parser.add_argument("--radius", type=int, metavar="R", help="only items within this Hamming distance")
    parser.add_argument("--label", metavar="NAME", help="only items that carry this label")
    parser.add_argument("--unique", action="store_true", help="of items with equal real-valued codes only the first")
    parser.add_argument("--ties", choices=TIES, default="product", help="order of equal distances (default: product)")
    parser.add_argument("--verify", action="store_true", help="compare the SHA-256 of the index's files first")
    parser.add_argument("--gpu", type=int, metavar="N", help="compute codes of pictures on this GPU")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print an object a query and line")
    output.add_argument("--csv", action="store_true", help="print a line a result")
    output.add_argument("--html", metavar="PAGE", type=Path, help="write a page with the pictures")
    return parser


def _open(options: argparse.Namespace) -> Index | lance.Lance:
    """The index that the command line names."""
    if not lance.is_place(options.index):
        return open_index(find_index(options), options.verify)
    if options.verify or options.html is not None:
        raise SearchError(f"{options.index}: --verify and --html are of an index's folder, found a LanceDB")
    return lance.Lance.open(options.index)


def _queries(index: Index | lance.Lance, options: argparse.Namespace) -> list[Query]:
    """What is asked, in its order."""
    if options.key is not None:
        if isinstance(index, lance.Lance):
            entries = [{"key": key} for key in options.key]
            return [Query(*each) for each in zip(entries, index.codes_of(options.key), strict=True)]
        rows = [index.row_of(key) for key in options.key]
        return [
            Query({"key": key}, code, index.labels_of(row), row=row)
            for key, code, row in zip(options.key, index.codes_of(rows), rows, strict=True)
        ]
    if options.codes is not None:
        codes, labels, _, notes = read_codes(options.codes, options.codes_are, None)
        for note in notes:
            print(note, file=sys.stderr)
        names: list[tuple[str, ...] | None] = [None] * len(codes)
        if labels is not None and isinstance(index, Index):
            names = index.names_of(labels)
        entries = [{"codes": options.codes, "row": row} for row in range(len(codes))]
        return [Query(*each) for each in zip(entries, codes, names, strict=True)]
    from dhn.search.encoder import Encoder  # and with it OpenCV

    pictures = [Path(name).read_bytes() for name in options.image]
    codes = Encoder(index, options.gpu).encode(pictures, options.image)
    return [
        Query({"image": name}, code, None, picture)
        for name, code, picture in zip(options.image, codes, pictures, strict=True)
    ]


def _show(
    index: Index | lance.Lance,
    options: argparse.Namespace,
    how: Options,
    queries: list[Query],
    found: Iterator[list[Result]],
) -> None:
    """Print the results, or write their page."""
    if options.html is not None:
        assert isinstance(index, Index), "_open"
        asked = [
            answers.Asked(query.name, results, query.labels, query.picture, query.row)
            for query, results in zip(queries, found, strict=True)
        ]
        answers.write_page(options.html, index, asked, ORDERS[options.ties])
        say(f"wrote {options.html}")
        return
    for place, (query, results) in enumerate(zip(queries, found, strict=True)):
        if options.json:
            print(json.dumps(answers.answer(query.entry, how, results)))
        elif options.csv:
            sys.stdout.write(answers.csv_text([(query.name, results)], head=place == 0))
        else:
            console.print(_table(query, results))


def _table(query: Query, results: list[Result]) -> Table:
    """The results of a query for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, title_justify="left")
    table.title = _text(query.name + (f" ({', '.join(query.labels)})" if query.labels else ""))
    for name in ("rank", "distance", "similarity"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("key", "labels"):
        table.add_column(name, overflow="fold")
    for each in results:
        labels = "unknown" if each.labels is None else ", ".join(each.labels)
        table.add_row(str(each.rank), str(each.distance), f"{each.similarity:.4f}", _text(each.key), _text(labels))
    return table


def _text(words: str) -> Text:
    """Words as they are: brackets in names are not markup."""
    return Text(printable(words))


if __name__ == "__main__":
    sys.exit(dhn.run(main))
