"""Tables as HTML pages that open from disk, in Markdown, and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.table import Table

from dhn.files import write_text


def environment() -> Environment:
    """Templates next to this file; a name that is not given is an error, and text is escaped."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["score"] = lambda value, digits=4: "-" if value is None else f"{value:.{digits}f}"
    found.filters["count"] = lambda value: f"{value:,}"
    return found


def write_page(path: Path, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], about: Sequence[str],
               lists: Mapping[str, Sequence[str]], plot: str | None = None) -> None:  # fmt: skip
    """Write a table as one HTML file that opens from disk: `about` above it; an <svg> plot and lists by heading below.

    A cell may have several lines; the first one of a row's first cell stands out.
    """
    page = environment().get_template("experiment_page.html")
    svg = None if plot is None else Markup(plot)
    write_text(path, page.render(title=title, columns=columns, rows=rows, about=about, lists=lists, plot=svg))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def terminal(title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal: the first column to the left, the others to the right."""
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left", caption_justify="left")
    found.title, found.caption = title, caption
    for place, name in enumerate(columns):
        found.add_column(name, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    for row in rows:
        found.add_row(*row)
    return found
