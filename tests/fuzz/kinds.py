"""What the fuzzer damages: for each kind of input, the file, and the command that reads it."""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import asked_server
import build_index
import convert_weights
import create_lmdb
import curves
import dhn
import extract_codes
import get_data
import good_files
import good_nets
import lmdb
import merge_codes
import numpy as np
import report
import reroot_list
import score_map
import score_run
import search
import search_server
from caffe.cli import (
    classify,
    compute_image_mean,
    convert_imageset,
    convert_mnist_data,
    detect,
    draw_net,
    parse_log,
    upgrade_proto,
)
from caffe.cli.main import main as caffe_main
from command_lines import LINES, Main
from dhn.datasets import archives, cifar10_python
from dhn.experiments import run_table, side_by_side


class Kind(NamedTuple):
    """file: what is damaged, in one of good_files' folders. command: reads it and returns an exit status.

    names: words of which a sentence has one, besides the names of the file and its folder. exact: the format has a
    checksum, so that what is accepted gives what the undamaged file gives. repeats: two runs give the same.
    """

    file: str
    command: Callable[[], int | None]
    names: tuple[str, ...] = ()
    exact: bool = False
    repeats: bool = True


def words(main: Main, line: str) -> Callable[[], int | None]:
    """A command with the words of a line."""

    def command() -> int | None:
        sys.argv[1:] = line.split()  # which a sentence may name
        return dhn.run(lambda: main(line.split()) or 0)

    return command


def words_of(main: Main, path: str) -> Callable[[], int | None]:
    """A command with the words that a file holds."""

    def command() -> int | None:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape").replace("\0", "")
        return dhn.run(lambda: main(text.split()) or 0)

    return command


def caught(function: Callable[[], object]) -> Callable[[], int]:
    """A function of the tools as the commands call it: its errors are sentences."""

    def command() -> int:
        try:
            function()
        except (ValueError, OSError, RuntimeError) as error:
            print(error)
            return 1
        return 0

    return command


def read_net(path: str) -> Callable[[], int | None]:
    """Three batches of a net of data layers, whose values are printed."""
    return words(caffe_main, f"test -model {path} -weights w.caffemodel -iterations 3")


def time_net(path: str) -> Callable[[], int | None]:
    """Forward and backward pass of a net."""
    return words(caffe_main, f"time -model {path} -iterations 1 -minloglevel 1")


def use_weights(path: str) -> Callable[[], int | None]:
    return words(caffe_main, f"test -model net.prototxt -weights {path} -iterations 1 -minloglevel 1")


def resume(path: str) -> Callable[[], int | None]:
    return words(caffe_main, f"train -solver solver.prototxt -snapshot {path} -minloglevel 1")


def score(query: str, rest: str = "") -> Callable[[], int | None]:
    return words(score_map.main, f"--query {query} --database database.npz --json {rest}")


def record() -> int | None:
    """The record that the file `datum` or `datum_encoded` holds, in an LMDB of three, read in both ways."""
    for name in ("datum", "datum_encoded"):
        with lmdb.open(name + "_lmdb", map_size=1 << 20) as environment, environment.begin(write=True) as writer:
            for number in range(3):
                writer.put(b"%d" % number, Path(name).read_bytes())
    status = 0
    for name in ("datum", "datum_encoded"):
        for layer in ("data", "multilabel"):
            net = good_nets.reader(layer).replace('"lmdb"', f'"{name}_lmdb"')
            Path("record.prototxt").write_text(net)
            status = read_net("record.prototxt")() or status
    return status


def zipped() -> int | None:
    """Codes in an .npz whose member is the damaged file, its checksum right."""
    with zipfile.ZipFile("wrapped.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("codes.npy"), Path("codes.npy").read_bytes())  # without the time of now
        archive.writestr(zipfile.ZipInfo("labels.npy"), zipfile.ZipFile("database.npz").read("labels.npy"))
    return score("wrapped.npz", "--codes sign")()


def merge_with_facts() -> int | None:
    """Parts merged, of which one has the facts that a JSON file holds, its check sums right."""
    path = Path("parts/part-1-of-2.npz")
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "part": np.array(Path("part.json").read_text(errors="surrogateescape"))})
    return words(merge_codes.main, "parts --out merged.npz")()


def unpack(path: str, compress: bool = False) -> Callable[[], int]:
    def command() -> None:
        source = path
        if compress:
            source = f"{path}.gz"
            Path(source).write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
        archives.unpack(source, "unpacked", lambda name: name, 1 << 20)

    return caught(command)


def index(options: str) -> Callable[[], int | None]:
    return words(search.main, f"index --codes query.npz --json {options}")


def convert(line: str) -> Callable[[], int | None]:
    return words(convert_weights.main, line)


def request(path: str, body_of: str = "") -> Callable[[], int]:
    """The server of an index is sent what a file holds. body_of: the type of content, where that is a body."""

    def command() -> int:
        content = Path(path).read_bytes()
        return asked_server.send("runs/mine/index", asked_server.post(content, body_of) if body_of else content)

    return command


def compare() -> int:
    """The scores under runs/ in one table."""

    def command() -> None:
        runs, unusable = run_table.read_runs(Path.cwd())
        print(*unusable, sep="\n")
        side_by_side.compare("birds", None, runs, Path.cwd())

    return caught(command)()


EXTRACT = "--model deploy.prototxt --weights w.caffemodel --resize 6 6 --out out.npz"
CREATE = "out --root . --classes 3"
RUN = "runs/runs/mine"
RUN_FILES = (
    "metrics.json", "query.npz", "train.log", "solver.prototxt", "train_val.prototxt", "training.json", "written.json",
    "deploy.prototxt", "s_iter_2.caffemodel",
)  # fmt: skip

KINDS: dict[str, Kind] = {
    **{
        f"net: {name}": Kind(f"nets/{name}.prototxt", time_net(f"{name}.prototxt"), ("layer ", "net "), repeats=False)
        for name in good_nets.NETS
        if name != "output"
    },
    "net: output": Kind(
        "nets/output.prototxt",
        words(caffe_main, "test -model output.prototxt -weights w.caffemodel -iterations 1"),
        ("layer ", "net "),
    ),
    "solver": Kind(
        "training/solver.prototxt",
        words(caffe_main, "train -solver solver.prototxt -minloglevel 1"),
        ("layer ", "net "),
    ),
    "solver of other fields": Kind(
        "training/other.prototxt",
        words(caffe_main, "train -solver other.prototxt -minloglevel 1"),
        ("layer ", "net "),
    ),
    "solver with its nets": Kind(
        "training/inline.prototxt",
        words(caffe_main, "train -solver inline.prototxt -minloglevel 1"),
        ("layer ", "net "),
    ),
    "infogain matrix": Kind("nets/infogain.binaryproto", time_net("shared.prototxt"), ("layer 'information'",)),
    "net in three forms": Kind("nets/old.prototxt", words(upgrade_proto.net_text, "old.prototxt new.prototxt")),
    "binary net": Kind("training/net.binary", words(upgrade_proto.net_binary, "net.binary new.binary")),
    "drawn net": Kind("nets/selection.prototxt", words(draw_net.main, "selection.prototxt net.dot"), ("layer ",)),
    "fork's caffe.proto": Kind(
        "training/fork.proto",
        words(caffe_main, "time -model net.prototxt -iterations 1 -proto fork.proto -minloglevel 1"),
    ),
    "caffemodel": Kind("training/s_iter_1.caffemodel", use_weights("s_iter_1.caffemodel")),
    "caffemodel of tools": Kind(
        "training/s_iter_1.caffemodel", convert("show s_iter_1.caffemodel --net net.prototxt"), (" mismatched ",)
    ),
    "net of tools": Kind(
        "training/net.prototxt",
        convert("show s_iter_1.caffemodel --net net.prototxt"),
        ("layer ", "net ", " mismatched "),
    ),
    **{
        f"net exported to {suffix}": Kind(
            "images/deploy.prototxt",
            convert(f"export w.caffemodel --net deploy.prototxt out.{suffix}"),
            ("layer ", "net "),
        )
        for suffix in ("pt", "onnx")
    },
    **{
        f"net exported: {name}": Kind(
            f"nets/{name}.prototxt",
            convert(f"export w.caffemodel --net {name}.prototxt out.onnx"),
            ("layer ", "net "),
            repeats=False,
        )
        for name in ("fields", "neurons", "oldest")
    },
    "HDF5 caffemodel of tools": Kind(
        "training/s_iter_1.caffemodel.h5", convert("show s_iter_1.caffemodel.h5 --net net.prototxt"), (" mismatched ",)
    ),
    "HDF5 caffemodel": Kind("training/s_iter_1.caffemodel.h5", use_weights("s_iter_1.caffemodel.h5")),
    "solverstate": Kind("training/s_iter_1.solverstate", resume("s_iter_1.solverstate")),
    "HDF5 solverstate": Kind("training/s_iter_1.solverstate.h5", resume("s_iter_1.solverstate.h5")),
    "log": Kind("training/train.log", words(parse_log.main, "train.log .")),
    "log of tools": Kind("training/train.log", words(curves.main, "train.log")),
    # images
    **{
        f"reader: {name}": Kind(
            f"images/{name}.prototxt", read_net(f"{name}.prototxt"), ("layer ", "net "), repeats=False
        )
        for name in good_nets.READERS
    },
    **{f"picture: {name}": Kind(f"images/{name}", read_net("list.prototxt")) for name in good_files.PICTURES[:8]},
    "picture of tools": Kind("images/0.jpg", words(create_lmdb.main, f"list.txt {CREATE}")),
    "picture of extract_codes": Kind("images/1.png", words(extract_codes.main, f"{EXTRACT} --source 1.png 0.jpg")),
    "picture of classify": Kind(
        "images/1.png",
        words(
            classify.main,
            "1.png o.npy --model_def deploy.prototxt "
            "--pretrained_model w.caffemodel --images_dim 6,6 --mean_file mean.npy --center_only",
        ),
    ),
    "image list": Kind("images/list.txt", read_net("list.prototxt")),
    "list of labels": Kind("images/labels.txt", read_net("multilist.prototxt")),
    "window list": Kind("images/windows.txt", read_net("window.prototxt"), repeats=False),
    "list of convert_imageset": Kind("images/list.txt", words(convert_imageset.main, "./ list.txt out")),
    "list of create_lmdb": Kind("images/list.txt", words(create_lmdb.main, f"list.txt {CREATE}")),
    "list of extract_codes": Kind("images/paths.txt", words(extract_codes.main, f"{EXTRACT} --source paths.txt")),
    "list of reroot_list": Kind("images/labels.txt", words(reroot_list.main, "labels.txt --root . --out lists")),
    "LMDB in Data": Kind("images/lmdb/data.mdb", read_net("data.prototxt")),
    "LMDB in MultiLabelData": Kind("images/lmdb/data.mdb", read_net("multilabel.prototxt")),
    "LMDB checked": Kind("images/lmdb/data.mdb", words(create_lmdb.main, "lmdb --check")),
    "LMDB of extract_codes": Kind("images/lmdb/data.mdb", words(extract_codes.main, f"{EXTRACT} --source lmdb")),
    "LMDB averaged": Kind("images/lmdb/data.mdb", words(compute_image_mean.main, "lmdb out.binaryproto")),
    "source.json": Kind("images/lmdb/source.json", words(create_lmdb.main, "list.txt lmdb --root . --classes 3")),
    "record": Kind("images/datum", record, ("datum_lmdb",)),
    "encoded record": Kind("images/datum_encoded", record, ("datum_encoded_lmdb",)),
    "mean": Kind("images/mean.binaryproto", read_net("mean.prototxt")),
    **{
        f"{file} of classification": Kind(f"images/{file}", words(*LINES["classification"][1:]), ("layer ", "net "))
        for file in ("deploy.prototxt", "w.caffemodel", "mean.binaryproto", "names.txt", "1.png")
    },
    "mean of classify": Kind("images/mean.npy", words(*LINES["classify"][1:])),
    "mean image of detect": Kind(
        "images/mean.binaryproto", words(detect.main, LINES["detect"].words.replace("mean.npy", "mean.binaryproto"))
    ),
    "npy of classify": Kind(
        "images/pictures.npy", words(classify.main, LINES["classify"].words.replace("1.png", "pictures.npy"))
    ),
    "mean of tools": Kind(
        "images/mean.npy", words(extract_codes.main, f"{EXTRACT} --source 1.png --mean-file mean.npy")
    ),
    "HDF5 data": Kind("images/data.h5", read_net("hdf5.prototxt")),
    "HDF5 list": Kind("images/hdf5.txt", read_net("hdf5.prototxt")),
    "MNIST": Kind("images/images.idx", words(convert_mnist_data.main, "images.idx labels.idx out")),
    "features": Kind(
        "images/deploy.prototxt", words(extract_codes.main, f"{EXTRACT} --source 1.png"), ("layer ", "net ")
    ),
    # codes
    "npz": Kind("codes/query.npz", score("query.npz"), exact=True),
    "compressed npz": Kind("codes/packed.npz", score("packed.npz"), exact=True),
    "npy in npz": Kind("codes/codes.npy", zipped, ("wrapped.npz",)),
    "npy": Kind("codes/codes.npy", score("codes.npy", "--query-labels labels.txt --labels vectors")),
    "labels": Kind("codes/labels.txt", score("codes.npy", "--query-labels labels.txt --labels vectors")),
    "text": Kind("codes/codes.txt", score("codes.txt", "--query-labels labels.txt --labels vectors")),
    "csv": Kind("codes/codes.csv", score("codes.csv", "--query-labels labels.txt --labels vectors")),
    "mat": Kind("codes/codes.mat", score("codes.mat")),
    "mat, not compressed": Kind("codes/plain.mat", score("plain.mat")),
    "HDF5 codes": Kind("codes/codes.h5", score("codes.h5")),
    "parts": Kind(
        "codes_of_images/parts/part-1-of-2.npz", words(merge_codes.main, "parts --out merged.npz"), exact=True
    ),
    "facts of a part": Kind("codes_of_images/part.json", merge_with_facts, ("parts",)),
    "index.json": Kind("codes/index/index.json", index("--verify")),
    **{
        f"index: {name}": Kind(f"codes/index/g-000001/{name}.npy", index("--unique"))
        for name in ("words", "offsets", "postings", "codes", "labels", "keys", "key_offsets", "key_order", "sources")
    },
    "index verified": Kind("codes/index/g-000001/codes.npy", index("--verify"), exact=True),
    "index appended to": Kind(
        "codes/index/index.json", words(build_index.main, "--append --codes query.npz --prefix more/ --out index")
    ),
    # data sets
    "recipe: folder": Kind(
        "data_sets/folder.json", words(get_data.main, "folder.json --root new"), ("photos", "the folder cannot be read")
    ),
    "recipe: list": Kind("data_sets/list.json", words(get_data.main, "list.json --root new"), ("list.txt", "photos")),
    "list of a recipe": Kind(
        "data_sets/list.txt", words(get_data.main, "list.json --root new"), ("list.json", "photos")
    ),
    "picture of a recipe": Kind("data_sets/photos/crow/1.jpg", words(get_data.main, "folder.json --root new")),
    "split.json": Kind("data_sets/built/folder/split.json", words(get_data.main, "folder.json --root built")),
    "tar": Kind("data_sets/a.tar", unpack("a.tar")),
    "tar in gz": Kind("data_sets/a.tar", unpack("a.tar", compress=True), ("a.tar.gz",)),
    **{
        f"tar.{kind}": Kind(f"data_sets/a.tar.{kind}", unpack(f"a.tar.{kind}"), exact=True)
        for kind in ("gz", "bz2", "xz")
    },
    "zip": Kind("data_sets/stored.zip", unpack("stored.zip"), exact=True),
    "deflated zip": Kind("data_sets/deflated.zip", unpack("deflated.zip"), exact=True),
    "batch of CIFAR-10": Kind(
        "data_sets/batch", caught(lambda: cifar10_python.read_batch(Path("batch").read_bytes(), "batch"))
    ),
    # runs
    **{
        f"run: {name}": Kind(f"{RUN}/{name}", words(report.main, "--run runs/mine"), ("runs/mine",))
        for name in RUN_FILES
    },
    "run: split.json": Kind("runs/data/birds/split.json", words(score_run.main, "--run runs/mine"), ("birds",)),
    "run scored": Kind(f"{RUN}/metrics.json", words(score_run.main, "--run runs/mine"), ("runs/mine",)),
    "runs compared": Kind(f"{RUN}/metrics.json", compare, ("runs/mine",)),
    "index served": Kind(
        f"{RUN}/index/index.json",
        lambda: asked_server.ask_all("runs/mine/index", "00000001_crow/3.jpg", "photos/tit/1.jpg"),
        repeats=False,  # pages of the index are drawn
    ),
    **{f"request: {name}": Kind(f"runs/{name}.http", request(f"{name}.http"), ("",)) for name in asked_server.REQUESTS},
    "request: code in JSON": Kind("runs/asked.json", request("asked.json", "application/json"), ("",)),
    "request: picture in a form": Kind("runs/asked.form", request("asked.form", search_server.form(b"")[1]), ("",)),
    "index on a page": Kind(
        f"{RUN}/index/index.json", words(search.main, "runs/mine/index --key 00000001_crow/3.jpg --html page.html")
    ),
    "windows of detect": Kind("images/crops.csv", words(*LINES["detect"][1:]), ("0.jpg", "1.png", "Cannot load ")),
    # command lines
    **{
        f"command line: {name}": Kind(f"{line.folder}/{name}.words", words_of(line.main, f"{name}.words"), ("",))
        for name, line in LINES.items()
    },
}
