"""Extract the codes of images: one forward pass of a deploy net over an LMDB, a list, pictures or a folder of them.

    python tools/extract_codes.py --model deploy.prototxt --weights W.caffemodel --source LMDB|LIST|PICTURE...|FOLDER
        --out X.npz [--blob hash_layer] [--gpu N]

X.npz holds `codes` (float32 N x K) and `labels` (uint8 N x C), in the source's order. Images without labels (pictures,
a folder, a list of paths alone) have rows of -1 (int8), and X.npz holds their `names` too. The images are prepared as
the test data layer of the net that was trained does it: its settings are read from train_val.prototxt next to the
deploy net (or from --like), and an option given here goes before them. Number of channels, height and width are those
of the deploy net's input: grey or colour follows from the channels, larger images are cropped in their centre.

--classifier prepares the images as the authors' prediction scripts do instead (tools/dhn/codes/classifier.py): resized to
256x256, per-channel mean of --mean-file (BVLC's ilsvrc_2012_mean.npy) or --mean-value, the centre crop or the mean over
ten crops, in --workers processes.

X.npz appears when it is whole, in one step. Needs nothing of Caffe but pycaffe's Net and Classifier.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python_layers"))  # to read data as training does

from dhn.codes import classifier as classifier_codes
from dhn.codes import files as codes
from dhn.codes import sources as code_sources

# what a test data layer says of an image, besides its crop; upright: False where it does not look at the orientation
PREPARED = ("resize", "gray", "upright", "mean_value", "mean_file", "scale")
AHEAD = 4  # batches prepared while the net computes


def settings_of(model: str | os.PathLike) -> dict:
    """How the test data layer of a train_val.prototxt prepares images: those of PREPARED that it sets.

    Knows Data and ImageData layers and Python layers with the keys of multilabel_data.MultiLabelDataLayer.
    Raises ValueError for a net without such a layer.
    """
    import caffe
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    net = caffe_pb2.NetParameter()
    with open(model, encoding="utf-8", errors="replace") as stream:  # comments may be in any encoding
        try:
            text_format.Merge(stream.read(), net)
        except text_format.ParseError as error:
            raise ValueError(f"{model}: is not a net ({error})") from None
    for layer in net.layer:
        phases = [rule.phase for rule in layer.include if rule.HasField("phase")]
        if layer.bottom or (phases and caffe.TEST not in phases):
            continue
        if layer.type == "Python" and layer.python_param.module == "multilabel_data":
            given = json.loads(layer.python_param.param_str)
            return {key: given[key] for key in PREPARED if given.get(key) is not None}
        if layer.type in ("Data", "ImageData"):
            found = {}
            transform, image = layer.transform_param, layer.image_data_param
            if transform.mean_value:
                found["mean_value"] = list(transform.mean_value)
            if transform.mean_file:
                found["mean_file"] = transform.mean_file
            if transform.scale != 1:
                found["scale"] = transform.scale
            if layer.type == "ImageData":
                found["gray"] = not image.is_color
                if image.new_height:
                    found["resize"] = [image.new_height, image.new_width]
            elif transform.force_color or transform.force_gray:
                found["gray"] = transform.force_gray
            else:
                found["upright"] = False
            return found
    raise ValueError(
        f"{model}: expected a test data layer (Data, ImageData, or Python with multilabel_data), found none; "
        "say how images are prepared with --mean-value, --scale and --resize"
    )


def load_net(model: str, weights: str):
    """The net of a deploy.prototxt in its TEST phase, every layer that learns having weights.

    Raises ValueError where the file has none for a layer: Caffe itself would leave that layer as it was filled.
    """
    import caffe

    for path, what in ((model, "--model"), (weights, "--weights")):
        if not os.path.isfile(path):
            raise ValueError(f"{what}: there is no file {path}")
    net = caffe.Net(model, caffe.TEST, weights=weights)
    missing = [name for name in net.params if name not in _layers_in(weights)]
    if missing:
        raise ValueError(f"{weights} has no weights for {', '.join(missing)} of {model}: is it another net's file?")
    return net


def _layers_in(weights: str) -> set:
    """Names of the layers that a .caffemodel or .caffemodel.h5 has weights for."""
    if weights.endswith(".h5"):
        import h5py

        with h5py.File(weights, "r") as file:
            return set(file["data"])
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter()
    net.ParseFromString(Path(weights).read_bytes())
    return {layer.name for layers in (net.layer, net.layers) for layer in layers if layer.blobs}


def extract(net, blob: str, source, batch_size: int, mean=0, scale: float = 1, advance=lambda images: None):
    """Codes (N, K) float32 and labels (N, C) int8 of all N images of a source, in its order.

    net: one with a single image input (B, channels, height, width); it is reshaped to batches of `batch_size`, the
    last one to what is left. source: what code_sources.open_source gives. mean: a number, or an array that
    multilabel_data.Batches takes; scale multiplies after its subtraction. advance(n) is called after each n images.
    Raises ValueError for a blob that holds no codes, and for codes that are not finite, naming the image.
    """
    from image_records import Prefetcher
    from multilabel_data import Batches

    data = net.blobs[net.inputs[0]]
    _, channels, height, width = data.shape
    batches = Batches(source, batch_size, train=False, crop=(height, width), mean=mean, scale=scale)
    count = len(source)
    plans = [range(begin, min(begin + batch_size, count)) for begin in range(0, count, batch_size)]
    if batches.shape[1] != channels:
        raise ValueError(f"{source.name(0)}: the net takes {channels} channels, the image has {batches.shape[1]}")

    def build(plan, map_):
        return batches.build([(index, 0, 0, False) for index in plan], map_)

    prefetcher = Prefetcher(plans, build, AHEAD, threads=2)
    found, carried = None, np.empty((count, source.labels), np.float32)
    for plan in plans:
        images, labels = prefetcher.next()
        if len(images) != data.shape[0]:
            data.reshape(*images.shape)
            net.reshape()
        data.data[...] = images
        net.forward()
        batch = net.blobs[blob].data
        if batch.shape[0] != len(images) or batch.size == 0:
            raise ValueError(f"blob {blob}: expected a row an image, {len(images)} of them, found {batch.shape}")
        batch = batch.reshape(len(images), -1)
        if not np.isfinite(batch).all():
            row = int((~np.isfinite(batch).all(1)).argmax())
            raise ValueError(f"{source.name(plan[row])}: its codes are not finite; did the training diverge?")
        if found is None:
            found = np.empty((count, batch.shape[1]), np.float32)
        found[plan.start : plan.stop] = batch
        carried[plan.start : plan.stop] = labels
        advance(len(images))
    return found, code_sources.label_rows(carried, source)


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
    parser.add_argument("--classifier", choices=list(classifier_codes.CROPS), help="the authors' way: one or ten crops")
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
    source = code_sources.open_source(options.source, options.root, options.labels, gray, size, upright)

    def work(advance):
        size = options.batch_size or batch_size
        return extract(net, options.blob, source, size, _mean(settings), settings.get("scale", 1), advance)

    return _save(options, source, work)


def _run_classifier(options: argparse.Namespace) -> int:
    from dhn.progress import console

    workers = options.workers or 1
    mean = options.mean_value or classifier_codes.channel_mean(options.mean_file)
    job = classifier_codes.Job(
        options.model, options.weights, options.blob, tuple(options.source), options.root, options.labels, tuple(mean),
        options.classifier, options.gpu, max(1, (os.cpu_count() or 1) // workers),
    )  # fmt: skip
    load_net(options.model, options.weights)  # files and weights are checked before a process is started
    shown = ", ".join(f"{value:.3f}" for value in mean)
    console.print(f"images: as caffe.Classifier prepares them, 256x256, mean {shown}, {options.classifier} crop(s)")
    source = classifier_codes.open_source(job)
    return _save(options, source, lambda advance: classifier_codes.extract(job, workers, advance))


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


def _mean(settings: dict):
    """The mean to subtract, as multilabel_data.Batches takes it: a number, (channels, 1, 1) or an image."""
    if "mean_file" in settings:
        return code_sources.read_mean(settings["mean_file"])
    value = settings.get("mean_value", 0)
    return np.reshape(value, (-1, 1, 1)) if isinstance(value, list) and len(value) > 1 else np.ravel(value)[0]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
