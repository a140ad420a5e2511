"""Answer the cases with whichever `caffe` Python imports: in the reference to record, on the engine to compare.

    python run_cases.py OUT [PREFIX ...]

Writes OUT/<group>.npz (see storage.py), the group being what stands before the case's `/`; a case that raised has the
one value `error`. Only the cases whose name begins with a PREFIX, if any is given. Needs numpy and
caffe only (Python 3.9 and numpy 1.19 in the reference).
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

if __name__ == "__main__":  # a test that imports this keeps its environment
    os.environ.setdefault("GLOG_minloglevel", "2")  # before caffe is imported: errors only
    sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np

import cases
import fixtures
import storage


def answer(name: str, folder: str) -> dict:
    """A case's values by name. folder: one where fixtures.write has been; nets are written there."""
    return {key: np.asarray(value) for key, value in cases.ALL[name].run(folder).items()}


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    out, prefixes = sys.argv[1], tuple(sys.argv[2:]) or ("",)
    os.makedirs(out, exist_ok=True)
    groups: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        fixtures.write(folder)
        for name in cases.ALL:
            if not name.startswith(prefixes):
                continue
            with open(os.path.join(out, "running"), "w") as file:
                file.write(name + "\n")  # the case to look at when the process is aborted
            try:
                values = answer(name, folder)
            except Exception as error:
                traceback.print_exc()
                values = {"error": np.asarray("%s: %s" % (type(error).__name__, error))}
            groups.setdefault(name.split("/")[0], {})[name] = values
    if groups:
        os.remove(os.path.join(out, "running"))
    for group, answers in groups.items():
        storage.save(os.path.join(out, group + ".npz"), answers)
    print("%d cases answered in %s" % (sum(name.startswith(prefixes) for name in cases.ALL), out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
