"""CIFAR-10, read from upstream's files or from copies of its pictures.

    {"kind": "cifar10", "archive": "cifar-10-binary.tar.gz", "urls": [...], "sha256": "..."}

`base` is the data set's folder, or the folder or file that `get_data.py --from` names. In a folder these are looked
for, in this order:

1. the archive, or the folder it unpacks to, cifar-10-batches-bin: upstream's binary version
2. cifar-10-python.tar.gz or cifar-10-batches-py: the same images in the same order (cifar10_python.py)
3. a folder or a zip of the pictures (cifar10_pictures.py)

Where nothing of it is there, the archive is downloaded into `base`.
"""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dhn.datasets import archives, cifar10_pictures, cifar10_python
from dhn.datasets.image_files import LeftOut, SourceError, is_hidden
from dhn.datasets.image_set import AbsentError, Images
from dhn.datasets.labelled_images import files_identity
from dhn.download import download
from dhn.files import load_array, read_json, sha256, write_atomic, write_json
from dhn.kinds import fits
from dhn.layout import option
from dhn.progress import say

BINARY, PYTHON, PICTURES = "binary version", "Python version", "pictures"
FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
FOLDERS = {BINARY: "cifar-10-batches-bin", PYTHON: "cifar-10-batches-py"}  # what the archives unpack to
FIRST = {BINARY: FILES[0], PYTHON: cifar10_python.FILES[0]}  # a file that tells the form
DIGESTS = {BINARY: "sha256", PYTHON: "python_sha256"}  # where a recipe has the archives' published SHA-256
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane, rows first
ABOUT = {  # images.json
    "form": str, "archive": (str, None), "labels": [str], "sha256": {str: str}, "identity?": str, "file?": str,
}  # fmt: skip
BYTES = 1 << 29  # what an archive's files may have together: 184 MB as arrays, 62 as JPEG, with room


@dataclass(frozen=True)
class Source:
    """A file or folder that holds CIFAR-10, and its form."""

    path: Path
    form: str

    def identity(self) -> str:
        """A digest of names, sizes and times of change: whether it is what was read before."""
        if not self.path.is_dir():
            paths = [self.path]
        elif self.form == PICTURES:
            paths = cifar10_pictures.files_below(self.path)
        else:
            paths = [self.path / name for name in (FILES if self.form == BINARY else cifar10_python.FILES)]
        return files_identity(paths, self.path.parent)


def _form_of(archive: Path) -> str:
    """The form of CIFAR-10 that an archive holds, by the names in it. Raises SourceError, archives.ArchiveError."""
    with archives.opened(archive, BYTES) as members:
        names = [member.name for member in members]
    last = {name.rsplit("/", 1)[-1] for name in names}
    for form, name in FIRST.items():
        if name in last:
            return form
    if cifar10_pictures.class_folders(names):
        return PICTURES
    forms = f"the binary version ({FIRST[BINARY]} ...), the Python version ({FIRST[PYTHON]} ...)"
    content = f"{len(names):,} files, the first of them {names[0]}" if names else "no files"
    raise SourceError(f"{archive}: expected CIFAR-10: {forms} or {cifar10_pictures.LAYOUT}; found {content}")


def _copies_in(folder: Path) -> tuple[list[Source], list[Path]]:
    """(copies of the pictures in a folder, damaged zips there).

    A copy is the folder itself, a folder in it or a zip; of several those with the most class folders.
    """
    counts = {folder: cifar10_pictures.classes_in(folder)}
    damaged = []
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name) or path.name in cifar10_pictures.PER_CLASS:
            continue
        if os.path.isdir(path):  # False also where it may not be looked into
            counts[path] = cifar10_pictures.classes_in(path)
        elif path.suffix.lower() == ".zip" and os.path.isfile(path):
            try:
                with zipfile.ZipFile(path) as archive:
                    places = cifar10_pictures.class_folders(archive.namelist())
                counts[path] = max(map(len, places.values()), default=0)
            except (zipfile.BadZipFile, OSError):
                damaged.append(path)
    most = max(counts.values())
    return [Source(path, PICTURES) for path, count in counts.items() if count == most > 0], damaged


def find(declaration: dict, base: Path) -> tuple[Source | None, list[str]]:
    """What to read CIFAR-10 from (None: nothing is there), and sentences on what else is there and is not read.

    Raises SourceError where that is not clear.
    """
    by_form = {BINARY: base / declaration["archive"]}
    if "python_archive" in declaration:
        by_form[PYTHON] = base / declaration["python_archive"]
    if base.is_file():
        form = {path.name: form for form, path in by_form.items()}.get(base.name) or _form_of(base)
        return Source(base, form), []
    if not base.is_dir():
        return None, []
    originals = []
    for form, archive in by_form.items():
        folders = (archive.parent / FOLDERS[form], archive.parent)
        places = [archive, *(folder for folder in folders if (folder / FIRST[form]).exists())]
        originals += [Source(path, form) for path in places if path.exists()]
    copies, damaged = _copies_in(base)
    chosen = next(iter([*originals, *copies]), None)
    if not originals and len(copies) > 1:
        paths = ", ".join(str(source.path) for source in copies)
        raise SourceError(f"{base}: expected one copy of CIFAR-10's pictures, found {paths}; name one of them: "
                          f"{option('from', copies[0].path)}")  # fmt: skip
    if chosen is None and damaged:
        raise SourceError(f"{damaged[0]}: is not a complete zip archive; get it again, or move it away")
    if not originals:
        return chosen, []
    others = [(source, "") for source in originals[1:]]
    others += [(source, f": the {originals[0].form} has the original pixels") for source in copies]
    return chosen, [f"{source.path} is there too and is not read{why}" for source, why in others]


def cifar10(declaration: dict, base: Path, out: Path) -> Images:
    """CIFAR-10: 60,000 RGB images of 32 x 32 pixels.

    Rows 0 to 49,999 are upstream's training images; only of upstream's own files in the order of upstream's batches.
    Writes images.npy (uint8, N x 32 x 32 x 3), labels.npy (uint8, N) and images.json into `out`, once. What was made is
    enough where there is nothing to read any more.
    """
    source, notes = find(declaration, base)
    facts, arrays = out / "images.json", (out / "images.npy", out / "labels.npy")
    record = _load_record(declaration, source, facts, arrays)
    if record is None:
        record = _make_arrays(declaration, source or _download(declaration, base), facts, arrays)
    labels = load_array(arrays[1])
    names = [str(row) for row in range(len(labels))]
    digests = {"archive_sha256": record["archive"], "images_sha256": record["sha256"]["images.npy"]}
    if source is None and base != out and base.exists():
        notes = [f"{base} holds no form of CIFAR-10; what was made before is taken"]
    return Images(names, labels.astype(np.int64), record["labels"], array=arrays[0], form=record["form"], facts=digests,
                  notes=[_sentence(record), *notes])  # fmt: skip


def _sentence(record: dict) -> str:
    """What the images were read from."""
    sentence = f"images: {record['form']}" + (f", read from {record['file']}" if "file" in record else "")
    if record["form"] not in (BINARY, PYTHON):
        return f"{sentence}; they are not the lossless originals, and every number from them says so"
    return sentence if record["archive"] else f"{sentence}; its files were not checked, only an archive has a checksum"


def _load_record(declaration: dict, source: Source | None, facts: Path, arrays: tuple[Path, Path]) -> dict | None:
    """What images.json says, if the arrays are those it describes and were made from `source`; else None.

    source: None where it is not there any more; what was made of it is enough.
    """
    try:
        record = {"form": BINARY, **read_json(facts)}  # an older version read no other form, and named none
        if not fits(record, ABOUT) or record["sha256"] != {path.name: sha256(path) for path in arrays}:
            return None
        named = load_array(arrays[1]).max(initial=0) < len(record["labels"])
    except (OSError, ValueError):
        return None
    if not named or record["archive"] not in (None, declaration.get(DIGESTS.get(record["form"]), record["archive"])):
        return None
    if source is None:
        return record
    same = record["identity"] == source.identity() if "identity" in record else source.form == BINARY
    return record if same else None


def _download(declaration: dict, base: Path) -> Source:
    """The binary version, downloaded into `base`. Raises AbsentError, dhn.download.DownloadError."""
    archive = base / declaration["archive"]
    if not base.is_dir() or not declaration.get("urls") or "sha256" not in declaration:
        forms = f"{archive.name}, {FOLDERS[BINARY]}, {FOLDERS[PYTHON]}, or a folder or zip of the pictures"
        raise AbsentError(f"{base}: expected CIFAR-10 ({forms}), found none of them; put one there")
    download(declaration["urls"], archive, declaration["sha256"])
    return Source(archive, BINARY)


def _archive_digest(declaration: dict, source: Source) -> str | None:
    """The SHA-256 of an archive, compared with the published one; None for a folder. Raises SourceError."""
    if source.path.is_dir():
        return None
    expected = declaration.get(DIGESTS.get(source.form))
    if (digest := sha256(source.path)) == expected or expected is None:
        return digest
    if source.form == BINARY and declaration.get("urls") and source.path.name == Path(declaration["archive"]).name:
        download(declaration["urls"], source.path, expected)
        return expected
    raise SourceError(f"{source.path}: expected a file of SHA-256 {expected}, found {digest}; get it again")


def _make_arrays(declaration: dict, source: Source, facts: Path, arrays: tuple[Path, Path]) -> dict:
    """Read the source and write the arrays and images.json; returns what that says."""
    left_out = LeftOut()
    digest = _archive_digest(declaration, source)
    identity = source.identity()  # before it is read: a change meanwhile has it read again
    say(f"reading {source.path} ({source.form})")
    names, form = [*cifar10_pictures.CLASSES], source.form
    if form == PICTURES:
        images, labels, form = cifar10_pictures.read(source.path, left_out)
    elif form == PYTHON:
        images, labels = cifar10_python.read(source.path, _files(source, cifar10_python.FILES))
    else:
        images, labels, names = _read_binary(source)
    for path, array in zip(arrays, (images, labels), strict=True):
        write_atomic(path, functools.partial(np.save, arr=array))
    record = {
        "form": form,
        "file": source.path.resolve().name,
        "identity": identity,
        "archive": digest,
        "labels": names,
        "sha256": {path.name: sha256(path) for path in arrays},
    }
    write_json(facts, record)
    for sentence in left_out.sentences(source.path):
        say(f"  {sentence}")
    say(f"{arrays[0].parent}: wrote images.npy, labels.npy and images.json, {len(images):,} images")
    return record


def _files(source: Source, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of the named files of an archive or folder. Raises SourceError."""
    if not source.path.is_dir():
        return archives.read(source.path, names, BYTES)
    if missing := [name for name in names if not (source.path / name).is_file()]:
        raise AbsentError(f"{source.path}: expected it to hold {', '.join(missing)}, found none of that name")
    return {name: (source.path / name).read_bytes() for name in names}


def _read_binary(source: Source) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(images (N, 32, 32, 3), labels (N,), the classes' names) of the binary version."""
    files = _files(source, (*FILES, "batches.meta.txt"))
    records = []
    for name in FILES:
        if not files[name] or len(files[name]) % RECORD:
            raise SourceError(f"{source.path}: {name}: expected records of {RECORD} bytes, found {len(files[name]):,} "
                              "bytes; this must be the binary version")  # fmt: skip
        records.append(np.frombuffer(files[name], np.uint8).reshape(-1, RECORD))
    table = np.concatenate(records)
    names = files["batches.meta.txt"].decode(errors="replace").split()
    if table[:, 0].max() >= len(names):
        raise SourceError(f"{source.path}: expected labels below {len(names)}, found {table[:, 0].max()}")
    return np.ascontiguousarray(table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), table[:, 0], names
