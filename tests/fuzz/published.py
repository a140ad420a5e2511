"""More that the fuzzer damages: data sets as their makers publish them, released weights, scores of an ablation."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import caffe
import finished_run
import get_data
import miniatures
from caffe.proto import caffe_pb2
from dhn.datasets import cifar10_pictures, fashion_mnist
from dhn.experiments import measure
from dhn.files import write_json
from dhn.runs import released, training
from dhn.runs.folder import Run, RunError
from dhn.runs.prototxts import Settings, net_texts
from dhn.weights import report as weights_report
from good_files import inside
from kinds import Kind, caught, compare, words

NUMBERS = {"query": 2, "train": 4, "database": "rest", "R": 10}
SOURCES = {
    "cifar": {"kind": "cifar10", "archive": "cifar-10-binary.tar.gz", "python_archive": "cifar-10-python.tar.gz"},
    "flickr": {"kind": "mirflickr", "images": "images.zip", "annotations": "annotations.zip"},
    "nus": {
        "kind": "nus_wide",
        "images": "images",
        "labels": "Groundtruth/AllLabels",
        "list": "ImageList/ImageList.txt",
    },
    "lists": {
        "kind": "lists",
        "query": "query.txt",
        "train": "train*.txt",
        "database": "database.txt",
        "root": "photos",
    },
}
RUN = ("cifar10", "dhn", 8)
NET = 'layer { name: "ip" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 } } }'
TRAINED_WITH = ("data/cifar10/split.json", "data/cifar10/train_lmdb/source.json", "data/cifar10/train.txt")
RESUMED_WITH = ("w.caffemodel", "w.solverstate")
RUN_NAMES = ("-".join(map(str, RUN)),)  # its folder's
MAPS = {"standard": 0.5, "dhn-caffe": 0.7}


def make(folder: Path) -> None:
    """Write the good files below `folder`."""
    for part in (binary, python, pictures, flickr, nus, lists, release, cells, trained):
        (folder / part.__name__).mkdir()
        with inside(folder / part.__name__):
            part()


def _recipe(name: str, **split: object) -> None:
    Path("recipe.json").write_text(json.dumps({"source": SOURCES[name], "splits": {"mine": {**NUMBERS, **split}}}))


def binary() -> None:
    """CIFAR-10's binary version, and what was made of it."""
    miniatures.cifar10(Path(), per_class=2)
    Path("a.tar").write_bytes(gzip.decompress(Path("cifar-10-binary.tar.gz").read_bytes()))
    _recipe("cifar")
    assert get_data.main(["recipe.json", "--root", "built"]) == 0


def python() -> None:
    """CIFAR-10's Python version."""
    miniatures.cifar10_python(Path(), per_class=2)
    Path("a.tar").write_bytes(gzip.decompress(Path("cifar-10-python.tar.gz").read_bytes()))
    _recipe("cifar")


def pictures() -> None:
    """CIFAR-10's pictures in a zip, and Fashion-MNIST's form of images."""
    files, _ = miniatures.cifar10_pictures(".png", {"train": 1, "test": 1})
    miniatures.write_zip(Path("cifar10.zip"), files)
    _recipe("cifar")
    head = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (3, 4, 5))
    Path("images.idx").write_bytes(head + bytes(range(60)))
    Path("images.gz").write_bytes(gzip.compress(head + bytes(range(60))))


def flickr() -> None:
    """MIRFLICKR's two archives."""
    miniatures.flickr25k(Path(), count=20)
    Path("mirflickr25k.zip").rename("images.zip")
    Path("mirflickr25k_annotations_v080.zip").rename("annotations.zip")
    _recipe("flickr")


def nus() -> None:
    """NUS-WIDE's list, its labels and its images."""
    miniatures.nus_wide(Path(), count=12, concepts=2)
    _recipe("nus")


def lists() -> None:
    """Lists that say which images are which."""
    names = miniatures.photos(Path("photos"), ("crow", "tit"), 5)
    lines = [f"{name} {i // 5}\n" for i, name in enumerate(names)]
    for name, chosen in (("query", lines[::5]), ("train1", lines[1::5]), ("train2", lines[2::5])):
        Path(f"{name}.txt").write_text("".join(chosen))
    Path("database.txt").write_text("".join(lines[3::5] + lines[4::5]))
    _recipe("lists", **dict.fromkeys(("query", "train", "database"), "listed"))


def _run(net: str | None = "squeezenet") -> Run:
    """A run here, whose released weights are here too."""
    released.PROTOTXT = Path("prototxt").resolve()
    return Run(*RUN, Path.cwd(), net=net)


def release() -> None:
    """Released weights, and the data set that they were trained on."""
    run = _run()
    finished_run.write(run)
    released.release(run, MAPS).rename("released")
    Path("runs").rename("trained")


def install() -> int:
    """The released weights are put into a run's folder."""
    run = _run()
    Path("released").rename(released.folder_of(run))
    try:
        print(released.install(run), released.comparison(run, MAPS), run.edited(), run.is_trained())
    except (RunError, ValueError, OSError) as error:
        print(error)
        return 1
    return 0


def cells() -> None:
    """A cell of an ablation, whose scores a comparison takes."""
    folder = Path("runs/birds-ablation/cells")
    folder.mkdir(parents=True)
    scores = dict(zip(measure.MEASURED, (10, 0.5, 0.5, 0.4, 0.6, 2, 8, ""), strict=True))
    about = {"dataset": "birds", "variant": "dhn_b", "bits": 8, "seed": 1, "net": "alexnet", "settings": {}}
    origin = {"weights": "1", "split": {"split": "mine", "seed": 0, "R": 10}, "real": True}
    write_json(folder / "cell.json", {**about, **scores, "made": origin})


def trained() -> None:
    """A run that train.py has brought to its end, here without `caffe train`, and the data set's facts."""
    run = _run(None)
    run.data.mkdir(parents=True)
    for name, digest in finished_run.write_lists(run.data).items():
        lmdb = run.data / name.replace(".txt", "_lmdb")
        lmdb.mkdir()
        write_json(lmdb / "source.json", {"recipe": {"inputs": {"list": digest}}})
    Path("net.prototxt").write_text(NET)
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.save("w.caffemodel")
    net.save("initial.caffemodel")
    state = caffe_pb2.SolverState(iter=2, learned_net="w.caffemodel", history=[caffe_pb2.BlobProto(data=[0.5])])
    Path("w.solverstate").write_bytes(state.SerializeToString())
    assert train(weights="initial.caffemodel") == 0


def train(resume: bool = False, weights: str | None = None) -> int:
    """The run here is trained, again where it was; copying two files stands in for `caffe train`.

    resume: its last weights are gone, and a snapshot is there.
    """

    def command(run: Run, snapshot: str | None, weights: str | None = None, gpu: object = None) -> list[str]:
        log = "I1124 03:04:05.000006 7 solver.cpp:239] Iteration 2 (5 iter/s, 0.4s/2 iters), loss = 0.5"
        script = 'echo "$1"; cp w.caffemodel "$2" && cp w.solverstate "$3" || { echo "F $4: no snapshot"; exit 1; }'
        weights = run.weights()
        return ["sh", "-c", script, "sh", log, weights, weights.with_suffix(".solverstate"), run.name]

    def texts(run: Run, settings: Settings) -> dict[str, str]:
        return {name: text.replace(f"{Path.cwd()}/", "") for name, text in net_texts(run, settings).items()}

    training.command = command
    training.weights_report.show = lambda weights, net: weights_report.Report(str(weights), str(net))  # others ask it
    run = _run(None)
    if resume:
        for kind in ("caffemodel", "solverstate"):
            shutil.copy(f"w.{kind}", run.folder / f"dhn_iter_2.{kind}")
        run.folder.joinpath("dhn_iter_10000.caffemodel").unlink()
    try:
        training.train(run, resume, weights, texts=texts)
    except (RunError, ValueError, OSError) as error:
        print(error)
        return 1
    return 0


def prepare(*options: str) -> Callable[[], int | None]:
    """What `get_data` makes of the recipe here."""
    return words(get_data.main, " ".join(["recipe.json --root new", *options]))


def packed(archive: str) -> Callable[[], int | None]:
    """As `prepare`, of an archive that is a.tar compressed: its check sum is right."""

    def command() -> int | None:
        Path(archive).write_bytes(gzip.compress(Path("a.tar").read_bytes(), 1, mtime=0))
        os.utime(archive, (0, 0))  # what is made of it says which file it was
        return prepare()()

    return command


def read_pictures() -> int | None:
    cifar10_pictures.PER_CLASS = {"train": 1, "test": 1}
    return prepare("--from cifar10.zip")()


def read_idx(path: str, compress: bool = False) -> Callable[[], int]:
    def command() -> None:
        if compress:
            Path(f"{path}.gz").write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
        print(fashion_mnist.read_idx(f"{path}.gz" if compress else path).sum())

    return caught(command)


KINDS: dict[str, Kind] = {
    "CIFAR-10": Kind("binary/cifar-10-binary.tar.gz", prepare()),
    "CIFAR-10, compressed again": Kind("binary/a.tar", packed("cifar-10-binary.tar.gz"), ("binary.tar.gz",)),
    **{
        f"CIFAR-10 as made: {name}": Kind(
            f"binary/built/binary/{name}", words(get_data.main, "recipe.json --root built")
        )
        for name in ("images.json", "labels.npy")
    },
    "CIFAR-10 in Python": Kind("python/cifar-10-python.tar.gz", prepare()),
    "CIFAR-10 in Python, compressed again": Kind("python/a.tar", packed("cifar-10-python.tar.gz"), ("python.tar.gz",)),
    "CIFAR-10's pictures": Kind("pictures/cifar10.zip", read_pictures),
    "idx": Kind("pictures/images.idx", read_idx("images.idx", compress=True)),
    "idx in gz": Kind("pictures/images.gz", read_idx("images.gz"), exact=True),
    # what source.json says of files has their times, and those that an archive was unpacked into are new
    "MIRFLICKR's images": Kind("flickr/images.zip", prepare(), repeats=False),
    "MIRFLICKR's labels": Kind("flickr/annotations.zip", prepare(), repeats=False),
    "NUS-WIDE's list": Kind("nus/ImageList/ImageList.txt", prepare(), ("recipe.json",)),
    "NUS-WIDE's labels": Kind("nus/Groundtruth/AllLabels/Labels_concept00.txt", prepare(), ("recipe.json",)),
    **{
        f"recipe of {name}": Kind(f"{part}/recipe.json", prepare(), ("..: ", *named), repeats=part != "flickr")
        for part, name, named in (
            ("binary", "CIFAR-10", ("cifar-10-binary.tar.gz",)),  # which a recipe may name in place of another
            ("flickr", "MIRFLICKR", ("images.zip", "annotations.zip")),
            ("nus", "NUS-WIDE", ("Labels_concept", "ImageList.txt")),
            ("lists", "lists", (".txt",)),
        )
    },
    "list of lists": Kind("lists/train1.txt", prepare(), ("recipe.json",)),
    **{
        f"released: {name}": Kind(f"release/released/{name}", install, exact=name.endswith("caffemodel"))
        for name in ("released.json", "training.json", "solver.prototxt", "written.json", "dhn_iter_5.caffemodel")
    },
    **{
        f"{'resumed' if resume else 'trained'} again: {name}": Kind(
            f"trained/runs/{RUN_NAMES[0]}/{name}", partial(train, resume), RUN_NAMES
        )
        for resume in (False, True)
        for name in ("training.json", "written.json", "solver.prototxt", "train_val.prototxt", "train.log")
    },
    **{f"trained again: {name}": Kind(f"trained/{name}", train, RUN_NAMES) for name in TRAINED_WITH},
    **{f"resumed again: {name}": Kind(f"trained/{name}", partial(train, True), RUN_NAMES) for name in RESUMED_WITH},
    "cell of an ablation": Kind("cells/runs/birds-ablation/cells/cell.json", compare),
}  # fmt: skip
