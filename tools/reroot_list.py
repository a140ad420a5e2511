"""Point image lists at where the images lie here: for lists that hold the absolute paths of another machine.

    python tools/reroot_list.py LIST ... --root DIR --out FOLDER [--allow-missing]

    python tools/reroot_list.py released/nus_wide/train.txt --root /data/nus_wide/images --out data/nus_wide

A line is `path label_1 ... label_L`. Of each path the longest end that is a file under DIR is taken: the line of
/home/someone/nus_wide/images/0001/7.jpg becomes `DIR/0001/7.jpg ...`, its labels as they were. The new lists go into
FOLDER under their own names; so the authors' train_val.prototxt, whose source is data/nus_wide/train.txt, trains
unchanged. Images that are not there stop it, and nothing is written; with --allow-missing their lines are left out,
counted, and written to `NAME.missing.txt`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from codes import write_whole

LINE = re.compile(r"(\S.*?)((?:\s+-?\d+)+)\s*")


def find(path: str, root: Path) -> str | None:
    """The longest end of `path` that is a file under `root`, as a path from here; None: there is none."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    parts = parts[1:] if parts[:1] == ("/",) else parts
    ends = (root.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((str(end) for end in ends if end.is_file()), None)


def reroot(source: Path, root: Path) -> tuple[list[str], list[str]]:
    """(lines with their paths under `root`, lines whose images are not there) of an image list.

    Raises:
        ValueError: a line that is not a path and whole numbers, or no line at all.
    """
    found, missing = [], []
    for number, line in enumerate(source.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{source}:{number}: expected `path label_1 ... label_L`, found {line!r}")
        path = find(match[1], root)
        if path is None:
            missing.append(line)
        else:
            found.append(path + match[2])
    if not found and not missing:
        raise ValueError(f"{source} is empty: expected lines of `path label_1 ... label_L`")
    return found, missing


def reroot_all(sources: Sequence[Path], root: Path, out: Path, allow_missing: bool) -> None:
    """Write each list anew into `out`. Raises ValueError, and writes none, where one cannot be."""
    if not root.is_dir():
        raise ValueError(f"--root {root}: expected the folder of the images, found no folder there")
    targets = [out / source.name for source in sources]
    for source, target in zip(sources, targets, strict=True):
        if targets.count(target) > 1 or (target.exists() and target.samefile(source)):
            raise ValueError(f"{source} would be written to {target}, which is a list already; name another --out")
    lists = []
    for source in sources:
        found, missing = reroot(source, root)
        if missing and (not allow_missing or not found):
            first = "; ".join(LINE.fullmatch(line.strip())[1] for line in missing[:3])
            raise ValueError(
                f"{source}: {len(missing)} of {len(missing) + len(found)} images are not under {root}, the first of "
                f"them {first}; correct --root, or leave them out with --allow-missing"
            )
        lists.append((source, found, missing))
    out.mkdir(parents=True, exist_ok=True)
    for (source, found, missing), target in zip(lists, targets, strict=True):
        gaps = target.with_name(f"{target.stem}.missing.txt")
        for path, lines in ((target, found), (gaps, missing)):
            if lines:
                text = "\n".join(lines) + "\n"
                write_whole(path, lambda stream, text=text: stream.write(text.encode("utf-8", "surrogateescape")))
        if not missing:
            gaps.unlink(missing_ok=True)
        left_out = f"; {len(missing)} missing images left out, listed in {gaps}" if missing else ""
        print(f"{target}: {len(found)} of {len(found) + len(missing)} images of {source}{left_out}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Point image lists at where the images lie here.")
    parser.add_argument("lists", nargs="+", type=Path, metavar="LIST", help="image lists, lines `path label ...`")
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder for the new lists")
    parser.add_argument("--allow-missing", action="store_true", help="leave out images that are not there")
    options = parser.parse_args(arguments)
    try:
        reroot_all(options.lists, Path(os.path.normpath(options.root)), options.out, options.allow_missing)
    except (OSError, ValueError) as error:
        print(f"reroot_list: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
