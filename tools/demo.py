"""Everything once, from the images to the table of results and an index to search: `make demo`.

    python tools/demo.py fashion_mnist [--variant dhn] [--bits 48]

Each step is one of the other tools, and is skipped, with a message, when its output is there and complete.
The steps' seconds are printed at the end, and the command that starts the page.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import dhn
from dhn.datasets.lmdb_records import LmdbError
from dhn.datasets.prepare import prepare_dataset
from dhn.download import DownloadError
from dhn.experiments import scored_run
from dhn.layout import target_command
from dhn.progress import console, printable, say
from dhn.runs import command_line, training
from dhn.runs.folder import RunError
from dhn.search import collection
from rich import box
from rich.table import Table


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = command_line.run_parser("Everything once: data, training, codes, scores.").parse_args(arguments)
    seconds = Table("step", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    seconds.add_column("seconds", justify="right")

    def timed(step: str, work: Callable[[], object]) -> None:
        console.rule(step, align="left")
        start = time.monotonic()
        work()
        seconds.add_row(step, f"{time.monotonic() - start:.1f}")

    try:
        timed("data", lambda: prepare_dataset(options.dataset, Path("data")))
        run = command_line.run_of(options)
        timed("training", lambda: training.train(run, gpu=options.gpu))
        timed("codes and scores", lambda: scored_run.score(run, options.gpu))
        timed("index", lambda: collection.ensure_index(run, options.gpu))
    except (RunError, LmdbError, DownloadError, ValueError, OSError) as error:
        print(printable(f"demo: {error}"), file=sys.stderr)
        return 1
    console.print(seconds)
    named = {name: getattr(options, name) for name in ("variant", "bits", "net")}
    serve = target_command("serve", options.dataset, **named, seed=None if options.seed == 1 else options.seed)
    say(f"search it with pictures, on a page in the browser: {serve}")
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
