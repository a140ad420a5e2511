"""Get the weights that a net is fine-tuned from, and the mean image of the pictures that they were trained on.

    python tools/get_weights.py alexnet [--folder weights] [--mirror ADDRESS]

Writes into the folder, each atomically:

    <release>.caffemodel        BVLC's of AlexNet and CaffeNet (233 MB, for unrestricted use), checked by SHA-1;
                                DeepScale's of SqueezeNet v1.0 (5 MB, BSD licence), checked by git's id of it
    imagenet_mean.binaryproto   the mean image of ILSVRC 2012, (1, 3, 256, 256), BGR, for `mean_file`
    ilsvrc_2012_mean.npy        the same, float64 (3, 256, 256), for scripts

SqueezeNet was trained with a mean value a channel and needs no mean image. What lies there already is taken. A transfer
that breaks off is resumed. `--mirror` names a folder on a server that holds the files under their names; it is asked
first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import dhn
from atomic_writes.command_lines import Parser
from dhn.download import DownloadError
from dhn.progress import console
from dhn.weights.releases import GOES_INTO, NETS, get_mean, get_net


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Get a net's weights and the mean image they were trained with.")
    parser.add_argument("net", choices=[*NETS, *GOES_INTO], help="the release, or the net that it goes into")
    parser.add_argument("--folder", default="weights", help="where the files go (default: weights)")
    parser.add_argument("--mirror", help="address of a folder that holds the files; asked first")
    options = parser.parse_args(arguments)
    folder = Path(options.folder)
    name = GOES_INTO.get(options.net, options.net)
    failed = []
    wanted: list[Callable[[], object]] = [lambda: get_net(name, folder, options.mirror)]
    if NETS[name].has_mean:
        wanted.append(lambda: get_mean(folder, options.mirror))
    for get in wanted:
        try:
            get()
        except (DownloadError, OSError) as error:
            failed.append(error)
            print(f"get_weights: {error}", file=sys.stderr)
    if not failed:
        console.print(f"{name} goes into nets that have {NETS[name].trait}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
