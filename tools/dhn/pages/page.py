"""Tables as HTML pages that open from disk, in Markdown, and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.table import Table

from dhn.files import write_text


def environment() -> Environment:
    """Templates next to this file; a name that is not given is an error, and text is escaped."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["score"] = lambda value, digits=4: "-" if value is None else f"{value:.{digits}f}"
    templates.filters["count"] = lambda value: f"{value:,}"
    return templates


@dataclass(frozen=True)
class PageTable:
    """Another table of a page, below its heading; `legend` explains its marks. A cell that begins with ≠ stands out."""

    heading: str
    legend: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_page(
    path: Path,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    about: Sequence[str],
    lists: Mapping[str, Sequence[str]],
    plot: str | None = None,
    tables: Sequence[PageTable] = (),
) -> None:
    """Write a table as one HTML file that opens from disk: `about` above it; an <svg> plot, more tables and lists by
    heading below.

    A cell may have several lines; the first one of a row's first cell stands out.
    """
    page = environment().get_template("experiment_page.html")
    svg = None if plot is None else Markup(plot)
    facts = {"title": title, "columns": columns, "rows": rows, "about": about, "lists": lists}
    write_text(path, page.render(**facts, plot=svg, tables=tables))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def terminal(
    title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], wrap: bool = False
) -> Table:
    """A table for a terminal: the first column to the left, the others to the right; wrap: where a cell is too wide."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left", caption_justify="left")
    table.title, table.caption = title or None, caption
    for place, name in enumerate(columns):
        no_wrap = place > 0 and not wrap
        table.add_column(name, justify="right" if place else "left", no_wrap=no_wrap, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
