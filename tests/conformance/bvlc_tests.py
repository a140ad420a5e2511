"""Run pycaffe's own tests, BVLC's, against the engine: `make conformance`, or

    python tests/conformance/bvlc_tests.py [TEST ...]     e.g. test_net.TestNet.test_memory

They lie in the reference (`make reference` puts them there). The tests of caffe.draw need Graphviz's program dot.
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
SIX = "usr/lib/python3/dist-packages/six.py"  # a module that the tests import, of Debian's


def failures() -> tuple[int, list[str]]:
    """(how many tests ran, a line for each that failed or cannot run)."""
    if not (reference.folder() / TESTS).is_dir():
        return 0, [f"BVLC's own tests: not in {reference.folder() / TESTS}: run `make reference` again"]
    if shutil.which("dot") is None:
        return 0, ["BVLC's own tests: they draw nets with Graphviz's program dot, and there is none: install graphviz"]
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
    if count != COUNT:
        lines.append(f"BVLC's own tests: expected {COUNT} to run, {count} did (exit status {done.returncode})")
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
        names = sys.argv[1:] or [path.stem for path in sorted(tests.glob("test_*.py"))]
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
