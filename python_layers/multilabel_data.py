"""Images with label vectors as a Caffe Python layer."""

from __future__ import annotations

import itertools
import json
import os

import caffe
import numpy as np

from image_records import ListSource, LmdbSource, Prefetcher, planes
from layer_params import Param, read_param_str
from pictures import PictureError

_CHUNK = 4  # images that one thread makes at a time
_WORTH_THREADS = 1 << 12  # values of a picture: to hand smaller ones to threads takes as long as to decode them


_SIZE = "an integer from 1 to 65535 or a pair [height, width] of them"
PARAMS = {  # of param_str
    "source": Param("a string", required=True),
    "batch_size": Param("an integer from 1 to 2147483647", required=True),
    "labels": Param("an integer from 1 to 2147483647"),
    "root": Param("a string", ""),
    "encoding": Param("a string", "utf-8"),
    "gray": Param("true or false"),
    "resize": Param(_SIZE),
    "crop": Param(_SIZE),
    "mirror": Param("true or false", False),
    "mean_value": Param("a number or a list of numbers"),
    "mean_file": Param("a string"),
    "scale": Param("a number", 1),
    "shuffle": Param("true or false", True),
    "seed": Param("an integer from 0 to 4294967295", 1),
    "prefetch": Param("an integer from 1 to 2147483647", 4),
    "threads": Param("an integer from 1 to 2147483647"),
}


class MultiLabelDataLayer(caffe.Layer):
    """Batches of images and their label vectors, from an LMDB (tools/create_lmdb.py) or a list file.

    No bottoms. top[0]: images (B, channels, height, width), (pixel - mean) * scale, channels in BGR order.
    top[1] (may be left out): labels (B, C), 0 or 1, -1 throughout where unknown (labels.py). No gradients.

    TRAIN: each epoch has its own order (a pairwise loss over fixed batches would see the same pairs for ever), drawn
    from `seed` alone, as are crops and mirrors: the same seed gives the same batches on BVLC Caffe and on the engine.
    An epoch's last records and the next one's first may share a batch. A training resumed on the engine goes on where
    it was; on BVLC Caffe it begins with the first epoch's order again, as with Caffe's Data layer. Of n solvers that
    train side by side, number r takes every n-th record of that order, from number r on: together they have the batches
    that one solver with n B images has. TEST: the source's order, centre crop, no mirror.
    """

    def setup(self, bottom, top):
        """param_str, JSON:

        source (required): LMDB folder, or list file with lines `path l1 ... lC` or `path label`
        batch_size (required): B
        labels: C; default: as many as the first record has. Needed where records have only a class number
        root: folder that a list's paths are relative to; default: the working directory
        encoding: of a list; default utf-8
        gray: true: 1 channel; false: 3 channels; default: as stored in an LMDB, 3 channels from a list
        resize: N or [height, width], before cropping; default: not resized
        crop: N or [height, width], at random in TRAIN, in the centre in TEST; default: not cropped
        mirror: true: flip half of the images in TRAIN; default false
        mean_value: a number, or one a channel (BGR), subtracted; mean_file: a binaryproto, instead; default: 0
        scale: multiplies after the subtraction; default 1
        shuffle: false: the source's order in TRAIN too; default true
        seed: of order, crops and mirrors; default 1
        prefetch: batches prepared ahead, default 4; threads: that decode them, default one a CPU; small pictures, up to
        4,095 values and not resized, need none

        Example: {"source": "data/fashion_mnist/train_lmdb", "batch_size": 64, "mirror": true, "mean_value": 73}
        """
        if len(bottom) != 0 or len(top) not in (1, 2):
            raise ValueError(
                f"MultiLabelDataLayer takes no bottoms and has 1 or 2 tops (images, labels); "
                f"found {len(bottom)} and {len(top)}"
            )
        params = read_param_str(self.param_str, "MultiLabelDataLayer", PARAMS)
        if os.path.isfile(params["source"]):
            source = ListSource(
                params["source"],
                params["root"],
                params["labels"],
                params["gray"],
                _pair(params["resize"]),
                params["encoding"],
            )
        else:
            source = LmdbSource(params["source"], params["labels"], params["gray"], _pair(params["resize"]))
        train = self.phase == caffe.TRAIN
        self.batches = Batches(
            source,
            params["batch_size"],
            train,
            crop=_pair(params["crop"]),
            mirror=params["mirror"],
            mean=_mean(params),
            scale=params["scale"],
            shuffle=params["shuffle"],
            seed=params["seed"],
            solvers=(caffe.solver_count(), caffe.solver_rank()) if train else (1, 0),
        )
        self.shapes = self.batches.shape, (params["batch_size"], source.labels)
        self.ahead = params["prefetch"], params["threads"] or os.cpu_count() or 1
        self.reshape(bottom, top)  # before anything is read ahead: it refuses what no blob can hold
        self._begin([])

    def _begin(self, done: list) -> None:
        """Read on after the batches `done`, pairs as for Batches.plans."""
        self.done = [list(pair) for pair in done]
        if not done or done[-1][0] != self.batches.whole_size:
            self.done.append([self.batches.whole_size, 0])
        self.process = os.getpid()
        self.prefetcher = Prefetcher(self.batches.plans(done), self.batches.build, *self.ahead)

    def reshape(self, bottom, top):
        for i in range(len(top)):  # BVLC Caffe's vector of tops can be indexed, not iterated
            top[i].reshape(*self.shapes[i])

    def forward(self, bottom, top):
        if self.process != os.getpid():  # a fork has no threads but the one that made it
            self._begin(self.done)
        batch = self.prefetcher.next()
        self.done[-1][1] += 1
        for i in range(len(top)):
            top[i].data[...] = batch[i]
        self.batches.used.append(batch[0])

    def backward(self, top, propagate_down, bottom):
        pass

    def snapshot_state(self) -> bytes:
        """What the engine keeps in a solverstate (BVLC Caffe never asks): the batches handed out, of all solvers."""
        return json.dumps({"records": len(self.batches.source), "done": self.done}).encode()

    def restore_state(self, state: bytes) -> None:
        """Go on after the batches of a `snapshot_state`. ValueError where the source has more or fewer records."""
        try:
            was = json.loads(state.decode())
            count, done = was["records"], [(int(size), int(number)) for size, number in was["done"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("expected how many batches it had handed out, found another text") from None
        records = len(self.batches.source)
        if count != records:
            raise ValueError(f"expected a source of {count} records, found {records}")
        self._begin(done)


class Batches:
    """Which records make up each batch (`plans`), and a batch as arrays (`build`).

    source: see image_records; crop: (height, width); mean: a number, (channels, 1, 1) or (channels, height, width) of
    the uncropped image. solvers: (n, which of them this is): n solvers share `whole_size` images out. `shape`, that of
    the images (B, channels, height, width), is taken from the first record. Raises ValueError for an image that does
    not fit it, the crop or the mean.
    """

    def __init__(
        self,
        source,
        batch_size: int,
        train: bool,
        crop: tuple | None = None,
        mirror: bool = False,
        mean=0,
        scale: float = 1,
        shuffle: bool = True,
        seed: int = 1,
        solvers: tuple = (1, 0),
    ):
        self.source, self.batch_size, self.train, self.crop = source, batch_size, train, crop
        self.share, self.whole_size = slice(solvers[1], None, solvers[0]), batch_size * solvers[0]
        self.mirror, self.shuffle = mirror and train, shuffle and train
        self.mean, self.scale, self.seed = np.asarray(mean, np.float32), np.float32(scale), seed
        self.uniform_mean = self.mean.size == 1 or self.mean.shape[1:] == (1, 1)
        self.mirrored_mean = np.ascontiguousarray(self.mean[..., ::-1]) if self.mean.ndim else self.mean
        self.used: list = []  # images of batches that `build` may write over: new memory costs more than the mean
        image, _ = source.read(0)
        self.shape = (batch_size, image.shape[0], *(crop or image.shape[1:]))
        self._check(0, image)
        self.threads = source.resize is not None or image.size >= _WORTH_THREADS

    def _check(self, index: int, image: np.ndarray) -> None:
        expected, mean = self.shape[1:], self.mean.shape
        if image.shape[0] != expected[0]:
            raise PictureError(
                f"{self.source.name(index)}: expected {expected[0]} channels as in the first image, "
                f"found {image.shape[0]}; set 'gray' to true or false"
            )
        if self.crop is None and image.shape != expected:
            raise PictureError(
                f"{self.source.name(index)}: expected {expected[1]}x{expected[2]} pixels as in the first "
                f"image, found {image.shape[1]}x{image.shape[2]}; set 'resize' or 'crop'"
            )
        if image.shape[1] < expected[1] or image.shape[2] < expected[2]:
            raise PictureError(
                f"{self.source.name(index)}: expected at least {expected[1]}x{expected[2]} pixels to crop "
                f"from, found {image.shape[1]}x{image.shape[2]}; set 'resize' or a smaller 'crop'"
            )
        if mean not in ((), (image.shape[0], 1, 1), image.shape):
            raise PictureError(
                f"{self.source.name(index)}: expected a mean for images of {image.shape} (channels, "
                f"height, width), found one of {mean}"
            )

    def plans(self, done: list = ()):
        """Endless batches, for each image of one: (record, place of the crop in 0..1 down and across, mirrored).

        done: pairs (size of all solvers' batch, number of batches) that came before; these are passed over.
        """
        sizes = itertools.chain.from_iterable(itertools.repeat(size, number) for size, number in done)
        draws = self._draws(itertools.chain(sizes, itertools.repeat(self.whole_size)))
        for draw in itertools.islice(draws, sum(number for _, number in done), None):
            batch, places = (each[self.share] for each in draw)
            yield list(zip(batch.tolist(), places[:, 0], places[:, 1], (places[:, 2] < 0.5) & self.mirror))

    def _draws(self, sizes):
        """For each batch of `sizes` images the records (size,) and random numbers (size, 3)."""
        random = np.random.RandomState(self.seed)
        order = np.empty(0, np.int64)
        for size in sizes:
            rounds, drawn, count = [order], len(order), len(self.source)
            while drawn < size:
                rounds.append(random.permutation(count) if self.shuffle else np.arange(count))
                drawn += count
            order = np.concatenate(rounds)
            batch, order = order[:size], order[size:]
            yield batch, random.rand(size, 3)  # drawn even if unused: an option never changes the order

    def build(self, plan: list, map_) -> tuple[np.ndarray, np.ndarray]:
        """The images (B, channels, height, width) and labels (B, C) of a plan, float32; map_ is a pool's map."""
        buffer = self.used.pop() if self.used else None
        images = (
            buffer
            if buffer is not None and len(buffer) == len(plan)
            else np.empty((len(plan), *self.shape[1:]), np.float32)
        )

        def place(start: int) -> list:
            some = images[start : start + _CHUNK]
            labels = [self._place(*each) for each in zip(plan[start : start + _CHUNK], some)]
            if self.uniform_mean and self.mean.any():
                some -= self.mean
            if self.scale != 1:
                some *= self.scale
            return labels

        labels = itertools.chain.from_iterable((map_ if self.threads else map)(place, range(0, len(plan), _CHUNK)))
        return images, np.stack(list(labels))

    def _place(self, planned: tuple, out: np.ndarray) -> np.ndarray:
        """Write the image of one place of a plan, less a mean image, into `out`; returns its labels."""
        index, y, x, mirrored = planned
        image, labels = self.source.read(index)
        self._check(index, image)
        height, width = self.shape[2:]
        free = image.shape[1] - height, image.shape[2] - width
        top, left = (int(y * (free[0] + 1)), int(x * (free[1] + 1))) if self.train else (free[0] // 2, free[1] // 2)
        out[...] = planes(image[:, top : top + height, left : left + width], mirrored)
        if not self.uniform_mean:
            mean, left = (self.mirrored_mean, free[1] - left) if mirrored else (self.mean, left)
            out -= mean[:, top : top + height, left : left + width]
        return labels


def _pair(size) -> tuple | None:
    return (size, size) if isinstance(size, int) else size and tuple(size)


def _mean(params: dict):
    if params["mean_value"] is not None and params["mean_file"] is not None:
        raise ValueError("MultiLabelDataLayer: param_str may have mean_value or mean_file; found both")
    if params["mean_file"] is not None:
        blob = caffe.proto.caffe_pb2.BlobProto()
        with open(params["mean_file"], "rb") as file:
            data = file.read()
        try:
            blob.ParseFromString(data)
            mean = caffe.io.blobproto_to_array(blob)
            if not mean.size:
                raise ValueError("no values")
            return mean.reshape(blob.shape.dim[-3:] if blob.shape.dim else (blob.channels, blob.height, blob.width))
        except Exception as error:  # protobuf's DecodeError lives elsewhere in each of its implementations
            raise ValueError(
                f"MultiLabelDataLayer: mean_file {params['mean_file']!r}: expected a mean image (binaryproto), found "
                f"{len(data)} bytes that are none ({error}); make it again with compute_image_mean"
            ) from None
    if isinstance(params["mean_value"], list):
        return np.reshape(params["mean_value"], (-1, 1, 1))
    return params["mean_value"] or 0
