"""Released weights: a run kept under prototxt/, and scored where nobody trained."""

from __future__ import annotations

import json
import shutil

import finished_run
import net
import pytest
from dhn.files import read_json, sha256, write_json
from dhn.layout import PROTOTXT
from dhn.runs import released
from dhn.runs.facts import FactsError
from dhn.runs.folder import Run, RunError

COMMITTED = sorted(path.parent for path in PROTOTXT.glob("*/*/released/*/released.json"))
MAPS = {"standard": 0.5, "dhn-caffe": 0.7}


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """A finished training of 8 bits, as files."""
    monkeypatch.setattr(released, "PROTOTXT", tmp_path / "prototxt")
    run = Run("cifar10", "dhn", 8, tmp_path, net="squeezenet")
    began = {"initial_weights": "/somewhere/first.caffemodel", "initial_weights_sha256": "12"}
    finished_run.write(run, "12", **began, pretraining={"initial_weights": "/elsewhere/imagenet.caffemodel"})
    return run


def test_a_released_run_is_trained_again_where_nobody_trained(run):
    folder = released.release(run, MAPS)
    assert folder == released.PROTOTXT / "cifar10" / "squeezenet" / "released" / "dhn-8"
    text = (folder / "training.json").read_text()
    assert "/" not in text and "first.caffemodel" in text and "imagenet.caffemodel" in text
    digest = sha256(run.weights())
    assert not released.install(run)  # a training is left as it is
    shutil.rmtree(run.folder)
    assert released.install(run)
    assert run.is_trained() and not run.edited() and sha256(run.weights()) == digest
    assert run.record()["released"]["map"] == MAPS
    assert not released.install(run)


def test_an_installation_cut_off_is_finished_and_a_prototxt_of_ones_own_is_kept(run):
    released.release(run, MAPS)
    (run.folder / "training.json").unlink()
    assert released.install(run)
    (run.folder / "training.json").unlink()
    (run.folder / "solver.prototxt").write_text("max_iter: 6")
    assert not released.install(run)
    assert (run.folder / "solver.prototxt").read_text() == "max_iter: 6"


def test_other_images_or_damaged_weights_are_refused(run):
    folder = released.release(run, MAPS)
    shutil.rmtree(run.folder)
    weights = folder / "dhn_iter_5.caffemodel"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1])
    with pytest.raises(RunError, match=r"dhn_iter_5.caffemodel is missing or damaged"):
        released.install(run)
    weights.write_bytes(raw)
    source = run.data / "query_lmdb" / "source.json"
    source.write_text(json.dumps({"recipe": {"inputs": {"list": "another", "images": "all"}}}))
    with pytest.raises(RunError, match=r"than data/cifar10 has \(query\); run: make train DATASET=cifar10"):
        released.install(run)
    source.unlink()
    with pytest.raises(RunError, match=r"query_lmdb is missing; run: make data DATASET=cifar10"):
        released.install(run)
    assert not (run.folder / "training.json").exists()


@pytest.mark.parametrize("name", ["/", "..", "", "a/b", "../dhn_iter_5.caffemodel"])
def test_weights_that_are_no_file_of_the_release_are_refused(run, name):
    record = released.release(run, MAPS) / "training.json"
    shutil.rmtree(run.folder)
    record.write_text(json.dumps({**json.loads(record.read_text()), "weights": name}))
    with pytest.raises(RunError, match=r"training.json is damaged: .* is no file's name|is missing or damaged"):
        released.install(run)


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"images": 3, "map": {}}', '{"weights": 3}', "[" * 3000])
@pytest.mark.parametrize("name", ["released.json", "training.json"])
def test_a_damaged_file_of_a_release_is_named(run, name, text):
    folder = released.release(run, MAPS)
    shutil.rmtree(run.folder)
    (folder / name).write_text(text)
    with pytest.raises((RunError, FactsError), match=rf"{name}[: ]+is (missing or )?damaged: "):
        released.install(run)


def test_the_map_is_compared_with_the_released_one(run):
    assert released.comparison(run, MAPS) == ""
    released.release(run, MAPS)
    shutil.rmtree(run.folder)
    released.install(run)
    assert released.comparison(run, {"standard": 0.50004, "dhn-caffe": 0.7}).endswith("the released one to 0.0001")
    assert released.comparison(run, {"hashnet": 0.5, "standard": None}) == ""
    sentence = released.comparison(run, {"standard": 0.4, "dhn-caffe": 0.7})
    assert "MAP of standard is 0.4000 here, 0.5000" in sentence


def test_only_a_finished_training_as_the_tables_have_it_is_released(run):
    (run.folder / "deploy.prototxt").write_text('name: "mine"')
    written = read_json(run.folder / "written.json")
    write_json(run.folder / "written.json", written | {"deploy.prototxt": "of another text"})
    with pytest.raises(RunError, match=r"deploy\.prototxt was edited by hand"):
        released.release(run, MAPS)
    run.weights().unlink()
    with pytest.raises(RunError, match="holds no finished training"):
        released.release(run, MAPS)


def test_a_name_that_no_file_can_have_names_the_solver(run):
    (run.folder / "solver.prototxt").write_text(f'max_iter: 5 snapshot_prefix: "{"1" * 300}"')
    with pytest.raises(RunError, match=r"solver\.prototxt: snapshot_prefix: File name too long; shorten it"):
        run.is_trained()


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_what_is_released_is_whole_and_has_the_nets_of_today(folder):
    record = read_json(folder / "training.json")
    assert sha256(folder / record["weights"]) == record["weights_sha256"]
    dataset, name, _, run = folder.relative_to(PROTOTXT).parts
    variant, bits = run.split("-")
    texts = net.texts(dataset, variant, int(bits), f"runs/{dataset}-{run}-{name}", name)
    for file, text in texts.items():
        assert (folder / file).read_text() == text, f"{file}: train and release the weights again"
    assert read_json(folder / "released.json")["map"]["standard"] > 0.6


def test_there_are_released_weights():
    assert len(COMMITTED) >= 2
