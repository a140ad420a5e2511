"""make data's work on miniature copies of the data sets' real files: sources, splits, lists, LMDBs."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import image_lists
import lmdb
import miniatures
import numpy as np
import pictures
import pytest
from caffe.proto import caffe_pb2
from dhn.datasets import benchmarks, lmdb_records, recipes, splits
from dhn.datasets import prepare as recipe_data
from dhn.datasets.image_files import SourceError

ROOT = Path(__file__).resolve().parents[2]


def folder_of(tmp_path: Path, dataset: str, **how) -> tuple[recipes.Recipe, Path, object]:
    """(recipe, data folder, what was made) of a miniature data set."""
    folder = tmp_path / dataset
    folder.mkdir()
    made = getattr(miniatures, dataset)(folder, **how)
    path = miniatures.recipe(dataset, ROOT / "data" / dataset / "recipe.json", folder)
    return recipes.read(path), folder, made


def listed(folder: Path) -> dict[str, dict[str, list[int]]]:
    return {name: dict(zip(*image_lists.read(folder / f"{name}.txt")[:2], strict=True)) for name in splits.LISTS}


def records(folder: Path, name: str) -> list:
    with lmdb.open(str(folder / f"{name}_lmdb"), readonly=True, lock=False) as environment, environment.begin() as txn:
        return [(key.decode(), caffe_pb2.Datum.FromString(value)) for key, value in txn.cursor()]


def test_cifar10(tmp_path, capsys):
    recipe, folder, made = folder_of(tmp_path, "cifar10")
    facts = recipe_data.prepare(recipe, folder)
    assert facts["split"] == "paper" and facts["R"] == "all" and facts["label_names"] == miniatures.CLASSES
    assert facts["counts"] == {"query": 10, "train": 20, "database": 30}
    found = listed(folder)
    for name, count in (("query", 1), ("train", 2), ("database", 3)):
        assert np.bincount([label for (label,) in found[name].values()]).tolist() == [count] * 10
    for key, datum in records(folder, "train"):
        row = int(key.split("_")[1])
        assert datum.label == made["labels"][row] and list(datum.float_data) == np.eye(10)[datum.label].tolist()
        planes = np.frombuffer(datum.data, np.uint8).reshape(3, 32, 32)
        np.testing.assert_array_equal(planes, made["images"][row][::-1])  # RGB there, BGR in an LMDB
    assert "split 'paper': 10 query, 20 train, 30 database images, 10 labels, drawn with seed 0" in (
        capsys.readouterr().out
    )
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    (folder / "cifar-10-binary.tar.gz").rename(folder / "elsewhere")  # the arrays are enough
    recipe_data.prepare(recipe, folder)
    assert capsys.readouterr().out.count("already there and complete") == 4
    assert all(path.stat().st_mtime_ns == when for path, when in before.items() if path.exists())
    recipe_data.prepare(recipe, folder, seed=1)
    assert set(listed(folder)["query"]) != set(found["query"])


def test_cifar10_other_splits(tmp_path):
    recipe, folder, _ = folder_of(tmp_path, "cifar10")
    recipe_data.write_lists(recipe, recipe.split("train-in-database"), 0, folder)
    found = listed(folder)
    assert len(found["database"]) == 50 and set(found["train"]) < set(found["database"])
    assert not set(found["query"]) & set(found["database"])
    recipe_data.write_lists(recipe, recipe.split("10k-50k"), 0, folder)
    found = listed(folder)
    assert found["train"] == found["database"] and len(found["train"]) == 50 and len(found["query"]) == 10
    with pytest.raises(recipes.RecipeError, match="has no split 'x'; its splits are paper, train-in-database, 10k-50k"):
        recipe.split("x")


def test_cifar10_archive_is_checked(tmp_path):
    recipe, folder, _ = folder_of(tmp_path, "cifar10")
    given = recipe.split(None).source
    given.pop("urls")
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(SourceError, match="expected a file of SHA-256"):
        recipe_data.prepare(recipe, folder)
    (folder / "cifar-10-binary.tar.gz").unlink()
    sentence = r"recipe.json, source: .*: expected CIFAR-10 \(cifar-10-binary.tar.gz, ..*\), found none of them"
    with pytest.raises(recipes.RecipeError, match=sentence):
        recipe_data.prepare(recipe, folder)
    assert not (folder / "split.json").exists()


def test_nus_wide_by_its_annotation(tmp_path):
    recipe, folder, labels = folder_of(tmp_path, "nus_wide")
    facts = recipe_data.prepare(recipe, folder)
    frequent = np.sort(np.argsort(-labels.sum(0), kind="stable")[:21])
    assert facts["label_names"] == [miniatures.CONCEPTS[index] for index in frequent]
    assert facts["R"] == 5000 and facts["missing"] == 0
    found = listed(folder)
    kept = labels[:, frequent]
    assert sum(map(len, found.values())) == (kept.any(1)).sum()  # images without any of the 21 are left out
    assert len(found["query"]) == 21 and len(found["train"]) == 63
    for name, count in (("query", 1), ("train", 3)):
        assert (np.array([*found[name].values()]).sum(0) >= count).all()
    for name, row in found["database"].items():
        number = int(name.split("/")[1].split("_")[0])
        assert row == kept[number].tolist() and (folder / "images" / name).exists()
    key, datum = records(folder, "query")[0]
    name = key.split("_", 1)[1]
    assert datum.encoded and datum.data == (folder / "images" / name).read_bytes()  # the files' own bytes
    assert list(datum.float_data) == found["query"][name]
    assert pictures.decode(datum.data, False, name).shape == (40, 48, 3)


def test_nus_wide_81_concepts_and_the_list_beside(tmp_path):
    recipe, folder, labels = folder_of(tmp_path, "nus_wide")
    (folder / "ImageList" / "ImageList.txt").rename(folder / "ImageList.txt")
    facts = recipe_data.write_lists(recipe, recipe.split("81-concepts"), 0, folder)
    assert facts["counts"] == {"query": 20, "train": 60, "database": labels.any(1).sum() - 20}
    assert len(facts["label_names"]) == 81
    found = listed(folder)
    assert set(found["train"]) < set(found["database"]) and not set(found["query"]) & set(found["database"])


def test_nus_wide_released_lists(tmp_path):
    recipe, folder, labels = folder_of(tmp_path, "nus_wide")
    facts = recipe_data.prepare(recipe, folder, "released")
    assert facts["counts"] == {"query": 24, "train": 60, "database": labels[:, :21].any(1).sum() - 84}
    found = listed(folder)
    assert next(iter(found["query"])) == "folder0/0000_0.jpg"  # no more of /home/someone
    for name, row in found["database"].items():
        assert row == labels[int(name.split("/")[1].split("_")[0]), :21].tolist()
    with open(folder / "released" / "parallel" / "database3.txt", "a") as stream:
        stream.write((folder / "released" / "parallel" / "test0.txt").read_text().splitlines()[0] + "\n")
    with pytest.raises(splits.SplitError, match=r"folder0/0000_0\.jpg stands in .*query\.txt and in .*database\.txt"):
        recipe_data.prepare(recipe, folder, "released")
    with pytest.raises(splits.SplitError, match="run: make data DATASET=nus_wide"):
        splits.verify(folder)


@pytest.mark.parametrize("split", ["paper", "released"])
def test_missing_images_are_counted_listed_and_may_be_allowed(tmp_path, split, capsys):
    recipe, folder, _ = folder_of(tmp_path, "nus_wide", missing=5)
    sentence = r"recipe.json: (\d+) of \d+ images are not under .* go on without them: MISSING=\1$"
    with pytest.raises(recipes.RecipeError, match=sentence) as caught:
        recipe_data.prepare(recipe, folder, split)
    count = int(str(caught.value).split(": ")[1].split()[0])
    gone = (folder / "missing.txt").read_text().splitlines()
    assert len(gone) == count > 0 and not (folder / "split.json").exists()
    facts = recipe_data.prepare(recipe, folder, split, allow_missing=count)
    assert facts["missing"] == count and f"{count} of" in capsys.readouterr().out
    for found in listed(folder).values():
        assert not set(found) & set(gone)
    assert splits.verify(folder)["missing"] == count


@pytest.mark.parametrize("archives", [True, False])
def test_flickr25k(tmp_path, archives):
    recipe, folder, labels = folder_of(tmp_path, "flickr25k", archives=archives)
    facts = recipe_data.prepare(recipe, folder)
    relevant = [f"{name}_r1" for name in miniatures.RELEVANT]
    assert facts["label_names"] == miniatures.POTENTIAL + relevant and len(facts["label_names"]) == 38
    assert facts["R"] == "not stated" and facts["counts"] == {"query": 10, "train": 40, "database": 70}
    found = listed(folder)
    for name, rows in found.items():
        for path, row in rows.items():
            number = int(path.rsplit("im", 1)[1].split(".")[0])
            assert row == labels[number - 1].tolist()
            assert any(row) or name == "database"
    again = recipe_data.prepare(recipe, folder)
    assert again == facts
    assert lmdb_records.check(folder / "query_lmdb")["labels"] == 38


def test_flickr25k_is_downloaded_and_checked(tmp_path, monkeypatch):
    recipe, folder, _ = folder_of(tmp_path, "flickr25k")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("mirflickr25k.zip", "mirflickr25k_annotations_v080.zip"):
        (folder / name).rename(elsewhere / name)
    asked = []

    def download(urls, target, check):
        asked.extend(urls)
        check(elsewhere / target.name)
        target.write_bytes((elsewhere / target.name).read_bytes())

    monkeypatch.setattr(benchmarks, "download", download)
    with pytest.raises(SourceError, match=r"mirflickr25k\.zip: expected MD5 a23d0a"):
        recipe_data.prepare(recipe, folder)
    source = recipe.split(None).source
    source["images_md5"] = hashlib.md5((elsewhere / "mirflickr25k.zip").read_bytes()).hexdigest()
    assert recipe_data.prepare(recipe, folder)["counts"]["query"] == 10
    assert asked[0] == "http://127.0.0.1:9/mirflickr25k_annotations_v080.zip"
    for path in folder.glob("mirflickr25k*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with zipfile.ZipFile(elsewhere / "mirflickr25k_annotations_v080.zip", "w") as archive:
        archive.writestr("animals.txt", "1\n")
    with pytest.raises(SourceError, match="expected 38 annotation files, found 1"):
        recipe_data.prepare(recipe, folder)
    del source["urls"]
    with pytest.raises(recipes.RecipeError, match=r"v080\.zip: expected .* found neither; put it there"):
        recipe_data.prepare(recipe, folder, seed=1)


def test_files_may_lie_elsewhere(tmp_path):
    recipe, source, _ = folder_of(tmp_path, "nus_wide")
    folder = tmp_path / "data"
    recipe_data.prepare(recipe, folder, base=source)
    assert splits.verify(folder)["counts"]["query"] == 21


def test_what_was_made_is_enough(tmp_path, capsys):
    recipe, folder, _ = folder_of(tmp_path, "nus_wide")
    recipe_data.prepare(recipe, folder, "released")
    (folder / "images").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert recipe_data.prepare(recipe, folder)["split"] == "released"  # the split of the last time
    assert "found none; put it there or name another. The lists and LMDBs made from it are complete" in (
        capsys.readouterr().out
    )
    with pytest.raises(recipes.RecipeError, match="expected the folder of the images, found none"):
        recipe_data.prepare(recipe, folder, "paper")
    recipe.split("released").source["root"] = "photos"  # what is there was made from other images
    with pytest.raises(recipes.RecipeError, match="expected the folder of the images, found none"):
        recipe_data.prepare(recipe, folder)
    recipe.split("released").source["root"] = "images"
    shutil.rmtree(folder / "train_lmdb")
    with pytest.raises(recipes.RecipeError, match="expected the folder of the images, found none"):
        recipe_data.prepare(recipe, folder)


def test_lists_in_the_place_of_those_that_are_made_are_refused(tmp_path):
    class_folders(tmp_path / "photos")
    source = {"kind": "list", "path": "train.txt", "root": "photos"}
    recipe = own(tmp_path, source)
    (tmp_path / "train.txt").write_text("crow/0 a.jpg 0\n")
    with pytest.raises(SourceError, match="would be written there too; move it to a subfolder"):
        recipe_data.prepare(recipe, tmp_path)


def own(tmp_path: Path, source: dict, **split) -> recipes.Recipe:
    numbers = {"query": {"per_label": 1}, "train": {"per_label": 2}, "database": "rest", "R": 10}
    path = tmp_path / "birds.json"
    path.write_text(json.dumps({"source": source, "splits": {"mine": numbers | split}}))
    return recipes.read(path)


def class_folders(folder: Path) -> None:
    random = np.random.RandomState(3)
    for label, name in enumerate(("crow", "great tit")):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            (folder / name / f"{index} a.jpg").write_bytes(miniatures.jpeg(label, random))


def test_a_folder_per_class_of_your_own(tmp_path):
    class_folders(tmp_path / "photos")
    recipe = own(tmp_path, {"kind": "folder", "path": "photos"})
    assert recipe.name == "birds"
    facts = recipe_data.prepare(recipe, tmp_path / "data" / "birds")
    assert facts["label_names"] == ["crow", "great tit"]
    assert facts["counts"] == {"query": 2, "train": 4, "database": 6} and facts["R"] == 10
    assert "great tit/" in (tmp_path / "data/birds/database.txt").read_text()
    assert splits.verify(tmp_path / "data" / "birds")["split"] == "mine"


def test_how_it_is_trained_is_kept_and_changes_no_image(tmp_path):
    class_folders(tmp_path / "photos")
    recipe, folder = own(tmp_path, {"kind": "folder", "path": "photos"}), tmp_path / "data" / "birds"
    assert "training" not in recipe_data.prepare(recipe, folder)
    built = {name: (folder / f"{name}_lmdb" / "source.json").read_bytes() for name in splits.LISTS}
    for settings in ({"solver": {"base_lr": 0.5}}, {"net": {"crop": 24}}, {}):
        path = tmp_path / "birds.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "solver": {}, "net": {}, **settings}))
        kept = {"solver": {}, "net": {}, **settings}
        assert recipe_data.prepare(recipes.read(path), folder)["training"] == kept
        assert json.loads((folder / "split.json").read_text())["training"] == kept
    (tmp_path / "photos").rename(tmp_path / "elsewhere")  # what was made is enough for other settings too
    path.write_text(json.dumps({**json.loads(path.read_text()), "solver": {"base_lr": 0.25}}))
    assert recipe_data.prepare(recipes.read(path), folder)["training"]["solver"] == {"base_lr": 0.25}
    assert json.loads((folder / "split.json").read_text())["training"]["solver"] == {"base_lr": 0.25}
    assert built == {name: (folder / f"{name}_lmdb" / "source.json").read_bytes() for name in splits.LISTS}


def test_a_list_of_your_own(tmp_path):
    class_folders(tmp_path / "photos")
    lines = [f"C:\\photos\\{name}\\{index} a.jpg {label}\n" for label, name in enumerate(("crow", "great tit"))
             for index in range(6)]  # fmt: skip
    (tmp_path / "all.txt").write_text("".join(lines))
    source = {"kind": "list", "path": "all.txt", "root": "photos", "labels": ["crow", "tit"]}
    recipe = own(tmp_path, source, query=2, train=3, database="rest and train")
    facts = recipe_data.prepare(recipe, tmp_path / "out")
    assert facts["counts"] == {"query": 2, "train": 3, "database": 10} and facts["label_names"] == ["crow", "tit"]
    (tmp_path / "all.txt").write_text("".join(lines[:1] + lines[:1]))
    with pytest.raises(SourceError, match="is listed twice"):
        recipe_data.prepare(recipe, tmp_path / "out")


def test_too_few_images_name_the_label(tmp_path):
    class_folders(tmp_path / "photos")
    recipe = own(tmp_path, {"kind": "folder", "path": "photos"}, train={"per_label": 6})
    with pytest.raises(recipes.RecipeError, match=r"label 'crow': the split needs 6 training images of it, found 5"):
        recipe_data.prepare(recipe, tmp_path / "out")


def test_lists_changed_or_overlapping_are_refused(tmp_path):
    recipe, folder, _ = folder_of(tmp_path, "cifar10")
    recipe_data.prepare(recipe, folder)
    facts = splits.verify(folder)
    assert facts["counts"] == {"query": 10, "train": 20, "database": 30} and facts["seed"] == 0
    text = (folder / "query.txt").read_text()
    (folder / "query.txt").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(splits.SplitError, match=r"query.txt is not the list that was drawn .* run: make data"):
        splits.verify(folder)
    (folder / "query.txt").write_text(text)
    query = text.splitlines()[4]
    with open(folder / "database.txt", "a") as stream:
        stream.write(query + "\n")
    record = json.loads((folder / "split.json").read_text())
    record["sha256"]["database.txt"] = splits.sha256(folder / "database.txt")
    (folder / "split.json").write_text(json.dumps(record))
    with pytest.raises(splits.SplitError, match="database_lmdb was not made from"):
        splits.verify(folder)
    shutil.rmtree(folder / "database_lmdb")
    with pytest.raises(splits.SplitError, match=rf"^{query.split()[0]} stands in .*query.txt and in .*database.txt"):
        splits.verify(folder)
