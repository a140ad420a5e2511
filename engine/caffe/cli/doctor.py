"""`caffe doctor`: what is installed, which `caffe` Python imports, and what each missing extra is for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from caffe.cli import shim
from caffe.cpu import wait_policy

PACKAGE = Path(__file__).parents[1]
DISTRIBUTION = "dhn-caffe-toolkit"

# module: (what to install, what it is for)
NEEDED = {
    "torch": ("torch", "computing"),
    "numpy": ("numpy", "arrays"),
    "google.protobuf": ("protobuf", "prototxt, caffemodel, solverstate"),
    "lmdb": ("lmdb", "LMDB databases"),
    "h5py": ("h5py", "HDF5 files"),
    "cv2": ("opencv-python-headless", "decoding and resizing images"),
    "scipy": ("scipy", "caffe.io's resizing"),
}
EXTRAS = {
    "plyvel": ("plyvel", "LevelDB databases (backend: LEVELDB)"),
    "grpc_tools": ("grpcio-tools", "-proto FORK.proto: the messages of a fork of Caffe"),
    "matplotlib": ("matplotlib", "plot_training_log"),
    "pydot": ("pydot", "caffe.draw.get_pydot_graph (draw_net does without)"),
    "pandas": ("pandas", "detect's output as HDF5"),
    "tables": ("tables", "detect's output as HDF5"),
}
PROGRAMS = {"dot": ("graphviz", "draw_net's png, pdf and svg")}


def describe(origin: Path) -> str:
    """What the `caffe` at `origin` is: its package folder, or its one module."""
    if origin.resolve() == PACKAGE.resolve():
        return "this engine"
    if shim.is_shim(origin):
        return "what `caffe shim` wrote: it gives the engine"
    if not origin.is_dir():
        return "a module that is no Caffe: rename it, it hides every other caffe"
    names = {path.name for path in origin.iterdir() if path.name != "__pycache__"}
    built = [name for name in names if name.startswith("_caffe.") and name.endswith((".so", ".pyd"))]
    if built:
        return f"BVLC's pycaffe or a fork's, built ({built[0]})"
    if "pycaffe.py" in names or "_caffe.cpp" in names:
        return "half a source tree: Caffe's python folder whose _caffe was never built; `import caffe` fails there"
    if "__init__.py" not in names:
        return "a folder without __init__.py: Python takes it for an empty package where no other caffe is on the path"
    if names == {"__init__.py"} and (origin / "__init__.py").stat().st_size < 1000:
        return "an empty package: `import caffe` works there and gives nothing"
    return "another package of that name"


def candidates(path: list[str]) -> Iterator[Path]:
    """The packages and modules named `caffe` on `path`, in the order in which Python looks."""
    visited, spaces = set(), []
    for entry in path:
        folder = entry or os.getcwd()
        spec = PathFinder.find_spec("caffe", [folder])
        if spec is None:
            continue
        complete = spec.origin is not None
        locations = list(spec.submodule_search_locations or [])
        origin = Path(locations[0] if locations else spec.origin or folder)
        if origin.resolve() in visited:
            continue
        visited.add(origin.resolve())
        if complete:
            yield origin
        else:
            spaces.append(origin)  # a folder without __init__.py counts only where nothing else is found
    yield from spaces


def _search_path() -> list[str]:
    """sys.path of a script that lies in the working directory: the first entry, of this command, is replaced."""
    return ["", *(entry for entry in sys.path[1:] if entry)]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_placeholder() -> bool:
    """Whether a distribution named caffe is installed that holds no module."""
    try:
        files = importlib.metadata.distribution("caffe").files or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return not any(file.suffix in (".py", ".so", ".pyd", ".pth") for file in files)


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _packages(table: dict[str, tuple[str, str]]) -> tuple[list[str], bool]:
    """(a line for each package, whether all are there)."""
    lines, complete = [], True
    for module, (name, purpose) in table.items():
        present = _present(module)
        complete &= present
        state = _version(name) or "installed" if present else f"missing: pip install {name}"
        lines.append(f"  {name:24} {state:32} {purpose}")
    return lines, complete


def _torch() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"built for CUDA {built}, no device found" if built else "built for the CPU only"
        return [f"  CUDA                     not available           torch {torch.__version__} is {why}"]
    return [
        f"  CUDA {torch.version.cuda}, device {number}: {torch.cuda.get_device_name(number)}, "
        f"{torch.cuda.get_device_properties(number).total_memory >> 20} MiB"
        for number in range(torch.cuda.device_count())
    ]


def _kernels() -> str:
    from caffe.cpu import kernels

    built = kernels.library_file().name if kernels.LIBRARY is not None else "not built: slower"
    return f"  {'kernels.c':24} {built:32} convolution, pooling and LRN on a CPU"


def _threads() -> str:
    return f"  {'threads wait':24} {wait_policy.POLICY}"


def _imports() -> tuple[list[str], bool]:
    """(what `import caffe` finds, whether that is this engine)."""
    packages = list(candidates(_search_path()))
    lines = [f"`import caffe` in {os.getcwd()} finds"]
    for number, origin in enumerate(packages):
        lines.append(f"  {'->' if number == 0 else '  '} {origin}: {describe(origin)}")
    if not packages:
        lines.append("  nothing: this engine is not on Python's path")
    right = bool(packages) and (packages[0].resolve() == PACKAGE.resolve() or shim.is_shim(packages[0]))
    if _is_placeholder():
        lines.append(
            f"  The package `caffe` {_version('caffe')} of PyPI, what `pip install caffe` gives, is installed too: "
            "an empty placeholder without a module; pip uninstall caffe"
        )
    if packages and not right:
        lines.append(f"  The engine, {PACKAGE}, comes later or not at all: take the first away from Python's path")
    return lines, right


def report() -> int:
    """Print everything; returns 0 where `import caffe` finds this engine and nothing that it needs is missing."""
    version = _version(DISTRIBUTION) or "not installed (run from its source)"
    print(f"{DISTRIBUTION} {version}, the engine in {PACKAGE}")
    print(f"Python {platform.python_version()} at {sys.executable}, {platform.platform()}")
    lines, right = _imports()
    print("\n".join(lines))
    needed, complete = _packages(NEEDED)
    print("\n".join(["Needed", *needed, *([_kernels(), _threads(), *_torch()] if _present("torch") else [])]))
    print("\n".join(["Extras", *_packages(EXTRAS)[0]]))
    for program, (name, purpose) in PROGRAMS.items():
        print(f"  {program:24} {shutil.which(program) or f'missing: install {name}':32} {purpose}")
    return 0 if right and complete else 1
