"""Miniature copies of the data sets of the paper, as their makers' files lie on a disk: archives, folders, lists."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
from dhn.datasets import labelled_images, lmdb_build, recipes
from dhn.files import sha256

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
POTENTIAL = ["animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake", "male",
             "night", "people", "plant_life", "portrait", "river", "sea", "sky", "structures", "sunset", "transport",
             "tree", "water"]  # fmt: skip
RELEVANT = ["baby", "bird", "car", "clouds", "dog", "female", "flower", "male", "night", "people", "portrait", "river",
            "sea", "tree"]  # fmt: skip
CONCEPTS = [f"concept{index:02d}" for index in range(81)]


def pixels(label: int, random: np.random.RandomState, height: int = 40, width: int = 48) -> np.ndarray:
    """A BGR image whose colours tell its label."""
    label = int(label)
    colour = np.array([label * 53 % 256, label * 101 % 256, label * 197 % 256])
    return np.clip(colour + random.randint(-40, 40, (height, width, 3)), 0, 255).astype(np.uint8)


def jpeg(label: int, random: np.random.RandomState) -> bytes:
    return cv2.imencode(".jpg", pixels(label, random))[1].tobytes()


def cifar10(folder: Path, per_class: int = 6) -> dict[str, np.ndarray]:
    """cifar-10-binary.tar.gz: five training batches and a test batch. Returns its images (N, 3, 32, 32) and labels."""
    random = np.random.RandomState(0)
    labels = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
    images = np.stack([pixels(label, random, 32, 32)[:, :, ::-1].transpose(2, 0, 1) for label in labels])
    batches = np.array_split(np.arange(len(labels)), 6)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as archive:

        def add(name: str, raw: bytes) -> None:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))

        directory = tarfile.TarInfo("cifar-10-batches-bin")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        add("batches.meta.txt", ("\n".join(CLASSES) + "\n\n").encode())
        for number, rows in enumerate(batches, 1):
            raw = b"".join(bytes([labels[row]]) + images[row].tobytes() for row in rows)
            add(f"data_batch_{number}.bin" if number < 6 else "test_batch.bin", raw)
        add("readme.html", b"<html></html>")
    return {"images": images, "labels": labels}


def fashion_mnist(folder: Path) -> None:
    """The prepared data set with 10 query images, 30 training images and 20 of the database: lists, LMDBs, split.json.
    A picture's brightness tells its class."""
    labels = np.arange(60) % 10
    images = np.random.RandomState(0).randint(0, 80, (60, 28, 28)) + labels[:, None, None] * 17
    np.save(folder / "images.npy", images.astype(np.uint8))
    digests = {}
    for name, rows in (("query", range(10)), ("train", range(10, 40)), ("database", range(40, 60))):
        listed = folder / f"{name}.txt"
        listed.write_text("".join(f"{row} {labels[row]}\n" for row in rows))
        source = labelled_images.from_list(listed, images=folder / "images.npy", classes=10)
        lmdb_build.build(source, folder / f"{name}_lmdb")
        digests[listed.name] = sha256(listed)
    record = {"split": "small", "seed": 0, "R": "all", "missing": 0, "sha256": digests}
    (folder / "split.json").write_text(json.dumps(record))


def cifar10_python(folder: Path, per_class: int = 6) -> dict[str, np.ndarray]:
    """cifar-10-python.tar.gz with the images of `cifar10`: its batches as Python 2 pickled them."""
    images, labels = cifar10(folder, per_class).values()
    (folder / "cifar-10-binary.tar.gz").unlink()
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        for number, rows in enumerate(np.array_split(np.arange(len(labels)), 6), 1):
            raw = python_batch(images[rows], labels[rows].tolist())
            info = tarfile.TarInfo(f"cifar-10-batches-py/{f'data_batch_{number}' if number < 6 else 'test_batch'}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return {"images": images, "labels": labels}


def python_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch of the Python version: a pickle of protocol 2 that calls numpy, with images (N, 3, 32, 32)."""
    data = images.tobytes()
    parts = [
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(",
        *(b"K" + bytes([label]) for label in labels),
        b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87Rq\x0b",
        b"(K\x01M" + struct.pack("<H", len(labels)) + b"M\x00\x0c\x86q\x0c",
        b"cnumpy\ndtype\nq\rU\x02u1q\x0eK\x00K\x01\x87q\x0fRq\x10(K\x03U\x01|q\x11NNN",
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89T" + struct.pack("<I", len(data)) + data,
        b"tq\x13bU\tfilenamesq\x14]q\x15(U\x0afrog_1.pngU\x0afrog_2.pngeu.",
    ]
    return b"".join(parts)


def cifar10_pictures(suffix: str = ".jpg", per_class: dict[str, int] | None = None) -> tuple[dict, np.ndarray]:
    """CIFAR-10's pictures, by path (train/cat/2.jpg) in another order than that of their rows; and their pixels RGB
    (N, 32, 32, 3) in that of their rows."""
    random = np.random.RandomState(5)
    files, rows = {}, []
    for part, count in (per_class or {"train": 4, "test": 2}).items():
        for label, name in enumerate(CLASSES):
            for number in np.arange(count) + 8:  # 8.jpg, 9.jpg, 10.jpg, 11.jpg: not in the order of their letters
                raw = cv2.imencode(suffix, pixels(label, random, 32, 32))[1]
                files[f"{part}/{name}/{number}{suffix}".lstrip("/")] = raw.tobytes()
                rows.append(cv2.cvtColor(cv2.imdecode(raw, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
    return dict(sorted(files.items())), np.stack(rows)


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """A zip of files by path, as it is released: without compression."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return path


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder of files by path."""
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def nus_wide(folder: Path, count: int = 240, missing: int = 0, concepts: int = 81) -> np.ndarray:
    """NUS-WIDE's image folder and annotation, and the authors' released lists of 21 labels with their absolute paths.

    Concept k is carried by fewer images than concept k - 1; the last tenth of the images carries none. The last
    `missing` labelled images are listed but not there. Returns the labels (count, concepts).
    """
    random = np.random.RandomState(1)
    share = np.linspace(0.6, 0.02, concepts)
    labels = (random.rand(count, concepts) < share).astype(np.uint8)
    labels[np.arange(count), np.arange(count) % concepts] = 1
    labels[-count // 10 :] = 0
    names = [f"folder{index % 7}/{index:04d}_{index * 7919}.jpg" for index in range(count)]
    gone = set(np.flatnonzero(labels.any(1))[len(labels) - count // 10 - missing :].tolist()) if missing else set()
    for index, name in enumerate(names):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if index not in gone:
            path.write_bytes(jpeg(int(labels[index].argmax()), random))
    (folder / "ImageList").mkdir()
    listed = "".join(name.replace("/", "\\") + "\r\n" for name in names)
    (folder / "ImageList" / "ImageList.txt").write_bytes(listed.encode())
    (folder / "Groundtruth" / "AllLabels").mkdir(parents=True)
    for column, concept in enumerate(CONCEPTS[:concepts]):
        text = "".join(f"{value}\n" for value in labels[:, column])
        (folder / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt").write_text(text)
    lines = [f"/home/someone/nus_wide/images/{name} {' '.join(map(str, row))}\n"
             for name, row in zip(names, labels[:, :21].tolist(), strict=True) if any(row)]  # fmt: skip
    folder = folder / "released"
    (folder / "parallel").mkdir(parents=True)
    (folder / "train.txt").write_text("".join(lines[24:84]))
    for number in range(12):
        (folder / "parallel" / f"test{number}.txt").write_text("".join(lines[2 * number : 2 * number + 2]))
        (folder / "parallel" / f"database{number}.txt").write_text("".join(lines[84 + number :: 12]))
    return labels


def flickr25k(folder: Path, count: int = 120, archives: bool = True) -> np.ndarray:
    """MIRFLICKR-25000's two archives, or the folders they unpack to. Returns the labels (count, 38)."""
    random = np.random.RandomState(2)
    labels = (random.rand(count, 24) < 0.15).astype(np.uint8)
    labels[:: count // 5] = 0
    files = {f"mirflickr/im{number}.jpg": jpeg(int(labels[number - 1].argmax()), random)
             for number in range(1, count + 1)}  # fmt: skip
    files["mirflickr/doc/readme.txt"] = b"read me"
    files["mirflickr/meta/tags/tags1.txt"] = b"tag\n"
    notes, columns = {"README.txt": b"read me\r\n"}, []
    for name in [*POTENTIAL, *(f"{name}_r1" for name in RELEVANT)]:
        carried = labels[:, POTENTIAL.index(name.removesuffix("_r1"))].copy()
        if name.endswith("_r1"):
            carried[::2] = 0  # relevant in fewer images than potential
        columns.append(carried)
        notes[f"{name}.txt"] = "".join(f"{number}\r\n" for number in np.flatnonzero(carried) + 1).encode()
    if archives:
        for name, entries in (("mirflickr25k", files), ("mirflickr25k_annotations_v080", notes)):
            with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
                for path, raw in entries.items():
                    archive.writestr(path, raw)
    else:
        for name, raw in files.items():
            path = folder / "mirflickr25k" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        (folder / "mirflickr25k_annotations_v080").mkdir()
        for name, raw in notes.items():
            (folder / "mirflickr25k_annotations_v080" / name).write_bytes(raw)
    return np.stack(columns, 1)


# fewer images a split than the real recipe asks for; nothing else differs
FEWER = {
    ("cifar10", "paper"): {"query": {"per_label": 1}, "train": {"per_label": 2}},
    ("cifar10", "train-in-database"): {"query": {"per_label": 1}, "train": {"per_label": 2}},
    ("cifar10", "10k-50k"): {"query": {"per_label": 1}, "train": {"per_label": 5}},
    ("nus_wide", "paper"): {"query": {"per_label": 1}, "train": {"per_label": 3}},
    ("nus_wide", "81-concepts"): {"query": 20, "train": 60},
    ("flickr25k", "paper"): {"query": 10, "train": 40},
}


def recipe(dataset: str, committed: Path, folder: Path) -> Path:
    """Write the committed recipe into `folder`, with the smaller numbers of FEWER and the miniature's SHA-256."""
    given = json.loads(committed.read_text())
    for (name, split), numbers in FEWER.items():
        if name == dataset:
            given["splits"][split].update(numbers)
    for key, name in (("sha256", "cifar-10-binary.tar.gz"), ("python_sha256", "cifar-10-python.tar.gz")):
        if dataset == "cifar10" and (folder / name).exists():
            given["source"][key] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if dataset == "cifar10":
        given["source"]["urls"] = ["http://127.0.0.1:9"]
    if dataset == "flickr25k":
        given["source"]["urls"] = ["http://127.0.0.1:9"]  # nothing answers there
    (folder / "recipe.json").write_text(json.dumps(given))
    return folder / "recipe.json"


NUMBERS = {"query": {"per_label": 1}, "train": {"per_label": 2}, "database": "rest", "R": 10}
LISTED = {"query": "listed", "train": "listed", "database": "listed", "R": 10}
LISTS = {"kind": "lists", "query": "lists/query.txt", "train": "lists/train.txt", "database": "lists/database.txt"}


def own(folder: Path, source: dict, **split) -> recipes.Recipe:
    """A user's recipe, birds.json in `folder`, with one split."""
    folder.mkdir(exist_ok=True)
    (folder / "birds.json").write_text(json.dumps({"source": source, "splits": {"mine": NUMBERS | split}}))
    return recipes.read(folder / "birds.json")


def published(folder: Path, dataset: str, **how) -> tuple[recipes.Recipe, object]:
    """(the recipe of a miniature in `folder`, what its maker returned)."""
    folder.mkdir(exist_ok=True)
    made = globals()[dataset](folder, **how)
    return recipes.read(recipe(dataset, ROOT / "data" / dataset / "recipe.json", folder)), made


def photos(folder: Path, classes: tuple = ("crow", "tit"), count: int = 6) -> list[str]:
    """Photographs in a folder a class. Returns their paths."""
    random = np.random.RandomState(3)
    names = [f"{name}/{index}.jpg" for name in classes for index in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(classes.index(name.split("/")[0]), random))
    return names
