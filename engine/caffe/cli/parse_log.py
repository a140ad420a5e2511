"""`parse_log LOG FOLDER`: the tables of a training log as FOLDER/LOG.train and FOLDER/LOG.test, comma separated."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from atomic_writes.command_lines import Parser

from caffe.atomic_files import check_folder, write_atomic
from caffe.cli.arguments import run
from caffe.cli.training_log import Log, Row


def write_csv(path: Path, rows: list[Row], delimiter: str, verbose: bool) -> None:
    """Write the rows, under the names of the columns in the order they first appear."""
    if not rows:
        if verbose:
            print(f"Not writing {path}; no lines to write")
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())
    if verbose:
        print(f"Wrote {path}")


def _parse(args: argparse.Namespace) -> None:
    try:
        csv.writer(io.StringIO(), delimiter=args.delimiter)
    except (TypeError, ValueError):
        raise ValueError(f"--delimiter: expected one character, found {args.delimiter!r}") from None
    folder, name = Path(args.output_dir), Path(args.logfile_path).name
    check_folder(folder / name)
    log = Log(args.logfile_path)
    for rows, kind in ((log.train, "train"), (log.test, "test")):
        write_csv(folder / f"{name}.{kind}", rows, args.delimiter, args.verbose)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="parse_log", description="Parse a Caffe training log into two CSV files containing training and testing "
        "information",
    )  # fmt: skip
    parser.add_argument("logfile_path", help="Path to log file")
    parser.add_argument("output_dir", help="Directory in which to place output CSV files")
    parser.add_argument("--verbose", action="store_true", help="Print some extra info (e.g., output filenames)")
    parser.add_argument("--delimiter", default=",", help="Column delimiter in output files (default: '%(default)s')")
    return run(parser, _parse, arguments)


if __name__ == "__main__":
    sys.exit(main())
