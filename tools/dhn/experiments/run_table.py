"""The scores under runs/ and how they came about: those of runs, of baselines, and of the ablation's cells.

A file that somebody else wrote, an older version or a run made by hand is taken with what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import run_settings

from dhn import published
from dhn.experiments import measure
from dhn.experiments.classic_hashing import TITLES as BASELINES
from dhn.files import load_json
from dhn.kinds import fits
from dhn.runs.facts import BITS
from dhn.runs.folder import copies, overlap
from dhn.scoring.retrieval import PROTOCOLS, headline, warnings_of

REAL, HAMMING = "real values", "Hamming distance"
NETS = {"alexnet": "AlexNet", "caffenet": "CaffeNet"}  # as papers write them
SCORES = {"map", "map_expected", "map_low", "map_high"}


class NoScores(ValueError):
    """A run's file without a MAP; says why."""


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
    protocol: str | None = None  # of tools/dhn/scoring/retrieval.py, which may be taken at another R than its own
    images: str | None = None  # "JPEG copies" where they are not the original pixels
    overlap: str | None = None  # in words: images of one set of the split that are in another one too
    settings: str | None = (
        None  # in words: what it was trained with otherwise than its recipe, and files edited by hand
    )


@dataclass(frozen=True)
class Scored:
    """A run here at one length: the scores of the protocol that was chosen, and sentences on what they are worth.

    dataset, seed: None where they are not known. cell: of tools/ablation.py, whose run may have scores of its own.
    """

    dataset: str | None
    bits: int
    seed: int | None
    setting: Setting
    scores: dict
    caveats: tuple[str, ...]
    cell: bool = False

    @property
    def quoted(self) -> float:
        """The MAP to quote: expected over tie orders where these decide."""
        value = headline(self.scores)[1] if self.scores.keys() == SCORES else None
        return self.scores["map"] if value is None else value


def nearest(protocols: dict, real: bool, top: int | str | None) -> tuple[str, dict]:
    """The protocol of a metrics.json that ranks so and looks at the top R; the first one where none does.

    top: "all" or None for the database. For real values that is not among them: then the authors' 5000 are taken.
    """
    if real:
        names = [f"dhn-caffe@{top}", "dhn-caffe"]
    elif isinstance(top, int):
        names = [f"hash-caffe@{top}", "hash-caffe"]
    else:
        names = ["standard"]
    return next((name, protocols[name]) for name in [*names, *protocols] if name in protocols)


def read_runs(root: Path) -> tuple[list[Scored], list[str]]:
    """All runs, baselines and cells of DHN-B under runs/, and a sentence on each file of scores that cannot be used."""
    runs, unusable = [], []
    for path in score_files(root):
        name = str(path.relative_to(root))
        try:
            facts = load_json(path)
        except (OSError, ValueError):
            unusable.append(f"{name}: expected JSON, found something else; score the run again")
            continue
        try:
            cell = path.parent.name == "cells"
            if not fits(facts["bits"], BITS):
                raise ValueError(facts["bits"])
            scored = from_cell(facts, name) if cell else from_run(facts, f"runs/{path.parent.name}")
        except NoScores as error:
            unusable.append(f"{name}: {error}")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, StopIteration):
            # whatever else a JSON file may hold
            unusable.append(f"{name}: expected scores as tools/score_run.py writes them; score the run again")
        else:
            # DHN-B comes from the ablation's cells, being DHN's codes ranked otherwise; the other cells are runs too
            if not cell or scored.setting.method == published.method("dhn_b"):
                runs.append(scored)
    return runs, unusable


def score_files(root: Path) -> Iterator[Path]:
    """The files of scores under runs/: those of the runs, then those of the ablation's cells."""
    yield from sorted((root / "runs").glob("*/metrics.json"))
    yield from sorted((root / "runs").glob("*-ablation*/cells/*.json"))


def from_run(facts: dict, folder: str) -> Scored:
    """What a run's or a baseline's metrics.json says. folder: as people read it.

    Raises NoScores where it has no MAP, and for keys that are missing or of another type the error that comes of it.
    """
    baseline, variant = facts.get("baseline") or {}, facts.get("variant")
    split = facts.get("split") or baseline.get("split") or {}
    name, scores = nearest(facts["protocols"], variant == "dhn_b", split.get("R"))
    if scores["map"] is None:
        raise NoScores("no query counts, so there is no MAP")
    by_hand = facts.get("made_by_hand") or not facts.get("dataset")
    if baseline:
        method = BASELINES.get(baseline["method"], baseline["method"])
    else:
        method = published.method(variant) if variant else "unknown variant"
    rules, top = PROTOCOLS.get(name.split("@")[0]), scores.get("R")
    setting = Setting(
        source=folder if by_hand else "here",
        method=method,
        ranks=None if rules is None else REAL if rules.real else HAMMING,
        R="all" if top is not None and top >= facts["database"] else top,
        split=split.get("split"),
        queries=facts["queries"],
        database=facts["database"],
        net=baseline.get("features") or shown_net(facts.get("net")),
        protocol=name.split("@")[0],
        images=copies(split) or None,
        overlap=overlap(split) or None,
        settings=own_settings(facts),
    )
    return scored(facts, setting, scores, name, folder)


def from_cell(facts: dict, path: str) -> Scored:
    """What a cell of tools/ablation.py says; raises as `from_run`."""
    if facts["map"] is None:
        raise NoScores("no query counts, so there is no MAP")
    real, split = facts["made"]["real"], facts["made"]["split"]
    setting = Setting(
        source="here",
        method=published.method(facts["variant"]),
        ranks=REAL if real else HAMMING,
        R="all" if facts["R"] >= facts["database"] else facts["R"],
        split=split.get("split"),
        queries=facts["queries"],
        database=facts["database"],
        net=shown_net(facts["net"]),
        protocol=measure.REAL if real else measure.BINARY,
        images=copies(split) or None,
        overlap=overlap(split) or None,
        settings=own_settings(facts),
    )
    return scored(facts, setting, facts, measure.REAL if real else measure.BINARY, path, cell=True)


def scored(facts: dict, setting: Setting, scores: dict, protocol: str, place: str, cell: bool = False) -> Scored:
    """A run here of these settings and scores. Raises TypeError or ValueError for values that are none."""
    numbers = {key: scores[key] for key in SCORES if scores.get(key) is not None}
    if not fits(numbers, {str: float}):
        raise TypeError
    sentences = warnings_of({**facts, **numbers, "protocol": protocol}) if numbers.keys() == SCORES else []
    caveats = tuple(f"{setting.method}, {facts['bits']} bits ({place}): {sentence}" for sentence in sentences)
    run = Scored(facts.get("dataset"), int(facts["bits"]), facts.get("seed"), setting, numbers, caveats, cell)
    hash((run.dataset, run.seed))  # no lists
    for name, value in vars(setting).items():
        right = int if name in ("queries", "database") else int | str if name == "R" else str
        if value is not None and not isinstance(value, right):
            raise TypeError
    return run


def own_settings(facts: dict) -> str | None:
    """What a run was trained with otherwise than its recipe, in words; None for nothing that is known."""
    edited = facts.get("edited") or []
    words = [run_settings.typed(facts.get("settings") or {}), f"edited by hand: {', '.join(edited)}" if edited else ""]
    return ", ".join(filter(None, words)) or None


def shown_net(name: str | None) -> str | None:
    """A net's name as papers write it."""
    return None if name is None else NETS.get(name, name)
