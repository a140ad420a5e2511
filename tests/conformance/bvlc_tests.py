"""Run pycaffe's own tests, BVLC's, against the engine: `make conformance`, or

    python tests/conformance/bvlc_tests.py [TEST ...]     e.g. test_net.TestNet.test_memory

They lie in the reference (`make reference` puts them there). The one of caffe.draw needs Graphviz's program dot, and is
left out where there is none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import reference

TESTS = "usr/src/caffe/python/caffe/test"
COUNT = 52  # of the version that Debian 11 packages
DRAW = "test_draw"  # one test
SIX = "usr/lib/python3/dist-packages/six.py"  # a module that the tests import, of Debian's


def has_dot() -> bool:
    """Whether nets can be drawn as pictures."""
    return shutil.which("dot") is not None


def failures() -> tuple[int, list[str]]:
    """(how many tests ran, a line for each that failed or cannot run)."""
    if not (reference.folder() / TESTS).is_dir():
        return 0, [f"BVLC's own tests: not in {reference.folder() / TESTS}: run `make reference` again"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    lines = [f"BVLC's own tests: {line}" for line in re.findall(r"(?m)^(?:FAIL|ERROR): .*", done.stdout)]
    ran = re.search(r"(?m)^Ran (\d+) tests", done.stdout)
    count = int(ran[1]) if ran else 0
    expected = COUNT if has_dot() else COUNT - 1
    if count != expected:
        lines.append(f"BVLC's own tests: expected {expected} to run, {count} did (exit status {done.returncode})")
    elif done.returncode and not lines:
        lines.append(f"BVLC's own tests: exit status {done.returncode}")
    return count, lines


def main() -> int:
    tests = reference.folder() / TESTS
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "six.py").symlink_to(reference.folder() / SIX)
        sys.path[:0] = [str(tests), folder, str(reference.REPOSITORY / "engine")]
        if not hasattr(unittest.TestCase, "assertRaisesRegexp"):  # Python 3.12 has its new name alone
            unittest.TestCase.assertRaisesRegexp = unittest.TestCase.assertRaisesRegex
        modules = [path.stem for path in sorted(tests.glob("test_*.py"))]
        names = sys.argv[1:] or [name for name in modules if name != DRAW or has_dot()]
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
