"""Score a trained run: codes of its query and database images, MAP under every protocol, metrics.json.

    python tools/score_run.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--gpu 0]
    python tools/score_run.py --run FOLDER [--codes sign|01|packed|threshold=T] [--labels vectors|classes] [--gpu 0]

Writes query.npz, database.npz (tools/extract_codes.py), metrics.json (tools/score_map.py) and report.html
(tools/report.py) into the run's folder, and prints the table of results. Codes newer than the weights and the images
they come from are taken as they are, and so are metrics newer than the codes and a report newer than the metrics.
The variant dhn_b is scored under the protocols that rank by real-valued codes.

--run takes a folder that was filled by hand too (tools/dhn/runs/by_hand.py): what its files do not say is null in
metrics.json. Codes and labels that stand there are read by the rule of tools/dhn/codes/files.py; --codes and --labels
declare what they are.
"""

from __future__ import annotations

import sys

import dhn
from dhn.codes import files as codes
from dhn.experiments.scored_run import score
from dhn.runs.command_line import parser_of_scored_runs, run_named
from dhn.runs.folder import RunError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = parser_of_scored_runs("Score a trained run.")
    parser.add_argument("--codes", metavar="MEANING", help=f"what the codes in FOLDER are: {codes.MEANINGS}")
    parser.add_argument("--labels", choices=codes.DECLARED, help="what the labels in FOLDER are")
    try:
        options, run = run_named(parser, arguments)
        if options.run is None and (options.codes is not None or options.labels is not None):
            parser.error("--codes and --labels go with --run FOLDER")
        codes.parse_meaning(options.codes)
        score(run, options.gpu, options.codes, options.labels)
    except (RunError, ValueError, OSError) as error:
        print(f"score_run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
