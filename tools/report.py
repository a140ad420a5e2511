"""Write report.html into a scored run's folder: one page that needs nothing else, to be opened from disk.

    python tools/report.py fashion_mnist [--variant dhn] [--bits 48]
    python tools/report.py --run FOLDER

It shows the run's scores next to the published ones, the curves of its training, what its codes look like, queries with
their nearest images, and what was run, from the files in the run's folder and the images of its LMDBs. What the files
of a run made by hand do not say is "unknown" there.
"""

from __future__ import annotations

import sys

import dhn
from dhn.pages import report
from dhn.progress import console
from dhn.runs.command_line import parser_of_scored_runs, run_named
from dhn.runs.folder import RunError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        _, run = run_named(parser_of_scored_runs("Write the report of a scored run.", gpu=False), arguments)
        out = report.write(run)
    except (RunError, ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    console.print(f"wrote {run.display_path(out)}")
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
