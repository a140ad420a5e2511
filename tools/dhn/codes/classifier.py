"""Codes as the authors' prediction scripts make them: caffe.Classifier, in worker processes.

Their `Classifier(image_dims=(256, 256), mean=<per channel>, raw_scale=255, channel_swap=(2, 1, 0))` takes RGB images of
0 to 1, resizes them to 256 x 256, and crops: the centre (hash-caffe, HashNet), or the mean over ten crops (dhn-caffe).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from atomic_writes import ending

from dhn.codes import sources

CROPS = {"centre": False, "ten": True}  # name -> oversample
IMAGE_DIMS = (256, 256)
CHUNK = 50  # images that a worker takes at a time: the batch of the authors' deploy nets


class Job(NamedTuple):
    """What a worker needs to know. mean: one value a channel, B, G, R, of pixels 0 to 255."""

    model: str
    weights: str
    blob: str
    source: tuple[str, ...]
    root: str
    labels: int | None
    mean: tuple[float, ...]
    crops: str
    gpu: int | None
    threads: int


_worker: tuple = ()  # of a worker process: the job, its classifier, its source


def channel_mean(path: str) -> tuple[float, ...]:
    """The mean of each channel of a mean image, .npy (channels, height, width) or .binaryproto."""
    return tuple(float(value) for value in sources.read_mean(path).mean((1, 2), dtype=np.float64))


def extract(
    job: Job, workers: int, advance: Callable[[int], None], rows: range | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, K) float32 and labels (N, C) int8 of the images of the job's source, in its order.

    rows: only these images, the first one a multiple of CHUNK. advance(n) is called after each n images. Raises
    ValueError for a blob that is not what the net puts out first, and for images whose number of channels does not fit.
    """
    source = open_source(job)
    rows = rows or range(len(source))
    chunks = [rows[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK)]
    carried = np.empty((len(rows), source.labels), np.float32)
    codes: np.ndarray | None = None
    # A forked copy of a process that has used torch's threads hangs at its first parallel loop.
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, start, initializer=_begin, initargs=(job,)) as pool:
        try:
            for chunk, (batch, labels) in zip(chunks, pool.map(_codes, chunks), strict=True):
                if codes is None:
                    codes = np.empty((len(rows), batch.shape[1]), np.float32)
                own = slice(chunk.start - rows.start, chunk.stop - rows.start)
                codes[own], carried[own] = batch, labels
                advance(len(chunk))
        except BaseException:
            for child in multiprocessing.active_children():  # the pool would wait for the chunks that they have
                child.terminate()
            raise
    assert codes is not None, "a source has images"
    return codes, sources.label_rows(carried, source, rows.start)


def open_source(job: Job) -> sources.ImageSource:
    """The job's images as they are, in colour: what sources.open_source gives."""
    return sources.open_source(job.source, job.root, job.labels, gray=False, resize=None)


def _begin(job: Job) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches all processes: the first one ends the others
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        ending.end_with(parent.pid)
    os.environ.setdefault("GLOG_minloglevel", "1")
    import caffe
    import torch

    torch.set_num_threads(job.threads)
    if job.gpu is not None:
        caffe.set_device(job.gpu)
        caffe.set_mode_gpu()
    classifier = caffe.Classifier(
        job.model, job.weights, image_dims=IMAGE_DIMS, mean=np.array(job.mean), raw_scale=255, channel_swap=(2, 1, 0)
    )
    _worker = job, classifier, open_source(job)


def _codes(chunk: range) -> tuple[np.ndarray, np.ndarray]:
    job, classifier, source = _worker
    if classifier.outputs[0] != job.blob:
        raise ValueError(
            f"{job.model}: a Classifier gives the net's first output, {classifier.outputs[0]}; found --blob {job.blob}"
        )
    records = [source.read(index) for index in chunk]
    images = [image.transpose(1, 2, 0)[:, :, ::-1].astype(np.float32) / 255 for image, _ in records]
    rows = classifier.predict(images, oversample=CROPS[job.crops]).reshape(len(images), -1)
    return rows.astype(np.float32), np.array([labels for _, labels in records], np.float32)
