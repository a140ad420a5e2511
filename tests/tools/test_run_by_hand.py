"""A run made by hand is scored from its own files, and what they do not say stays unknown."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import caffe
import extract_codes
import net
import numpy as np
import pytest
import report as report_command
import score_run
from dhn.codes import array_files, of_run
from dhn.codes import files as codes
from dhn.datasets import lmdb_build, splits
from dhn.datasets.labelled_images import from_arrays
from dhn.experiments import scored_run
from dhn.files import sha256, write_json
from dhn.pages import report
from dhn.runs import by_hand as run_by_hand
from dhn.runs.by_hand import LMDBS, HandRun, open_run
from dhn.runs.folder import Run, RunError

COUNTS = {"train": 20, "query": 10, "database": 40}
BITS = 12


def build_lmdb(out: Path, count: int) -> None:
    """An LMDB of grey images of 28x28, of 10 classes in turn."""
    images = np.random.RandomState(count).randint(0, 256, (count, 28, 28)).astype(np.uint8)
    arrays = out.parent / "arrays.npz"
    np.savez(arrays, images=images, labels=np.eye(10, dtype=np.uint8)[np.arange(count) % 10])
    lmdb_build.build(from_arrays(arrays), out)
    arrays.unlink()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The folder of a small data set: LMDBs, lists, split.json."""
    folder = tmp_path_factory.mktemp("root") / "data" / "fashion_mnist"
    folder.mkdir(parents=True)
    first, digests = 0, {}
    for side, count in COUNTS.items():
        build_lmdb(folder / f"{side}_lmdb", count)
        path = folder / f"{side}.txt"
        path.write_text("".join(f"{row} {row % 10}\n" for row in range(first, first + count)))
        first += count
        digests[path.name] = sha256(path)
        facts = json.loads((folder / f"{side}_lmdb" / "source.json").read_text())
        facts["recipe"]["inputs"] = {"list": digests[path.name]}
        write_json(folder / f"{side}_lmdb" / "source.json", facts)
    write_json(folder / "split.json", {"split": "paper", "seed": 0, "R": "all", "sha256": digests})
    return folder


@pytest.fixture
def folder(data, tmp_path, monkeypatch) -> Path:
    """runs/mine as net.py and a training that was cut off leave it, in a root that has the data set.

    extract_codes.py runs in this process, in the root.
    """
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fashion_mnist").symlink_to(data)
    folder = tmp_path / "runs" / "mine"
    monkeypatch.setattr(net, "ROOT", str(tmp_path))
    net.write("fashion_mnist", "dhn_q", BITS, str(folder), seed=3)
    model = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    model.params["hash_layer"][0].data[...] *= 100  # codes that differ
    model.save(str(folder / "dhn_q_iter_500.caffemodel"))

    def run(command, cwd, check, preexec_fn):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.setenv("GLOG_minloglevel", "2")
            return subprocess.CompletedProcess(command, extract_codes.main(command[len(of_run.EXTRACT) :]))

    monkeypatch.setattr(of_run.subprocess, "run", run)
    return folder


WRITE = report.write  # drawing takes a second: only what page_of asks for is drawn


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr(report, "write", lambda run: (run.folder / "report.html").write_text("undrawn"))


def page_of(run: Run) -> str:
    return " ".join(WRITE(run).read_text().split())


def root_of(folder: Path) -> Path:
    return folder.parents[1]


def opened(folder: Path) -> HandRun:
    run = open_run(folder, root_of(folder))
    assert isinstance(run, HandRun)
    return run


def test_what_the_readmes_commands_make_is_extracted_and_scored(folder, capsys):
    run = opened(folder)
    assert (run.dataset, run.variant, run.bits, run.seed) == ("fashion_mnist", "dhn_q", BITS, 3)
    facts = scored_run.score(run)
    assert facts == json.loads((folder / "metrics.json").read_text())
    expected = {"dataset": "fashion_mnist", "variant": "dhn_q", "seed": 3, "bits": BITS, "net": "small_alexnet"}
    assert {key: facts[key] for key in expected} == expected
    assert (facts["queries"], facts["database"], facts["iterations"], facts["seconds_per_step"]) == (10, 40, 500, None)
    assert facts["split"]["split"] == "paper" and facts["made_by_hand"] is True
    assert facts["weights_sha256"] == sha256(folder / "dhn_q_iter_500.caffemodel")
    text = capsys.readouterr().out
    assert "weights: runs/mine/dhn_q_iter_500.caffemodel" in text and "wrote runs/mine/report.html" in text
    assert "Distinct codes: " in " ".join(text.split())
    page = page_of(run)
    assert "DHN-Q on Fashion-MNIST, 12 bits" in page and page.count("<svg") == 5  # all but the log's curves
    scored_run.score(opened(folder))
    text = capsys.readouterr().out
    assert "query.npz: already there" in text and "metrics.json: already there" in text


def test_a_net_that_was_changed_has_no_known_variant(folder):
    path = folder / "train_val.prototxt"
    path.write_text(path.read_text().replace('"batch_size": 64', '"batch_size": 32'))
    run = opened(folder)
    assert (run.dataset, run.variant, run.bits, run.net, run.seed) == ("fashion_mnist", None, None, None, 3)
    facts = scored_run.score(run)
    assert facts["variant"] is None and facts["net"] is None and facts["bits"] == BITS
    page = page_of(run)
    assert "Run runs/mine on Fashion-MNIST, 12 bits" in page and "<dt>variant</dt><dd>unknown</dd>" in page


def test_settings_stand_in_the_command_of_the_first_line(folder):
    settings = {"base_lr": 0.1, "batch_size": 32, "crop": 24}
    net.write("fashion_mnist", "dhn_q", BITS, str(folder), seed=3, settings=settings)
    run = opened(folder)
    assert (run.dataset, run.variant, run.bits, run.seed) == ("fashion_mnist", "dhn_q", BITS, 3)
    about = scored_run.about(run, None)
    assert about["settings"] == settings and about["edited"] == []
    path = folder / "train_val.prototxt"
    path.write_text(path.read_text().replace("--set crop=24", "--set crop=22"))
    assert opened(folder).variant is None, "the net is not what that command writes"


def test_codes_of_another_deploy_net_are_not_taken_for_ours(folder):
    """Sigmoid in the place of TanH: no code is negative, and nobody said what they are."""
    path = folder / "deploy.prototxt"
    ours = path.read_text()
    path.write_text(ours.replace("dim: 100", "dim: 7"))
    assert ours != path.read_text() and opened(folder).variant == "dhn_q"
    path.write_text(ours.replace('type: "TanH"', 'type: "Sigmoid"'))
    run = opened(folder)
    assert ours != path.read_text() and run.variant is None
    with pytest.raises(array_files.CodesError, match=r"no code is negative .*--codes sign"):
        scored_run.score(run)
    assert scored_run.score(opened(folder), codes_are="threshold=0.5")["read_as"]["codes"] == "threshold=0.5"


def test_after_make_clean_the_codes_are_still_of_the_data_set(folder, data):
    scored_run.score(opened(folder))
    for side in COUNTS:
        (data / f"{side}_lmdb").rename(data / f"{side}_away")
    try:
        run = opened(folder)
        assert (run.dataset, run.variant) == ("fashion_mnist", "dhn_q")
        assert scored_run.score(run)["split"]["split"] == "paper"
    finally:
        for side in COUNTS:
            (data / f"{side}_away").rename(data / f"{side}_lmdb")


def test_a_renamed_data_set_is_not_taken_for_that_of_the_header(folder):
    """The first line says fashion_mnist; the images are others'."""
    path = folder / "train_val.prototxt"
    path.write_text(path.read_text().replace("data/fashion_mnist/", "elsewhere/"))
    run = opened(folder)
    assert (run.dataset, run.variant, run.data) == (None, None, None)


def test_the_weights_are_those_that_the_solver_ends_with_else_the_newest(folder):
    first = folder / "dhn_q_iter_500.caffemodel"
    for number, name in enumerate(("dhn_q_iter_600.caffemodel", "dhn_q_iter_100.caffemodel", "other.caffemodel")):
        (folder / name).write_bytes(first.read_bytes())
        os.utime(folder / name, (10**9 + number, 10**9 + number))
    assert opened(folder).weights().name == "dhn_q_iter_600.caffemodel"
    (folder / "dhn_q_iter_600.caffemodel").unlink()
    assert opened(folder).weights() == first  # of the newest date
    first.unlink()
    assert opened(folder).weights().name == "dhn_q_iter_100.caffemodel"
    (folder / "dhn_q_iter_100.caffemodel").unlink()
    assert opened(folder).weights().name == "other.caffemodel" and opened(folder).record() == {}
    (folder / "solver.prototxt").unlink()
    run = opened(folder)
    assert run.weights().name == "other.caffemodel" and run.seed is None and run.solver() is None
    elsewhere = root_of(folder) / "snapshots"
    elsewhere.mkdir()
    (folder / "other.caffemodel").rename(elsewhere / "a_iter_7.caffemodel")
    (folder / "solver.prototxt").write_text('snapshot_prefix: "snapshots/a" max_iter: 9')
    run = opened(folder)
    assert run.weights() == elsewhere / "a_iter_7.caffemodel" and run.record() == {"iterations": 7}
    (folder / "solver.prototxt").write_text(f'snapshot_prefix: "{"1" * 300}/a" max_iter: 9')  # no folder has that name
    assert opened(folder).weights() is None


def test_codes_alone_are_scored_and_everything_else_is_unknown(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "codes only"
    random = np.random.RandomState(0)
    for side, count in (("query", 10), ("database", 60)):
        labels = np.eye(3, dtype=np.uint8)[np.arange(count) % 3]
        codes.save(_made(folder) / f"{side}.npz", random.randn(count, 16), labels)
    run = open_run(folder, tmp_path)
    facts = scored_run.score(run)
    unknown = ("dataset", "variant", "seed", "net", "split", "weights_sha256", "iterations", "seconds_per_step")
    assert {facts[key] for key in unknown} == {None}
    text = capsys.readouterr().out
    assert "unknown data set, unknown variant: 10 queries, 60 database images" in " ".join(text.split())
    page = page_of(run)
    for words in (
        "Run codes only on an unknown data set, 16 bits",
        *(f"{name}</dt><dd>unknown" for name in ("variant", "SHA-256", "seed of the training", "solver", "split")),
        "The images are not to be had here: the run&#39;s files do not say where its images are",
    ):
        assert words in page, words
    monkeypatch.setattr(report, "write", WRITE)
    assert report_command.main(["--run", str(folder)]) == 0
    (folder / "metrics.json").unlink()
    assert report_command.main(["--run", str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.endswith(f"run: python tools/score_run.py --run '{folder}'\n") and said.count("\n") == 1


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        (["dhn_q_iter_500.caffemodel"], "runs/mine: it holds no query.npz, and to extract the codes there is no "
         ".caffemodel; run: caffe train -solver runs/mine/solver.prototxt"),
        (["deploy.prototxt"], "there is no deploy.prototxt, .*: python prototxt/net.py fashion_mnist --bits 12 --out"),
        (["train_val.prototxt", "solver.prototxt"], "there is no net that names a data set's LMDBs .*; extract them "
         "by hand: python tools/extract_codes.py --model runs/mine/deploy.prototxt --weights runs/mine/dhn_q_iter_500"),
    ],
)  # fmt: skip
def test_what_a_folder_lacks_is_one_sentence_with_the_remedy(folder, gone, expected):
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(RunError, match=expected) as raised:
        scored_run.score(opened(folder))
    assert "\n" not in str(raised.value)


def test_what_is_no_runs_folder_is_said(folder, capsys):
    (root_of(folder) / "file").write_text("")
    for path, found in ((root_of(folder) / "nowhere", "nothing"), (root_of(folder) / "file", "a file")):
        assert score_run.main(["--run", str(path)]) == 1
        said = capsys.readouterr().err
        assert said == f"score_run: --run {path}: expected a run's folder, found {found}\n"
    for words in ([], ["dataset", "--run", "x"], ["--run", "x", "--bits", "12"], ["fashion_mnist", "--codes", "01"]):
        with pytest.raises(SystemExit):
            score_run.main(words)
        assert "--run FOLDER" in capsys.readouterr().err
    assert score_run.main(["--run", str(folder), "--codes", "bits"]) == 1
    assert "codes are declared sign, 01, packed or threshold=T, found 'bits'" in capsys.readouterr().err
    (folder / "train_val.prototxt").write_text("layer {")
    assert score_run.main(["--run", str(folder)]) == 1
    assert "train_val.prototxt:1:8" in capsys.readouterr().err


def test_missing_images_are_named(folder, data):
    (data / "database_lmdb").rename(data / "away")
    try:
        with pytest.raises(RunError, match="database_lmdb is missing; run: make data DATASET=fashion_mnist"):
            scored_run.score(opened(folder))
    finally:
        (data / "away").rename(data / "database_lmdb")


def test_codes_older_than_the_weights_are_extracted_again(folder, capsys):
    scored_run.score(opened(folder))
    before = (folder / "query.npz").read_bytes()
    later = (folder / "database.npz").stat().st_mtime + 10
    weights = folder / "dhn_q_iter_600.caffemodel"
    model = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    model.params["hash_layer"][0].data[...] *= -100
    model.save(str(weights))
    os.utime(weights, (later, later))
    (folder / "deploy.prototxt").rename(folder / "away")
    with pytest.raises(RunError, match=r"query.npz is older than dhn_q_iter_600.caffemodel, and to extract the codes"):
        scored_run.score(opened(folder))
    (folder / "away").rename(folder / "deploy.prototxt")
    os.utime(weights, (later - 10, later - 10))
    for side in ("query", "database"):
        os.utime(folder / f"{side}.npz", (later - 20, later - 20))
    assert scored_run.score(opened(folder))["weights_sha256"] == sha256(weights)
    assert (folder / "query.npz").read_bytes() != before


def test_codes_in_the_folder_are_read_by_the_rule(folder, capsys):
    """0 and 1 from a script of the user's: refused, until it is said what they are; then as the signs are scored."""
    scored_run.score(opened(folder))
    signs = {side: codes.load(folder / f"{side}.npz") for side in ("query", "database")}
    expected = scored_run.score(opened(folder))["map"]
    for side, (values, labels) in signs.items():
        np.savez(folder / f"{side}.npz", codes=(values >= 0).astype(np.float32), labels=labels)
    with pytest.raises(array_files.CodesError, match=r"query.npz: no code is negative .*--codes sign, 01, packed"):
        scored_run.score(opened(folder))
    facts = scored_run.score(opened(folder), codes_are="01")
    assert facts["map"] == expected and facts["read_as"]["codes"] == "01"
    assert "read as bits" in page_of(opened(folder))
    for side, (values, labels) in signs.items():  # class numbers (N, 1), as MATLAB has them
        np.savez(folder / f"{side}.npz", codes=values, labels=labels.argmax(1)[:, None] + 1)
    facts = scored_run.score(opened(folder))
    assert facts["map"] == expected and "class numbers" in facts["read_as"]["labels"]


def test_codes_of_other_images_are_refused(folder):
    for side, count in (("query", 10), ("database", 39)):
        labels = np.eye(10)[np.arange(count) % 10]
        codes.save(folder / f"{side}.npz", np.random.RandomState(0).randn(count, BITS), labels)
    with pytest.raises(RunError, match=r"database.npz holds 39 codes and data/fashion_mnist/database_lmdb 40 images"):
        scored_run.score(opened(folder))
    assert not (folder / "metrics.json").exists()


def test_a_query_image_in_the_database_stops_a_run_by_hand_too(folder, data, monkeypatch):
    def fail(path):
        raise splits.SplitError(f"{path} overlaps")

    monkeypatch.setattr(splits, "verify", fail)
    with pytest.raises(splits.SplitError):
        scored_run.score(opened(folder))


def test_a_training_in_the_folder_itself_and_its_log(folder):
    """cd runs/mine; caffe train -solver solver.prototxt 2> train.log, with paths from there."""
    path = folder / "train_val.prototxt"
    path.write_text(path.read_text().replace('"data/', '"../../data/'))
    (folder / "solver.prototxt").write_text('train_net: "train_val.prototxt" snapshot_prefix: "dhn_q" max_iter: 500')
    (folder / "train.log").write_text(
        "I1124 03:48:02.483288 32346 solver.cpp:239] Iteration 50 (4 iter/s, 12.5s/50 iters), loss = 0.5\n"
    )
    run = opened(folder)
    assert (run.dataset, run.seed, run.weights().name) == ("fashion_mnist", None, "dhn_q_iter_500.caffemodel")
    facts = scored_run.score(run)
    assert (facts["seconds_per_step"], facts["iterations"], facts["seed"]) == (0.25, 500, None)


def test_a_baselines_folder_is_left_as_it_is(tmp_path):
    write_json(_made(tmp_path / "runs" / "x") / "metrics.json", {"baseline": {"method": "lsh"}})
    with pytest.raises(RunError, match=r"runs/x holds the codes of a baseline, which tools/baselines\.py scores"):
        scored_run.score(open_run(tmp_path / "runs" / "x", tmp_path))


def test_stock_layers_name_their_data_too(tmp_path):
    images = tmp_path / "lists"
    for name in LMDBS:
        (images / name).mkdir(parents=True)
    path = tmp_path / "net.prototxt"
    for layer in (
        'type: "Data" data_param { source: "lists/train_lmdb" }',
        'type: "ImageData" image_data_param { source: "lists/query.txt" }',
        f'type: "Data" data_param {{ source: "{images}/train_lmdb/" }}',
        'type: "MultiLabelData" multi_label_data_param { source: "lists/train.txt" }',
        """type: "Python" python_param { module: "multilabel_data" param_str: '{"source": "lists/query_lmdb"}' }""",
    ):
        path.write_text(f'layer {{ name: "data" top: "data" {layer} }}')
        assert run_by_hand.data_folder(path, tmp_path) == images, layer
    for layer in (
        'type: "Data" data_param { source: "lists/mine" }',
        'type: "Input"',
        """type: "Python" python_param { module: "m" param_str: "lists/query_lmdb" }""",
        """type: "Python" python_param { module: "m" param_str: '[1]' }""",
    ):
        path.write_text(f'layer {{ name: "data" top: "data" {layer} }}')
        assert run_by_hand.data_folder(path, tmp_path) is None, layer


def test_a_run_that_make_train_finished_is_known_as_such(folder):
    """--run of its folder and its data set, variant and bits are the same run."""
    regular = Run("fashion_mnist", "dhn_q", BITS, root_of(folder), seed=3)
    folder.rename(regular.folder)
    net.write("fashion_mnist", "dhn_q", BITS, str(regular.folder), seed=3, settings={"base_lr": 0.1, "batch_size": 32})
    (regular.folder / "dhn_q_iter_500.caffemodel").rename(regular.weights())
    assert isinstance(open_run(regular.folder, regular.root), HandRun)  # nothing says that it is finished
    facts = {"recipe": regular.recipe(), "weights_sha256": sha256(regular.weights())}
    write_json(regular.folder / "training.json", facts)
    assert open_run(regular.folder, regular.root) == regular
    with open(regular.folder / "solver.prototxt", "a") as stream:
        stream.write("average_loss: 2\n")  # trained by another recipe
    assert isinstance(open_run(regular.folder, regular.root), HandRun)
