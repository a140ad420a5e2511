"""Build an index of codes to search with search.py, or add to one, or remove from it.

    python tools/build_index.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--gpu 0]
    python tools/build_index.py runs/fashion_mnist-dhn-48 [--out INDEX]
    python tools/build_index.py --codes database.npz [--images LMDB|LIST|FOLDER [--root DIR]] --out INDEX
    python tools/build_index.py --append --codes more.npz [--images ... [--prefix more/]] --out INDEX
    python tools/build_index.py --delete KEY [KEY ...] --out INDEX
    python tools/build_index.py RUN|--codes database.npz --backend lancedb --uri FOLDER|s3://BUCKET/INDEX [--append]
    python tools/build_index.py RUN|--codes database.npz --backend faiss --out X.faiss

RUN is a run, by its data set and options or by its folder: its database.npz, the pictures of its data set, and its net
and weights, which turn pictures that are asked with into codes; a few pictures are put through the net, to see that the
codes are its own. The index then stands in RUN/index. Without RUN the codes alone are indexed; with --images their
pictures are found again: those that the codes were extracted of, in the same order.

An item's key is the key of its LMDB record, its path in the list or folder, the name that extract_codes.py stored with
its code, or else its number. An index is written next to the one that stands there and replaces it in one step: who
reads it sees the old or the new one. A second writer is refused. tools/dhn/search/generation.py describes the files.

--backend lancedb writes the items to a LanceDB instead, in a folder or an object store (tools/dhn/search/backends/
lance.py), which search.py searches too. --backend faiss writes a file that faiss reads
(tools/dhn/search/backends/faiss_file.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dhn  # first: it says so where the project is not installed

# isort: split
from atomic_writes.command_lines import Parser
from dhn.codes.files import DECLARED, MEANINGS
from dhn.layout import tool_command
from dhn.progress import console, say
from dhn.search import build
from dhn.search.command_line import NAME, add_run, find_run
from dhn.search.index import open_index

if TYPE_CHECKING:
    from dhn.runs.folder import AnyRun
    from dhn.search.collection import Collection

BACKENDS = ("scan", "lancedb", "faiss")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if problem := _contradiction(options):
        parser.error(problem)
    os.environ.setdefault("GLOG_minloglevel", "1")  # warnings, but not a line for every layer and blob
    start = time.monotonic()
    try:
        run = None if options.run is None else find_run(options, options.run)
        out = options.out if run is None else options.out or run.folder / NAME
        if options.backend != "scan":
            with console.status("indexing"):
                done = _write_elsewhere(run, options)
            say(f"{options.uri or out}: {done} ({time.monotonic() - start:.1f} s)")
            return 0
        with console.status("indexing"):
            done = _delete(out, options.delete) if options.delete else _add(out, run, options)
        index = open_index(out)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"build_index: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    facts = f"{len(index):,} items, {index.about['distinct']:,} distinct codes of {index.bits} bits"
    say(f"{out}: {done}{facts} ({time.monotonic() - start:.1f} s)")
    say(f"search it: {tool_command('search')} {out} --key K" + (" or --image FILE" if index.about.get("net") else ""))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    add_run(parser, "run", nargs="?", metavar="RUN", help="a scored run: its folder, or the name of its data set")
    parser.add_argument("--gpu", type=int, metavar="N", help="compare codes with the net's on this GPU")
    parser.add_argument("--codes", metavar="FILE", help="codes to index; default: RUN's database.npz")
    parser.add_argument("--images", metavar="PATH", help="their pictures: an LMDB, a list, or a folder")
    parser.add_argument("--root", default="", metavar="DIR", help="folder that a list's paths are relative to")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put in front of an LMDB's keys")
    parser.add_argument("--codes-are", metavar="MEANING", help=f"what the codes are: {MEANINGS}")
    parser.add_argument("--labels-are", choices=DECLARED, help="what the labels are")
    parser.add_argument("--out", type=Path, metavar="INDEX", help="folder of the index; default: RUN/index")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="scan", help="what holds the index; default: scan, a folder"
    )
    parser.add_argument("--uri", help="folder or object store of --backend lancedb")
    parser.add_argument("--append", action="store_true", help="add the codes to the index that is there")
    parser.add_argument("--delete", nargs="+", metavar="KEY", help="remove the items of these keys from the index")
    return parser


def _contradiction(options: argparse.Namespace) -> str | None:
    """What is wrong with the options together; None where nothing is."""
    if (options.backend == "lancedb") != (options.uri is not None):
        return "--backend lancedb goes with --uri, and nothing else does"
    if options.uri is not None and options.out is not None:
        return "--out does not go with --uri"
    if options.backend == "faiss" and (options.out is None or options.append or options.delete):
        return "--backend faiss goes with --out X.faiss, and without --append and --delete: write the file again"
    if options.out is None and options.run is None and options.uri is None:
        return "expected --out INDEX"
    if options.delete:
        others = ("run", "codes", "images", "append")
        typed = [name for name in others if getattr(options, name)]
        return f"--delete does not go with {', '.join(typed)}" if typed else None
    if options.append and (options.run is not None or options.codes is None):
        return "--append goes with --codes FILE and --out INDEX or --uri URI, and without RUN"
    if options.run is None and options.codes is None:
        return "expected RUN, or --codes FILE"
    return None


def _add(out: Path, run: AnyRun | None, options: argparse.Namespace) -> str:
    """Build an index, or add to it; says what was done, for the front of a line."""
    from dhn.search import collection  # after GLOG_minloglevel is set: it imports Caffe

    found = _collect(out, run, options, collection.next_number(open_index(out)) if options.append else 0)
    if not options.append:
        build.build(out, found.items, found.about, found.pictures)
        return ""
    build.append(out, found.items, found.pictures)
    return f"{len(found.items.codes):,} added; "


def _collect(out: Path, run: AnyRun | None, options: argparse.Namespace, start: int) -> Collection:
    """The items to index. start: the number of the first one that has no name."""
    from dhn.search import collection

    if run is not None:
        found = collection.of_run(
            out, run, options.codes, options.images, options.root, options.prefix, options.codes_are,
            options.labels_are,
        )  # fmt: skip
    else:
        found = collection.of_files(
            out, options.codes, options.images, options.root, options.prefix, start, options.codes_are,
            options.labels_are,
        )  # fmt: skip
    if not options.append:
        found = collection.without_wrong_net(found, options.gpu)
    for note in found.notes:
        say(note)
    return found


def _write_elsewhere(run: AnyRun | None, options: argparse.Namespace) -> str:
    """Write to a LanceDB or a file of faiss; says what there is now, for a line."""
    from dhn.search.backends import faiss_file, lance

    if options.backend == "faiss":
        items = _collect(options.out, run, options, 0).items
        faiss_file.write(options.out, items)
        return f"{len(items.codes):,} codes of {items.codes.shape[1]} bits"
    if options.delete:
        done = f"{lance.Lance.open(options.uri).delete(options.delete):,} removed; "
    elif options.append:
        index = lance.Lance.open(options.uri)
        items = _collect(index.folder, run, options, index.next_number()).items
        index.add(items)
        done = f"{len(items.codes):,} added; "
    else:
        found = _collect(lance.folder_of(options.uri), run, options, 0)
        lance.write(options.uri, found.items, found.about)
        done = ""
    index = lance.Lance.open(options.uri)
    return f"{done}{index.count():,} items, codes of {index.bits} bits"


def _delete(out: Path, keys: list[str]) -> str:
    return f"{build.delete(out, keys):,} removed; "


if __name__ == "__main__":
    sys.exit(dhn.run(main))
