"""The commands that `make kill-test` kills: what each is given, what it is called with, how its outputs are compared.

They run in a copy of the project (project_copy.py). Their files lie in `work`, those of a data set or a run in `data`
and `runs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ablation
import baselines
import build_index
import caffe
import create_lmdb
import cv2
import extract_codes
import get_data
import merge_codes
import miniatures
import net as nets
import numpy as np
import release_run
import report
import reroot_list
import score_map
import score_run
import train
import tune
from caffe.cli import compute_image_mean, convert_imageset, extract_features
from caffe.cli import main as caffe_main

NET = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 2 dim: 8 }
  shape { dim: 2 dim: 3000 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3000
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "work/net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 6 display: 1 snapshot: 2
snapshot_prefix: "work/out/s" random_seed: 3 solver_mode: CPU snapshot_format: """
DEPLOY = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "hash_layer" type: "InnerProduct" bottom: "data" top: "hash_layer" inner_product_param { num_output: 16
  weight_filler { type: "gaussian" std: 0.01 } } }
"""
RUN = "fashion_mnist --bits 12"
WEIGHTS = "--weights work/w.caffemodel"
INDEX = "--out work/index"


@dataclass(frozen=True)
class Command:
    """words: the command line. prepare: writes what it needs. old: a command line that makes an older output.

    again: what it says where it refuses to do again what it has done; None: it does not. stops: it obeys SIGINT and
    SIGHUP in BVLC Caffe's way, by a snapshot.
    """

    main: Callable[[list[str]], int]
    words: str
    prepare: Callable[[], None]
    old: str | None = None
    again: str | None = None
    stops: bool = False


def solver(form: str) -> Callable[[], None]:
    """Writes a net and a solver that makes three snapshots."""

    def prepare() -> None:
        Path("work/out").mkdir()
        Path("work/net.prototxt").write_text(NET)
        Path("work/solver.prototxt").write_text(SOLVER + form)

    return prepare


def pictures(count: int = 24) -> None:
    """Pictures, their list, an older list, and a net."""
    random = np.random.RandomState(0)
    for number in range(count):
        cv2.imwrite(f"work/{number}.png", random.randint(0, 256, (8, 8, 3), np.uint8))
    Path("work/list.txt").write_text("".join(f"work/{number}.png {number % 3}\n" for number in range(count)))
    Path("work/older.txt").write_text("".join(f"work/{number}.png {number % 2}\n" for number in range(5)))
    Path("work/deploy.prototxt").write_text(DEPLOY)
    caffe.set_random_seed(1)
    caffe.Net("work/deploy.prototxt", caffe.TEST).save("work/w.caffemodel")


def with_lmdb() -> None:
    """The pictures, and LMDBs of all and of some of them."""
    pictures()
    for name in ("list", "older"):
        _do(create_lmdb.main, f"work/{name}.txt work/{name}_lmdb --classes 3")
    text = 'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } data_param { batch_size: 8 '
    text += 'source: "work/list_lmdb" backend: LMDB } }\n' + DEPLOY.split("\n", 1)[1]
    Path("work/features.prototxt").write_text(text)


def with_parts() -> None:
    """The parts of a codes file."""
    pictures()
    for shard in range(3):
        _do(extract_codes.main, f"{EXTRACT} work/list.txt --batch-size 4 --out work/parts --shard {shard}/3")


def codes() -> None:
    """Codes files."""
    for name, count in (("query", 5), ("database", 60), ("older", 7), ("more", 9)):
        random = np.random.RandomState(count)
        labels = np.eye(3, dtype=np.uint8)[np.arange(count) % 3]
        names = np.array([f"{name}/{number}" for number in range(count)])
        np.savez(f"work/{name}.npz", codes=random.randn(count, 16).astype(np.float32), labels=labels, names=names)


def with_index() -> None:
    """An index of codes."""
    codes()
    _do(build_index.main, f"--codes work/database.npz {INDEX}")


def data_set() -> None:
    """A miniature of Fashion-MNIST in data/, with LMDBs, and weights to start from."""
    folder = Path("data/fashion_mnist")
    folder.mkdir(parents=True)
    miniatures.fashion_mnist(folder)
    nets.write("fashion_mnist", "dhn", 12, "work/nets")
    caffe.set_random_seed(1)
    caffe.Net("work/nets/deploy.prototxt", caffe.TEST).save("work/w.caffemodel")


def trained() -> None:
    """The data set, and a training of it."""
    data_set()
    _do(train.main, f"{RUN} {WEIGHTS}")


def scored() -> None:
    """The training with its scores."""
    trained()
    _do(score_run.main, RUN)


def archives() -> None:
    """MIRFLICKR's two archives in small."""
    Path("data/flickr25k").mkdir(parents=True)
    miniatures.published(Path("data/flickr25k"), "flickr25k", count=120)


def _do(main: Callable[[list[str]], int], words: str) -> None:
    status = main(words.split())
    assert not status, f"{words}: {status}"


EXTRACT = "--model work/deploy.prototxt --weights work/w.caffemodel --source"
RECIPE = "data/flickr25k/recipe.json --split paper"
LANCE = "--backend lancedb --uri work/lance"
COMMANDS = {
    "caffe train": Command(caffe_main.main, "train -solver work/solver.prototxt", solver("BINARYPROTO"), stops=True),
    "caffe train, HDF5": Command(caffe_main.main, "train -solver work/solver.prototxt", solver("HDF5"), stops=True),
    "create_lmdb": Command(create_lmdb.main, "work/list.txt work/out --classes 3", pictures,
                           old="work/older.txt work/out --classes 3"),
    "convert_imageset": Command(convert_imageset.main, "./ work/list.txt work/out", pictures, again="exists already"),
    "compute_image_mean": Command(compute_image_mean.main, "work/list_lmdb work/mean.binaryproto", with_lmdb,
                                  old="work/older_lmdb work/mean.binaryproto"),
    "extract_features": Command(
        extract_features.main, "work/w.caffemodel work/features.prototxt hash_layer work/out 3 lmdb CPU", with_lmdb,
        again="exists already"),
    "extract_codes": Command(extract_codes.main, f"{EXTRACT} work/list.txt --out work/codes.npz", pictures,
                             old=f"{EXTRACT} work/older.txt --out work/codes.npz"),
    "extract_codes --shard": Command(extract_codes.main, f"{EXTRACT} work/list.txt --out work/parts --shard 1/3",
                                     pictures),
    "merge_codes": Command(merge_codes.main, "work/parts --out work/merged.npz", with_parts),
    "reroot_list": Command(reroot_list.main, "work/list.txt work/older.txt --root . --out work/lists", pictures),
    "score_map": Command(score_map.main, "--query work/query.npz --database work/database.npz --metrics work/m.json",
                         codes, old="--query work/query.npz --database work/older.npz --metrics work/m.json"),
    "build_index": Command(build_index.main, f"--codes work/database.npz {INDEX}", codes,
                           old=f"--codes work/older.npz {INDEX}"),
    "build_index --append": Command(build_index.main, f"--append --codes work/more.npz {INDEX}", with_index,
                                    again="expected keys that are unique"),
    "build_index --delete": Command(build_index.main, f"--delete database/3 database/5 {INDEX}", with_index,
                                    again="expected the key of one of"),
    "build_index, LanceDB": Command(build_index.main, f"--codes work/database.npz {LANCE}", codes,
                                    old=f"--codes work/older.npz {LANCE}"),
    "get_data": Command(get_data.main, RECIPE, archives),
    "train": Command(train.main, f"{RUN} {WEIGHTS}", data_set),
    "score_run": Command(score_run.main, RUN, trained),
    "report": Command(report.main, RUN, scored),
    "release_run": Command(release_run.main, RUN, scored, old=RUN),
    "tune": Command(tune.main, f"{RUN} {WEIGHTS} --grid lr=0.001,0.003", data_set),
    "ablation": Command(ablation.main, f"fashion_mnist --variants dhn dhn_b --bits 12 --seeds 1 {WEIGHTS}", data_set),
    "baselines": Command(baselines.main, "fashion_mnist --methods lsh itq --bits 12", data_set),
}  # fmt: skip
