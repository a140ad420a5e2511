"""The published data sets of the DHN paper, read from the files their makers publish: CIFAR-10, NUS-WIDE, MIRFLICKR.

    {"kind": "cifar10", "archive": "cifar-10-binary.tar.gz", "urls": [...], "sha256": "..."}
    {"kind": "nus_wide", "images": "images", "labels": "Groundtruth/AllLabels", "list": "ImageList/ImageList.txt"}
    {"kind": "mirflickr", "images": "mirflickr25k.zip", "annotations": "mirflickr25k_annotations_v080.zip",
     "urls": [folders that hold both], "images_md5": "..."}

Paths are relative to `base`: the data set's folder, or the one that `get_data.py --from` names. Of an archive, the
folder it unpacks to is taken as well. A reader takes (its declaration, base, out) and returns Images; what it has to
unpack goes to `out`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import archives
import numpy as np
from codes import write_whole
from download import download, is_whole, sha256
from image_set import AbsentError, Folder, Images
from image_source import SourceError
from progress import console

CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane, rows first
CIFAR_BYTES = 1 << 28  # the archive's 184 MB, with room
MIRFLICKR_BYTES = 1 << 33  # the images' 3 GB, with room
MIRFLICKR_LABELS = 38
IMAGE = re.compile(r"im(\d+)\.jpe?g", re.IGNORECASE)


def cifar10(given: dict, base: Path, out: Path) -> Images:
    """CIFAR-10's binary version: 60,000 RGB images of 32 x 32 pixels; rows 0 to 49,999 are upstream's training batches.

    Writes images.npy (uint8, N x 32 x 32 x 3), labels.npy (uint8, N) and images.json into `out`, once.
    """
    archive = base / given["archive"]
    facts, arrays = out / "images.json", (out / "images.npy", out / "labels.npy")
    try:
        made = json.loads(facts.read_text())
        whole = made["sha256"] == {path.name: sha256(path) for path in arrays}
        whole = whole and made["archive"] == given.get("sha256", made["archive"])
    except (OSError, ValueError, KeyError):
        whole = False
    if not whole:
        made = _unpack_cifar(given, archive, facts, arrays)
    labels = np.load(arrays[1], allow_pickle=False)
    names = [str(row) for row in range(len(labels))]
    return Images(names, labels.astype(np.int64), made["labels"], array=arrays[0],
                  facts={"archive_sha256": made["archive"]})  # fmt: skip


def _unpack_cifar(given: dict, archive: Path, facts: Path, arrays: tuple[Path, Path]) -> dict:
    expected = given.get("sha256")
    if not archive.exists() or (expected and not is_whole(archive, expected)):
        if archive.exists() and not given.get("urls"):
            raise SourceError(f"{archive}: expected a file of SHA-256 {expected}, found {sha256(archive)}")
        if not given.get("urls") or not expected:
            raise AbsentError(f"{archive}: expected the binary version of CIFAR-10, found no such file")
        download(given["urls"], archive, expected)
    with console.status(f"reading {archive.name}"):
        files = archives.read(archive, (*CIFAR_FILES, "batches.meta.txt"), CIFAR_BYTES)
        records = []
        for name in CIFAR_FILES:
            if not files[name] or len(files[name]) % CIFAR_RECORD:
                raise SourceError(f"{archive}: {name}: expected records of {CIFAR_RECORD} bytes, found "
                                  f"{len(files[name]):,} bytes; this must be the binary version")  # fmt: skip
            records.append(np.frombuffer(files[name], np.uint8).reshape(-1, CIFAR_RECORD))
        table = np.concatenate(records)
        names = files["batches.meta.txt"].decode().split()
        if table[:, 0].max() >= len(names):
            raise SourceError(f"{archive}: expected labels below {len(names)}, found {table[:, 0].max()}")
        images = np.ascontiguousarray(table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    for path, array in zip(arrays, (images, table[:, 0]), strict=True):
        write_whole(path, lambda stream, array=array: np.save(stream, array))
    made = {"archive": sha256(archive), "labels": names, "sha256": {path.name: sha256(path) for path in arrays}}
    write_whole(facts, lambda stream: stream.write((json.dumps(made, indent=1) + "\n").encode()))
    console.print(f"{arrays[0].parent}: wrote images.npy, labels.npy and images.json, {len(images):,} images")
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
    listed = image_list.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    listed = [line.strip() for line in listed if line.strip()]
    labels = np.empty((len(listed), len(files)), np.uint8)
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
    return last if last.endswith(".txt") and last.lower() != "readme.txt" else None


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
    console.print(f"{out / archive.stem}: unpacked {count:,} files of {archive}")
    return out / archive.stem


def mirflickr(given: dict, base: Path, out: Path) -> Images:
    """MIRFLICKR-25000: images im1.jpg to im25000.jpg; 24 potential labels (X.txt), 14 relevant ones (X_r1.txt).

    An annotation file lists the numbers of the images that carry the label.
    """
    annotations = _mirflickr_folder(given, "annotations", base, out, _annotation)
    root = _mirflickr_folder(given, "images", base, out, _image)
    paths = {}
    for folder, _, files in os.walk(root):
        for name in files:
            if match := IMAGE.fullmatch(name):
                paths[int(match[1])] = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
    files = sorted(path for path in annotations.rglob("*.txt") if _annotation(path.name))
    files.sort(key=lambda path: path.stem.endswith("_r1"))
    if not files:
        raise SourceError(f"{annotations}: expected MIRFLICKR's annotation files (animals.txt ...), found none")
    listed = {}
    for path in files:
        words = path.read_text().split()
        if wrong := [word for word in words if not word.isdigit()]:
            raise SourceError(f"{path}: expected the numbers of images, found {wrong[0]!r}")
        listed[path.stem] = np.array(words, np.int64)
    numbers = sorted(set(paths).union(*(values.tolist() for values in listed.values())))
    row = {number: index for index, number in enumerate(numbers)}
    labels = np.zeros((len(numbers), len(files)), np.uint8)
    for column, values in enumerate(listed.values()):
        labels[[row[number] for number in values.tolist()], column] = 1
    names = [paths.get(number, f"im{number}.jpg") for number in numbers]
    present = np.array([number in paths for number in numbers], bool)
    return Images(names, labels, list(listed), root=root, present=present)
