"""Build hook of a wheel: compile the files kernels.c, and pack the tools into the package dhn.

Without a C compiler (CC, by default cc), or where it fails, the package is installed all the same: nets compute by
torch alone, scoring and search by numpy, more slowly.
"""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY_FILE = Path(__file__).with_name("engine") / "caffe" / "cpu" / "library_file.py"
# sqrt sets no errno and nobody reads the floating-point exceptions, or loops with it stay scalar
FLAGS = ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]

# The folders of the files kernels.c: further flags, and what happens where one is not compiled. Scoring has threads of
# its own: it shall not load another OpenMP than torch's.
KERNELS = {
    # the products of a convolution: their sums take half the instructions
    "engine/caffe/cpu": (
        ["-fopenmp", "-ffp-contract=fast"],
        "convolution, pooling and LRN will be computed by torch alone, more slowly",
    ),
    "tools/dhn/scoring": ([], "scoring will be computed by numpy, more slowly"),
    # a fused multiply-add of its products, which are exact, gives what two operations do
    "tools/dhn/search": (["-ffp-contract=fast"], "an index will be searched by numpy, more slowly"),
}


# What the command `dhn` of a user without a checkout runs and reads: the files, and the folder of the wheel that has
# them. A wheel puts no modules but packages on everybody's path. tools/dhn/layout.py finds them.
PARTS = {
    "tools/*.py": "dhn/commands",
    "python_layers/*.py": "dhn/python_layers",
    "prototxt/*.py": "dhn/prototxt",
    "data/*/recipe.json": "dhn/data",
    "data/fashion_mnist/label_names.txt": "dhn/data",
}


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if self.target_name != "wheel":
            return
        if version == "standard":  # not of an editable installation, which uses the checkout's files
            build_data["force_include"] |= parts(Path(self.root))
        for folder in KERNELS:
            library = compiled(Path(self.root, folder, "kernels.c"), self.app.display_warning, *KERNELS[folder])
            if library is None:
                continue
            build_data["artifacts"].append(f"/{folder}/{library.name}")
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


def parts(root: Path) -> dict[str, str]:
    """PARTS of a checkout, file by file: {path: its path in the wheel}."""
    files = [(path, pattern, folder) for pattern, folder in PARTS.items() for path in sorted(root.glob(pattern))]
    return {str(path): f"{folder}/{path.relative_to(root / pattern.split('/')[0])}" for path, pattern, folder in files}


def compiled(source: Path, warn, flags: list[str], consequence: str) -> Path | None:
    """Build `source`, with FLAGS and `flags`, into the file that is looked for next to it, and remove older sources'.

    Where that fails: None, after a warning with what follows from it.
    """
    library = runpy.run_path(str(LIBRARY_FILE))["library_file"](source)
    compiler = shlex.split(os.environ.get("CC") or "cc")
    partial = library.with_suffix(".partial")
    try:
        subprocess.run(
            [*compiler, *FLAGS, *flags, "-o", str(partial), str(source)], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        partial.unlink(missing_ok=True)
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        warn(f"{source.name} was not compiled by {compiler[0]!r} ({said[-1] if said else error}): "
             f"{consequence}")  # fmt: skip
        return None
    partial.replace(library)
    for old in source.parent.glob("kernels-*.so"):
        if old != library:
            old.unlink()
    return library
