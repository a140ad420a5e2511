"""What only the live comparison asks: whole nets, and files that one engine writes and the other reads."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import comparison
import reference

HERE = Path(__file__).resolve().parent
NETS, EXCHANGE = str(HERE / "whole_nets.py"), str(HERE / "exchange.py")
LARGE = ("caffenet", "alexnet", "googlenet", "resnet50", "fcn8s")
SMALL = ("lenet", "cifar10_full", "siamese", "autoencoder", "lstm")


def python(script: str, *arguments: str, inside: bool, **options: object) -> subprocess.CompletedProcess:
    """Run a script in the reference or on the engine."""
    if inside:
        return reference.run(["python3", script, *arguments], **options)
    return subprocess.run([sys.executable, script, *arguments], cwd=reference.REPOSITORY, check=False, **options)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def whole_net(name: str, folder: Path) -> tuple[str, list[str]]:
    """(the table's line, differences) of one net of whole_nets.py."""
    folders, seconds = (folder / (name + "-reference"), folder / (name + "-engine")), []
    for out, inside in zip(folders, (True, False), strict=True):
        out.mkdir()
        start = time.monotonic()
        done = python(NETS, name, str(out), *([] if inside else [str(folders[0])]), inside=inside)
        seconds.append(time.monotonic() - start)
        if done.returncode:
            side = "the reference" if inside else "the engine"
            return f"  {name:14} stopped", [f"{name}: {side} stopped with status {done.returncode}"]
    said, count, worst = [], 0, dict.fromkeys(("forward", "backward", "later"), 0.0)
    for part in ("free", "layers") if name in LARGE else ("free",):
        expected, found = (load(out / (part + ".npz")) for out in folders)
        said += [f"{name}: {part}: {line}" for line in comparison.differences(expected, found)[1]]
        count += len(expected)
        for value in expected.keys() & found.keys():
            backward = "backward" if value.endswith(".diff") else "forward"
            kind = "later" if value.startswith(comparison.LATER) or value.endswith("]") else backward
            worst[kind] = max(worst[kind], comparison.deviation(expected[value], found[value]))
    for out in folders:
        for each in out.iterdir():
            each.unlink()
    figures = "".join(f"{worst[kind]:14.1e}" for kind in worst)
    return f"  {name:14}{count:6}{figures}{seconds[0]:11.0f} s{seconds[1]:6.0f} s", said


def whole_nets(folder: Path, prefixes: list[str]) -> list[str]:
    """Print a table of the nets whose "WholeNet/name" begins with a prefix (all, if none); return the differences."""
    chosen = [name for name in SMALL + LARGE if f"WholeNet/{name}".startswith(tuple(prefixes) or ("",))]
    said = []
    if chosen:
        heads = ("values", "forward", "backward", "after updates", "reference", "engine")
        print("whole nets, worst deviations:" + "{:>13}\n{:>22}{:>14}{:>14}{:>14}{:>13}{:>8}".format("", *heads))
    for name in chosen:
        line, differences = whole_net(name, folder)
        print(line, flush=True)
        said += differences
    return said


def files(folder: Path) -> list[str]:
    """The differences between what the engines find in the files that each wrote; prints a line for each writer."""
    leveldb = ["leveldb"] if importlib.util.find_spec("plyvel") else []
    if not leveldb:
        print("LevelDB is left out: the engine needs the package plyvel for it (pip install plyvel)")
    said = []
    for wrote, inside in (("the reference", True), ("the engine", False)):
        made = folder / ("written by " + wrote).replace(" ", "_")
        made.mkdir()
        if python(EXCHANGE, "write", str(made), *leveldb, inside=inside).returncode:
            said.append(f"files: {wrote} could not write them")
            continue
        found = {}
        for reads, within in (("the reference", True), ("the engine", False)):
            out = folder / f"{made.name}-{within}.npz"
            if python(EXCHANGE, "read", str(made), str(out), *leveldb, inside=within).returncode:
                said.append(f"files: {reads} could not read what {wrote} wrote")
                continue
            found[reads] = load(out)
            on = load(made / "trained_on.npz")
            again = {value: found[reads][value] for value in on}
            said += [f"files: {wrote} trained on, {reads} resumed: {e}" for e in comparison.differences(on, again)[1]]
        if len(found) == 2:
            expected, mine = found.values()
            worst, lines = comparison.differences(expected, mine)
            said += [f"files that {wrote} wrote: {line}" for line in lines]
            print(f"files that {wrote} wrote, read by both: {len(expected)} values, worst deviation {worst:.2g}")
    return said
