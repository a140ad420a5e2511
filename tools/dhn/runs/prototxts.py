"""The prototxt files of a run, as prototxt/net.py writes them with the run's settings; what was edited is kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import net
import run_settings

from dhn.files import read_json, write_json, write_text
from dhn.runs.folder import WRITTEN, AnyRun, Run, RunError

Settings = Mapping[str, Any]  # by name, see prototxt/run_settings.py
COMMAND = re.compile(
    r"# Written by: python prototxt/net\.py (?P<dataset>\S+) --variant (?P<variant>\w+)(?: --bits (?P<bits>\d+))?"
    r"(?: --net (?P<net>\w+))?(?: --seed (?P<seed>\d+))?(?P<settings>(?: --set \S+)*) --out "
)


def written_with(path: Path) -> dict[str, Any]:
    """What the command in a prototxt's first line says: dataset, variant, bits, net, seed (1 where it names none),
    settings. {} where there is no such line or it cannot be run any more."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            match = COMMAND.match(stream.readline())
        if match is None:
            return {}
        settings = run_settings.parse(re.findall(r"--set (\S+)", match["settings"]))
    except (OSError, ValueError):
        return {}
    bits = int(match["bits"]) if match["bits"] else 0
    words = {"dataset": match["dataset"], "variant": match["variant"], "bits": bits, "net": match["net"]}
    return {**words, "seed": int(match["seed"] or 1), "settings": settings}


def settings_of(run: AnyRun) -> dict[str, Any]:
    """The settings that the run's solver.prototxt was written with; {} for none."""
    return written_with(run.folder / "solver.prototxt").get("settings", {})


def net_texts(run: Run, settings: Settings) -> dict[str, str]:
    """A run's prototxt files by name, as prototxt/net.py writes them."""
    return net.texts(run.dataset, run.variant, run.bits, str(run.folder), run.net, run.seed, settings)


def write_nets(
    run: Run, texts: Mapping[str, str], wanted: str = "", former: Mapping[str, str] | None = None
) -> list[str]:
    """Write a run's prototxt files into its folder, and in written.json their SHA-256.

    A file that is neither what would be written nor what was written the last time was edited by hand. It is kept.
    wanted: settings as they were typed, which an edited file would not have. former: the texts with the settings of
    before, which edited lines are told by. Returns a sentence for each edited file. Raises RunError where there is one
    and `wanted` is not empty; nothing is written then.
    """
    written, edited = read_json(run.folder / WRITTEN), {}
    for name, text in texts.items():
        path = run.folder / name
        old = path.read_bytes() if path.exists() else text.encode()
        if old != text.encode() and hashlib.sha256(old).hexdigest() != written.get(name):
            edited[name] = _edited(run, name, old.decode(errors="replace"), (former or texts)[name])
    if edited and wanted:
        raise RunError(
            f"{'; '.join(edited.values())}. So {wanted} would not be what is trained: write it into the file and train "
            f"without it, or remove the file, and it is written again with {wanted}"
        )
    for name, text in texts.items():
        path = run.folder / name
        if name not in edited and (not path.exists() or path.read_bytes() != text.encode()):
            write_text(path, text)
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    if digests != written:
        write_json(run.folder / WRITTEN, digests)
    return [*edited.values()]


def _edited(run: Run, name: str, old: str, new: str) -> str:
    """What to say of a prototxt that was edited by hand: its first line that is another."""
    pairs = enumerate(zip_longest(old.splitlines(), new.splitlines(), fillvalue=""), 1)
    differ = [(number, *lines) for number, lines in pairs if lines[0] != lines[1]]
    number, line, expected = differ[0] if differ else (1, "other line ends", "\\n")
    more = f" ({len(differ) - 1} more lines differ)" if len(differ) > 1 else ""
    return (
        f"{run.display_path(run.folder / name)} was edited by hand: line {number} is {line.strip()!r}, where "
        f"prototxt/net.py writes {expected.strip()!r}{more}"
    )
