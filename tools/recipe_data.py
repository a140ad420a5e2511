"""Carry out a recipe: read its source, draw its split, write the lists and split.json, build the three LMDBs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import create_lmdb
import dataset_sources
import numpy as np
from codes import write_whole
from image_set import AbsentError, Images
from image_source import from_list
from progress import console
from recipes import Recipe, RecipeError, Split
from splits import LISTS, SplitError, check_disjoint, draw, list_text, verify


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda stream: stream.write(text.encode("utf-8", "surrogateescape")))


def _missing(images: Images, split: Split) -> list[str]:
    """The images that the split could have used, had they been there."""
    wanted = images.carries().any(1) | split.keep_unlabelled
    if images.parts is not None:
        listed = np.zeros(len(images.names), bool)
        listed[np.concatenate([*images.parts.values()])] = True
        wanted &= listed
    return [images.names[row] for row in np.flatnonzero(wanted & ~images.present)]


def _report_missing(missing: list[str], images: Images, folder: Path, allowed: int) -> None:
    path = folder / "missing.txt"
    if not missing:
        path.unlink(missing_ok=True)
        return
    _write(path, "".join(f"{name}\n" for name in missing))
    count, total = f"{len(missing):,}", f"{len(images.names):,}"
    if len(missing) > allowed:
        raise RecipeError(
            f"{count} of {total} images are not under {images.root}, the first of them {missing[0]} ({path} names them "
            f"all); put them there, or go on without them: --allow-missing {len(missing)} "
            f"(make data ... MISSING={len(missing)})"
        )
    console.print(f"{folder}: {count} of {total} images are missing and left out; {path} names them")


def _encoding(images: Images) -> str:
    """How an LMDB stores the images: arrays raw, JPEG files as they are, anything else without loss as PNG."""
    if images.array is not None:
        return "raw"
    suffixes = {Path(name).suffix.lower() for name in images.names}
    return "jpg" if suffixes <= {".jpg", ".jpeg"} else "png"


def write_lists(
    recipe: Recipe, split: Split, seed: int, folder: Path, base: Path | None = None, allow_missing: int = 0
) -> dict:
    """Write query.txt, train.txt, database.txt and split.json into `folder`. Returns what split.json holds.

    base: the folder that the source's paths start from; default: the recipe's. Lists that are there and the same are
    left alone. Raises RecipeError, SourceError, SplitError, and RecipeError where more than `allow_missing` images are
    not there (missing.txt then names them).
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = dataset_sources.read(split.source, base or recipe.path.parent, folder)
    if split.labels is not None:
        images.keep_most_frequent(split.labels)
    missing = _missing(images, split)
    _report_missing(missing, images, folder, allow_missing)
    rows = draw(images, split, seed)
    texts = {f"{name}.txt": list_text(images, rows[name]) for name in LISTS}
    encoded = {name: text.encode("utf-8", "surrogateescape") for name, text in texts.items()}
    facts = {
        "recipe": None if recipe.is_built_in() else str(recipe.path.resolve()),
        **split.facts(),
        "seed": seed,
        "from": None if base is None else str(base.resolve()),
        "missing": len(missing),
        "counts": {name: len(rows[name]) for name in LISTS},
        "label_names": images.label_names,
        "facts": images.facts,
        "images": {
            "root": None if images.root is None else str(images.root.resolve()),
            "array": None if images.array is None else images.array.name,
            "classes": len(images.label_names),
            "encode": _encoding(images),
        },
        "sha256": {name: hashlib.sha256(raw).hexdigest() for name, raw in encoded.items()},
    }
    record = folder / "split.json"
    same = all((folder / name).exists() and (folder / name).read_bytes() == raw for name, raw in encoded.items())
    if not same or not record.exists() or json.loads(record.read_text()) != facts:
        record.unlink(missing_ok=True)
        for name, text in texts.items():
            _write(folder / name, text)
        _write(folder / "label_names.txt", "".join(f"{name}\n" for name in images.label_names))
        check_disjoint({name: folder / f"{name}.txt" for name in LISTS}, split.database != "rest")
        _write(record, json.dumps(facts, indent=1) + "\n")
        console.print(f"{folder}: wrote query.txt, train.txt, database.txt and split.json")
    else:
        console.print(f"{folder}: the lists are already there and whole")
    counts = ", ".join(f"{len(rows[name]):,} {name}" for name in LISTS)
    how = "as listed" if split.database == "listed" else f"drawn with seed {seed}"
    console.print(f"  split {split.name!r}: {counts} images, {len(images.label_names)} labels, {how}; R {split.R}")
    return facts


def build_lmdbs(folder: Path) -> None:
    """Build train_lmdb, query_lmdb and database_lmdb from the lists that split.json describes.

    Raises create_lmdb.LmdbError, image_source.BadImage, SourceError.
    """
    how = json.loads((folder / "split.json").read_text())["images"]
    array = None if how["array"] is None else folder / how["array"]
    for name in ("train", "query", "database"):
        path = folder / f"{name}.txt"
        source = from_list(path, how["root"] or "", array, how["classes"])
        create_lmdb.build(source, folder / f"{name}_lmdb", encode=how["encode"])


def _recorded(folder: Path) -> dict:
    """What split.json says, {} where there is none."""
    try:
        return json.loads((folder / "split.json").read_text())
    except (OSError, ValueError):
        return {}


def _is_whole(folder: Path, split: Split, seed: int) -> bool:
    """True if the lists and LMDBs of this split are there, whole and fit each other."""
    try:
        facts = verify(folder)
    except SplitError:
        return False
    built = all((folder / f"{name}_lmdb" / "source.json").exists() for name in LISTS)
    return built and (facts["split"], facts["seed"]) == (split.name, seed)


def prepare(
    recipe: Recipe,
    folder: Path,
    split: str | None = None,
    seed: int | None = None,
    base: Path | None = None,
    allow_missing: int | None = None,
) -> dict:
    """Everything a training needs of a recipe's data set, in `folder`.

    What is None is as it was the last time (split.json); the first time it is the recipe's first split, seed 0, the
    recipe's folder, and no missing image. Where the source is not there any more, but what was made from it is whole,
    that is taken as it is. Returns what split.json holds.
    """
    before = _recorded(folder)
    chosen = recipe.split(before.get("split") if split is None and before.get("split") in recipe.splits else split)
    seed = before.get("seed", 0) if seed is None else seed
    if base is None and before.get("from") is not None:
        base = Path(before["from"])
    allowed = before.get("missing", 0) if allow_missing is None else allow_missing
    try:
        facts = write_lists(recipe, chosen, seed, folder, base, allowed)
    except AbsentError as error:
        if not _is_whole(folder, chosen, seed):
            raise
        console.print(f"{folder}: {error}. The lists and LMDBs made from it are whole and taken as they are")
        return before
    build_lmdbs(folder)
    return facts
