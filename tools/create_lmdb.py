"""Build an LMDB of labelled images that Caffe's Data layer reads, with the whole label vector in each record.

    python tools/create_lmdb.py LIST OUT [--root DIR] [--images IMAGES.npy]   lines `path l1 ... lC` or `path label`
    python tools/create_lmdb.py FOLDER OUT                                    one folder per class
    python tools/create_lmdb.py ARRAYS.npz OUT                                arrays `images` and `labels`
    python tools/create_lmdb.py OUT --check                                   read an LMDB through and verify it

Labels are read by the rule of python_layers/labels.py: label vectors of 0 and 1, or class numbers, of which the first
is 0 unless --first-class says otherwise. Of a folder every file that is an image is taken, links are followed, and
what is left out is counted.

Images are read by the rule of python_layers/pictures.py: upright, 8 bits a channel. --encode jpg or png stores a file's
own bytes where each reader sees the same image in them, and otherwise a PNG of the image (or a JPEG, if --resize or
--gray changed it). tools/dhn/datasets/lmdb_records.py says what a record holds.

The LMDB is built in `OUT.partial` and renamed when it is complete: a build that is killed leaves nothing that could be
taken for one, and the next build clears it away. `OUT/source.json` says what it was built from; an output built
from the same inputs is left as it is. Images that cannot be read are all named in one run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import dhn
from atomic_writes.command_lines import Parser
from dhn.arguments import at_least
from dhn.datasets.image_files import SourceError
from dhn.datasets.labelled_images import Source, from_arrays, from_folder, from_list
from dhn.datasets.lmdb_build import build
from dhn.datasets.lmdb_records import LmdbError, check
from dhn.progress import printable, say


def open_source(path: str, options: argparse.Namespace) -> Source:
    """The source a command line names: a folder, an .npz file, or a list file."""
    first = {"classes": options.classes, "first_class": options.first_class}
    listed = {"root": options.root, "images": options.images, "encoding": options.encoding}
    if os.path.isdir(path):
        kind, unused = "a folder per class", {**listed, **first, "labels": options.labels}
    elif path.endswith(".npz"):
        kind, unused = "an .npz file", listed
    else:
        kind, unused = "a list file", {"labels": options.labels}
    for option, value in unused.items():
        if value is not None:
            raise SourceError(f"--{option.replace('_', '-')} does not go with {kind} ({path})")
    if os.path.isdir(path):
        return from_folder(path)
    if path.endswith(".npz"):
        return from_arrays(path, declared=options.labels, **first)
    return from_list(path, options.root or "", options.images, encoding=options.encoding or "utf-8", **first)


def _spell_out_skip_bad(arguments: Sequence[str]) -> list[str]:
    """The arguments with a number behind each --skip-bad: without one it means any number."""
    spelled = list(arguments)
    for place, argument in enumerate(arguments):
        following = arguments[place + 1 : place + 2]
        if argument == "--skip-bad" and not (following and following[0].isdigit()):
            spelled[place] = "--skip-bad=inf"
    return spelled


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Build an LMDB of labelled images for Caffe, or check one.")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="SOURCE OUT, or only OUT with --check; SOURCE is a "
        "list file, a folder with a folder per class, or an .npz file (images, labels)",
    )
    parser.add_argument("--root", help="folder that a list's paths start from")
    parser.add_argument("--images", help=".npy file of images; a list's paths are then its row numbers")
    parser.add_argument("--encoding", help="of a list: latin-1, gbk, ... (default: utf-8)")
    parser.add_argument("--classes", type=at_least(1), help="number of classes (default: the highest class number + 1)")
    parser.add_argument("--first-class", type=at_least(0), metavar="N", help="number of the first class (default: 0)")
    parser.add_argument("--labels", choices=("classes", "vectors"), help="what an array of labels (N, 1) holds")
    parser.add_argument(
        "--resize", type=at_least(1, 65535), nargs=2, metavar=("H", "W"), help="resize every image to H x W"
    )
    parser.add_argument("--gray", action="store_true", help="store one grey channel")
    parser.add_argument("--encode", choices=("jpg", "png", "raw"), default="raw", help="default: raw pixels")
    parser.add_argument("--shuffle", action="store_true", help="shuffle the order of the list")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of --shuffle (default: 0)")
    parser.add_argument(
        "--skip-bad",
        type=lambda text: float(text) if text == "inf" else at_least(0)(text),
        default=0,
        metavar="[N]",
        help="leave out images that cannot be read, at most N (without N: any number), and count them",
    )
    parser.add_argument("--check", action="store_true", help="read OUT through and verify every record")
    options = parser.parse_args(_spell_out_skip_bad(sys.argv[1:] if arguments is None else arguments))
    if len(options.paths) > 2 or (len(options.paths) == 1 and not options.check):
        parser.error("expected SOURCE OUT, or OUT --check")
    out = options.paths[-1]
    try:
        if len(options.paths) == 2:
            build(
                open_source(options.paths[0], options),
                out,
                resize=options.resize and tuple(options.resize),
                gray=options.gray,
                encode=options.encode,
                shuffle=options.shuffle,
                seed=options.seed,
                skip_bad=options.skip_bad,
            )
        if options.check:
            facts = check(out)
            shapes = ", ".join(f"{count:,} of {shape}" for shape, count in facts["shapes"].items())
            say(
                f"{out}: {facts['records']:,} records are complete; images (C, H, W): {shapes}; "
                f"{facts['labels']} labels each"
            )
    except (LmdbError, OSError, ValueError) as error:
        print(printable(f"create_lmdb: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
