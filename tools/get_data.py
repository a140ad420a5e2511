"""Get a data set, cut it into query, training and database images, and build the three LMDBs.

    python tools/get_data.py fashion_mnist [--root data] [--seed 0]
    python tools/get_data.py cifar10|nus_wide|flickr25k [--split NAME] [--seed 0] [--from PATH]
        [--allow-missing N] [--skip-bad N] [--allow-overlap]
    python tools/get_data.py path/to/recipe.json ...

What a data set but Fashion-MNIST is made of, and how it is cut, stands in its recipe (tools/dhn/datasets/recipes.py);
its folder's README.md says what to put where. An option that is left out is as it was the last time.

For Fashion-MNIST the four idx files come from, in this order: `data/fashion_mnist/` itself, Debian's
package `dataset-fashion-mnist` (fetched and unpacked without root), upstream's addresses. Whatever the
way, the SHA-256 of what the files hold is checked. Written next to them: `images.npy` (uint8, 70000 x 28 x
28: the 60,000 images of upstream's training file, then the 10,000 of its test file), `labels.npy` (uint8,
70000), and `query.txt`, `train.txt`, `database.txt`, each line `row label`, which
`create_lmdb.py --images images.npy` reads. Its protocol is the paper's for CIFAR-10.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dhn
from atomic_writes.command_lines import Parser
from dhn.datasets.lmdb_records import LmdbError
from dhn.datasets.prepare import prepare_dataset
from dhn.download import DownloadError
from dhn.progress import printable


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    description = "Get a data set, draw its query, training and database images, and build their LMDBs."
    parser = Parser(description=description)
    parser.add_argument("dataset", help="fashion_mnist, cifar10, nus_wide, flickr25k, or the path of a recipe")
    parser.add_argument("--root", default="data", help="folder of the data sets (default: data)")
    parser.add_argument("--seed", type=int, help="seed of the split (default: 0)")
    parser.add_argument("--split", help="which of the recipe's splits (default: its first)")
    place = "folder of the data set's files; of cifar10 also the file: an archive, a zip of pictures"
    parser.add_argument("--from", dest="base", type=Path, metavar="PATH", help=place)
    parser.add_argument("--allow-missing", type=int, metavar="N", help="go on without N images that are not there")
    parser.add_argument("--skip-bad", type=int, metavar="N", help="go on without N images that cannot be read")
    overlap = "take a published split whose query images are in the database too, and have this recorded"
    parser.add_argument("--allow-overlap", action="store_true", default=None, help=overlap)
    options = parser.parse_args(arguments)
    others = {key: getattr(options, key) for key in ("split", "base", "allow_missing", "skip_bad", "allow_overlap")}
    try:
        prepare_dataset(options.dataset, Path(options.root), options.seed, **others)
    except (DownloadError, LmdbError, OSError, ValueError) as error:
        print(printable(f"get_data: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
