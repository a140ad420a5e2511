"""Merge the parts that `extract_codes.py --shard` wrote into one codes file, the one that a single process would write.

    python tools/merge_codes.py PARTS --out X.npz

PARTS is the folder of part-0-of-16.npz, part-1-of-16.npz, ... Every part must be there, undamaged, and of the same net,
weights, source and settings. X.npz appears when it is complete, in one step; the parts stay.
"""

from __future__ import annotations

import sys

import dhn  # first: it says so where the project is not installed

# isort: split
from atomic_writes.command_lines import Parser
from dhn.codes import parts
from dhn.progress import console


def main(arguments: list | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", metavar="PARTS", help="folder of the parts")
    parser.add_argument("--out", required=True, metavar="X.npz", help="codes file to write")
    options = parser.parse_args(arguments)
    try:
        items, bits = parts.merge(options.parts, options.out)
    except (ValueError, OSError) as error:
        print(f"merge_codes: {error}", file=sys.stderr)
        return 2
    console.print(f"{options.out}: {items} codes of {bits} bits")
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
