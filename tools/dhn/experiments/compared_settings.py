"""The settings of the compared rows as a table, in which a published cell is marked where the runs here differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dhn import published
from dhn.experiments.compared_rows import Row, setting_text
from dhn.experiments.run_table import Setting

COLUMNS = {  # field of Setting -> heading
    "ranks": "ranked by",
    "R": "R",
    "split": "split",
    "queries": "queries",
    "database": "database",
    "net": "net or features",
}
OF_RUNS = ("protocol", "images", "overlap", "settings")  # fields that no published source states
DIFFERS, UNKNOWN = "≠", "?"
LEGEND = (
    f"{DIFFERS}: a run of the same method here has another value. {UNKNOWN}: the source does not state it; of a run "
    "here: its files do not say."
)


@dataclass
class SettingsRow:
    """A setting, the methods that have it, and the fields in which the runs here differ from it."""

    setting: Setting
    differs: tuple[str, ...]
    methods: list[str] = field(default_factory=list)

    def texts(self) -> list[str]:
        """The cells of the table: the source with its methods, then a cell for each of COLUMNS."""
        facts = vars(self.setting)
        more = [f"{name} {facts[name]}" for name in OF_RUNS if facts[name] is not None]
        title = f"{self.setting.source} ({', '.join(self.methods)})"
        cells = [UNKNOWN if facts[name] is None else setting_text(facts[name]) for name in COLUMNS]
        marks = [f"{DIFFERS} " if name in self.differs else "" for name in COLUMNS]
        return ["\n".join([title, *more]), *(mark + cell for mark, cell in zip(marks, cells, strict=True))]

    def facts(self) -> dict:
        """The row for machines."""
        facts = {name: value for name, value in vars(self.setting).items() if name != "method"}
        return {**facts, "methods": self.methods, "differs": list(self.differs)}


def differing(setting: Setting, others: Sequence[Setting]) -> tuple[str, ...]:
    """The fields of COLUMNS that a setting states and one of the others states differently."""
    return tuple(
        name
        for name in COLUMNS
        if (value := getattr(setting, name)) is not None
        and any(getattr(other, name) not in (None, value) for other in others)
    )


def settings_rows(rows: Sequence[Row]) -> list[SettingsRow]:
    """A row for each setting, in the order of the rows. Published ones are told from the runs here of their method."""
    table: dict[tuple, SettingsRow] = {}
    for row in rows:
        setting = row.setting
        local = [other.setting for other in rows if other.is_local and other.setting.method == setting.method]
        # a row without numbers has nothing to compare
        differs = () if row.is_local or not row.maps else differing(setting, local)
        key = differs, *(value for name, value in vars(setting).items() if name != "method")
        table.setdefault(key, SettingsRow(setting, differs)).methods.append(setting.method)
    return list(table.values())


def notes(rows: Sequence[Row], stand_in: tuple[str, str] | None) -> list[str]:
    """Sentences on what the tables cannot show. stand_in: the data set that the published rows are of, and why."""
    lines = []
    if stand_in:
        lines.append(f"The published numbers are of {published.title(stand_in[0])}, another data set: {stand_in[1]}.")
    local = [row for row in rows if row.is_local]
    for form in dict.fromkeys(row.setting.images for row in local if row.setting.images):
        lines.append(f"{form}: the images of these runs are not the original pixels.")
    if missing := [row.setting.method for row in rows if not row.is_local and not row.maps]:
        lines.append(f"n/a: no source that could be read gives the numbers of {', '.join(missing)}.")
    if local:
        lines.append("The published numbers come without the range that their order of ties leaves open.")
    return list(dict.fromkeys(lines))
