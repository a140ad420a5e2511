"""Run a command inside the reference: BVLC Caffe 1.0 in the folder that `make reference` filled.

    python tests/conformance/reference.py python3 SCRIPT [ARGUMENT ...]
    python tests/conformance/reference.py caffe train -solver SOLVER

A path means the same inside and outside: the checkout and the folder for temporary files are bind-mounted at their
own paths in a private mount namespace, so nothing is copied and nothing stays mounted. The command starts in the
folder it was called from, which must lie in one of the two. The variable REFERENCE names another folder than
`.reference/root`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STAMP = "etc/caffe-reference"  # written by reference.sh when `import caffe` has worked in the folder
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# netlib's BLAS, which sums in one order: with OpenBLAS, five updates of CaffeNet differ by 8 % of the largest value
# between one thread and two, where rounding decides a maximum of a pooling window
BLAS = f"{LIBRARIES}/blas:{LIBRARIES}/lapack"
PASSED_ON = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GLOG_minloglevel",
    "GLOG_log_dir",
    "GLOG_logtostderr",
    "PYTHONPATH",
)

# $1 root, $2 folder to start in, $3 number of folders to show, the folders, the command.
ENTER = """
root=$1 start=$2 count=$3; shift 3
while [ "$count" -gt 0 ]; do
    mkdir -p "$root$1" && mount --rbind "$1" "$root$1" || exit 125
    shift; count=$((count-1))
done
for each in proc dev sys; do mount --rbind /$each "$root/$each" || exit 125; done
exec chroot "$root" sh -c 'cd "$1" && shift && exec "$@"' sh "$start" "$@"
"""


def folder() -> Path:
    """The reference's root folder: $REFERENCE, or `.reference/root` in the checkout."""
    return Path(os.environ.get("REFERENCE") or REPOSITORY / ".reference" / "root").resolve()


def missing() -> str | None:
    """Why the reference cannot be used, in one sentence; None when it can."""
    if not (folder() / STAMP).is_file():
        return f"no whole reference in {folder()}: run `make reference` first (BVLC Caffe 1.0, about 1 GB, 2 minutes)"
    if shutil.which("unshare") is None:
        return "the command `unshare` is not found: install the package util-linux"
    return None


def run(
    command: Sequence[str], *, cwd: Path | str = REPOSITORY, env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess:
    """`subprocess.run` of a command inside the reference.

    cwd: where it starts; in the checkout or in the folder for temporary files.
    env: variables beside PATH, HOME, LANG and LD_LIBRARY_PATH (those in PASSED_ON are taken over from the caller's
    environment).
    options: as subprocess.run's. Raises FileNotFoundError when there is no reference.
    """
    reason = missing()
    if reason:
        raise FileNotFoundError(reason)
    shown = [str(REPOSITORY), str(Path(tempfile.gettempdir()).resolve())]
    start = str(Path(cwd).resolve())
    if not any(os.path.commonpath([start, each]) == each for each in shown):
        raise ValueError(f"{start} is not seen inside the reference: start in {shown[0]} or in {shown[1]}")
    inside = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "LD_LIBRARY_PATH": BLAS}
    inside.update({name: os.environ[name] for name in PASSED_ON if name in os.environ})
    inside.update(env or {})
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    enter = ["unshare", *become_root, "--mount", "sh", "-c", ENTER, "sh"]
    return subprocess.run(
        [*enter, str(folder()), start, str(len(shown)), *shown, *command], env=inside, check=False, **options
    )


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    try:
        return run(sys.argv[1:], cwd=os.getcwd()).returncode
    except (FileNotFoundError, ValueError) as error:
        print(f"reference.py: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
