"""The comparison of a data set's published MAPs with those of the runs here: printed, and written under runs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dhn import published
from dhn.experiments.compared_rows import Row, flat, local_rows, published_rows, values
from dhn.experiments.compared_settings import COLUMNS, LEGEND, notes, settings_rows
from dhn.experiments.measure import LENGTHS
from dhn.experiments.run_table import Scored
from dhn.files import write_csv, write_json
from dhn.pages.page import PageTable, terminal, write_page
from dhn.progress import console

ABREAST = 4  # lengths that a terminal has room for next to each other
CAPTION = (
    "With each number here: the range over tie orders; where these decide, it is the expected value. n/a: no "
    "source gives it; -: not at this length; *: see the caveats."
)


def compare(dataset: str | None, bits: Sequence[int] | None, runs: Sequence[Scored], root: Path) -> bool:
    """Print and write the comparison of a data set; a split with published numbers of its own has one of its own.

    dataset: None for the runs whose data set is not known. bits: None for the paper's lengths and those of the runs.
    Returns False where there is nothing to compare.
    """
    is_written = False
    tables = local_rows(runs, dataset) or {dataset: []}
    for key, local in sorted(tables.items(), key=lambda table: str(table[0])):
        rows, stand_in = _published(key, local)
        rows += local
        chosen = bits or sorted({*LENGTHS, *(length for row in local for length in row.maps)})
        rows = [row for row in rows if not row.maps or set(row.maps) & set(chosen)]
        if any(row.maps for row in rows):
            is_written = True
            write(dataset, key, rows, stand_in, chosen, root)
    return is_written


def _published(key: str | None, local: Sequence[Row]) -> tuple[list[Row], tuple[str, str] | None]:
    """The published rows to compare with, and where they are of another data set, which one and why."""
    if key is None:
        return [], None
    methods = {*published.VARIANTS.values(), *(row.setting.method for row in local)}
    rows, stand_in = published_rows(key, methods), None
    if not rows and (stand_in := published.stand_in_for(key)):
        rows = published_rows(stand_in[0], methods)
    return rows, stand_in


def write(
    dataset: str | None,
    key: str | None,
    rows: Sequence[Row],
    stand_in: tuple[str, str] | None,
    bits: Sequence[int],
    root: Path,
) -> None:
    """Print a comparison and write its files."""
    title = f"{published.title(key)}: published and here" if key else "Runs of an unknown data set"
    settings, sentences = settings_rows(rows), notes(rows, stand_in)
    setting_columns, setting_lines = ["settings", *COLUMNS.values()], [row.texts() for row in settings]
    caveats = [line for row in rows for length in bits for line in row.caveats.get(length, ())]
    print_maps(title, rows, bits)
    console.print(terminal("", LEGEND, setting_columns, setting_lines, wrap=True))
    for line in (*caveats, *sentences):
        console.print(f"- {line}", markup=False)
    out = root / "runs" / f"compare-{key or 'unknown'}.csv"
    facts = flat(rows, bits)
    write_csv(out, facts)
    about = {"dataset": dataset, "rows": facts, "settings": [row.facts() for row in settings]}
    write_json(out.with_suffix(".json"), {**about, "notes": sentences, "caveats": caveats})
    sources = list(dict.fromkeys(f"{row.setting.source}: {row.cite}." for row in rows if row.cite))
    lines = [[f"{row.setting.method}\n{row.source}", *values(row, bits)] for row in rows]
    write_page(
        out.with_suffix(".html"),
        title,
        ["MAP", *(f"{length} bits" for length in bits)],
        lines,
        [CAPTION],
        {"Caveats": caveats, "Notes": sentences, "Sources": sources},
        tables=[PageTable("Settings", LEGEND, setting_columns, setting_lines)],
    )
    console.print(f"wrote runs/{out.name}, .json and .html")


def print_maps(title: str, rows: Sequence[Row], bits: Sequence[int]) -> None:
    """Print the MAPs, ABREAST lengths a table; rows that have none of its lengths are left out."""
    for start in range(0, len(bits), ABREAST):
        part = bits[start : start + ABREAST]
        chosen = [row for row in rows if set(row.maps) & set(part) or not (row.maps or start)]
        lines = [[row.source, row.setting.method, *values(row, part)] for row in chosen]
        columns = ["MAP", "method", *(f"{length} bits" for length in part)]
        console.print(terminal(title, "" if start + ABREAST < len(bits) else CAPTION, columns, lines))
