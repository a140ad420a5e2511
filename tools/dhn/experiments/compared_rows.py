"""Rows of the comparison: a method's MAPs by length, published or of the runs here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dhn import published
from dhn.experiments.run_table import Scored, Setting

ORDER = ["DHN", "DHN-B", "DHN-Q", "DHN-E", "ITQ-CCA", "ITQ", "SH", "LSH"]  # of methods that can be run here


@dataclass
class Row:
    """MAPs by bits; of runs here the mean over seeds, and the range over their tie orders.

    maps: with ties in database order; quoted: expected over tie orders where these decide. seeds: bits -> those that
    ran. cite: the source of a published row; "" of runs here.
    """

    setting: Setting
    is_local: bool
    cite: str = ""
    maps: dict[int, float] = field(default_factory=dict)
    quoted: dict[int, float] = field(default_factory=dict)
    ties: dict[int, tuple[float, float]] = field(default_factory=dict)
    seeds: dict[int, list] = field(default_factory=dict)
    caveats: dict[int, list[str]] = field(default_factory=dict)

    def add(self, run: Scored) -> None:
        """Take another run's scores into the mean and the range."""
        bits, scores = run.bits, run.scores
        count = len(self.seeds.setdefault(bits, []))
        for means, value in ((self.maps, scores["map"]), (self.quoted, run.quoted)):
            means[bits] = (means.get(bits, 0) * count + value) / (count + 1)
        if scores.get("map_low") is not None and scores.get("map_high") is not None:
            low, high = self.ties.get(bits, (1.0, 0.0))
            self.ties[bits] = min(low, scores["map_low"]), max(high, scores["map_high"])
        self.seeds[bits].append(run.seed)
        self.caveats.setdefault(bits, []).extend(run.caveats)

    @property
    def source(self) -> str:
        """Where the row comes from, as the table has it; of runs here, what tells them from others of their method."""
        setting = self.setting
        if not self.is_local:
            return setting.source
        words = [setting.source, setting.net or "", f"split {setting.split}" if setting.split else ""]
        words += [f"R={setting_text(setting.R)}" if setting.R else "", setting.images or "", setting.overlap or ""]
        words.append(setting.settings or "")
        longest = max(self.seeds.values(), key=len)
        if len(longest) > 1:
            words.append(f"mean of {len(longest)} {'seeds' if len(set(longest)) == len(longest) else 'runs'}")
        return ", ".join(filter(None, words))


def setting_text(value: int | str) -> str:
    """A setting as a person reads it."""
    return f"{value:,}" if isinstance(value, int) else value


def published_rows(key: str, methods: set[str]) -> list[Row]:
    """The published rows on a data set (a key of published.json) of these methods."""
    rows = []
    for row in published.rows(key):
        if row.method in methods:
            # what features the other methods stand on, the sources that were read do not say
            features = row.net if row.method in published.VARIANTS.values() else None
            setting = Setting(row.title, row.method, row.ranks, row.R, row.split, row.queries, row.database, features)
            rows.append(Row(setting, False, row.cite, row.maps))
    return rows


def local_rows(runs: Sequence[Scored], dataset: str | None) -> dict[str | None, list[Row]]:
    """The runs of a data set, a row a setting, by the key of the published rows that their split is compared with."""
    tables: dict[str | None, dict[Setting, Row]] = {}
    for run in runs:
        if run.dataset == dataset:
            key = published.key(dataset, run.setting.split)
            row = tables.setdefault(key, {}).setdefault(run.setting, Row(run.setting, True))
            if not run.cell or run.seed not in row.seeds.get(run.bits, ()):  # a run of DHN-B may be a cell as well
                row.add(run)
    return {key: sorted(rows.values(), key=_place) for key, rows in tables.items()}


def _place(row: Row) -> tuple[int, str, str]:
    method = row.setting.method
    return ORDER.index(method) if method in ORDER else len(ORDER), method, row.setting.source


def values(row: Row, bits: Sequence[int]) -> list[str]:
    """A row's MAPs to quote as text, the range over tie orders below each; * where a caveat says what one is worth."""
    texts = []
    for length in bits:
        if row.maps.get(length) is None:
            texts.append("-" if row.maps else "n/a")
            continue
        mark = "*" if row.caveats.get(length) else ""
        low, high = (f"{value:.3f}".lstrip("0") for value in row.ties.get(length, (0, 0)))
        value = row.quoted.get(length, row.maps[length])
        texts.append(f"{value:.3f}{mark}" + (f"\n{low}-{high}" if length in row.ties else ""))
    return texts


def flat(rows: Sequence[Row], bits: Sequence[int]) -> list[dict]:
    """A row for each number, for machines; MAP None where no source gives it."""
    return [
        {
            **vars(row.setting),
            "seeds": len(row.seeds.get(length, ())) or None,
            "bits": length,
            "map": row.maps.get(length),
            "quoted": row.quoted.get(length, row.maps.get(length)),
            "map_low": row.ties.get(length, (None, None))[0],
            "map_high": row.ties.get(length, (None, None))[1],
        }
        for row in rows
        for length in bits
        if not row.maps or length in row.maps
    ]
