"""How BVLC's own tests are run and counted, on a folder of two small tests. `make conformance` runs the real ones."""

from __future__ import annotations

import pytest

import bvlc_tests

TESTS = """
import unittest, six
class TestOne(unittest.TestCase):
    def test_right(self):
        with self.assertRaisesRegexp(ValueError, "invalid literal"):
            int("x")
    def test_wrong(self):
        self.assertEqual(six.NUMBER, {})
"""


@pytest.fixture
def tests(tmp_path, monkeypatch):
    """A reference with the folder of tests and `six`; returns the file of the tests."""
    monkeypatch.setenv("REFERENCE", str(tmp_path))
    (tmp_path / bvlc_tests.SIX).parent.mkdir(parents=True)
    (tmp_path / bvlc_tests.SIX).write_text("NUMBER = 6\n")
    monkeypatch.setattr(bvlc_tests, "has_dot", lambda: True)
    (tmp_path / bvlc_tests.TESTS).mkdir(parents=True)
    return tmp_path / bvlc_tests.TESTS / "test_one.py"


def test_failures_are_counted_and_named(tests, monkeypatch):
    monkeypatch.setattr(bvlc_tests, "COUNT", 2)
    tests.write_text(TESTS.format(6))
    assert bvlc_tests.failures() == (2, [])
    tests.write_text(TESTS.format(7))
    count, (line,) = bvlc_tests.failures()
    assert count == 2 and line.startswith("BVLC's own tests: FAIL: test_wrong (test_one.TestOne")
    monkeypatch.setattr(bvlc_tests, "COUNT", 3)
    tests.write_text(TESTS.format(6))
    assert bvlc_tests.failures() == (2, ["BVLC's own tests: expected 3 to run, 2 did (exit status 0)"])
    tests.write_text("import no_such_module\n")
    count, lines = bvlc_tests.failures()
    assert "ERROR: test_one" in lines[0]


def test_what_is_missing_is_named(tests, monkeypatch):
    monkeypatch.setattr(bvlc_tests, "COUNT", 3)
    tests.write_text(TESTS.format(6))
    monkeypatch.setattr(bvlc_tests, "has_dot", lambda: False)
    assert bvlc_tests.failures() == (2, [])  # one fewer than with dot
    tests.unlink()
    tests.parent.rmdir()
    assert "run `make reference` again" in bvlc_tests.failures()[1][0]
