"""From pictures to codes, with the net and weights that made an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pictures
from image_records import _Source

from dhn.codes.extraction import extract, load_net, mean_of, warnings_alone
from dhn.files import sha256
from dhn.search import places
from dhn.search.items import SearchError


class EncodedPictures(_Source):
    """N pictures as the bytes of their files, to be read as an extraction reads its source.

    names: what each is called in errors. gray, resize: as of multilabel_data. size: (height, width) that a picture is
    brought to before; None: as it is.
    """

    labels = 1  # columns of -1

    def __init__(
        self,
        data: Sequence[bytes],
        names: Sequence[str],
        gray: bool | None,
        resize: tuple[int, int] | None,
        size: tuple[int, int] | None,
    ) -> None:
        super().__init__(gray, resize)
        self._data, self._names, self._size = data, names, size

    def __len__(self) -> int:
        return len(self._data)

    def name(self, index: int) -> str:
        """What picture `index` is called."""
        return self._names[index]

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = pictures.decode(self._data[index], self.gray, self._names[index])
        if self._size is not None and image.shape[:2] != self._size:
            height, width = self._size
            image = cv2.resize(image, (width, height)).reshape(height, width, -1)
        return image, np.full(1, -1, np.float32)


class Described(Protocol):
    """An index, or what it is going to be: its folder, and what index.json says."""

    @property
    def folder(self) -> Path: ...

    @property
    def about(self) -> dict: ...


class Encoder:
    """The net of an index, loaded. Not safe to use from several threads at a time."""

    def __init__(self, index: Described, gpu: int | None = None) -> None:
        """Load the deploy net and the weights that the index names, their digests compared.

        Raises SearchError for an index without a net, and for files that are missing or are not those of the index.
        """
        entry = index.about.get("net") or {}
        if "weights" not in entry:
            raise SearchError(
                f"{index.folder}: expected an index of a run, whose net turns pictures into codes; found none in it; "
                "ask with --key or --codes"
            )
        paths = {
            name: _checked(index.folder, entry[name], name)
            for name in ("model", "weights", "mean_file")
            if name in entry
        }
        import caffe

        if gpu is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(gpu)
            caffe.set_mode_gpu()
        with warnings_alone():
            self.net = load_net(str(paths["model"]), str(paths["weights"]))
        self.blob, prepared = entry["blob"], dict(entry["prepared"])
        if self.blob not in self.net.blobs:
            found = ", ".join(self.net.blobs)
            raise SearchError(f"{index.folder}: its codes are the blob {self.blob!r}, but {paths['model']} has {found}")
        if "mean_file" in paths:
            prepared["mean_file"] = str(paths["mean_file"])
        self._batch_size, channels = self.net.blobs[self.net.inputs[0]].shape[:2]
        self._gray = {1: True, 3: False}.get(channels)
        self._mean, self._scale = mean_of(prepared), prepared.get("scale", 1)
        resize, size = prepared.get("resize"), entry.get("size")
        self._resize = (resize, resize) if isinstance(resize, int) else resize and tuple(resize)
        self._size = size and tuple(size)
        least = tuple(self.net.blobs[self.net.inputs[0]].shape[2:])
        for name, sides in (("resize", self._resize), ("size", self._size)):
            if sides and any(side < smallest for side, smallest in zip(sides, least, strict=False)):
                raise SearchError(f"{index.folder}: {name} {sides} is less than {paths['model']} takes, {least}")

    def encode(self, data: Sequence[bytes], names: Sequence[str] | None = None) -> np.ndarray:
        """Real-valued codes (Q, K) float32 of encoded images (JPEG, PNG, ...), prepared as extract_codes.py does it.

        names: what each is called in errors. Raises pictures.PictureError for bytes that are no image.
        """
        if names is None:
            names = [f"picture {place}" for place in range(1, len(data) + 1)]
        source = EncodedPictures(data, names, self._gray, self._resize, self._size)
        batch = min(len(data), self._batch_size)
        return extract(self.net, self.blob, source, batch, self._mean, self._scale)[0]


def _checked(folder: Path, entry: dict, name: str) -> Path:
    """The file of the net that an index names. Raises SearchError where it is missing or another one."""
    path = places.find(folder, entry)
    what = f"{path}: expected the {name.replace('_', ' ')} that made the codes of {folder},"
    if not path.is_file():
        raise SearchError(f"{what} found no such file")
    if sha256(path) != entry["sha256"]:
        raise SearchError(f"{what} found another file (its SHA-256 differs); build the index again")
    return path
