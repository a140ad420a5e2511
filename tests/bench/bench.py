"""Measure the table's rows side by side, print their ratios and write every sample to runs/bench.json.

    make bench [ROWS="alexnet lenet"]
    python tests/bench/bench.py [ROW ...] [--list] [--out FILE]

Each row's line is printed, and the file written, as soon as the row is measured. A row in the file keeps the date,
machine and commit it was measured at; rows that are not measured again stay as they are.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import harness
import record
from rich.console import Console
from rows import ROWS

OUT = harness.REPOSITORY / "runs" / "bench.json"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows; default: all of them")
    parser.add_argument("--list", action="store_true", help="say what each row measures, and measure nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="default: runs/bench.json")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row is named {', '.join(unknown)}; the rows: {' '.join(ROWS)}")
    if options.list:
        for name, row in ROWS.items():
            print(f"{name:18} {row.says}: {'; '.join(map(record.goal_text, row.goals))}")
        return 0
    chosen = {name: row for name, row in ROWS.items() if name in options.rows or not options.rows}
    start, failed, measured = time.monotonic(), 0, {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, row in chosen.items():
            reason = harness.left_out(row)
            if reason:
                print(f"{name:18} left out: {reason}", flush=True)
                continue
            facts = record.facts()
            try:
                rounds = harness.measure(row, Path(folder))
            except harness.RowError as error:
                print(f"{name:18} failed: {error}", flush=True)
                failed += 1
                continue
            measured[name] = record.entry(row, rounds, facts)
            record.add(options.out, name, measured[name])
            print("\n".join(record.lines(name, measured[name])), flush=True)
    if measured:
        Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(record.table(measured))
        print(f"{len(measured)} rows in {time.monotonic() - start:.0f} s; every sample is in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGHUP):  # they end the sides too, as Ctrl-C does
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
