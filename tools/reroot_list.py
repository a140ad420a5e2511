"""Point image lists at where the images are on this machine: for lists that hold the absolute paths of another one.

    python tools/reroot_list.py LIST ... --root DIR --out FOLDER [--allow-missing] [--encoding latin-1]

    python tools/reroot_list.py released/nus_wide/train.txt --root /data/nus_wide/images --out data/nus_wide

A line is `path label_1 ... label_L`. Of each path the longest end that is a file under DIR is taken, links followed:
the line of /home/someone/nus_wide/images/0001/7.jpg becomes `DIR/0001/7.jpg ...`, its labels as they were. The new
lists go into FOLDER under their own names, in UTF-8; so the authors' train_val.prototxt, whose source is
data/nus_wide/train.txt, trains unchanged. Images that are not there stop it, and nothing is written; with
--allow-missing their lines are left out, counted, and written to `NAME.missing.txt`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import dhn  # first: it says so where the project is not installed

# isort: split
import image_lists
from atomic_writes.command_lines import Parser
from dhn.datasets.image_set import Folder
from dhn.datasets.splits import list_text
from dhn.files import write_atomic
from dhn.progress import printable

Lines = tuple[list[str], list[list[int]]]  # paths, labels


def reroot(source: Path, folder: Folder, encoding: str = "utf-8") -> tuple[Lines, Lines]:
    """(the lines with their paths in `folder`, the lines whose images are not there) of an image list.

    Raises OSError, image_lists.ListError.
    """
    rerooted: Lines = ([], [])
    missing: Lines = ([], [])
    for name, row, _ in zip(*image_lists.read(source, encoding), strict=True):
        path = folder.find(name, encoding)
        names, labels = missing if path is None else rerooted
        names.append(name if path is None else str(folder.root / path))
        labels.append(row)
    return rerooted, missing


def reroot_all(sources: Sequence[Path], root: Path, out: Path, allow_missing: bool, encoding: str = "utf-8") -> None:
    """Write each list again into `out`. Raises OSError, ValueError, and writes none, where one cannot be."""
    if not root.is_dir():
        raise ValueError(f"--root {root}: expected the folder of the images, found no folder there")
    targets = [out / source.name for source in sources]
    for source, target in zip(sources, targets, strict=True):
        if targets.count(target) > 1 or (target.exists() and target.samefile(source)):
            raise ValueError(f"{source} would be written to {target}, which is a list already; name another --out")
    folder, sentences = Folder(root), []
    texts: dict[Path, str] = {}
    for source, target in zip(sources, targets, strict=True):
        rerooted, missing = reroot(source, folder, encoding)
        count = len(rerooted[0]) + len(missing[0])
        if missing[0] and (not allow_missing or not rerooted[0]):
            raise ValueError(
                f"{source}: {len(missing[0])} of {count} images are not under {root}, the first of them "
                f"{'; '.join(missing[0][:3])}; correct --root, or leave them out with --allow-missing"
                + "".join(f"; {sentence}" for sentence in folder.notes())
            )
        gaps = target.with_name(f"{target.stem}.missing.txt")
        texts |= {target: list_text(*rerooted, source), gaps: list_text(*missing, source)}
        left_out = f"; {len(missing[0])} missing images left out, listed in {gaps}" if missing[0] else ""
        sentences.append(f"{target}: {len(rerooted[0])} of {count} images of {source}{left_out}")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        if text:
            _write(path, text.encode("utf-8", "surrogateescape"))
        else:
            path.unlink(missing_ok=True)
    print(printable("\n".join(sentences)))


def _write(path: Path, data: bytes) -> None:
    write_atomic(path, lambda stream: stream.write(data))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Point image lists at where the images are on this machine.")
    parser.add_argument("lists", nargs="+", type=Path, metavar="LIST", help="image lists, lines `path label ...`")
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder for the new lists")
    parser.add_argument("--allow-missing", action="store_true", help="leave out images that are not there")
    parser.add_argument("--encoding", default="utf-8", help="of the lists: latin-1, gbk, ... (default: utf-8)")
    options = parser.parse_args(arguments)
    try:
        root = Path(os.path.normpath(options.root))
        reroot_all(options.lists, root, options.out, options.allow_missing, options.encoding)
    except (OSError, ValueError) as error:
        print(printable(f"reroot_list: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
