"""What an index is built from: a run's codes, or a file of codes, and the pictures they are of.

index.json then says, null or left out where it is not known:

    dataset, variant   of the run
    label_names        of the columns of the labels
    split              of the data set, as metrics.json has it
    score              protocol, R, map, map_expected, map_low, map_high of metrics.json, and its caveats in sentences
    report             report.html of the run: path and relative, as places.located
    net                model and weights (places.located, and sha256), blob, and how pictures are prepared: `prepared`
                       as extraction.PREPARED, `size` (height, width) that they are brought to before it
    pictures           where the pictures lie: places.place
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import image_lists
import numpy as np
import pictures
from lmdb_files import LmdbFileError, open_lmdb, value

from dhn.codes.extraction import settings_of
from dhn.datasets.image_files import LeftOut, images_below
from dhn.files import read_json, sha256
from dhn.pages import gallery, report
from dhn.progress import say
from dhn.runs.by_hand import HandRun, trained_net
from dhn.runs.folder import AnyRun, caveats
from dhn.search import places
from dhn.search.build import build
from dhn.search.code_file import read_codes
from dhn.search.command_line import NAME
from dhn.search.encoder import Encoder
from dhn.search.generation import FACTS
from dhn.search.index import Index
from dhn.search.items import Items, SearchError
from dhn.search.texts import Texts

SCORE = ("protocol", "R", "map", "map_expected", "map_low", "map_high", "queries", "database")
SAMPLE = 8  # pictures whose labels and codes are compared with what their files say
CLOSE = 0.05  # codes, -1 to 1, of one picture by one net: other devices and batches differ by less, other nets by more
BLOB = "hash_layer"  # of the codes in the deploy nets


@dataclass(frozen=True)
class Collection:
    """Items to index in a folder, where their pictures lie (None: nowhere), what index.json says besides, and notes to
    print."""

    folder: Path
    items: Items
    pictures: dict | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pictures:
    """N pictures in the order of their codes: keys and paths (N), and where they lie.

    sample: some of the records of an LMDB by their rows. size: their height and width, where it is one.
    """

    keys: Texts
    paths: Texts
    place: dict
    size: tuple[int, ...] | None = None
    sample: dict[int, bytes] = field(default_factory=dict)


def of_files(
    index: Path, codes: str, images: str | None = None, root: str = "", prefix: str = "", start: int = 0,
    codes_are: str | None = None, labels_are: str | None = None,
) -> Collection:  # fmt: skip
    """The items of a file of codes.

    index: the folder of the index. images: LMDB, list or folder of the pictures, in the order of the codes; root:
    folder that a list's paths are relative to. prefix: put in front of an LMDB's keys. start: the number of the first
    item where neither pictures nor the file name them. codes_are, labels_are: as of codes.files.read.
    Raises SearchError, CodesError.
    """
    values, labels, names, notes = read_codes(codes, codes_are, labels_are)
    found = None
    if images is not None:
        found = _pictures(index, images, root, prefix, names, len(values))
        _compare_labels(images, found, labels)
        items = Items(values, labels, found.keys, found.paths)
    elif names is not None:
        items = Items(values, labels, names, names)
    else:
        items = Items(values, labels, Texts.numbers(start, len(values)))
    about = {} if found is None or found.size is None else {"net": {"size": list(found.size)}}
    return Collection(index, items, None if found is None else found.place, about, notes)


def of_run(
    index: Path, run: AnyRun, codes: str | None = None, images: str | None = None, root: str = "", prefix: str = "",
    codes_are: str | None = None, labels_are: str | None = None,
) -> Collection:  # fmt: skip
    """The items of a run's database: its database.npz and the data set's database_lmdb, unless others are named.

    Raises SearchError, RunError, CodesError.
    """
    path = Path(codes) if codes is not None else run.folder / "database.npz"
    if not path.exists():
        raise SearchError(
            f"{run.display_path(path)}: expected the run's codes, found none; {run.make_command('score')}"
        )
    if images is None and codes is None and run.data is not None and (run.data / "database_lmdb").exists():
        images = str(run.data / "database_lmdb")
    if codes_are is None and not isinstance(run, HandRun):
        codes_are = "sign"  # our nets made them
    found = of_files(index, str(path), images, root, prefix, 0, codes_are, labels_are)
    metrics = read_json(run.folder / "metrics.json")
    about: dict[str, Any] = {"dataset": run.dataset, "variant": run.variant, "split": metrics.get("split")}
    columns = 0 if found.items.labels is None else found.items.labels.shape[1]
    if run.data is not None and columns:
        about["label_names"] = report.read_label_names(run.data, columns)
    if metrics.get("map") is not None:
        about["score"] = {name: metrics.get(name) for name in SCORE} | {"caveats": caveats(metrics)}
    if (run.folder / "report.html").exists():
        about["report"] = places.located(run.folder / "report.html", index)
    about["net"] = _net(index, run, path, found.about.get("net", {}).get("size"))
    return Collection(index, found.items, found.pictures, about, found.notes)


def ensure_index(run: AnyRun, gpu: int | None = None) -> Path:
    """Build the index in a run's folder unless one is there that is newer than codes and scores; returns its folder.

    Raises SearchError, RunError, CodesError, PictureError.
    """
    folder = run.folder / NAME
    facts = folder / FACTS
    inputs = [path for name in ("database.npz", "metrics.json") if (path := run.folder / name).exists()]
    if facts.exists() and all(facts.stat().st_mtime_ns > path.stat().st_mtime_ns for path in inputs):
        say(f"{run.display_path(folder)}: already there, newer than the codes")
        return folder
    found = without_wrong_net(of_run(folder, run), gpu)
    for note in found.notes:
        say(note)
    build(folder, found.items, found.about, found.pictures)
    say(f"wrote {run.display_path(folder)}/")
    return folder


def without_wrong_net(found: Collection, gpu: int | None = None) -> Collection:
    """A collection whose net gives the codes of its pictures: without the net, and with a remark, where it does not.

    Some pictures are looked at; one without net or pictures is left as it is. Raises SearchError, PictureError.
    """
    if not found.about.get("net") or found.pictures is None:
        return found
    keys, paths, codes = Texts.of(found.items.keys), Texts.of(found.items.paths or []), found.items.codes
    rows = np.unique(np.linspace(0, len(keys) - 1, SAMPLE).astype(int))
    data = [places.read(found.folder, found.pictures, keys[row], paths[row])[0] for row in rows.tolist()]
    difference = float(np.abs(Encoder(found, gpu).encode(data, keys.at(rows)) - codes[rows]).max())
    if difference <= CLOSE:
        return found
    note = (
        f"the net gives other codes for the pictures than the file has (differences up to {difference:.2g} in "
        f"{len(rows)} pictures), so the index takes no pictures as queries; were they extracted another way?"
    )
    return replace(found, about={**found.about, "net": None}, notes=[*found.notes, note])


def next_number(index: Index) -> int:
    """The first number behind those that are keys of an index."""
    return 1 + max((int(key) for key in index.keys if key.isdecimal()), default=-1)


def _net(index: Path, run: AnyRun, codes: Path, size: list[int] | None) -> dict | None:
    """The entry `net` of index.json; None for a run without a deploy net or weights. Raises SearchError."""
    weights, model = run.weights(), run.folder / "deploy.prototxt"
    like = trained_net(run) if isinstance(run, HandRun) else run.folder / "train_val.prototxt"
    if weights is None or not weights.exists() or not model.exists():
        return None
    if codes.stat().st_mtime_ns < weights.stat().st_mtime_ns:
        raise SearchError(
            f"{run.display_path(codes)}: is older than {weights.name}, its codes are of other weights; "
            f"{run.make_command('score')}"
        )
    prepared = settings_of(like) if like is not None else {}
    entry: dict[str, Any] = {"blob": BLOB, "prepared": prepared, "size": None if prepared.get("resize") else size}
    paths = {"model": model, "weights": weights}
    if "mean_file" in prepared:
        paths["mean_file"] = run.root / prepared["mean_file"]
    for name, path in paths.items():
        if not path.exists():
            raise SearchError(f"{path}: expected the {name.replace('_', ' ')} of {run.name}, found none")
        entry[name] = {**places.located(path, index), "sha256": sha256(path)}
    return entry


def _pictures(index: Path, images: str, root: str, prefix: str, names: list[str] | None, count: int) -> Pictures:
    """The pictures of `count` codes. Raises SearchError where they are not as many."""
    if os.path.exists(os.path.join(images, "data.mdb")):
        found = _of_lmdb(index, images, prefix)
    elif os.path.isdir(images):
        paths = Texts.of(names if names is not None else list(images_below(images, LeftOut())))
        found = Pictures(paths, paths, places.place("files", images, index))
    elif os.path.isfile(images):
        paths = Texts.of(image_lists.read(images, labels="optional").names)
        found = Pictures(paths, paths, places.place("files", root or ".", index))
    else:
        raise SearchError(f"{images}: expected an LMDB, a list or a folder of the pictures, found nothing")
    if len(found.keys) != count:
        raise SearchError(
            f"{images}: expected the pictures of the codes, {count:,} of them, found {len(found.keys):,}; "
            "name those that the codes were extracted of"
        )
    return found


def _of_lmdb(index: Path, path: str, prefix: str) -> Pictures:
    """The pictures of an LMDB: its keys, and the paths that stand in them behind the number."""
    try:
        with open_lmdb(path) as environment, environment.begin() as transaction:
            keys = list(transaction.cursor().iternext(values=False))
            rows = np.unique(np.linspace(0, len(keys) - 1, SAMPLE).astype(int)).tolist() if keys else []
            sample = {row: value(path, transaction, keys[row]) for row in rows}
    except LmdbFileError as error:
        raise SearchError(str(error)) from None
    sizes = {pictures.decode(places.encoded(record, path)[0], None, path).shape[:2] for record in sample.values()}
    texts = Texts.of_bytes([key.partition(b"_")[2] or key for key in keys])
    front = prefix.encode(errors="surrogateescape")
    return Pictures(
        Texts.of_bytes([front + key for key in keys]), texts, places.place("lmdb", path, index, prefix),
        sizes.pop() if len(sizes) == 1 else None, sample,
    )  # fmt: skip


def _compare_labels(path: str, found: Pictures, labels: np.ndarray | None) -> None:
    """Raise SearchError where records of an LMDB carry other labels than the codes: these are of other pictures."""
    if labels is None:
        return
    for row, record in found.sample.items():
        carried = gallery.picture(f"{path}: {found.keys[row]}", record, labels.shape[1]).labels
        if not np.array_equal(carried, labels[row]):
            raise SearchError(
                f"{path}: {found.keys[row]}: expected the labels of code {row}, columns "
                f"{np.flatnonzero(labels[row]).tolist()}, found {np.flatnonzero(carried).tolist()}; name the pictures "
                "that the codes were extracted of"
            )
