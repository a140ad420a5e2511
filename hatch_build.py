"""Build hook: compile engine/caffe/cpu/kernels.c, where there is a C compiler (CC, by default cc).

Without one, or where it fails, the package is installed all the same and computes by torch alone, more slowly.
"""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# sqrt sets no errno and nobody reads the floating-point exceptions, or loops with it stay scalar
FLAGS = ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        source = Path(self.root, "engine", "caffe", "cpu", "kernels.c")
        library = compiled(source, self.app.display_warning)
        if library is not None:
            build_data["artifacts"].append(f"/engine/caffe/cpu/{library.name}")
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


def compiled(source: Path, warn) -> Path | None:
    """Build `source` into the file that kernels.py looks for, and remove what older sources were built into."""
    library = runpy.run_path(str(source.with_name("library_file.py")))["library_file"](source)
    compiler = shlex.split(os.environ.get("CC") or "cc")
    partial = library.with_suffix(".partial")
    try:
        subprocess.run([*compiler, *FLAGS, "-o", str(partial), str(source)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        partial.unlink(missing_ok=True)
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        warn(f"{source.name} was not compiled by {compiler[0]!r} ({said[-1] if said else error}): "
             "convolution, pooling and LRN on a CPU will be computed by torch alone, more slowly")  # fmt: skip
        return None
    partial.replace(library)
    for old in source.parent.glob("kernels-*.so"):
        if old != library:
            old.unlink()
    return library
