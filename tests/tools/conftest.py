"""A real browser for the tests of pages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(browser)


@pytest.fixture
def chromium(tmp_path):
    """A headless Chromium: chromium.visit(page, width, dark) says what became of a page."""
    if browser.PROGRAM is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with browser.Browser(tmp_path / "profile") as opened:
        yield opened
