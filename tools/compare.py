"""The published MAPs and those of the runs here side by side, and in which settings they differ.

    python tools/compare.py [cifar10] [--bits 12 24 32 48]

For each data set (all that have runs or published numbers, unless one is named): the paper's rows, later re-runs of
DHN, and each scored run and baseline under runs/, with the range that ties leave; below them a table of the settings,
in which a published cell is marked where a run of the same method here has another value: what ranks, R, the split, the
numbers of query and database images, the net. What a source does not say is "?", a number that no source gives "n/a".
A run is measured under the protocol that is nearest to the published tables: AP at the hits in the top R of its split.
A number that the order of ties decides is its expected value. Lengths are the paper's four and those of the runs here.
A run made by hand has a row of its own, with what is known of it; those whose data set is not known stand in a table of
their own. A file of scores that cannot be read is named.

Writes runs/compare-<dataset>.csv, .json and .html.
"""

from __future__ import annotations

import sys

import dhn  # first: it says so where the project is not installed

# isort: split
import net
from atomic_writes.command_lines import Parser
from dhn.experiments.run_table import read_runs
from dhn.experiments.side_by_side import compare
from dhn.progress import console
from dhn.runs.folder import ROOT


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Published MAPs and those of the runs here, side by side.")
    parser.add_argument("dataset", nargs="?", help="default: all that have runs or published numbers")
    parser.add_argument("--bits", nargs="+", type=int, help="default: 12 24 32 48, and those of the runs here")
    options = parser.parse_args(arguments)
    try:
        runs, unusable = read_runs(ROOT)
        names = [*net.DATASETS, *(path.parent.name for path in sorted(ROOT.glob("data/*/split.json")))]
        names = list(dict.fromkeys([*names, *sorted({run.dataset for run in runs if run.dataset})]))
        chosen = [options.dataset] if options.dataset else [*names, None]
        compared = [dataset for dataset in chosen if compare(dataset, options.bits, runs, ROOT)]
        for sentence in unusable:
            console.print(f"left out: {sentence}", markup=False)
        if not compared:
            wanted = ", ".join(filter(None, chosen))
            raise ValueError(
                f"nothing is published on {wanted} at these lengths, and runs/ holds no scored run of it; data sets "
                f"are {', '.join(names)}"
            )
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
