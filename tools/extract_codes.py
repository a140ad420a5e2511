"""Extract the codes of images: one forward pass of a deploy net over an LMDB, a list, pictures or a folder of them.

    python tools/extract_codes.py --model deploy.prototxt --weights W.caffemodel --source LMDB|LIST|PICTURE...|FOLDER
        --out X.npz|PARTS [--shard I/N] [--blob hash_layer] [--gpu N]

X.npz holds `codes` (float32 N x K) and `labels` (uint8 N x C), in the source's order. Images without labels (pictures,
a folder, a list of paths alone) have rows of -1 (int8), and X.npz holds their `names` too. The images are prepared as
the test data layer of the net that was trained does it: its settings are read from train_val.prototxt next to the
deploy net (or from --like), and an option given here goes before them. Number of channels, height and width are those
of the deploy net's input: grey or colour follows from the channels, larger images are cropped in their centre.

--classifier prepares the images as the authors' prediction scripts do instead (tools/dhn/codes/classifier.py): resized
to 256x256, per-channel mean of --mean-file (BVLC's ilsvrc_2012_mean.npy) or --mean-value, the centre crop or the mean
over ten crops, in --workers processes.

--shard 3/16 extracts the fourth of 16 parts alone, into the folder that --out names: PARTS/part-3-of-16.npz. A part
that is complete is left as it is, so a command that was interrupted is typed again. tools/merge_codes.py makes X.npz of
the parts.

X.npz appears when it is complete, in one step. Needs nothing of Caffe but pycaffe's Net and Classifier.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dhn  # first: it says so where the project is not installed

# isort: split
import numpy as np
from atomic_writes import locks, make_folder
from atomic_writes.command_lines import Parser
from dhn.arguments import at_least
from dhn.codes import classifier, parts, sources
from dhn.codes import files as codes
from dhn.codes.extraction import PREPARED, extract, load_net, mean_of, settings_of
from dhn.files import sha256
from dhn.progress import console, counter

Extract = Callable[[range, Callable[[int], None]], tuple[np.ndarray, np.ndarray]]  # rows, advance -> codes, labels


@dataclass(frozen=True)
class Settings:
    """The options as typed, None for one that was not: a net, its images, and how they are prepared.

    The fields after `mean_file` belong to one of two ways: `like`, `resize`, `scale` and `batch_size` to that of the
    test data layer, `crops` and `workers` to the authors'.
    """

    model: str
    weights: str
    blob: str
    source: list[str]
    out: str
    shard: parts.Shard | None
    root: str
    labels: int | None
    gpu: int | None
    mean_value: list[float] | None
    mean_file: str | None
    like: str | None
    resize: list[int] | None
    scale: float | None
    batch_size: int | None
    crops: str | None
    workers: int | None

    def contradiction(self) -> str | None:
        """What is wrong with the options together; None where nothing is."""
        if self.workers and not self.crops:
            return "--workers is an option of --classifier"
        if self.crops:
            for name in ("like", "resize", "scale", "batch_size"):
                if getattr(self, name) is not None:
                    return f"--{name.replace('_', '-')} does not go with --classifier, which has its own way"
            if self.mean_value is None and self.mean_file is None:
                return "--classifier needs --mean-file weights/ilsvrc_2012_mean.npy (make weights), or --mean-value"
        if self.mean_value is not None and self.mean_file is not None:
            return "--mean-value and --mean-file exclude each other"
        return None

    def typed_preparation(self) -> dict:
        """The settings of PREPARED that were typed."""
        return {key: value for key in PREPARED if (value := getattr(self, key, None)) is not None}

    def preparation(self) -> tuple[dict, str | None]:
        """How images are prepared: as typed, else as the train_val.prototxt says that is --like, or next to the model.

        Returns the settings of PREPARED, and the path of that file; None where there is none.
        """
        default = Path(self.model).parent / "train_val.prototxt"
        like = self.like or (str(default) if default.exists() else None)
        typed, prepared = self.typed_preparation(), settings_of(like) if like else {}
        if "mean_value" in typed or "mean_file" in typed:
            prepared = {key: value for key, value in prepared.items() if not key.startswith("mean_")}
        return {**prepared, **typed}, like


def main(arguments: list | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    settings = Settings(**vars(parser.parse_args(arguments)))
    if contradiction := settings.contradiction():
        parser.error(contradiction)
    os.environ.setdefault("GLOG_minloglevel", "1")  # warnings, but not a line for every layer and blob
    try:
        if settings.crops:
            _extract_as_authors(settings, settings.crops)
        else:
            _extract_as_test_layer(settings)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"extract_codes: {dhn.sentence(error)}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    """The options; each fills the field of Settings of its name, --classifier `crops`."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, metavar="deploy.prototxt", help="net with one image input")
    parser.add_argument("--weights", required=True, metavar="W.caffemodel", help="its weights (.caffemodel or .h5)")
    parser.add_argument("--blob", default="hash_layer", help="blob that holds the codes; default: hash_layer")
    source_help = "LMDB, list (lines `path l1 ... lC`, `path label` or `path`), pictures, or a folder of them"
    parser.add_argument("--source", required=True, nargs="+", metavar="PATH", help=source_help)
    parser.add_argument("--out", required=True, metavar="X.npz", help="codes file to write; with --shard, a folder")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="part I of N alone, I from 0 to N - 1")
    parser.add_argument("--root", default="", metavar="DIR", help="folder that a list's paths are relative to")
    parser.add_argument("--labels", type=at_least(1), metavar="C", help="number of classes, for class numbers")
    parser.add_argument("--batch-size", type=at_least(1), metavar="B", help="default: that of the deploy net")
    parser.add_argument("--gpu", type=int, metavar="N", help="compute on this GPU; default: on the CPU")
    parser.add_argument("--like", metavar="train_val.prototxt", help="net whose test data layer prepares the images")
    parser.add_argument(
        "--resize", type=at_least(1, 65535), nargs=2, metavar=("H", "W"), help="resize images before the crop"
    )
    parser.add_argument("--mean-value", type=float, nargs="+", metavar="V", help="subtracted: one, or one a channel")
    parser.add_argument("--mean-file", metavar="M", help="mean image, subtracted instead: .binaryproto or .npy")
    parser.add_argument("--scale", type=float, help="multiplies what is left")
    crops = list(classifier.CROPS)
    parser.add_argument("--classifier", dest="crops", choices=crops, help="the authors' way: one or ten crops")
    parser.add_argument("--workers", type=at_least(1), metavar="N", help="processes of --classifier; default: 1")
    return parser


def _extract_as_test_layer(settings: Settings) -> None:
    """Extract codes of images that are prepared as the test data layer does it."""
    import caffe  # after GLOG_minloglevel is set

    if settings.gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(settings.gpu)
        caffe.set_mode_gpu()
    net = load_net(settings.model, settings.weights)
    shapes = {name: tuple(net.blobs[name].shape) for name in net.inputs}
    if len(shapes) != 1 or len(shapes[net.inputs[0]]) != 4:
        raise ValueError(f"{settings.model}: expected one input (batch, channels, height, width), found {shapes}")
    if not all(shapes[net.inputs[0]]):
        raise ValueError(f"{settings.model}: expected an input of a value or more along each axis, found {shapes}")
    if settings.blob not in net.blobs:
        raise ValueError(f"{settings.model} has no blob {settings.blob}; it has {', '.join(net.blobs)}")
    batch_size, channels, height, width = shapes[net.inputs[0]]

    prepared, like = settings.preparation()
    description = ", ".join(f"{key} {value}" for key, value in prepared.items()) or "as they are"
    origin = f" (as in {like})" if like and not settings.typed_preparation() else ""
    console.print(f"images: {description}, crop {height}x{width}{origin}")

    gray, resize = {1: True, 3: False}.get(channels), prepared.get("resize")
    if gray is not None and prepared.get("gray", gray) != gray:
        raise ValueError(
            f"{settings.model} takes {channels} channel{'s' * (channels > 1)}, the data layer of {like} gives "
            f"{1 if prepared['gray'] else 3}: expected the deploy net and the training net of one training"
        )
    size = (resize, resize) if isinstance(resize, int) else resize and tuple(resize)
    upright = prepared.get("upright", True)
    source = sources.open_source(settings.source, settings.root, settings.labels, gray, size, upright)
    batch_size = settings.batch_size or batch_size
    mean, scale = mean_of(prepared), prepared.get("scale", 1)
    if "mean_file" in prepared:
        prepared["mean_file"] = sha256(prepared["mean_file"])

    def run(rows: range, advance: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        return extract(net, settings.blob, source, batch_size, mean, scale, advance, rows)

    _save(settings, source, batch_size, prepared, run)


def _extract_as_authors(settings: Settings, crops: str) -> None:
    """Extract codes of images that are prepared as the authors' prediction scripts do it, in worker processes."""
    workers = settings.workers or 1
    mean = tuple(settings.mean_value or ()) or classifier.channel_mean(settings.mean_file or "")
    job = classifier.Job(
        settings.model, settings.weights, settings.blob, tuple(settings.source), settings.root, settings.labels, mean,
        crops, settings.gpu, max(1, (os.cpu_count() or 1) // workers),
    )  # fmt: skip
    load_net(settings.model, settings.weights)  # files and weights are checked before a process is started
    means = ", ".join(f"{value:.3f}" for value in mean)
    console.print(f"images: as caffe.Classifier prepares them, 256x256, mean {means}, {crops} crop(s)")
    source = classifier.open_source(job)

    def run(rows: range, advance: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        return classifier.extract(job, workers, advance, rows)

    _save(settings, source, classifier.CHUNK, {"crops": crops, "mean": list(mean)}, run)


def _save(
    settings: Settings, source: sources.ImageSource, batch_size: int, prepared: dict, run_extraction: Extract
) -> None:
    """Run an extraction under a progress bar and save the codes and labels it gives: of all images, or a part's.

    prepared: how images are prepared, all that codes depend on besides net, weights and source.
    """
    part, rows, out = None, range(len(source)), settings.out
    if settings.shard:
        recipe = {
            "net": sha256(settings.model),
            "weights": sha256(settings.weights),
            "source": parts.source_digest(source, settings.source),
            "settings": {"blob": settings.blob, "batch_size": batch_size, **prepared},
        }
        part = parts.Part(settings.out, settings.shard, len(source), batch_size, recipe)
        rows, out = part.rows, str(part.path)
    make_folder(Path(out).parent)
    with locks.hold(out):
        if part is not None and part.is_complete():
            console.print(f"{out}: complete, left as it is ({len(rows)} codes)")
            return
        _write(settings, source, part, rows, out, run_extraction)


def _write(
    settings: Settings,
    source: sources.ImageSource,
    part: parts.Part | None,
    rows: range,
    out: str,
    run_extraction: Extract,
) -> None:
    """Extract the codes of these rows and write them to `out`, the file of a part or of all."""
    began = time.monotonic()
    with counter() as bar:
        name = f"codes of {Path(settings.source[0]).name}" + ", ..." * (len(settings.source) > 1)
        task = bar.add_task(name, total=len(rows))

        def advance(images: int) -> None:
            bar.advance(task, images)
            rate = bar.tasks[0].completed / (time.monotonic() - began)
            bar.update(task, description=f"{name}, {rate:.0f} images/s")

        values, labels = run_extraction(rows, advance)
    seconds = time.monotonic() - began
    names = getattr(source, "names", None)
    if part is None:
        codes.save(out, values, labels, names)
    else:
        part.save(values, labels, names)
    rate = f"{seconds:.1f} s, {len(rows) / seconds:.0f} images/s"
    unknown = int((labels < 0).all(1).sum())
    carried = f"{labels.shape[1]} labels" if unknown < len(labels) else "labels unknown"
    carried += f", unknown for {unknown}" if 0 < unknown < len(labels) else ""
    console.print(f"{out}: {len(rows)} codes of {values.shape[1]} bits, {carried} ({rate})")


def _shard(text: str) -> parts.Shard:
    try:
        return parts.Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(dhn.run(main))
