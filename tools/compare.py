"""The published MAPs and those of the runs here side by side, and in words in which settings they differ.

    python tools/compare.py [cifar10] [--bits 12 24 32 48]

For each data set (all that have runs or published numbers, unless one is named): the paper's rows, later re-runs of
DHN, and each scored run and baseline under runs/, with what ranks, R, the split, the number of database images, the
net, and the range that ties leave. What a source does not say stays open, and a number that no source gives is "n/a".
A run is measured under the protocol that is nearest to the published tables: AP at the hits in the top R of its split.
A number that the order of ties decides is its expected value. Lengths are the paper's four and those of the runs here.
A run made by hand has a row of its own, with what is known of it; those whose data set is not known stand in a table of
their own. A file of scores that cannot be read is named.

Writes runs/compare-<dataset>.csv, .json and .html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dhn  # noqa: F401  first: it says so where the project is not installed

# isort: split
import net
from dhn import published
from dhn.experiments.measure import LENGTHS
from dhn.experiments.run_table import Scored, Setting, read_runs
from dhn.files import write_csv, write_json
from dhn.pages.page import terminal, write_page
from dhn.progress import console
from dhn.runs.folder import ROOT

ORDER = ["DHN", "DHN-B", "DHN-Q", "DHN-E", "ITQ-CCA", "ITQ", "SH", "LSH"]  # of methods that can be run here
ABREAST = 4  # lengths that a terminal has room for next to each other


@dataclass
class Row:
    """MAPs by bits; here the mean over seeds, and the range over their tie orders. seeds: bits -> those that ran.

    maps: with ties in database order; quoted: expected over tie orders where these decide.
    """

    setting: Setting
    here: bool
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
        """Where the row comes from, as the table says it; of a run here, what tells it from others of its method."""
        setting = self.setting
        if not self.here:
            return setting.source
        words = [setting.source, setting.net, setting.split and f"split {setting.split}"]
        words += [setting.R and f"R={setting_text(setting.R)}", setting.images, setting.overlap, setting.settings]
        longest = max(self.seeds.values(), key=len)
        if len(longest) > 1:
            words.append(f"mean of {len(longest)} {'seeds' if len(set(longest)) == len(longest) else 'runs'}")
        return ", ".join(filter(None, words))


def published_rows(key: str, methods: set[str]) -> list[Row]:
    """The published rows on a data set (a key of published.json) of these methods."""
    found = []
    for row in published.rows(key):
        if row.method in methods:
            # what features the other methods stand on, the sources that were read do not say
            features = row.net if row.method in published.VARIANTS.values() else None
            setting = Setting(row.title, row.method, row.ranks, row.R, row.split, row.queries, row.database, features)
            found.append(Row(setting, False, row.cite, row.maps))
    return found


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


def difference(one: Setting, other: Setting) -> str:
    """A sentence saying in which settings a published row and a run here differ, and what the source leaves open."""
    fields = {
        "ranks": "what ranks",
        "R": "R",
        "split": "the split",
        "queries": "the number of queries",
        "database": "the number of database images",
        "net": "the net or features",
    }
    differ, silent = [], []
    for name, words in fields.items():
        left, right = getattr(one, name), getattr(other, name)
        if left is None:
            silent.append(words)
        elif right is not None and left != right:
            differ.append(f"{words} ({setting_text(left)} there, {setting_text(right)} here)")
    if len(silent) == len(fields):
        return f"{one.method} in {one.source}: the source states no setting, so what differs from here is not known."
    place = "here" if other.source == "here" else f"in {other.source}"
    parts = [f"differ in {join_words(differ)}"] if differ else ["agree in what the source states"]
    if silent:
        parts.append(f"the source does not state {join_words(silent)}")
    return f"{one.method} in {one.source} and {other.method} {place} {'; '.join(parts)}."


def join_words(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def setting_text(value: int | str) -> str:
    """A setting as a person reads it."""
    return f"{value:,}" if isinstance(value, int) else value


def sentences(rows: Sequence[Row], stand_in: tuple[str, str] | None) -> list[str]:
    """For each published source and each setting here, what differs: the same methods where there are, else DHN."""
    lines = []
    if stand_in:
        lines.append(f"The published numbers are of {published.title(stand_in[0])}, another data set: {stand_in[1]}.")
    local = [row for row in rows if row.here]
    for row in rows:
        if row.here or not row.maps:
            continue
        same = [each for each in local if each.setting.method == row.setting.method]
        lines += [difference(row.setting, each.setting) for each in same]
    for form in dict.fromkeys(row.setting.images for row in local if row.setting.images):
        lines.append(f"{form}: the images of these runs are not the original pixels.")
    missing = [row.setting.method for row in rows if not row.here and not row.maps]
    if missing:
        lines.append(f"n/a: no source that could be read gives the numbers of {join_words(missing)}.")
    if local:
        lines.append("The published numbers come without the range that their order of ties leaves open.")
    return list(dict.fromkeys(lines))


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


def settings(rows: Sequence[Row]) -> list[str]:
    """A line for each setting: of which methods, and what is known of it."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        setting = row.setting
        facts = {
            "ranked by": setting.ranks,
            "R": setting.R,
            "split": setting.split,
            "queries": setting.queries,
            "database": setting.database,
            "net or features": setting.net,
            "protocol": setting.protocol,
            "images": setting.images,
            "overlap": setting.overlap,
            "settings": setting.settings,
        }
        known = ", ".join(f"{name} {setting_text(value)}" for name, value in facts.items() if value is not None)
        found.setdefault((setting.source, known), []).append(setting.method)
    lines = ((source, ", ".join(methods), known) for (source, known), methods in found.items())
    return [f"{source} ({methods}): {known or 'no setting is stated'}" for source, methods, known in lines]


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


def compare(dataset: str | None, bits: Sequence[int] | None, runs: Sequence[Scored], root: Path = ROOT) -> bool:
    """Print and write the comparison of a data set; a split with published numbers of its own has one of its own.

    dataset: None for the runs whose data set is not known. bits: None for the paper's lengths and those of the runs.
    Returns False where there is nothing to compare.
    """
    some = False
    tables = local_rows(runs, dataset) or {dataset: []}
    for key, local in sorted(tables.items(), key=lambda table: str(table[0])):
        methods = {*published.VARIANTS.values(), *(row.setting.method for row in local)}
        rows, stand_in = published_rows(key, methods), None
        if not rows and (stand_in := published.stand_in_for(key)):
            rows = published_rows(stand_in[0], methods)
        rows = [*rows, *local]
        chosen = bits or sorted({*LENGTHS, *(length for row in local for length in row.maps)})
        rows = [row for row in rows if not row.maps or set(row.maps) & set(chosen)]
        if any(row.maps for row in rows):
            some = True
            write(dataset, key, rows, stand_in, chosen, root)
    return some


def write(
    dataset: str | None, key: str | None, rows: Sequence[Row], stand_in: tuple | None, bits: Sequence[int], root: Path
) -> None:
    """Print a comparison and write its files."""
    title = f"{published.title(key)}: published and here" if key else "Runs of an unknown data set"
    caption = (
        "With each number here: the range over tie orders; where these decide, it is the expected value. n/a: no "
        "source gives it; -: not at this length; *: see the caveats."
    )
    differences, lengths = sentences(rows, stand_in), [f"{length} bits" for length in bits]
    caveats = [line for row in rows for length in bits for line in row.caveats.get(length, ())]
    for start in range(0, len(bits), ABREAST):
        part = bits[start : start + ABREAST]
        chosen = [row for row in rows if set(row.maps) & set(part) or not (row.maps or start)]
        lines = [[row.source, row.setting.method, *values(row, part)] for row in chosen]
        columns = ["MAP", "method", *lengths[start : start + ABREAST]]
        console.print(terminal(title, "" if start + ABREAST < len(bits) else caption, columns, lines))
    lists = {"Caveats": caveats, "Settings": settings(rows), "What differs": differences}
    for line in (line for lines in lists.values() for line in lines):
        console.print(f"- {line}", markup=False)
    out = root / "runs" / f"compare-{key or 'unknown'}.csv"
    facts = flat(rows, bits)
    write_csv(out, facts)
    about = {"dataset": dataset, "rows": facts, "differences": differences, "caveats": caveats}
    write_json(out.with_suffix(".json"), about)
    lists["Sources"] = list(dict.fromkeys(f"{row.setting.source}: {row.cite}." for row in rows if row.cite))
    lines = [[f"{row.setting.method}\n{row.source}", *values(row, bits)] for row in rows]
    write_page(out.with_suffix(".html"), title, ["MAP", *lengths], lines, [caption], lists)
    console.print(f"wrote runs/{out.name}, .json and .html")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Published MAPs and those of the runs here, side by side.")
    parser.add_argument("dataset", nargs="?", help="default: all that have runs or published numbers")
    parser.add_argument("--bits", nargs="+", type=int, help="default: 12 24 32 48, and those of the runs here")
    options = parser.parse_args(arguments)
    try:
        runs, unusable = read_runs(ROOT)
        names = [*net.DATASETS, *(path.parent.name for path in sorted(ROOT.glob("data/*/split.json")))]
        names = list(dict.fromkeys([*names, *sorted({run.dataset for run in runs if run.dataset})]))
        chosen = [options.dataset] if options.dataset else [*names, None]
        done = [dataset for dataset in chosen if compare(dataset, options.bits, runs, ROOT)]
        for sentence in unusable:
            console.print(f"left out: {sentence}", markup=False)
        if not done:
            wanted = ", ".join(filter(None, chosen))
            raise ValueError(
                f"nothing is published on {wanted} at these lengths, and runs/ holds no scored run of it; data sets "
                f"are {', '.join(names)}"
            )
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
