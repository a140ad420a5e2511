"""`caffe shim DIR [MEAN]`: a folder that looks like a built Caffe, for repositories that hard-code where its files are.

DIR/build/tools/caffe, DIR/build/examples/... and so on, each with `.bin` too; DIR/python/caffe; DIR/python/classify.py.
With MEAN, the mean image of ImageNet as .npy or .binaryproto, also DIR/python/caffe/imagenet/ilsvrc_2012_mean.npy.
What is there already and was not written by `caffe shim` is left as it is, and listed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from caffe.atomic_files import write_atomic
from caffe.cli.commands import COMMANDS, SCRIPTS

MARK = "# written by `caffe shim`"
MEAN = Path("python", "caffe", "imagenet", "ilsvrc_2012_mean.npy")
PACKAGE = Path("python", "caffe", "__init__.py")
# The shell starts the Python that this was written by, however long its path; Python takes lines 3 to 4 for a string.
_SCRIPT = """#!/bin/sh
{mark}
'''exec' "{python}" "$0" "$@"
'''
import sys

from {module} import {function}

sys.exit({function}())
"""
_PACKAGE = """{mark}: `import caffe` from here is the engine
import importlib.util
import sys

_spec = importlib.util.spec_from_file_location(__name__, {file!r}, submodule_search_locations=[{folder!r}])
_engine = importlib.util.module_from_spec(_spec)
sys.modules[__name__] = _engine
_spec.loader.exec_module(_engine)
_engine.__file__ = __file__  # scripts look for imagenet/ilsvrc_2012_mean.npy next to it
"""


class Result(NamedTuple):
    """The paths that were written, and those that were left, each with the reason."""

    written: list[Path]
    left: list[tuple[Path, str]]


def write(root: Path, mean: str | None = None) -> Result:
    """Write into the folder what is free there. Files of an earlier `caffe shim` are written again.

    mean: the mean image of ImageNet, .npy or .binaryproto.

    Raises:
        OSError: `mean` cannot be read, `root` is no folder, or cannot be written.
        ValueError: `mean` is another image.
    """
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"caffe shim {root}: expected a folder, found a file")
    contents = {root / path: text.encode() for path, text in _scripts().items()}
    engine = Path(__file__).resolve().parents[1]
    text = _PACKAGE.format(mark=MARK, file=str(engine / "__init__.py"), folder=str(engine))
    contents[root / PACKAGE] = text.encode()
    if mean is not None:
        contents[root / MEAN] = _mean_bytes(mean)
    link = (root / PACKAGE).parent
    if link.is_symlink() and link.resolve() == engine:  # what an earlier version wrote
        link.unlink()
    result = Result([], [])
    for path, content in contents.items():
        reason = _obstacle(root, path, content)
        if reason:
            result.left.append((path, reason))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        path.chmod(0o755 if content.startswith(b"#!") else 0o644)
        result.written.append(path)
    if mean is None and not (root / MEAN).exists():
        source = "is not shipped: the toolkit's `make weights` writes weights/ilsvrc_2012_mean.npy"
        result.left.append((root / MEAN, f"{source}; then: caffe shim {root} weights/ilsvrc_2012_mean.npy"))
    return result


def _scripts() -> dict[str, str]:
    """The text of each script, by its path below Caffe's root."""
    places = {place: target for target, paths in COMMANDS.values() for place in paths} | SCRIPTS
    scripts = {}
    for place, target in places.items():
        module, function = target.split(":")
        text = _SCRIPT.format(mark=MARK, python=sys.executable, module=module, function=function)
        scripts[place] = text
        if place.startswith("build/"):
            scripts[f"{place}.bin"] = text
    return scripts


def _mean_bytes(path: str) -> bytes:
    from caffe.cli.images import read_mean

    mean = read_mean(path)
    if mean.ndim != 3 or len(mean) != 3:
        raise ValueError(f"{path}: expected the mean image of ImageNet, (3, H, W), found {mean.shape}")
    content = io.BytesIO()
    np.save(content, mean)
    return content.getvalue()


def _obstacle(root: Path, path: Path, content: bytes) -> str | None:
    """Why `path` may not be written; None where it may."""
    for folder in path.relative_to(root).parents:
        parent = root / folder
        if (parent.exists() or parent.is_symlink()) and not parent.is_dir():
            return f"cannot be made: {parent} is there already and is no folder"
    if path == root / PACKAGE and not is_shim(path.parent) and any(path.parent.glob("*.py")):
        return _foreign_package(root)
    if (path.exists() or path.is_symlink()) and not _is_ours(path, content):
        return "is there already, and is not from `caffe shim`"
    return None


def _foreign_package(root: Path) -> str:
    package = (root / PACKAGE).parent
    again = f"caffe shim {root}"
    if (root / MEAN).is_file():
        again += f" {package}.source/{MEAN.relative_to(PACKAGE.parent)}"
    return (
        "is a package of yours. Where it is BVLC's source, whose _caffe was never built, `import caffe` fails as soon "
        f"as {package.parent} is first on Python's path (sys.path.insert, PYTHONPATH). Take that folder off the "
        f"path: the installed caffe is then imported. Or rename the package: mv {package} {package}.source && {again}"
    )


def _is_ours(path: Path, content: bytes) -> bool:
    if not path.is_file():
        return False
    present = path.read_bytes()
    return MARK.encode() in present or present == content


def is_shim(package: Path) -> bool:
    """Whether `caffe shim` wrote the package in this folder."""
    init = package / "__init__.py"
    return init.is_file() and init.read_bytes().startswith(MARK.encode())
