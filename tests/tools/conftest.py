"""What several of the tests need: the lists of a data set, a real browser for pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import browser
import finished_run
import pytest


@pytest.fixture
def make_lists() -> Callable[[Path], dict[str, str]]:
    """make_lists(folder) writes lists of one image each and their split.json; it returns the lists' SHA-256."""
    return finished_run.write_lists


@pytest.fixture(params=["C", "numpy"])
def way(request, monkeypatch):
    """How the module `kernels` of a test computes: by kernels.c, and by plain.py as without a C compiler."""
    kernels = request.module.kernels
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "LIBRARY", None)
    elif kernels.LIBRARY is None:
        pytest.skip("kernels.c is not compiled: no C compiler")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A headless Chromium: chromium.visit(page, width, dark) says what became of a page."""
    if browser.PROGRAM is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with browser.Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def shown(chromium):
    """shown(page) opens a page on a phone and, dark, on a wide screen, checks what every page here promises, and
    returns what was seen each time."""

    def look(page: Path) -> list[dict]:
        found = []
        for width, dark in ((390, False), (1200, True)):
            seen = chromium.visit(page, width, dark)
            assert seen["errors"] == [] and seen["asked"] == []
            assert all(seen["widths"]), "every image is decoded"
            assert seen["wide"] <= width, "nothing sticks out of the screen"
            assert seen["smallest"] >= 13 and seen["labelled"], "tables can be read, also scrolled to their ends"
            assert (seen["background"] == "rgb(255, 255, 255)") == (not dark)
            found.append(seen)
        return found

    return look


@pytest.fixture
def undrawn(monkeypatch):
    """Pages are written without their drawings, which take a second: for tests that look at the words."""
    from dhn.pages import plots  # and with it matplotlib

    monkeypatch.setattr(plots, "drawn", lambda draw, label, size=plots.SIZE: "<svg></svg>")
