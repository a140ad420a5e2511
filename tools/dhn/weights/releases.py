"""Releases of weights to fine-tune, and the mean image of ILSVRC 2012: where they are, and how they are known."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from caffe.atomic_files import write_atomic
from caffe.io import array_to_blobproto, blobproto_to_array
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from dhn.download import DownloadError, download, is_complete, parse_digest
from dhn.files import digests_of, reading_arrays
from dhn.progress import console

BVLC = "http://dl.caffe.berkeleyvision.org/"


SQUEEZENET = "SqueezeNet/master/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel"


class Release(NamedTuple):
    """A caffemodel that can be had."""

    digest: str  # as download() takes it
    urls: tuple[str, ...]
    trait: str  # of the nets that it goes into
    others: tuple[tuple[str, str], ...] = ()  # digests of files that stand in for it, and what they are
    has_mean: bool = True  # it was trained with the mean image, not with a mean value a channel


NETS = {
    "bvlc_alexnet": Release(
        "9116a64c0fbe4459d18f4bb6b56d647b63920377",
        (
            BVLC + "bvlc_alexnet.caffemodel",
            "https://nvidia.box.com/shared/static/5j264j7mky11q8emy4q14w3r8hl5v6zh.caffemodel",
        ),
        "norm before pool after their convolutions",
    ),
    "bvlc_reference_caffenet": Release(
        "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        (BVLC + "bvlc_reference_caffenet.caffemodel",),
        "pool before norm after their convolutions",
    ),
    "squeezenet_v1.0": Release(
        "git:a381d848b43d7048c3b362238ece2386c21d6ff0",  # no other digest was published
        (
            "https://raw.githubusercontent.com/DeepScale/" + SQUEEZENET,
            "https://raw.githubusercontent.com/forresti/" + SQUEEZENET,
        ),
        "the layers of SqueezeNet v1.0 (conv1 with 96 outputs of 7x7)",
        (
            (
                "1276a3a1f22f9aec37c809ec0985a01c62e0734454ce914219476a1cb91aec96",
                "decoded from the compressed release, songhan/SqueezeNet-Deep-Compression",
            ),
        ),
        has_mean=False,
    ),
}
# the nets that the releases go into, by the names that `make train` has for them
GOES_INTO = {"alexnet": "bvlc_alexnet", "caffenet": "bvlc_reference_caffenet", "squeezenet": "squeezenet_v1.0"}


def recognize(path: str | os.PathLike) -> tuple[str, str] | None:
    """The release that a file is, or stands in for, by its digest, and in words how it is known; None for other files.

    Raises OSError where there is no file.
    """
    candidates = [
        (name, what, *parse_digest(expected))
        for name, release in NETS.items()
        for expected, what in ((release.digest, ""), *release.others)
    ]
    digests = digests_of(path, {algorithm for _, _, algorithm, _, _ in candidates})
    for name, what, algorithm, title, digits in candidates:
        if digests[algorithm] == digits:
            return name, f"{what}, by its {title}" if what else f"by its {title}"
    return None


BINARYPROTO, NPY, ARCHIVE = "imagenet_mean.binaryproto", "ilsvrc_2012_mean.npy", "caffe_ilsvrc12.tar.gz"
# file -> where to get it: BVLC's archive of labels and mean, or the mean that its Python package has
MEANS = {
    ARCHIVE: (
        BVLC + ARCHIVE,
        "https://download.openmmlab.com/mmclassification/datasets/imagenet/meta/" + ARCHIVE,
    ),
    NPY: ("https://raw.githubusercontent.com/BVLC/caffe/master/python/caffe/imagenet/" + NPY,),
}
MEAN_BGR = (104.007, 116.669, 122.679)  # the mean image's means: what train_val.prototxts round to 104, 117, 123


def read_mean(path: str | os.PathLike) -> np.ndarray:
    """The mean image of ILSVRC 2012, float64 (3, 256, 256), BGR, from a binaryproto, an .npy or BVLC's archive.

    Raises OSError for a file that cannot be read, ValueError for one that holds no such mean.
    """
    path = Path(path)
    if tarfile.is_tarfile(path):
        try:
            with tarfile.open(path) as archive:
                member = next((one for one in archive if Path(one.name).name == BINARYPROTO and one.isfile()), None)
                stream = archive.extractfile(member) if member else None
                data = stream.read() if stream else None
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{path}: the archive is damaged: {error}") from None
        if data is None:
            raise ValueError(f"{path}: expected an archive that holds {BINARYPROTO}; it does not")
    else:
        data = path.read_bytes()
    if data.startswith(b"\x93NUMPY"):
        with reading_arrays(path):
            mean = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        try:
            mean = blobproto_to_array(caffe_pb2.BlobProto.FromString(data))
        except DecodeError:
            raise ValueError(f"{path}: expected a mean image as binaryproto or .npy, found neither") from None
    mean = mean[0] if mean.ndim == 4 and len(mean) == 1 else mean
    if mean.shape != (3, 256, 256):
        raise ValueError(f"{path}: expected a mean image of shape (3, 256, 256), found {mean.shape}")
    channel_means = mean.mean(axis=(1, 2))
    if np.abs(channel_means - MEAN_BGR).max() > 0.01:
        raise ValueError(
            f"{path}: expected the mean of ILSVRC 2012, whose channels (B, G, R) average {MEAN_BGR}; "
            f"found {', '.join(f'{value:.3f}' for value in channel_means)}"
        )
    return mean.astype(np.float64)


def get_net(name: str, folder: Path, mirror: str | None = None) -> Path:
    """Bring the caffemodel of `name` into `folder`; returns its path. A file there that stands in for it is taken.

    Raises DownloadError.
    """
    release = NETS[name]
    target = folder / f"{name}.caffemodel"
    for digest, what in release.others:
        if is_complete(target, digest):
            console.print(f"{target}: already there ({what}; {parse_digest(digest)[1]} checked)")
            return target
    fetched = download(_with_mirror(mirror, target.name, release.urls), target, release.digest)
    title = parse_digest(release.digest)[1]
    console.print(f"{target}: {'downloaded' if fetched else 'already there'} ({title} checked)")
    return target


def get_mean(folder: Path, mirror: str | None = None) -> None:
    """Bring the mean image into `folder`, as binaryproto and as .npy. Raises DownloadError."""
    outputs = (folder / BINARYPROTO, folder / NPY)
    means = [mean for path in (*outputs, folder / ARCHIVE) if (mean := _read_if_complete(path)) is not None]
    if len(means) > 1 and all(path.exists() for path in outputs) and np.allclose(means[0], means[1], atol=1e-3):
        console.print(f"{outputs[0]} and {outputs[1].name}: already there (known by their contents)")
        return
    mean = means[0] if means else _download_mean(folder, mirror)
    blob = array_to_blobproto(mean[None])
    write_atomic(outputs[0], blob.SerializeToString())
    stream = io.BytesIO()
    np.save(stream, mean)
    write_atomic(outputs[1], stream.getvalue())
    (folder / ARCHIVE).unlink(missing_ok=True)
    console.print(f"{outputs[0]} and {outputs[1].name}: written (known by their contents)")


def _download_mean(folder: Path, mirror: str | None) -> np.ndarray:
    problems = []
    for name, urls in MEANS.items():
        try:
            download(_with_mirror(mirror, name, urls), folder / name, read_mean)
            return read_mean(folder / name)
        except DownloadError as error:
            problems.append(str(error))
    raise DownloadError("\n".join([*problems, f"One of {', '.join(MEANS)} and {BINARYPROTO} is enough."]))


def _with_mirror(mirror: str | None, name: str, urls: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{mirror.rstrip('/')}/{name}", *urls) if mirror else urls


def _read_if_complete(path: Path) -> np.ndarray | None:
    try:
        return read_mean(path)
    except (OSError, ValueError):
        return None
