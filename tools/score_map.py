"""Score the retrieval of database codes by query codes: MAP under named protocols, with the range ties leave open.

    python tools/score_map.py --query Q.npz --database D.npz [--protocol standard --protocol hashnet] [--top R]
    python tools/score_map.py --query q.npy --query-labels ql.npy --database d.npy --database-labels dl.npy
    python tools/score_map.py --query x.mat:qB --query-labels x.mat:qL --database x.mat:rB --database-labels x.mat:rL

A codes file is an .npz (as tools/extract_codes.py writes it), .mat or .h5 with the arrays codes and labels, an array
of it (FILE:VARIABLE), an .npy, or a .txt or .csv with a row a line; codes and labels may be in files of their own.
Codes are signs around 0 unless --codes says what they are; labels are label vectors of 0 and 1, or class numbers
where that is unambiguous or --labels says so, -1 for unknown (tools/dhn/codes/files.py, python_layers/labels.py).

With --json the scores are printed as JSON, with --metrics they are also written to a file, of this form: the scores
of the first protocol, then `variant`, `seed`, `weights_sha256` (each null if not given) and `versions`, and under
`protocols` the MAPs of every protocol by name. `read_as` says what codes and labels were taken for, `notes` holds
sentences on what was not read plainly and on why a MAP means little.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dhn
from atomic_writes.command_lines import Parser
from dhn.codes import files as codes
from dhn.experiments.metrics import score_files, write_metrics
from dhn.scoring.retrieval import PROTOCOLS

if TYPE_CHECKING:
    from rich.table import Table


def tables(scores: Sequence[dict]) -> list[Table]:
    """The scores for a person to read: MAPs and precisions, a row a protocol, then what all protocols share."""
    first = scores[0]
    maps = _table("protocol", "R", "MAP", "expected", "low", "high", "queries", "no hits")
    maps.title = f"{first['queries']} queries, {first['database']} database items, {first['bits']} bits"
    maps.caption = (
        "MAP: ties in database order. Expected, low, high: over all tie orders. "
        "Queries: those that count. No hits: queries without any in the top R."
    )
    if first["queries_unlabelled"] or first["database_unlabelled"]:
        maps.caption += (
            f" Left out, their labels being unknown: {first['queries_unlabelled']} queries, "
            f"{first['database_unlabelled']} database items."
        )
    precisions = _table("protocol", *(f"P@{n}" for n in first["precision_at"]))
    for each in scores:
        values = [each[key] for key in ("map", "map_expected", "map_low", "map_high")]
        means = ["-" if value is None else f"{value:.4f}" for value in values]
        counts = str(each["queries_counted"]), str(each["queries_without_hits"])
        maps.add_row(each["protocol"], str(each["R"]), *means, *counts)
        precisions.add_row(each["protocol"], *(f"{value['stable']:.4f}" for value in each["precision_at"].values()))
    bits = _table("codes", "distinct", "share of +1", "least bit", "most bit", "mean |code|", "zeros")
    within = [first[key] for key in ("precision_radius_2", "recall_radius_2", "map_radius_2", "map_radius_2_expected")]
    precision, recall, *aps = ("-" if value is None else f"{value:.4f}" for value in within)
    bits.caption = (
        f"Within Hamming radius 2: precision {precision}, recall {recall}, MAP {aps[0]} (expected over ties {aps[1]}); "
        f"{first['empty_balls']} empty balls counting 0."
    )
    for side, statistics in first["codes"].items():
        shares = [f"{statistics[key]:.3f}" for key in ("positive_mean", "positive_least", "positive_most", "mean_abs")]
        bits.add_row(side, str(statistics["distinct"]), *shares, str(statistics["zeros"]))
    return [maps, precisions, bits] if first["precision_at"] else [maps, bits]


def _table(name: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left", caption_justify="left")
    table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--query", required=True, metavar="FILE", help="codes and labels of the queries")
    parser.add_argument("--query-labels", metavar="FILE", help="their labels, if in a file of their own")
    parser.add_argument("--database", required=True, metavar="FILE", help="codes and labels of the database")
    parser.add_argument("--database-labels", metavar="FILE", help="their labels, if in a file of their own")
    parser.add_argument("--codes", metavar="WHAT", help=f"what the codes are, if not signs around 0: {codes.MEANINGS}")
    parser.add_argument("--labels", choices=codes.DECLARED, help="what the labels are, where they alone do not tell")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=list(PROTOCOLS),
        metavar="NAME",
        help=f"one of {', '.join(PROTOCOLS)}; may be given more than once; default: standard",
    )
    parser.add_argument("--top", type=int, metavar="R", help="ranks looked at, instead of each protocol's own number")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON: one object a line and protocol")
    parser.add_argument("--metrics", metavar="OUT.json", help="also write the scores to this file")
    parser.add_argument("--weights", metavar="W.caffemodel", help="the weights that made the codes, for --metrics")
    parser.add_argument("--variant", help="the net's variant, for --metrics")
    parser.add_argument("--seed", type=int, help="the seed of the training, for --metrics")
    options = parser.parse_args(arguments)
    about = {"weights": options.weights, "variant": options.variant, "seed": options.seed}
    if not options.metrics and any(value is not None for value in about.values()):
        parser.error("--weights, --variant and --seed are written to --metrics OUT.json, which was not given")
    protocols = list(dict.fromkeys(options.protocol or ["standard"]))
    try:
        scores = score_files(
            options.query,
            options.database,
            protocols,
            options.top,
            query_labels=options.query_labels,
            database_labels=options.database_labels,
            codes_are=options.codes,
            labels_are=options.labels,
        )
        if options.metrics:
            write_metrics(options.metrics, scores, **about)
    except (ValueError, OSError) as error:
        print(f"score_map: {error}", file=sys.stderr)
        return 2
    if options.json:
        for each in scores:
            print(json.dumps(each, allow_nan=False))
    else:
        from rich.console import Console  # here, as --json needs it not

        Console(highlight=False).print(*tables(scores))
    for note in dict.fromkeys(note for each in scores for note in each["notes"]):
        print(f"note: {note}", file=sys.stderr if options.json else sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
