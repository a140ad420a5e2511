"""The data sets of the DHN paper and of later work that their makers publish as images: NUS-WIDE and MIRFLICKR.

    {"kind": "nus_wide", "images": "images", "labels": "Groundtruth/AllLabels", "list": "ImageList/ImageList.txt"}
    {"kind": "mirflickr", "images": "mirflickr25k.zip", "annotations": "mirflickr25k_annotations_v080.zip",
     "urls": [folders that hold both], "images_md5": "..."}

Paths are relative to `base`: the data set's folder, or the one that `get_data.py --from` names. Of an archive, the
folder it unpacks to is taken as well. A reader takes (its declaration, base, out) and returns Images; what it has to
unpack goes to `out`. CIFAR-10 is read by cifar10.py.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import image_lists
import numpy as np

from dhn.datasets import archives
from dhn.datasets.image_files import SourceError, is_hidden, walk
from dhn.datasets.image_set import AbsentError, Folder, Images
from dhn.download import download
from dhn.files import sha256
from dhn.progress import say

MIRFLICKR_BYTES = 1 << 33  # the images' 3 GB, with room
MIRFLICKR_LABELS = 38
IMAGE = re.compile(r"im(\d+)\.jpe?g", re.IGNORECASE)


def nus_wide(entry: dict, base: Path, out: Path) -> Images:
    """NUS-WIDE by its own annotation: 269,648 images, 81 concepts.

    `labels` holds a file Labels_<concept>.txt for each concept, with a 0 or 1 for each line of `list`, the image list
    (paths with backslashes). `images` is the folder of the images.
    """
    image_list = base / entry["list"]
    if not image_list.exists() and (base / image_list.name).exists():
        image_list = base / image_list.name
    folder = base / entry["labels"]
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
    images = Folder(base / entry["images"])
    names, present = images.find_all(listed)
    concepts = [path.stem[len("Labels_") :] for path in files]
    return Images(names, labels, concepts, root=images.root, present=present,
                  facts={"image_list_sha256": sha256(image_list)})  # fmt: skip


def _mirflickr_file(entry: dict, key: str) -> Callable[[Path], None]:
    """A check for download.py: the makers' MD5 of the images, the 38 files of the annotation, which has none."""

    def images(path: Path) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != entry["images_md5"]:
            raise SourceError(f"{path}: expected MD5 {entry['images_md5']}, found {digest.hexdigest()}")

    def annotations(path: Path) -> None:
        with archives.opened(path, MIRFLICKR_BYTES) as members:
            count = len([member for member in members if _annotation(member.name)])
        if count != MIRFLICKR_LABELS:
            raise SourceError(f"{path}: expected {MIRFLICKR_LABELS} annotation files, found {count}")

    return {"images": images, "annotations": annotations}[key]


def _annotation(name: str) -> str | None:
    last = name.rsplit("/", 1)[-1]
    return last if last.endswith(".txt") and last.lower() != "readme.txt" and not is_hidden(last) else None


def _image(name: str) -> str | None:
    last = name.rsplit("/", 1)[-1]
    return last if IMAGE.fullmatch(last) else None


def _mirflickr_folder(entry: dict, key: str, base: Path, out: Path, keep: Callable[[str], str | None]) -> Path:
    """The folder that an archive unpacks to: one that is there already, or `out`/<archive's name>, unpacked now."""
    archive = base / entry[key]
    if archive.is_dir():
        return archive
    for folder in (archive.with_suffix(""), out / archive.stem):
        if folder.is_dir():
            return folder
    is_checkable = key == "annotations" or "images_md5" in entry
    if not archive.exists() and "urls" in entry and is_checkable:
        download([f"{url}/{archive.name}" for url in entry["urls"]], archive, _mirflickr_file(entry, key))
    if not archive.exists():
        raise AbsentError(
            f"{archive}: expected MIRFLICKR-25000's archive or the folder {archive.with_suffix('').name} that holds "
            "its files, found neither; put it there"
        )
    count = archives.unpack(archive, out / archive.stem, keep, MIRFLICKR_BYTES)
    say(f"{out / archive.stem}: unpacked {count:,} files of {archive}")
    return out / archive.stem


def mirflickr(entry: dict, base: Path, out: Path) -> Images:
    """MIRFLICKR-25000: images im1.jpg to im25000.jpg; 24 potential labels (X.txt), 14 relevant ones (X_r1.txt).

    An annotation file lists the numbers of the images that carry the label.
    """
    annotations = _mirflickr_folder(entry, "annotations", base, out, _annotation)
    root = _mirflickr_folder(entry, "images", base, out, _image)
    paths: dict[int, str] = {}
    for image in walk(root):
        match = IMAGE.fullmatch(image.rsplit("/", 1)[-1])
        if match and os.path.exists(root / image):  # a link may lead nowhere
            first = paths.setdefault(int(match[1]), image)
            if first != image and not os.path.samefile(root / first, root / image):
                raise SourceError(f"{root}: expected one image {match[1]}, found {first} and {image}")
    files = [annotations / name for name in walk(annotations) if _annotation(name)]
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
