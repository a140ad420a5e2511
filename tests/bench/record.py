"""What was measured, where and when: as JSON, as lines, as a table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from harness import REPOSITORY, Goal, Row
from rich import box
from rich.table import Table

PACKAGES = ("torch", "numpy", "protobuf", "opencv-python-headless", "lmdb")


def facts() -> dict:
    """Date, machine, versions and commit."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {
            "cpu": models[0] if models else platform.processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **versions},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def entry(row: Row, rounds: list, about: dict) -> dict:
    """What the file holds of a row. rounds: as harness.measure gives them. `others`: the median sample's. `limit`: the
    median of the row's side of that name, in the figure of the first goal; None where a row has no such side."""
    peaks = {side: max(each[side]["peak"] for each in rounds) for side in row.sides}
    others = statistics.median(figures["others"] for each in rounds for figures in each.values())
    goals = [goal.result(rounds) for goal in row.goals]
    limits = [each[row.limit][row.goals[0].figure] for each in rounds if row.limit in each]
    limit = statistics.median(limits) if limits else None
    return {
        "says": row.says, **about, "others": others, "goals": goals, "peaks": peaks, "limit": limit, "rounds": rounds,
    }  # fmt: skip


def add(path: Path, name: str, measured: Mapping) -> None:
    """Put a row into the file, whole or not at all; the other rows stay."""
    content = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    content["rows"][name] = measured
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(part, path)


def goal_text(goal: Goal) -> str:
    """A goal in words."""
    return _goal(goal.bound, goal.figure, goal.of, " or ".join(goal.others) or None, goal.faster, goal.per)


def _goal(bound: float, figure: str, of: str, to: str | None, faster: bool, per: float) -> str:
    if to is None:
        return f"{of} <= {amount(bound, figure)}"
    if faster:
        return f"{of} >= {bound:g} times as fast as {to}"
    what = "time" if figure == "seconds" else "memory"
    return f"{of} <= {bound:g} of {f'{per:g} times ' if per != 1 else ''}{to}'s {what}"


def amount(value: float, figure: str, rate: str = "") -> str:
    """Seconds or bytes for a person to read; with `rate`, how many of it a second."""
    if rate:
        return f"{1 / value:.0f} {rate}/s"
    if figure != "seconds":
        return f"{value / 1e9:.2f} GB"
    return f"{value * 1e3:.4g} ms" if value < 1 else f"{value:.3g} s"


def cells(measured: Mapping) -> list[list[str]]:
    """For each goal of a row: both medians, value with spread, goal, met or not."""
    found = []
    for goal in measured["goals"]:
        of, to, figure = goal["of"], goal["to"], goal["figure"]
        sides = [f"{side} {amount(median, figure, goal['rate'])}" for side, median in goal["medians"].items()]
        if to is None:
            values = [amount(goal[key], figure) for key in ("value", "low", "high")]
        else:
            values = [f"{goal[key]:.3g}" for key in ("value", "low", "high")]
        text = _goal(goal["bound"], figure, of, to, goal["faster"], goal["per"])
        found.append([", ".join(sides), f"{values[0]} ({values[1]}..{values[2]})", text,
                      "met" if goal["met"] else "not met"])  # fmt: skip
    return found


def lines(name: str, measured: Mapping) -> list[str]:
    """A row's lines, one a goal."""
    return [f"{name:18} {'; '.join(each)}" for each in cells(measured)]


def table(rows: Mapping[str, Mapping]) -> Table:
    """The rows for a person to read, a line a goal; the peak memory is that of the side the goal is about.

    limit: what the row cannot do without, the products alone at the rate of a large matrix product say. others: the
    share of the cores that other programs had while a sample was taken.
    """
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    for column in ("row", "medians", "ratio (least..greatest)", "goal", "", "limit", "peak memory", "rounds", "others"):
        made.add_column(column, overflow="fold")
    for name, measured in rows.items():
        for goal, each in zip(measured["goals"], cells(measured), strict=True):
            peak, rounds = amount(measured["peaks"][goal["of"]], "peak"), str(len(measured["rounds"]))
            limit = amount(measured["limit"], measured["goals"][0]["figure"]) if measured["limit"] else ""
            made.add_row(name, *each, limit, peak, rounds, f"{measured['others']:.0%}")
    last = next(reversed(rows.values()))
    machine = last["machine"]
    made.caption = (
        f"{last['date']}, {machine['cpu']}, {machine['cores']} cores, torch {last['versions']['torch']}, "
        f"commit {(last['commit'] or 'unknown')[:7]}{' with changes' if last['changed_files'] else ''}; "
        "others: what other programs had of the cores meanwhile"
    )
    return made
