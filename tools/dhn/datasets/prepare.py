"""Carry out a recipe: read its source, draw its split, write the lists and split.json, build the three LMDBs."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pictures
from atomic_writes import locks, make_folder

from dhn.datasets import fashion_mnist, lmdb_build, recipes, sources
from dhn.datasets.image_files import SourceError
from dhn.datasets.image_set import AbsentError, Images
from dhn.datasets.labelled_images import from_list
from dhn.datasets.recipes import Recipe, RecipeError, Split
from dhn.datasets.splits import (
    LISTS,
    RECORDED,
    SplitError,
    check_disjoint,
    differences,
    draw,
    is_seed,
    list_text,
    verify,
)
from dhn.files import load_array, load_json, read_json, write_atomic
from dhn.kinds import fits
from dhn.layout import option
from dhn.progress import say

# of a path that is no file's, or not one that may be read: the recipe names it
NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)


@dataclass(frozen=True)
class Allowed:
    """What `make data` goes on with: images that are not there, images that cannot be read, lists that overlap."""

    missing: int = 0
    bad: int = 0
    overlap: bool = False


def _write_bytes(path: Path, raw: bytes) -> None:
    write_atomic(path, lambda stream: stream.write(raw))


def _write(path: Path, text: str) -> None:
    _write_bytes(path, text.encode("utf-8", "surrogateescape"))


def _wanted(images: Images, split: Split) -> np.ndarray:
    """Which images the split could use, had they been there, (N,) bool."""
    wanted = images.labelled() | split.keep_unlabelled
    if images.parts is not None:
        listed = np.zeros(len(images.names), bool)
        listed[np.concatenate([*images.parts.values()])] = True
        wanted &= listed
    return wanted


def _report_missing(recipe: Recipe, missing: list[str], images: Images, folder: Path, allowed: int) -> None:
    path = folder / "missing.txt"
    if not missing:
        path.unlink(missing_ok=True)
        return
    _write(path, "".join(f"{name}\n" for name in missing))
    count, total = f"{len(missing):,}", f"{len(images.names):,}"
    if len(missing) > allowed:
        unreadable = "".join(f"; {sentence}" for sentence in images.notes if "cannot be read" in sentence)
        raise RecipeError(
            recipe.path,
            f"{count} of {total} images are not under {images.root}, the first of them {missing[0]} ({path} names them "
            f"all{unreadable}); put them there, or go on without them: {option('allow-missing', len(missing))}",
        )
    say(f"{folder}: {count} of {total} images are missing and left out; {path} names them")


def _encoding(images: Images) -> str:
    """How an LMDB stores the images: arrays raw, JPEG files as they are, anything else without loss as PNG."""
    if images.array is not None:
        return "raw"
    suffixes = {Path(name).suffix.lower() for name in images.names}
    return "jpg" if suffixes <= lmdb_build.SUFFIXES["jpg"] else "png"


def _typical_size(images: Images, rows: np.ndarray) -> list[int] | None:
    """Height and width of the middle one, by its longer side, of 20 images at most; None where none can be read."""
    if images.array is not None:
        return [*load_array(images.array, mmap_mode="r").shape[1:3]]
    sizes = []
    for name in (images.names[row] for row in rows[:20]):
        try:
            sizes.append(pictures.decode((Path(images.root or "") / name).read_bytes(), None, name).shape[:2])
        except (OSError, pictures.PictureError):
            continue  # building the LMDB says so
    return [*sorted(sizes, key=max)[len(sizes) // 2]] if sizes else None


def _describe(images: Images, split: Split, rows: dict[str, np.ndarray], unlabelled: int) -> list[str]:
    """What a user should know of the split's sets, in sentences."""
    sentences = [*images.notes, *images.left_out.sentences(images.root)]
    if images.parts is not None:
        for name, facts in differences(images, split, rows).items():
            if reasons := ", ".join(f"{count:,} {reason}" for reason, count in facts["left_out"].items()):
                sentences.append(f"{name}: listed {facts['listed']:,}, kept {facts['kept']:,}: left out {reasons}")
            if facts["unlabelled"] and split.keep_unlabelled:
                count = f"{facts['unlabelled']:,} of {facts['kept']:,}"
                sentences.append(f"{name}: {count} images carry none of the labels; they are kept, as listed")
    elif unlabelled:
        fate = "kept in the database" if split.keep_unlabelled else "left out"
        sentences.append(f"{unlabelled:,} of {len(images.names):,} images carry none of the labels: {fate}")
    carried = images.carries().sum(0).tolist()
    if empty := [name for name, count in zip(images.label_names, carried, strict=True) if not count]:
        shown = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        sentences.append(f"labels that no image carries: {shown} ({len(empty):,} of {len(images.label_names):,})")
    return sentences


def _unreadable(names: Iterable[str], root: Path | str | None) -> dict[str, str]:
    """Those of the images that are there and cannot be read, and what is wrong with each."""
    bad = {}
    for name in names:
        path = Path(root or "") / name
        try:
            pictures.decode(path.read_bytes(), None, str(path))
        except FileNotFoundError:
            pass  # it is missing, not bad
        except OSError as error:
            bad[name] = f"{path}: cannot be read ({error.strerror})"
        except pictures.PictureError as error:
            bad[name] = str(error)
    return bad


def write_lists(
    recipe: Recipe,
    split: Split,
    seed: int,
    folder: Path,
    base: Path | None = None,
    allowed: Allowed = Allowed(),
    suspects: Collection[str] = (),
) -> dict:
    """Write query.txt, train.txt, database.txt and split.json into `folder`. Returns what split.json holds.

    base: the folder that the source's paths start from; default: the recipe's. suspects: images of which some could not
    be read the last time; those that still cannot are left out before anything is drawn, as missing ones are. Lists
    that are there and the same are left alone. Raises RecipeError, SourceError, SplitError, and RecipeError where more
    images are missing than `allowed` (missing.txt then names them).
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = _read_images(recipe, split, base, folder)
    absent = _leave_out_absent(recipe, images, split, folder, allowed.missing, suspects)
    rows = draw(images, split, seed)
    lists = _encode_lists(recipe, images, rows)
    origin = {"seed": seed, "from": None if base is None else str(base.resolve()), **absent}
    facts = _facts(recipe, split, origin, images, rows, lists)
    for sentence in _describe(images, split, rows, facts["unlabelled"]):
        say(f"  {sentence}")
    before = _recorded(folder)
    if _are_written(lists, folder) and {key: value for key, value in before.items() if key != "overlap"} == facts:
        facts = before
        say(f"{folder}: the lists are already there and complete")
    else:
        accepted = (before.get("overlap") or {}) if before.get("split") == split.name else {}
        facts = _write_split(folder, lists, facts, split, None if allowed.overlap else accepted)
        say(f"{folder}: wrote query.txt, train.txt, database.txt and split.json")
    _report_split(split, facts)
    return facts


def _read_images(recipe: Recipe, split: Split, base: Path | None, folder: Path) -> Images:
    """The images of the split's source, with those of their labels that the split keeps."""
    images = sources.read(split.source, base or recipe.base(), folder, f"{recipe.path}, source")
    if split.labels is not None:
        try:
            images.keep_labels(split.labels)
        except SourceError as error:
            raise RecipeError(split.place, str(error)) from None
    if images.labels.ndim == 2 and images.labels.shape[1] == 1:
        raise RecipeError(
            split.place,
            f"expected at least 2 labels, found one, {images.label_names[0]!r}: all that carry it would be relevant to "
            "each other",
        )
    return images


def _leave_out_absent(
    recipe: Recipe, images: Images, split: Split, folder: Path, allowed_missing: int, suspects: Collection[str]
) -> dict[str, int]:
    """Take suspects that cannot be read out of `images.present`. Returns how many images that the split could use are
    "missing", and how many "bad". Raises RecipeError where more are missing than allowed."""
    wanted = _wanted(images, split)
    missing = [images.names[row] for row in np.flatnonzero(wanted & ~images.present)]
    _report_missing(recipe, missing, images, folder, allowed_missing)
    bad = _unreadable({*suspects} & {*images.names}, images.root)
    unreadable = np.array([name in bad for name in images.names], bool) & images.present
    images.present &= ~unreadable
    return {"missing": len(missing), "bad": int((unreadable & wanted).sum())}


def _encode_lists(recipe: Recipe, images: Images, rows: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The three lists by their file names."""
    lists = {}
    for name in LISTS:
        names = [images.names[row] for row in rows[name]]
        text = list_text(names, images.labels[rows[name]].reshape(len(names), -1).tolist(), recipe.path)
        lists[f"{name}.txt"] = text.encode("utf-8", "surrogateescape")
    return lists


def _facts(
    recipe: Recipe,
    split: Split,
    origin: dict[str, Any],
    images: Images,
    rows: dict[str, np.ndarray],
    lists: dict[str, bytes],
) -> dict[str, Any]:
    """What split.json holds, but for "overlap". origin: its entries seed, from, missing and bad."""
    facts = {
        "recipe": None if recipe.is_built_in() else str(recipe.path.resolve()),
        **split.facts(),
        **({"training": recipe.training} if recipe.training else {}),
        **origin,
        "left_out": images.left_out.kinds,
        "unlabelled": int((~images.labelled() & images.present).sum()),
        "counts": {name: len(rows[name]) for name in LISTS},
        "label_names": images.label_names,
        **({"form": images.form} if images.form else {}),
        "facts": images.facts,
        "images": {
            "root": None if images.root is None else str(images.root.resolve()),
            "array": None if images.array is None else images.array.name,
            "classes": len(images.label_names),
            "encode": _encoding(images),
            "multi_label": bool((images.carries()[rows["train"]].sum(1) != 1).any()),
            "size": _typical_size(images, rows["train"]),
        },
        "sha256": {name: hashlib.sha256(raw).hexdigest() for name, raw in lists.items()},
    }
    if images.parts is not None:
        facts["listed"] = differences(images, split, rows)
    return facts


def _are_written(lists: dict[str, bytes], folder: Path) -> bool:
    """True if the folder's lists are these, byte for byte."""
    return all((folder / name).exists() and (folder / name).read_bytes() == raw for name, raw in lists.items())


def _write_split(
    folder: Path, lists: dict[str, bytes], facts: dict[str, Any], split: Split, allowed: dict[str, int] | None
) -> dict[str, Any]:
    """Write the lists, label_names.txt and, when they have been checked, split.json. Returns what it holds.

    allowed: which lists may overlap, as of splits.check_disjoint.
    """
    record = folder / "split.json"
    record.unlink(missing_ok=True)
    for name, raw in lists.items():
        _write_bytes(folder / name, raw)
    _write(folder / "label_names.txt", "".join(f"{name}\n" for name in facts["label_names"]))
    paths = {name: folder / f"{name}.txt" for name in LISTS}
    _, overlap = check_disjoint(paths, split.database != "rest", allowed, split.place)
    facts = facts | ({"overlap": overlap} if overlap else {})
    _write(record, json.dumps(facts, indent=1) + "\n")
    return facts


def _report_split(split: Split, facts: dict[str, Any]) -> None:
    """Say how many images each set has, how they were chosen, and which sets overlap."""
    for pair, count in facts.get("overlap", {}).items():
        one, _, other = pair.partition("_in_")
        say(f"  LEAK: {count:,} {one} images are {other} images too; scores of this split are inflated")
    counts = ", ".join(f"{facts['counts'][name]:,} {name}" for name in LISTS)
    choice = "as listed" if split.database == "listed" else f"drawn with seed {facts['seed']}"
    if left_out := sum(each["listed"] - each["kept"] for each in facts.get("listed", {}).values()):
        choice += f" but for {left_out:,}"
    say(f"  split {split.name!r}: {counts} images, {len(facts['label_names'])} labels, {choice}; R {split.R}")


def build_lmdbs(folder: Path) -> dict[str, str]:
    """Build train_lmdb, query_lmdb and database_lmdb from the lists that split.json describes.

    Returns the images that cannot be read, and what is wrong with each; an LMDB that would hold one is not written.
    Raises lmdb_records.LmdbError, SourceError.
    """
    images = load_json(folder / "split.json")["images"]
    array = None if images["array"] is None else folder / images["array"]
    bad: dict[str, str] = {}
    for name in ("train", "query", "database"):
        source = from_list(folder / f"{name}.txt", images["root"] or "", array, images["classes"])
        try:
            lmdb_build.build(source, folder / f"{name}_lmdb", encode=images["encode"])
        except lmdb_build.BadImages as error:
            bad |= error.bad
            (folder / f"{name}_lmdb.bad.txt").unlink(missing_ok=True)  # bad_images.txt names them
    return bad


def _recorded(folder: Path) -> dict:
    """What split.json says, {} where there is none or it is damaged."""
    facts = read_json(folder / "split.json")
    whole = fits(facts, RECORDED) and isinstance(facts.get("split"), str) and "images" in facts
    return facts if whole and is_seed(facts.get("seed")) else {}


def _is_complete(folder: Path, split: Split, seed: int) -> bool:
    """True if the lists and LMDBs of this split are there, complete and fit each other."""
    try:
        facts = verify(folder)
    except SplitError:
        return False
    built = all((folder / f"{name}_lmdb" / "source.json").exists() for name in LISTS)
    return built and (facts["split"], facts["seed"]) == (split.name, seed)


def _read_names(path: Path) -> set[str]:
    """The lines of a file; none where it is missing."""
    try:
        return {*filter(None, path.read_text("utf-8", "surrogateescape").split("\n"))}
    except OSError:
        return set()


def _report_bad(recipe: Recipe, bad: dict[str, str], total: int, folder: Path, allowed: int) -> None:
    """Write bad_images.txt. Raises RecipeError where more images cannot be read than are allowed."""
    path = folder / "bad_images.txt"
    if not bad:
        path.unlink(missing_ok=True)
        return
    _write(path, "".join(f"{name}\n" for name in bad))
    message = lmdb_build.describe_bad([*bad.items()], total, folder, path)
    if len(bad) > allowed:
        raise RecipeError(
            recipe.path, f"{message}\nReplace them, or go on without them: {option('skip-bad', len(bad))}"
        )
    say(f"{message}\nThey are left out; {path} names them")


def prepare(
    recipe: Recipe,
    folder: Path,
    split: str | None = None,
    seed: int | None = None,
    base: Path | None = None,
    allow_missing: int | None = None,
    skip_bad: int | None = None,
    allow_overlap: bool = False,
) -> dict:
    """Everything a training needs of a recipe's data set, in `folder`.

    What is None is as it was the last time (split.json); the first time it is the recipe's first split, seed 0, the
    recipe's folder, and no image missing or bad. Images that cannot be read show when the LMDBs are built: they are
    then all named, or, if as many may be skipped, left out, and the split is drawn again without them. Where the source
    is not there any more, but what was made from it is complete, that is taken as it is. Returns what split.json holds.
    """
    before = _recorded(folder)
    chosen = recipe.split(before.get("split") if split is None and before.get("split") in recipe.splits else split)
    seed = before.get("seed", 0) if seed is None else seed
    if base is None and before.get("from") is not None:
        base = Path(before["from"])
    allowed = Allowed(
        before.get("missing", 0) if allow_missing is None else allow_missing,
        before.get("bad", 0) if skip_bad is None else skip_bad,
        allow_overlap,
    )
    suspects = _read_names(folder / "bad_images.txt")
    try:
        while True:
            facts = write_lists(recipe, chosen, seed, folder, base, allowed, suspects)
            more = build_lmdbs(folder)
            bad = dict(sorted({**_unreadable(suspects, facts["images"]["root"]), **more}.items()))
            counts = facts["counts"]
            suspects |= more.keys()
            total = sum(counts.values()) - counts["train"] * (facts["database"] in ("rest and train", "train"))
            _report_bad(recipe, bad, total + facts["bad"], folder, allowed.bad)
            if not more:
                return facts
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise RecipeError(recipe.path, f"{error.filename}: cannot be read or written ({error.strerror})") from None
    except AbsentError as error:
        same = all(before.get(key) == value for key, value in chosen.facts().items())
        if not same or not _is_complete(folder, chosen, seed):
            raise RecipeError(f"{recipe.path}, source", str(error)) from None
        say(f"{folder}: {error}. The lists and LMDBs made from it are complete and taken as they are")
        facts = {**before, "training": recipe.training} if recipe.training or "training" in before else before
        if facts != before:
            _write(folder / "split.json", json.dumps(facts, indent=1) + "\n")
        return facts


def prepare_dataset(dataset: str, root: Path, seed: int | None = None, base: Path | None = None, **others: Any) -> None:
    """The lists and LMDBs of a data set, in its folder below `root`: Fashion-MNIST, or what a recipe names.

    base, others: as of `prepare`; None for an option that was not given. Raises DownloadError, lmdb_records.LmdbError,
    OSError (locks.HeldError where another process prepares it), ValueError.
    """
    if dataset == "fashion_mnist":
        others["base"] = base
        if refused := [key for key, value in others.items() if value is not None]:
            option = {"base": "from"}.get(refused[0], refused[0]).replace("_", "-")
            raise ValueError(f"fashion_mnist has one split and nothing missing; --{option} does not go with it")
        make_folder(root / "fashion_mnist")
        with locks.hold(root / "fashion_mnist" / "split.json"):
            fashion_mnist.prepare_fashion_mnist(root / "fashion_mnist", seed)
        return
    if base is not None and not base.exists():
        raise ValueError(f"--from {base}: expected the data set's files or their folder, found none")
    recipe = recipes.find(dataset)
    make_folder(root / recipe.name)
    with locks.hold(root / recipe.name / "split.json"):
        prepare(recipe, root / recipe.name, seed=seed, base=base, **others)
