"""Write the locks: every package that `make` installs, with the SHA-256 of each of its files (`make lock`).

    python locks/lock.py

uv resolves requirements.txt for all Pythons and machines at once. A version that a lock has already stays while it
fits; without the lock the newest is taken.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = FOLDER.parent / "requirements.txt"
OLDEST = "3.10"  # of the Pythons that pyproject.toml allows
PACKAGES, CPU, CUDA = (FOLDER / name for name in ("packages.txt", "torch_cpu.txt", "torch_cuda.txt"))
HEADERS = {
    PACKAGES: "All packages but torch.",
    CPU: "torch without CUDA, from an index or folder that has such builds.",
    CUDA: "torch as PyPI has it, and CUDA's libraries.",
}
IN_CUDA = re.compile(r"torch==|triton==|nvidia-|cuda-")  # how the entries of CUDA's lock begin


def entries(text: str) -> list[str]:
    """The entries of a lock: a package's version, its marker and its hashes, a line each."""
    return re.findall(r"^[a-z0-9][^\n]*\n(?: +--hash[^\n]*\n)+", text, re.MULTILINE)


def compile_lock(requirements: str, *options: str, old: str = "") -> list[str]:
    """Entries of what `requirements` names and of all that this needs, for every Python and machine.

    old: the entries of the lock before. Raises subprocess.CalledProcessError, with what uv printed, where the packages
    cannot be had together.
    """
    command = [
        str(Path(sys.executable).with_name("uv")), "pip", "compile", "--universal", "--python-version", OLDEST,
        "--generate-hashes", "--no-annotate", "--no-header", "--quiet", *options, "-",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "lock.txt")
        lock.write_text(old)
        command += ["--output-file", str(lock)]
        subprocess.run(command, input=requirements, capture_output=True, text=True, check=True)
        return entries(lock.read_text())


def write(lock: Path, rows: list[str]) -> None:
    """Write a lock, its entries under a header."""
    lock.write_text(f"# {HEADERS[lock]} Written by `make lock`; README.md here says how.\n" + "".join(rows))


def main() -> int:
    """Write the three locks; returns the exit status."""
    requirements = REQUIREMENTS.read_text()
    old = "".join(lock.read_text() for lock in (PACKAGES, CUDA) if lock.exists())
    try:
        # pip comes with Python: what installs is not replaced while it does
        rows = compile_lock(requirements, "--no-emit-package", "pip", old=old)
    except subprocess.CalledProcessError as error:
        print(f"{REQUIREMENTS}: {error.stderr}", end="", file=sys.stderr)
        return 1
    write(PACKAGES, [row for row in rows if not IN_CUDA.match(row)])
    write(CUDA, [row for row in rows if IN_CUDA.match(row)])
    (pin,) = re.findall(r"^torch==[\w.]+$", requirements, re.MULTILINE)
    try:
        write(CPU, compile_lock(f"{pin}+cpu\n", "--torch-backend", "cpu", "--no-deps"))
    except subprocess.CalledProcessError as error:
        if not CPU.exists() or not any(row.startswith(f"{pin}+cpu ") for row in entries(CPU.read_text())):
            print(f"{CPU}: the index of torch's CPU builds is needed: {error.stderr}", end="", file=sys.stderr)
            return 1
        print(f"{CPU.name} stays as it is: the index of torch's CPU builds does not answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
