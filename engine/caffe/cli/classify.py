"""`classify INPUT OUTPUT.npy --model_def --pretrained_model --mean_file ...`: an image classifier's predictions.

INPUT is an image, a folder of images (those that end in --ext, in order of their names) or an .npy of images.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import sys
import time

import numpy as np
from atomic_writes.command_lines import Parser

import caffe
from caffe.atomic_files import check_folder, write_atomic
from caffe.classifier import check_image
from caffe.cli.arguments import run
from caffe.cli.images import add_flags, check_files, load_array, pair, set_mean, steps, use_device


def _inputs(path: str, ext: str) -> list[np.ndarray]:
    path = os.path.expanduser(path)
    if path.endswith("npy"):
        print(f"Loading file: {path}")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"expected images as an .npy at {path}")
        images = load_array(path)
        if images.ndim == 0:
            raise ValueError(f"{path}: expected images (N, height, width, channels), found one number")
        return [*images]
    if os.path.isdir(path):
        print(f"Loading folder: {path}")
        names = sorted(glob.glob(os.path.join(glob.escape(path), f"*.{ext}")))
        if not names:
            raise FileNotFoundError(f"{path}: expected images that end in .{ext}, found none; see --ext")
        return [caffe.io.load_image(name) for name in names]
    print(f"Loading file: {path}")
    return [caffe.io.load_image(path)]


def _classify(args: argparse.Namespace) -> None:
    output = args.output_file if args.output_file.endswith(".npy") else f"{args.output_file}.npy"
    check_folder(output)
    check_files(args)
    use_device(args.gpu)
    size = pair(args.images_dim)
    classifier = caffe.Classifier(args.model_def, args.pretrained_model, image_dims=size, **steps(args))
    set_mean(classifier, args.mean_file)
    inputs = _inputs(args.input_file, args.ext)
    for image in inputs:
        check_image(classifier, image, args.input_file)
    print(f"Classifying {len(inputs)} inputs.")
    start = time.perf_counter()
    predictions = classifier.predict(inputs, not args.center_only)
    print(f"Done in {time.perf_counter() - start:.2f} s.")
    print(f"Saving results into {output}")
    content = io.BytesIO()
    np.save(content, predictions)
    write_atomic(output, content.getvalue())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(prog="classify", description=__doc__)
    parser.add_argument("input_file", help="Input image, directory, or npy")
    parser.add_argument("output_file", help="Output npy filename")
    add_flags(parser)
    parser.add_argument("--center_only", action="store_true", help="Predict from the centre crop alone")
    parser.add_argument("--images_dim", default="256,256", help="Canonical 'height,width' of input images")
    parser.add_argument("--ext", default="jpg", help="Image file extension to take as input when a directory is given")
    return run(parser, _classify, arguments)


if __name__ == "__main__":
    sys.exit(main())
