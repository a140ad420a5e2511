"""Score LSH, SH, ITQ and ITQ-CCA on a data set, by the split and the measure that DHN is scored with.

    python tools/baselines.py fashion_mnist [--bits 12 24 32 48] [--methods lsh sh itq itq_cca] [--seed 1]
        [--features pixels | BLOB [--net squeezenet] [--weights W.caffemodel [--model deploy.prototxt]]]

Each method learns from the training images, as DHN does (ITQ-CCA and DHN with their labels, the others without) and
hashes query and database images. Features are the pixels (images above 32x32 are resized to that), or a blob of a net:
of the run <dataset>-dhn-48, and with --weights of the data set's net with these, or of --model. --net: of another net
than the data set's default. A net trained on this data set has seen the training labels, and so have features of it.

The codes of each go to runs/<dataset>-<method>_<features>-<bits>/ (query.npz, database.npz, metrics.json), the table to
runs/<dataset>-baselines-<features>.csv. What is there and of the same features is not made again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import dhn  # first: it says so where the project is not installed

# isort: split
import net
from atomic_writes import locks, make_folder
from atomic_writes.command_lines import Parser
from dhn.experiments.baselines import PIXELS, baselines, load_features
from dhn.experiments.classic_hashing import METHODS
from dhn.experiments.measure import LENGTHS, quoted
from dhn.files import write_csv
from dhn.progress import console
from dhn.runs import command_line
from dhn.runs.folder import ROOT, RunError, split_caveat
from rich import box
from rich.table import Table


def table(dataset: str, rows: Sequence[dict], caveat: str = "") -> Table:
    """MAP of each method at each length, with the range that ties leave. caveat: of the split, beside the title."""
    some = next((row for row in rows if row["map"] is not None), rows[0])
    results = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left", caption_justify="left")
    results.title = "\n".join(filter(None, [f"{dataset}: MAP of the baselines on {rows[0]['features']}", caveat]))
    results.caption = (
        f"Hamming ranking, R = {some['R']}, {some['queries']} queries, {some['database']} database images; ties in "
        "database order, below it the range over tie orders. *: expected over tie orders, which decide it."
    )
    lengths = list(dict.fromkeys(row["bits"] for row in rows))
    results.add_column("method", no_wrap=True)
    for length in lengths:
        results.add_column(f"{length} bits", justify="right", no_wrap=True)
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        results.add_row(
            method,
            *(
                "-" if row["map"] is None else f"{cell(row)}\n{row['map_low']:.3f}..{row['map_high']:.3f}"
                for row in own
            ),
        )
    return results


def cell(row: dict) -> str:
    """The MAP to quote, marked where it is the expected value over tie orders."""
    return f"{quoted(row):.4f}{'' if quoted(row) == row['map'] else '*'}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Score LSH, SH, ITQ and ITQ-CCA on a data set.")
    parser.add_argument("dataset", help="a data set whose LMDBs are built, or its recipe")
    parser.add_argument("--features", default=PIXELS, metavar="BLOB", help="pixels (default) or a blob, as fc5 or fc7")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--bits", nargs="+", type=int, default=list(LENGTHS), help="default: 12 24 32 48")
    parser.add_argument(
        "--seed", type=command_line.seed, default=1, help="of LSH's hyperplanes and ITQ's first rotation; default 1"
    )
    parser.add_argument("--net", choices=list(net.NETS), help="that has the blob; default: the data set's")
    parser.add_argument("--model", type=Path, metavar="deploy.prototxt", help="another net that has it")
    parser.add_argument("--weights", type=Path, metavar="W.caffemodel", help="its weights")
    options = parser.parse_args(arguments)
    if options.features == PIXELS and (options.model or options.weights or options.net):
        parser.error("--net, --model and --weights go with --features BLOB")
    if options.model and not options.weights:
        parser.error("--model needs --weights")
    try:
        run = command_line.run_of(argparse.Namespace(**vars(options), variant="dhn"))
        features = load_features(run.dataset, options.features, options.model, options.weights, net=run.net)
        out = ROOT / "runs" / f"{run.dataset}-baselines-{options.features}.csv"
        make_folder(out.parent)
        with locks.hold(out):
            rows = baselines(run.dataset, *features, options.methods, options.bits, options.seed)
            write_csv(out, rows)
    except (RunError, ValueError, OSError) as error:
        print(f"baselines: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    console.print(table(run.dataset, rows, split_caveat(features[1]["split"])))
    for row in rows:
        if row["note"]:
            console.print(f"{row['method']}, {row['bits']} bits: {row['note']}", markup=False)
    console.print(f"wrote {out.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
