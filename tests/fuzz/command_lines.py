"""Good command lines of the programs that end within a second: the fuzzer damages their words as it does files."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import build_index
import convert_weights
import create_lmdb
import curves
import extract_codes
import get_data
import merge_codes
import report
import reroot_list
import score_map
import score_run
import search
from caffe.cli import (
    classification,
    classify,
    compute_image_mean,
    convert_imageset,
    convert_mnist_data,
    detect,
    draw_net,
    extract_features,
    parse_log,
    plot_training_log,
    upgrade_proto,
)
from caffe.cli.main import main as caffe

Main = Callable[[list[str]], int | None]


class Line(NamedTuple):
    """folder: of the good files that the words name."""

    folder: str
    main: Main
    words: str


LINES = {
    # of Caffe
    "caffe train": Line(
        "training", caffe, "train -solver solver.prototxt -iterations 1 -minloglevel 2 -sigint_effect stop"
    ),
    "caffe test": Line(
        "training", caffe, "test -model net.prototxt -weights s_iter_1.caffemodel -iterations 2 -minloglevel 1"
    ),
    "caffe time": Line(
        "training", caffe, "time -model net.prototxt -iterations 2 -phase TEST -level 1 -stage a,b -minloglevel 1"
    ),
    "convert_imageset": Line(
        "images",
        convert_imageset.main,
        "-resize_width 6 -resize_height 6 -gray -check_size -encoded=false -backend lmdb ./ list.txt out",
    ),
    "convert_mnist_data": Line("images", convert_mnist_data.main, "-backend lmdb images.idx labels.idx out"),
    "compute_image_mean": Line("images", compute_image_mean.main, "-backend lmdb lmdb out.binaryproto"),
    "extract_features": Line(
        "images", extract_features.main, "w.caffemodel data.prototxt data,label out1,out2 2 lmdb CPU"
    ),
    "classification": Line(
        "images", classification.main, "deploy.prototxt w.caffemodel mean.binaryproto names.txt 1.png"
    ),
    "classify": Line(
        "images",
        classify.main,
        "1.png o.npy --model_def deploy.prototxt --pretrained_model w.caffemodel --images_dim 6,6 --mean_file mean.npy "
        "--input_scale 1 --raw_scale 255 --channel_swap 2,1,0 --center_only --ext png",
    ),
    "detect": Line(
        "images",
        detect.main,
        "crops.csv o.csv --model_def deploy.prototxt --pretrained_model w.caffemodel --crop_mode list "
        "--mean_file mean.npy --input_scale 1 --raw_scale 255 --channel_swap 2,1,0 --context_pad 1",
    ),
    "draw_net": Line("nets", draw_net.main, "--rankdir TB --phase TEST --display_lrm selection.prototxt net.dot"),
    "parse_log": Line("training", parse_log.main, "train.log . --verbose --delimiter ;"),
    "plot_training_log": Line("training", plot_training_log.main, "6 chart.svg train.log"),
    "upgrade_solver_proto_text": Line("training", upgrade_proto.solver_text, "solver.prototxt upgraded.prototxt"),
    # of the tools
    "score_map": Line(
        "codes",
        score_map.main,
        "--query query.npz --database database.npz --protocol standard --top 5 --codes sign --json",
    ),
    "search": Line(
        "codes", search.main, "index --codes query.npz --top 3 --radius 4 --label 1 --unique --ties key --json"
    ),
    "build_index": Line(
        "codes", build_index.main, "--codes database.npz --codes-are sign --labels-are vectors --out other"
    ),
    "merge_codes": Line("codes_of_images", merge_codes.main, "parts --out merged.npz"),
    "extract_codes": Line(
        "images",
        extract_codes.main,
        "--model deploy.prototxt --weights w.caffemodel --source 1.png --resize 6 6 --out o.npz --batch-size 2 "
        "--mean-value 1 2 3 --scale 0.5 --labels 3 --blob hash_layer",
    ),
    "create_lmdb": Line("images", create_lmdb.main, "list.txt out --root . --classes 3 --resize 6 6"),
    "reroot_list": Line("images", reroot_list.main, "labels.txt --root . --out lists --allow-missing --encoding utf-8"),
    "get_data": Line(
        "data_sets", get_data.main, "folder.json --root new --seed 3 --split mine --allow-missing 1 --skip-bad 1"
    ),
    "convert_weights": Line("training", convert_weights.main, "show s_iter_1.caffemodel --net net.prototxt"),
    "curves": Line("training", curves.main, "train.log"),
    "score_run": Line("runs", score_run.main, "--run runs/mine --codes sign --labels vectors"),
    "report": Line("runs", report.main, "--run runs/mine"),
}
