"""`caffe shim DIR`: a folder that looks like a built Caffe, for repositories that hard-code where its files are.

DIR/build/tools/caffe and the other tools, each with `.bin` too; DIR/python/caffe; DIR/python/classify.py and so on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from caffe.cli.commands import COMMANDS

_MARK = "# written by `caffe shim`"
# The shell starts the Python that this was written by, however long its path; Python takes lines 3 to 4 for a string.
_SCRIPT = """#!/bin/sh
{mark}
'''exec' "{python}" "$0" "$@"
'''
import sys

from {module} import {function}

sys.exit({function}())
"""


def write(root: Path) -> list[Path]:
    """Write the folder and return what was written. Files of an earlier `caffe shim` are written anew.

    Raises:
        FileExistsError: something else is at one of the places; nothing is written then.
        OSError: a link cannot be made on this file system.
    """
    scripts: dict[Path, str] = {}
    for target, places in COMMANDS.values():
        module, function = target.split(":")
        text = _SCRIPT.format(mark=_MARK, python=sys.executable, module=module, function=function)
        for place in places:
            scripts[root / place] = text
            if place.startswith("build/"):
                scripts[root / f"{place}.bin"] = text
    package, link = Path(__file__).parents[1], root / "python" / "caffe"
    foreign = [path for path in scripts if path.exists() and not _is_ours(path)]
    if link.exists() and not link.is_symlink():
        foreign.append(link)
    if foreign:
        raise FileExistsError(
            f"{root} has files of its own where the shim's would go: {', '.join(map(str, foreign))}. "
            "Move them away, or give another folder"
        )
    for path, text in scripts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    os.symlink(package, link, target_is_directory=True)
    return [*scripts, link]


def _is_ours(path: Path) -> bool:
    return path.is_file() and _MARK in path.read_text(errors="replace")
