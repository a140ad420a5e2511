"""The published MAPs to read next to a run's, for a report."""

from __future__ import annotations

from dataclasses import dataclass

from dhn import published
from dhn.files import read_json
from dhn.published import Published
from dhn.runs.folder import AnyRun


@dataclass(frozen=True)
class Entry:
    """A published row; `value` is its MAP at the run's number of bits, None where its source gives none."""

    row: Published
    value: float | None

    @property
    def elsewhere(self) -> str:
        """The MAPs at all lengths that the source gives, in words."""
        return ", ".join(f"{value:.3f} at {bits}" for bits, value in self.row.maps.items())


@dataclass(frozen=True)
class Comparison:
    """The published rows to read next to a run: of its data set, else of the one whose split it follows.

    dataset: what published.json calls the run's data set. near, why: the title of that other data set, and how far the
    two compare; None where the rows are of the run's own. dhn: DHN as the paper and later reruns have it. others: the
    paper's other methods. sources: titles and citations. protocols: the run's own scores that have a MAP, by protocol.
    """

    dataset: str | None
    near: str | None
    why: str | None
    dhn: list[Entry]
    others: list[Entry]
    sources: list[tuple[str, str]]
    protocols: list[tuple[str, dict]]


def compare_with_published(run: AnyRun, metrics: dict) -> Comparison:
    """The comparison of a run that has this metrics.json; the rows of its own variant come first."""
    split = read_json(run.data / "split.json").get("split") if run.data else None
    dataset = published.key(run.dataset, split)
    rows, stand_in = published.rows(dataset) if dataset else [], None
    if dataset and not rows and (stand_in := published.stand_in_for(dataset)):
        rows = published.rows(stand_in[0])
    variant = published.VARIANTS.get(run.variant) if run.variant else None
    ordered = sorted(rows, key=lambda row: row.method != variant)
    entries = [Entry(row, row.maps.get(metrics["bits"])) for row in ordered]
    near, why = (published.title(stand_in[0]), stand_in[1]) if stand_in else (None, None)
    return Comparison(
        dataset=dataset,
        near=near,
        why=why,
        dhn=[entry for entry in entries if entry.row.method in published.VARIANTS.values()],
        others=[entry for entry in entries if entry.row.method not in published.VARIANTS.values()],
        sources=list(dict.fromkeys((row.title, row.cite) for row in ordered)),
        protocols=[(name, scores) for name, scores in metrics["protocols"].items() if scores["map"] is not None],
    )
