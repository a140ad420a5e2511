"""Extract the codes of images: one forward pass of a deploy net over an LMDB, a list, pictures or a folder of them.

    python tools/extract_codes.py --model deploy.prototxt --weights W.caffemodel --source LMDB|LIST|PICTURE...|FOLDER
        --out X.npz [--blob hash_layer] [--gpu N]

X.npz holds `codes` (float32 N x K) and `labels` (uint8 N x C), in the source's order. Images without labels (pictures,
a folder, a list of paths alone) have rows of -1 (int8), and X.npz holds their `names` too. The images are prepared as
the test data layer of the net that was trained does it: its settings are read from train_val.prototxt next to the
deploy net (or from --like), and an option given here goes before them. Number of channels, height and width are those
of the deploy net's input: grey or colour follows from the channels, larger images are cropped in their centre.

--classifier prepares the images as the authors' prediction scripts do instead (tools/dhn/codes/classifier.py): resized
to 256x256, per-channel mean of --mean-file (BVLC's ilsvrc_2012_mean.npy) or --mean-value, the centre crop or the mean
over ten crops, in --workers processes.

X.npz appears when it is whole, in one step. Needs nothing of Caffe but pycaffe's Net and Classifier.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from dhn.codes import classifier, sources
from dhn.codes import files as codes
from dhn.codes.extraction import PREPARED, extract, load_net, mean_of, settings_of


def main(arguments: list | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, metavar="deploy.prototxt", help="net with one image input")
    parser.add_argument("--weights", required=True, metavar="W.caffemodel", help="its weights (.caffemodel or .h5)")
    parser.add_argument("--blob", default="hash_layer", help="blob that holds the codes; default: hash_layer")
    source_help = "LMDB, list (lines `path l1 ... lC`, `path label` or `path`), pictures, or a folder of them"
    parser.add_argument("--source", required=True, nargs="+", metavar="PATH", help=source_help)
    parser.add_argument("--out", required=True, metavar="X.npz", help="codes file to write")
    parser.add_argument("--root", default="", metavar="DIR", help="folder that a list's paths are relative to")
    parser.add_argument("--labels", type=_positive, metavar="C", help="number of classes, for class numbers")
    parser.add_argument("--batch-size", type=_positive, metavar="B", help="default: that of the deploy net")
    parser.add_argument("--gpu", type=int, metavar="N", help="compute on this GPU; default: on the CPU")
    parser.add_argument("--like", metavar="train_val.prototxt", help="net whose test data layer prepares the images")
    parser.add_argument("--resize", type=_positive, nargs=2, metavar=("H", "W"), help="resize images before the crop")
    parser.add_argument("--mean-value", type=float, nargs="+", metavar="V", help="subtracted: one, or one a channel")
    parser.add_argument("--mean-file", metavar="M", help="mean image, subtracted instead: .binaryproto or .npy")
    parser.add_argument("--scale", type=float, help="multiplies what is left")
    parser.add_argument("--classifier", choices=list(classifier.CROPS), help="the authors' way: one or ten crops")
    parser.add_argument("--workers", type=_positive, metavar="N", help="processes of --classifier; default: 1")
    options = parser.parse_args(arguments)
    if options.workers and not options.classifier:
        parser.error("--workers is an option of --classifier")
    if options.classifier:
        for name in ("like", "resize", "scale", "batch_size"):
            if getattr(options, name) is not None:
                parser.error(f"--{name.replace('_', '-')} does not go with --classifier, which has its own way")
        if options.mean_value is None and options.mean_file is None:
            parser.error("--classifier needs --mean-file weights/ilsvrc_2012_mean.npy (make weights), or --mean-value")
    if options.mean_value is not None and options.mean_file is not None:
        parser.error("--mean-value and --mean-file exclude each other")
    os.environ.setdefault("GLOG_minloglevel", "1")  # warnings, but not a line for every layer and blob
    try:
        return _run_classifier(options) if options.classifier else _run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"extract_codes: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    import caffe  # after GLOG_minloglevel is set
    from dhn.progress import console

    if options.gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(options.gpu)
        caffe.set_mode_gpu()
    net = load_net(options.model, options.weights)
    shapes = {name: tuple(net.blobs[name].shape) for name in net.inputs}
    if len(shapes) != 1 or len(shapes[net.inputs[0]]) != 4:
        raise ValueError(f"{options.model}: expected one input (batch, channels, height, width), found {shapes}")
    if options.blob not in net.blobs:
        raise ValueError(f"{options.model} has no blob {options.blob}; it has {', '.join(net.blobs)}")
    batch_size, channels, height, width = shapes[net.inputs[0]]

    beside = Path(options.model).parent / "train_val.prototxt"
    like = options.like or (str(beside) if beside.exists() else None)
    chosen = {key: getattr(options, key, None) for key in PREPARED}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    settings = settings_of(like) if like else {}
    if "mean_value" in chosen or "mean_file" in chosen:
        settings = {key: value for key, value in settings.items() if not key.startswith("mean_")}
    settings.update(chosen)
    said = ", ".join(f"{key} {value}" for key, value in settings.items()) or "as they are"
    console.print(f"images: {said}, crop {height}x{width}" + (f" (as in {like})" if like and not chosen else ""))

    gray, resize = {1: True, 3: False}.get(channels), settings.get("resize")
    if gray is not None and settings.get("gray", gray) != gray:
        raise ValueError(
            f"{options.model} takes {channels} channel{'s' * (channels > 1)}, the data layer of {like} gives "
            f"{1 if settings['gray'] else 3}: expected the deploy net and the training net of one training"
        )
    size = (resize, resize) if isinstance(resize, int) else resize and tuple(resize)
    upright = settings.get("upright", True)
    source = sources.open_source(options.source, options.root, options.labels, gray, size, upright)

    def work(advance):
        size = options.batch_size or batch_size
        return extract(net, options.blob, source, size, mean_of(settings), settings.get("scale", 1), advance)

    return _save(options, source, work)


def _run_classifier(options: argparse.Namespace) -> int:
    from dhn.progress import console

    workers = options.workers or 1
    mean = options.mean_value or classifier.channel_mean(options.mean_file)
    job = classifier.Job(
        options.model, options.weights, options.blob, tuple(options.source), options.root, options.labels, tuple(mean),
        options.classifier, options.gpu, max(1, (os.cpu_count() or 1) // workers),
    )  # fmt: skip
    load_net(options.model, options.weights)  # files and weights are checked before a process is started
    shown = ", ".join(f"{value:.3f}" for value in mean)
    console.print(f"images: as caffe.Classifier prepares them, 256x256, mean {shown}, {options.classifier} crop(s)")
    source = classifier.open_source(job)
    return _save(options, source, lambda advance: classifier.extract(job, workers, advance))


def _save(options: argparse.Namespace, source, work) -> int:
    """Run work(advance) under a progress bar and save the codes and labels it gives."""
    from dhn.progress import console, counter

    began = time.monotonic()
    with counter() as bar:
        name = f"codes of {Path(options.source[0]).name}" + ", ..." * (len(options.source) > 1)
        task = bar.add_task(name, total=len(source))

        def advance(images: int) -> None:
            bar.advance(task, images)
            rate = bar.tasks[0].completed / (time.monotonic() - began)
            bar.update(task, description=f"{name}, {rate:.0f} images/s")

        found, labels = work(advance)
    seconds = time.monotonic() - began
    codes.save(options.out, found, labels, names=getattr(source, "names", None))
    rate = f"{seconds:.1f} s, {len(found) / seconds:.0f} images/s"
    unknown = int((labels < 0).all(1).sum())
    carried = f"{labels.shape[1]} labels" if unknown < len(labels) else "labels unknown"
    carried += f", unknown for {unknown}" if 0 < unknown < len(labels) else ""
    console.print(f"{options.out}: {len(found)} codes of {found.shape[1]} bits, {carried} ({rate})")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
