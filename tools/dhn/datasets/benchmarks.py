"""The published data sets of the DHN paper, read from the files their makers publish: CIFAR-10, NUS-WIDE, MIRFLICKR.

    {"kind": "cifar10", "archive": "cifar-10-binary.tar.gz", "urls": [...], "sha256": "..."}
    {"kind": "nus_wide", "images": "images", "labels": "Groundtruth/AllLabels", "list": "ImageList/ImageList.txt"}
    {"kind": "mirflickr", "images": "mirflickr25k.zip", "annotations": "mirflickr25k_annotations_v080.zip",
     "urls": [folders that hold both], "images_md5": "..."}

Paths are relative to `base`: the data set's folder, or the one that `get_data.py --from` names. Of an archive, the
folder it unpacks to (of CIFAR-10's, cifar-10-batches-bin) is taken as well. A reader takes (its
declaration, base, out) and returns Images; what it has to unpack goes to `out`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import image_lists
import numpy as np

from dhn.datasets import archives
from dhn.datasets.image_files import SourceError, is_hidden, walk
from dhn.datasets.image_set import AbsentError, Folder, Images
from dhn.download import download, is_complete
from dhn.files import sha256, write_atomic
from dhn.progress import console, say

CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane, rows first
CIFAR_FOLDER = "cifar-10-batches-bin"  # what the archive unpacks to
CIFAR_BYTES = 1 << 28  # the archive's 184 MB, with room
MIRFLICKR_BYTES = 1 << 33  # the images' 3 GB, with room
MIRFLICKR_LABELS = 38
IMAGE = re.compile(r"im(\d+)\.jpe?g", re.IGNORECASE)


def cifar10(given: dict, base: Path, out: Path) -> Images:
    """CIFAR-10's binary version: 60,000 RGB images of 32 x 32 pixels; rows 0 to 49,999 are upstream's training batches.

    Taken from the archive, or from the folder it unpacks to, whose files have no published checksum. Writes images.npy
    (uint8, N x 32 x 32 x 3), labels.npy (uint8, N) and images.json into `out`, once.
    """
    archive = base / given["archive"]
    facts, arrays = out / "images.json", (out / "images.npy", out / "labels.npy")
    try:
        made = json.loads(facts.read_text())
        whole = made["sha256"] == {path.name: sha256(path) for path in arrays}
        whole = whole and (made["archive"] is None or made["archive"] == given.get("sha256", made["archive"]))
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        made = _make_cifar_arrays(given, archive, facts, arrays)
    labels = np.load(arrays[1], allow_pickle=False)
    names = [str(row) for row in range(len(labels))]
    notes = [] if made["archive"] else [f"{CIFAR_FOLDER}: its files were not checked, only an archive has a checksum"]
    digests = {"archive_sha256": made["archive"], "images_sha256": made["sha256"]["images.npy"]}
    return Images(names, labels.astype(np.int64), made["labels"], array=arrays[0], facts=digests, notes=notes)


def _find_cifar_files(given: dict, archive: Path) -> tuple[Path, dict[str, bytes], str | None]:
    """(archive or folder, its files by name, the archive's SHA-256), the archive downloaded if there is neither."""
    expected, wanted = given.get("sha256"), (*CIFAR_FILES, "batches.meta.txt")
    for folder in () if archive.exists() else (archive.parent / CIFAR_FOLDER, archive.parent):
        if (folder / CIFAR_FILES[0]).exists():
            if missing := [name for name in wanted if not (folder / name).is_file()]:
                raise AbsentError(f"{folder}: expected it to hold {', '.join(missing)}, found none of that name")
            return folder, {name: (folder / name).read_bytes() for name in wanted}, None
    if not archive.exists() or (expected and not is_complete(archive, expected)):
        if archive.exists() and not given.get("urls"):
            raise SourceError(f"{archive}: expected a file of SHA-256 {expected}, found {sha256(archive)}")
        if not given.get("urls") or not expected:
            raise AbsentError(f"{archive}: expected the binary version of CIFAR-10, found no such file, and no folder "
                              f"{CIFAR_FOLDER}")  # fmt: skip
        download(given["urls"], archive, expected)
    return archive, archives.read(archive, wanted, CIFAR_BYTES), sha256(archive)


def _make_cifar_arrays(given: dict, archive: Path, facts: Path, arrays: tuple[Path, Path]) -> dict:
    with console.status(f"reading {archive.name}"):
        source, files, digest = _find_cifar_files(given, archive)
        records = []
        for name in CIFAR_FILES:
            if not files[name] or len(files[name]) % CIFAR_RECORD:
                raise SourceError(f"{source}: {name}: expected records of {CIFAR_RECORD} bytes, found "
                                  f"{len(files[name]):,} bytes; this must be the binary version")  # fmt: skip
            records.append(np.frombuffer(files[name], np.uint8).reshape(-1, CIFAR_RECORD))
        table = np.concatenate(records)
        names = files["batches.meta.txt"].decode(errors="replace").split()
        if table[:, 0].max() >= len(names):
            raise SourceError(f"{source}: expected labels below {len(names)}, found {table[:, 0].max()}")
        images = np.ascontiguousarray(table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    for path, array in zip(arrays, (images, table[:, 0]), strict=True):
        write_atomic(path, lambda stream, array=array: np.save(stream, array))
    made = {"archive": digest, "labels": names, "sha256": {path.name: sha256(path) for path in arrays}}
    write_atomic(facts, lambda stream: stream.write((json.dumps(made, indent=1) + "\n").encode()))
    say(f"{arrays[0].parent}: wrote images.npy, labels.npy and images.json, {len(images):,} images")
    return made


def nus_wide(given: dict, base: Path, out: Path) -> Images:
    """NUS-WIDE by its own annotation: 269,648 images, 81 concepts.

    `labels` holds a file Labels_<concept>.txt for each concept, with a 0 or 1 for each line of `list`, the image list
    (paths with backslashes). `images` is the folder of the images.
    """
    image_list = base / given["list"]
    if not image_list.exists() and (base / image_list.name).exists():
        image_list = base / image_list.name
    folder = base / given["labels"]
    files = sorted(folder.glob("Labels_*.txt"))
    for path, what in ((image_list, "NUS-WIDE's image list"), (folder, "NUS-WIDE's Groundtruth/AllLabels")):
        if not path.exists() or (path == folder and not files):
            raise AbsentError(f"{path}: expected {what}, found none; put it there")
    listed, rows, _ = image_lists.read(image_list, labels="optional")
    if rows[0]:
        raise SourceError(f"{image_list}: expected paths without labels, found a line with {len(rows[0])} of them")
    labels = np.empty((len(listed), len(files)), np.int8)
    for column, path in enumerate(files):
        words = path.read_bytes().split()
        if len(words) != len(listed):
            raise SourceError(f"{path}: expected {len(listed):,} lines as {image_list} has, found {len(words):,}")
        wrong = next((index for index, word in enumerate(words) if word not in (b"0", b"1")), None)
        if wrong is not None:
            raise SourceError(f"{path}:{wrong + 1}: expected 0 or 1, found {words[wrong].decode(errors='replace')!r}")
        labels[:, column] = np.array(words) == b"1"
    images = Folder(base / given["images"])
    names, present = images.find_all(listed)
    concepts = [path.stem[len("Labels_") :] for path in files]
    return Images(names, labels, concepts, root=images.root, present=present,
                  facts={"image_list_sha256": sha256(image_list)})  # fmt: skip


def _mirflickr_file(given: dict, key: str):
    """A check for download.py: the makers' MD5 of the images, the 38 files of the annotation, which has none."""

    def images(path: Path) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != given["images_md5"]:
            raise SourceError(f"{path}: expected MD5 {given['images_md5']}, found {digest.hexdigest()}")

    def annotations(path: Path) -> None:
        with archives.opened(path, MIRFLICKR_BYTES) as members:
            found = len([member for member in members if _annotation(member.name)])
        if found != MIRFLICKR_LABELS:
            raise SourceError(f"{path}: expected {MIRFLICKR_LABELS} annotation files, found {found}")

    return {"images": images, "annotations": annotations}[key]


def _annotation(name: str) -> str | None:
    last = name.rsplit("/", 1)[-1]
    return last if last.endswith(".txt") and last.lower() != "readme.txt" and not is_hidden(last) else None


def _image(name: str) -> str | None:
    last = name.rsplit("/", 1)[-1]
    return last if IMAGE.fullmatch(last) else None


def _mirflickr_folder(given: dict, key: str, base: Path, out: Path, keep) -> Path:
    """The folder that an archive unpacks to: one that is there already, or `out`/<archive's name>, unpacked now."""
    archive = base / given[key]
    if archive.is_dir():
        return archive
    for folder in (archive.with_suffix(""), out / archive.stem):
        if folder.is_dir():
            return folder
    known = key == "annotations" or "images_md5" in given
    if not archive.exists() and "urls" in given and known:
        download([f"{url}/{archive.name}" for url in given["urls"]], archive, _mirflickr_file(given, key))
    if not archive.exists():
        raise AbsentError(
            f"{archive}: expected MIRFLICKR-25000's archive or the folder {archive.with_suffix('').name} that holds "
            "its files, found neither; put it there"
        )
    count = archives.unpack(archive, out / archive.stem, keep, MIRFLICKR_BYTES)
    say(f"{out / archive.stem}: unpacked {count:,} files of {archive}")
    return out / archive.stem


def mirflickr(given: dict, base: Path, out: Path) -> Images:
    """MIRFLICKR-25000: images im1.jpg to im25000.jpg; 24 potential labels (X.txt), 14 relevant ones (X_r1.txt).

    An annotation file lists the numbers of the images that carry the label.
    """
    annotations = _mirflickr_folder(given, "annotations", base, out, _annotation)
    root = _mirflickr_folder(given, "images", base, out, _image)
    paths: dict[int, str] = {}
    for path in walk(root):
        match = IMAGE.fullmatch(path.rsplit("/", 1)[-1])
        if match and os.path.exists(root / path):  # a link may lead nowhere
            first = paths.setdefault(int(match[1]), path)
            if first != path and not os.path.samefile(root / first, root / path):
                raise SourceError(f"{root}: expected one image {match[1]}, found {first} and {path}")
    files = [annotations / path for path in walk(annotations) if _annotation(path)]
    files.sort(key=lambda path: (path.stem.endswith("_r1"), path.stem))
    if not files:
        raise SourceError(f"{annotations}: expected MIRFLICKR's annotation files (animals.txt ...), found none")
    listed = {}
    for path in files:
        words = path.read_text(errors="replace").split()
        if wrong := [word for word in words if not re.fullmatch("[0-9]{1,9}", word)]:
            raise SourceError(f"{path}: expected the numbers of images, found {wrong[0]!r}")
        if path.stem in listed:
            raise SourceError(f"{path}: expected one file of this name, found another below {annotations}")
        listed[path.stem] = np.array(words, np.int64)
    numbers = sorted(set(paths).union(*(values.tolist() for values in listed.values())))
    row = {number: index for index, number in enumerate(numbers)}
    labels = np.zeros((len(numbers), len(files)), np.int8)
    for column, values in enumerate(listed.values()):
        labels[[row[number] for number in values.tolist()], column] = 1
    names = [paths.get(number, f"im{number}.jpg") for number in numbers]
    present = np.array([number in paths for number in numbers], bool)
    return Images(names, labels, list(listed), root=root, present=present)
