"""The published MAPs and those of the runs here side by side, and in words in which settings they differ.

    python tools/compare.py [cifar10] [--bits 12 24 32 48]

For each data set (all that have runs or published numbers, unless one is named): the paper's rows, later re-runs of
DHN, and each scored run and baseline under runs/, with what ranks, R, the split, the number of database images, the
net, and the range that ties leave. What a source does not say stays open, and a number that no source gives is "n/a".
A run is measured under the protocol that is nearest to the published tables: AP at the hits in the top R of its split.

Writes runs/compare-<dataset>.csv, .json and .html.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import experiment
import published
from classic_hashing import TITLES as BASELINES
from experiment import LENGTHS, terminal, write_csv, write_page
from progress import console
from retrieval import PROTOCOLS
from run_folder import ROOT, write_json
from train import net

REAL, HAMMING = "real values", "Hamming distance"
NETS = {"alexnet": "AlexNet", "caffenet": "CaffeNet"}  # as papers write them
ORDER = ["DHN", "DHN-B", "DHN-Q", "DHN-E", "ITQ-CCA", "ITQ", "SH", "LSH"]  # of methods that can be run here


@dataclass(frozen=True)
class Setting:
    """How numbers came about; None where it is not known. Numbers with the same setting stand in one row."""

    source: str
    method: str
    ranks: str | None = None
    R: int | str | None = None  # "all": the entire database
    split: str | None = None
    queries: int | None = None
    database: int | None = None
    net: str | None = None
    protocol: str | None = None  # of tools/retrieval.py, which may be taken at another R than its own


@dataclass
class Row:
    """MAPs by bits; here the mean over seeds, and the range over their tie orders. seeds: bits -> those that ran."""

    setting: Setting
    here: bool
    cite: str = ""
    maps: dict[int, float] = field(default_factory=dict)
    ties: dict[int, tuple[float, float]] = field(default_factory=dict)
    seeds: dict[int, list] = field(default_factory=dict)

    def add(self, bits: int, scores: dict, seed: int | None) -> None:
        """Take another seed's scores into the mean and the range."""
        count = len(self.seeds.setdefault(bits, []))
        self.maps[bits] = (self.maps.get(bits, 0) * count + scores["map"]) / (count + 1)
        low, high = self.ties.get(bits, (1.0, 0.0))
        self.ties[bits] = min(low, scores["map_low"]), max(high, scores["map_high"])
        self.seeds[bits].append(seed)

    @property
    def source(self) -> str:
        """Where the row comes from, as the table says it; of a run here, what tells it from others of its method."""
        setting = self.setting
        if not self.here:
            return setting.source
        told = [setting.source, setting.net, setting.split and f"split {setting.split}", f"R={shown(setting.R)}"]
        if (most := max(map(len, self.seeds.values()))) > 1:
            told.append(f"mean of {most} seeds")
        return ", ".join(filter(None, told))


def theirs(key: str, methods: set[str]) -> list[Row]:
    """The published rows on a data set (a key of published.json) of these methods."""
    found = []
    for row in published.rows(key):
        if row.method in methods:
            # what features the other methods stand on, the sources that were read do not say
            features = row.net if row.method in published.VARIANTS.values() else None
            setting = Setting(row.title, row.method, row.ranks, row.R, row.split, row.queries, row.database, features)
            found.append(Row(setting, False, row.cite, row.maps))
    return found


def nearest(protocols: dict, real: bool, top: int | str | None) -> tuple[str, dict] | None:
    """The protocol of a metrics.json that ranks so and looks at the top R ("all" or None: the database); None if none.

    "all" for real values is not among them: then the authors' 5000 are taken.
    """
    if real:
        names = [f"dhn-caffe@{top}", "dhn-caffe"]
    elif isinstance(top, int):
        names = [f"hash-caffe@{top}", "hash-caffe"]
    else:
        names = ["standard"]
    return next(((name, protocols[name]) for name in names if name in protocols), None)


def read(path: Path) -> dict:
    """A file of scores. Raises ValueError where it is not whole."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path}: expected JSON, found something else; score the run again") from None


def from_run(facts: dict) -> tuple[Setting, dict] | None:
    """The setting and scores of a run's or a baseline's metrics.json; None where it has no fitting protocol."""
    baseline = facts.get("baseline")
    split = facts.get("split") or (baseline or {}).get("split") or {}
    chosen = nearest(facts["protocols"], facts.get("variant") == "dhn_b", split.get("R"))
    if chosen is None or chosen[1]["map"] is None:
        return None
    name, scores = chosen[0].split("@")[0], chosen[1]
    features = baseline and baseline["features"]
    setting = Setting(
        source="here",
        method=BASELINES[baseline["method"]] if baseline else published.VARIANTS[facts["variant"]],
        ranks=REAL if PROTOCOLS[name].real else HAMMING,
        R="all" if scores["R"] >= facts["database"] else scores["R"],
        split=split.get("split"),
        queries=facts["queries"],
        database=facts["database"],
        net=features or shown_net(facts.get("net")),
        protocol=name,
    )
    return setting, scores


def from_cell(facts: dict) -> tuple[Setting, dict]:
    """The setting and scores of a cell of tools/ablation.py."""
    real, split = facts["made"]["real"], facts["made"]["split"]
    setting = Setting(
        source="here",
        method=published.VARIANTS[facts["variant"]],
        ranks=REAL if real else HAMMING,
        R="all" if facts["R"] >= facts["database"] else facts["R"],
        split=split.get("split"),
        queries=facts["queries"],
        database=facts["database"],
        net=shown_net(facts["net"]),
        protocol=experiment.REAL if real else experiment.BINARY,
    )
    return setting, facts


def shown_net(name: str | None) -> str | None:
    """A net's name as papers write it."""
    return None if name is None else NETS.get(name, name)


def ours(dataset: str, root: Path) -> dict[str, list[Row]]:
    """The runs here on a data set, a row a setting, by the key of the published rows that their split stands beside.

    DHN-B comes from the ablation's cells, being DHN's codes ranked otherwise. Raises ValueError for a file of scores
    that is not whole.
    """
    paths = sorted((root / "runs").glob(f"{dataset}-*/metrics.json"))
    known = [(facts, from_run(facts)) for facts in map(read, paths) if facts.get("dataset") == dataset]
    paths = sorted((root / "runs").glob(f"{dataset}-ablation*/cells/*.json"))
    cells = [facts for facts in map(read, paths) if facts.get("dataset") == dataset]
    known += [(facts, from_cell(facts)) for facts in cells if facts["variant"] == "dhn_b"]
    found: dict[str, dict[Setting, Row]] = {}
    for facts, scored in known:
        if scored is not None:
            setting, scores = scored
            key = published.key(dataset, setting.split)
            row = found.setdefault(key, {}).setdefault(setting, Row(setting, True))
            if facts.get("seed") not in row.seeds.get(facts["bits"], ()):  # a run of DHN-B may be a cell as well
                row.add(facts["bits"], scores, facts.get("seed"))
    return {key: sorted(rows.values(), key=_place) for key, rows in found.items()}


def _place(row: Row) -> int:
    return ORDER.index(row.setting.method)


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
            differ.append(f"{words} ({shown(left)} there, {shown(right)} here)")
    if len(silent) == len(fields):
        return f"{one.method} in {one.source}: the source states no setting, so what differs from here is not known."
    parts = [f"differ in {listed(differ)}"] if differ else ["agree in what the source states"]
    if silent:
        parts.append(f"the source does not state {listed(silent)}")
    return f"{one.method} in {one.source} and {other.method} here {'; '.join(parts)}."


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def shown(value: int | str) -> str:
    """A setting as a person reads it."""
    return f"{value:,}" if isinstance(value, int) else value


def sentences(rows: Sequence[Row], near: tuple[str, str] | None) -> list[str]:
    """For each published source and each setting here, what differs: the same methods where there are, else DHN."""
    said = []
    if near:
        said.append(f"The published numbers are of {published.title(near[0])}, another data set: {near[1]}.")
    mine = [row for row in rows if row.here]
    for row in rows:
        if row.here or not row.maps:
            continue
        same = [each for each in mine if each.setting.method == row.setting.method]
        said += [difference(row.setting, each.setting) for each in same]
    missing = [row.setting.method for row in rows if not row.here and not row.maps]
    if missing:
        said.append(f"n/a: no source that could be read gives the numbers of {listed(missing)}.")
    if mine:
        said.append("The published numbers come without the range that their order of ties leaves open.")
    return list(dict.fromkeys(said))


def values(row: Row, bits: Sequence[int]) -> list[str]:
    """A row's MAPs as text, the range over tie orders below each."""
    found = []
    for length in bits:
        if row.maps.get(length) is None:
            found.append("-" if row.maps else "n/a")
        elif length in row.ties:
            low, high = (f"{value:.3f}".lstrip("0") for value in row.ties[length])
            found.append(f"{row.maps[length]:.3f}\n{low}-{high}")
        else:
            found.append(f"{row.maps[length]:.3f}")
    return found


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
        }
        known = ", ".join(f"{name} {shown(value)}" for name, value in facts.items() if value is not None)
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
            "map_low": row.ties.get(length, (None, None))[0],
            "map_high": row.ties.get(length, (None, None))[1],
        }
        for row in rows
        for length in bits
        if not row.maps or length in row.maps
    ]


def compare(dataset: str, bits: Sequence[int], root: Path = ROOT) -> bool:
    """Print and write the comparison of a data set; a split with published numbers of its own has one of its own.

    Returns False where there is nothing to compare.
    """
    some = False
    for key, mine in sorted((ours(dataset, root) or {dataset: []}).items()):
        methods = {*published.VARIANTS.values(), *(row.setting.method for row in mine)}
        rows, near = theirs(key, methods), None
        if not rows and (near := published.like(key)):
            rows = theirs(near[0], methods)
        rows = [*rows, *mine]
        rows = [row for row in rows if not row.maps or set(row.maps) & set(bits)]
        if not rows:
            continue
        some = True
        title = f"{published.title(key)}: published and here"
        said, lengths = sentences(rows, near), [f"{length} bits" for length in bits]
        caption = "With each number here: the range over tie orders. n/a: no source gives it; -: not at this length."
        lines = [[row.source, row.setting.method, *values(row, bits)] for row in rows]
        console.print(terminal(title, caption, ["MAP", "method", *lengths], lines))
        lists = {"Settings": settings(rows), "What differs": said}
        for line in (line for lines in lists.values() for line in lines):
            console.print(f"- {line}")
        out = root / "runs" / f"compare-{key}.csv"
        facts = flat(rows, bits)
        write_csv(out, facts)
        write_json(out.with_suffix(".json"), {"dataset": dataset, "rows": facts, "differences": said})
        lists["Sources"] = list(dict.fromkeys(f"{row.setting.source}: {row.cite}." for row in rows if row.cite))
        lines = [[f"{row.setting.method}\n{row.source}", *values(row, bits)] for row in rows]
        write_page(out.with_suffix(".html"), title, ["MAP", *lengths], lines, [caption], lists)
        console.print(f"wrote runs/{out.name}, .json and .html")
    return some


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Published MAPs and those of the runs here, side by side.")
    parser.add_argument("dataset", nargs="?", help="default: all that have runs or published numbers")
    parser.add_argument("--bits", nargs="+", type=int, default=list(LENGTHS), help="default: 12 24 32 48")
    options = parser.parse_args(arguments)
    try:
        known = [*net.DATASETS, *(path.parent.name for path in sorted(ROOT.glob("data/*/split.json")))]
        chosen = [options.dataset] if options.dataset else list(dict.fromkeys(known))
        done = [dataset for dataset in chosen if compare(dataset, options.bits, ROOT)]
        if not done:
            raise ValueError(
                f"nothing is published on {', '.join(chosen)} at these lengths, and runs/ holds no scored run of it; "
                f"data sets are {', '.join(dict.fromkeys(known))}"
            )
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
