"""Everything once, from the images to the table of results: `make demo`.

    python tools/demo.py fashion_mnist [--variant dhn] [--bits 48]

Each step is one of the other tools, and is skipped with a word when its output is there and whole. The steps' seconds
are printed at the end.
"""

from __future__ import annotations

import sys
import time

import get_data
from dhn.datasets import splits
from dhn.experiments import scored_run
from dhn.progress import console
from dhn.runs import command_line, training
from dhn.runs.folder import RunError
from rich import box
from rich.table import Table


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = command_line.run_parser("Everything once: data, training, codes, scores.").parse_args(arguments)
    seconds = Table("step", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    seconds.add_column("seconds", justify="right")

    def timed(step: str, work):
        console.rule(step, align="left")
        start = time.monotonic()
        result = work()
        seconds.add_row(step, f"{time.monotonic() - start:.1f}")
        return result

    if status := timed("data", lambda: get_data.main([options.dataset])):
        return status
    try:
        run = command_line.run_of(options)
        timed("training", lambda: training.train(run, gpu=options.gpu))
        timed("codes and scores", lambda: scored_run.score(run, options.gpu))
    except (RunError, splits.SplitError, ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    console.print(seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
