"""What a recipe's split keeps: labels by name, published lists with unlabelled images, lists that overlap."""

from __future__ import annotations

import json
from pathlib import Path

import image_lists
import miniatures
import pytest
from dhn.datasets import prepare as recipe_data
from dhn.datasets import recipes, splits
from dhn.datasets.prepare import Allowed


def test_labels_by_name(tmp_path):
    recipe, labels = miniatures.published(tmp_path / "data", "flickr25k")
    given = json.loads(recipe.path.read_text())
    given["splits"] = {"mine": given["splits"]["paper"] | {"labels": ["water", "baby_r1", "animals"], "train": 10}}
    recipe.path.write_text(json.dumps(given))
    recipe = recipes.read(recipe.path)
    facts = recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data")
    assert facts["label_names"] == facts["labels"] == ["water", "baby_r1", "animals"]
    names = miniatures.POTENTIAL + [f"{name}_r1" for name in miniatures.RELEVANT]
    columns = [names.index(name) for name in facts["labels"]]
    for name, row, _ in zip(*image_lists.read(tmp_path / "data" / "database.txt"), strict=True):
        assert row == labels[int(name.split("im")[-1].split(".")[0]) - 1][columns].tolist()
    given["splits"]["mine"]["labels"] = ["animals", "cats"]
    recipe.path.write_text(json.dumps(given))
    recipe = recipes.read(recipe.path)
    with pytest.raises(
        recipes.RecipeError,
        match=r"recipe.json, splits, mine: labels: there is no 'cats'; the labels are animals, baby, bird",
    ):
        recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data")


def test_labels_of_a_list_by_name(tmp_path):
    names = miniatures.photos(tmp_path / "photos")
    rows = [[int("tit" in name), int("crow" in name), index % 2] for index, name in enumerate(names)]
    rows[4] = [-1, -1, -1]  # unknown
    (tmp_path / "all.txt").write_text(splits.list_text(names, rows, tmp_path))
    source = {"kind": "list", "path": "all.txt", "root": "photos", "labels": ["tit", "crow", "odd"]}
    recipe = miniatures.own(tmp_path, source, labels=["crow", "tit"], keep_unlabelled=True)
    facts = recipe_data.prepare(recipe, tmp_path / "out")
    assert facts["label_names"] == ["crow", "tit"] and facts["unlabelled"] == 1
    found = dict(zip(*image_lists.read(tmp_path / "out" / "database.txt")[:2], strict=True))
    assert found.pop(names[4]) == [-1, -1]
    assert all(row == [int("crow" in name), int("tit" in name)] for name, row in found.items())


def flickr_lists(folder: Path, **split) -> recipes.Recipe:
    """Lists of 38 labels as others publish them for MIRFLICKR: some images carry none of the labels."""
    _, labels = miniatures.published(folder, "flickr25k", archives=False)
    lines = [f"im{number + 1}.jpg {' '.join(map(str, row))}\n" for number, row in enumerate(labels.tolist())]
    (folder / "lists").mkdir()
    for part, rows in (("query", lines[:20]), ("train", lines[40:80]), ("database", lines[20:] + lines[30:33])):
        (folder / "lists" / f"{part}.txt").write_text("".join(rows))
    return miniatures.own(folder, {**miniatures.LISTS, "root": "mirflickr25k/mirflickr"}, **miniatures.LISTED, **split)


def test_a_listed_split_keeps_what_is_listed(tmp_path, capsys):
    recipe = flickr_lists(tmp_path)
    facts = recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "out")
    assert facts["counts"] == {"query": 20, "train": 40, "database": 100} and facts["keep_unlabelled"] is True
    unlabelled = facts["listed"]["query"]["unlabelled"]
    assert unlabelled > 0
    printed = capsys.readouterr().out
    assert f"query: {unlabelled} of 20 images carry none of the labels; they are kept, as listed" in printed
    assert "database: listed 103, kept 100: left out 3 listed twice" in printed
    assert "20 query, 40 train, 100 database images, 38 labels, as listed but for 3; R 10" in printed
    assert facts["listed"]["database"]["left_out"] == {"listed twice": 3}


def test_a_listed_split_without_unlabelled_images_says_how_many(tmp_path, capsys):
    recipe = flickr_lists(tmp_path, keep_unlabelled=False)
    (tmp_path / "mirflickr25k" / "mirflickr" / "im2.jpg").unlink()
    facts = recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "out", allowed=Allowed(missing=1))
    query = facts["listed"]["query"]
    assert query["left_out"] == {"missing or unreadable": 1, "without any of the labels": query["unlabelled"]}
    kept = 20 - 1 - query["unlabelled"]
    assert facts["counts"]["query"] == query["kept"] == kept
    reasons = f"1 missing or unreadable, {query['unlabelled']} without any of the labels"
    assert f"query: listed 20, kept {kept}: left out {reasons}" in capsys.readouterr().out


def test_unlabelled_images_of_a_drawn_split_are_counted(tmp_path, capsys):
    recipe, labels = miniatures.published(tmp_path / "data", "nus_wide")
    facts = recipe_data.write_lists(recipe, recipe.split("81-concepts"), 0, tmp_path / "data")
    assert facts["unlabelled"] == (~labels.any(1)).sum() == 24
    assert "24 of 240 images carry none of the labels: left out" in capsys.readouterr().out


def test_a_published_split_that_leaks_runs_knowingly_and_marked(tmp_path, capsys):
    recipe = flickr_lists(tmp_path)
    leak = (tmp_path / "lists" / "query.txt").read_text().splitlines(keepends=True)
    with open(tmp_path / "lists" / "database.txt", "a") as stream:
        stream.writelines([leak[0], f"/home/someone/{leak[1]}", f"D:\\photos\\{leak[2]}"])  # of several machines
    with open(tmp_path / "lists" / "train.txt", "a") as stream:
        stream.writelines(leak[:1])
    out = tmp_path / "out"
    with pytest.raises(splits.SplitError, match=r"im1.jpg stands in .*recorded: ALLOW_OVERLAP=1"):
        recipe_data.prepare(recipe, out)
    facts = recipe_data.prepare(recipe, out, allow_overlap=True)
    assert facts["overlap"] == {"query_in_train": 1, "query_in_database": 3}
    assert "LEAK: 3 query images are database images too" in capsys.readouterr().out
    assert splits.verify(out)["overlap"] == facts["overlap"]
    assert recipe_data.prepare(recipe, out) == facts  # recorded, so known
    assert "LEAK: 3 query images" in capsys.readouterr().out
    with open(tmp_path / "lists" / "database.txt", "a") as stream:
        stream.writelines(leak[3:4])
    with pytest.raises(splits.SplitError, match=r"and 3 others stands in .*query.txt and in .*database.txt"):
        recipe_data.prepare(recipe, out)  # one more than recorded
    recipe_data.prepare(recipe, out, allow_overlap=True)
    record = json.loads((out / "split.json").read_text())
    record["overlap"]["query_in_database"] = 5
    (out / "split.json").write_text(json.dumps(record))
    with pytest.raises(splits.SplitError, match="and 3 others stands in"):
        splits.verify(out)
    del record["overlap"]
    (out / "split.json").write_text(json.dumps(record))
    with pytest.raises(splits.SplitError, match="stands in"):
        splits.verify(out)


@pytest.mark.parametrize("labels", [1, ["0"]])
def test_a_split_of_one_label_is_refused(tmp_path, labels):
    """Its list would read as class numbers, and all images would be relevant to all."""
    recipe = flickr_lists(tmp_path, labels=labels)
    with pytest.raises(recipes.RecipeError, match=r"birds.json, splits, mine: expected at least 2 labels, found one"):
        recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "out")
