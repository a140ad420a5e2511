"""The files that the commands write: copied, restored, and compared by what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forking
import lmdb
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

ROOTS = ("work", "data", "runs", "prototxt/fashion_mnist/small_alexnet")
TEMPORARY = re.compile(r"(^|/)\.[^/]+\.(part|lock)$|\.(partial|old|tmp|part|tempfile)(/|$)")
TIMED = ("seconds_per_step", "resumed_at", "versions")  # keys of JSON files
BY_TIME = (".log", ".html", "train.csv")  # files that tell how long something took
TABLES = (".csv", ".md", ".png")
BROKEN = "broken"
Contents = dict[str, Any]  # of each file, by its path: a digest, or the values of a JSON file


def save(folder: Path) -> None:
    """Copy the commands' files to a new folder."""
    for root in filter(os.path.exists, ROOTS):
        shutil.copytree(root, folder / root)


def restore(folder: Path) -> None:
    """Put the files of a folder in the place of those that are there."""
    for root in ROOTS:
        shutil.rmtree(root, ignore_errors=True)
        if (folder / root).exists():
            shutil.copytree(folder / root, root)
    Path("work").mkdir(exist_ok=True)


def temporary() -> list[str]:
    """The files there whose names are temporary ones, locks among them."""
    return [path for path in _paths() if TEMPORARY.search(path)]


def contents(log: Path) -> Contents:
    """What the files hold that are no temporary ones: numbers that are the same when a command is typed again."""
    found: Contents = {}
    for path in _paths():
        name = os.path.basename(path)
        if TEMPORARY.search(path) or name == "lock.mdb":
            continue
        if "/lance/" in path:
            found.setdefault("work/lance", _lance(log))
            continue
        found[re.sub(r"/g-\d{6}/", "/g/", path)] = _content(Path(path))
    return found


def halves(between: Contents, old: Contents, new: Contents, lived: bool) -> list[str]:
    """What is there that is neither as before, nor as it is to be, nor a stage that is complete in itself.

    lived: it was a child that was killed. Then a table says that a cell has failed.
    """
    problems = []
    for path, content in between.items():
        stage = isinstance(content, dict) or (lived and path.endswith(TABLES))
        stage = stage or ("-tune/" in path and is_snapshot(path))  # of a cell, which is removed later
        if content == BROKEN or (not stage and content not in (old.get(path), new.get(path))):
            problems.append(f"{path} is neither old nor new")
    problems += [f"{path} is not there any more" for path in old if path in new and path not in between
                 and old[path] == new[path]]  # fmt: skip
    return problems


def differences(one: Contents, other: Contents) -> list[str]:
    """The paths whose contents differ."""
    return [f"{path} is {'another' if path in one and path in other else 'missing' if path in other else 'too much'}"
            for path in sorted({*one, *other}) if one.get(path) != other.get(path)]  # fmt: skip


def _paths() -> list[str]:
    paths = []
    for root in ROOTS:
        for folder, folders, files in os.walk(root):
            paths += [os.path.join(folder, name) for name in files]
            paths += [os.path.join(folder, name) for name in folders if not os.listdir(os.path.join(folder, name))
                      and TEMPORARY.search(os.path.join(folder, name))]  # fmt: skip
    return sorted(paths)


def _content(path: Path) -> Any:
    if path.name.endswith(BY_TIME):
        text = path.read_text(errors="replace")
        return BROKEN if path.suffix == ".html" and not text.rstrip().endswith("</html>") else "there"
    if path.suffix == ".json":
        try:
            of_files = {"files"} if path.name == "source.json" else {"generation"}  # with their times
            return _without_times(json.loads(path.read_bytes()), {*of_files, *TIMED})
        except ValueError:
            return BROKEN
    if path.name == "data.mdb":
        return _records(path.parent)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any, left_out: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each, left_out) for key, each in value.items() if key not in left_out}
    return [_without_times(each, left_out) for each in value] if isinstance(value, list) else value


def _records(folder: Path) -> str:
    digest = hashlib.sha256()
    try:
        with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
            for key, value in transaction.cursor():
                digest.update(b"%d %d " % (len(key), len(value)) + key + value)
    except lmdb.Error:
        return BROKEN
    return digest.hexdigest()


def is_snapshot(path: str) -> bool:
    """Whether a file is of a snapshot, and complete."""
    kind = {".caffemodel": caffe_pb2.NetParameter, ".solverstate": caffe_pb2.SolverState}.get(Path(path).suffix)
    try:
        return kind is not None and bool(kind.FromString(Path(path).read_bytes()).ByteSize())
    except (OSError, DecodeError):
        return False


def _lance(log: Path) -> str:
    """A digest of what a LanceDB holds, read in a child: its threads would stay here."""
    output = log.with_name("lance")
    child = forking.start(_read_lance, [], output)
    status = forking.wait(child, float("inf"))
    return output.read_text() if status == 0 else "no index" if "found none" in output.read_text() else BROKEN


def _read_lance(_: list[str]) -> int:
    from dhn.search.backends import lance
    from dhn.search.items import SearchError

    try:
        index = lance.Lance.open("work/lance")
        table = index._view().table.search().select(["number", "codes", "key"]).to_arrow().sort_by("number")
        print(hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest())
    except SearchError as error:
        print(error)
        return 1
    return 0


def prepare(folder: Path, log: Path, make: Callable[[], None], old: Callable[[], int] | None) -> list[Path]:
    """Folders of the files that a command starts from: what it needs; and, with `old`, an older output besides."""
    restore(folder / "nothing")
    child = forking.start(lambda words: make(), [], log)
    if forking.wait(child, float("inf")) != 0:
        raise SystemExit(f"kill-test: {make.__name__}: {log.read_text(errors='replace')[-2000:]}")
    save(folder / "first")
    if old is None:
        return [folder / "first"]
    if old() != 0:
        raise SystemExit(f"kill-test: an older output: {log.read_text(errors='replace')[-2000:]}")
    save(folder / "over")
    return [folder / "first", folder / "over"]
