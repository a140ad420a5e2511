"""Recipes: what is read, what is refused and how, which one a command line means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dhn.datasets import recipes, sources
from dhn.datasets.image_files import SourceError

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "source": {"kind": "folder", "path": "photos"},
    "splits": {"mine": {"query": 10, "train": {"per_label": 5}, "database": "rest", "R": "all"}},
}


def write(path: Path, recipe: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recipe))
    return path


@pytest.mark.parametrize("path", sorted(ROOT.glob("data/*/recipe.json")), ids=lambda path: path.parent.name)
def test_committed_recipes(path):
    recipe = recipes.read(path)
    assert recipe.name == path.parent.name == recipes.find(recipe.name).name
    for split in recipe.splits.values():
        sources.check(split.source)
    page = (path.parent / "README.md").read_text()
    for name in recipe.splits:
        assert f"`{name}`" in page, f"{path.parent}/README.md does not explain the split {name}"


def test_a_recipe_is_read(tmp_path):
    recipe = recipes.read(write(tmp_path / "birds.json", GOOD))
    assert recipe.name == "birds" and recipe.split(None) is recipe.splits["mine"]
    split = recipe.split("mine")
    assert (split.query, split.train, split.database, split.R) == (10, {"per_label": 5}, "rest", "all")
    assert recipes.read(write(tmp_path / "tits" / "recipe.json", GOOD)).name == "tits"
    two = {"sources": {"a": GOOD["source"], "b": {"kind": "list", "path": "x"}}}
    two["splits"] = {"mine": GOOD["splits"]["mine"] | {"source": "b", "labels": 3, "note": "n"}}
    assert recipes.read(write(tmp_path / "x.json", two)).split(None).source == two["sources"]["b"]


def test_how_a_data_set_is_trained(tmp_path):
    own = {
        "net": {"crop": 64, "similar_weight": "balanced"},
        "solver": {"base_lr": 0.01},
        "pretraining": {"max_iter": 9},
    }
    assert recipes.read(write(tmp_path / "x.json", {**GOOD, **own})).training == own
    assert recipes.read(write(tmp_path / "x.json", GOOD)).training == {}
    for section, message in (({"solver": {"crop": 64}}, "x.json, solver, crop: there is no setting 'crop'"),
                             ({"net": {"crop": "small"}}, "x.json, net, crop: expected a whole number, found 'small'"),
                             ({"solver": 3}, "x.json, solver: expected an object of settings by name")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            recipes.read(write(tmp_path / "x.json", {**GOOD, **section}))


def changed(**keys) -> dict:
    return {**GOOD, "splits": {"mine": GOOD["splits"]["mine"] | keys}}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([], "x.json: expected an object"),
        ({"source": {}}, "x.json: the key 'splits' is missing"),
        ({**GOOD, "colour": 1}, "x.json: unknown key 'colour'; known are splits, name, source, sources"),
        ({**GOOD, "name": "a/b"}, 'name: expected letters, digits, - and _, 100 at most, found "a/b"'),
        ({**GOOD, "name": "a" * 101}, "name: expected letters, digits, - and _, 100 at most, found "),
        ({"splits": GOOD["splits"]}, "expected either the key 'source' or the key 'sources'"),
        ({**GOOD, "sources": {}}, "expected either the key 'source' or the key 'sources'"),
        ({**GOOD, "splits": {}}, "splits: expected splits by name"),
        (changed(query=0), "splits, mine, query: expected a number of at least 1"),
        (changed(query=True), "splits, mine, query: expected a number of at least 1"),
        (changed(train={"per_class": 3}), 'train: expected a number .* found {"per_class": 3}'),
        (changed(database="all"), "database: expected one of rest, rest and train, train, listed"),
        (changed(query="listed"), 'expected "listed" for all of query, train and database, or for none'),
        (changed(R="most"), 'R: expected a number, "all" or "not stated"'),
        (changed(seed=3), "mine: unknown key 'seed'"),
        (changed(labels=-1), "labels: expected a number of at least 1"),
        (changed(labels=[]), "labels: expected a number of at least 1, or a list of different names"),
        (changed(labels=["a", "a"]), "labels: expected .* a list of different names"),
        (changed(labels=["a", 1]), "labels: expected .* a list of different names"),
        (changed(labels=[["a"]]), "labels: expected .* a list of different names"),
        (changed(database=["rest"]), "database: expected one of rest, rest and train, train, listed"),
        (changed(R={"a": []}), 'R: expected a number, "all" or "not stated"'),
        (changed(source=["source"]), 'source: expected one of source, found \\["source"\\]'),
        (changed(source={"source": 1}), "source: expected one of source"),
        ({**GOOD, "splits": ["mine"]}, "splits: expected splits by name"),
        ({**GOOD, "name": ["x"]}, "name: expected letters"),
        (changed(keep_unlabelled="yes"), "keep_unlabelled: expected true or false"),
        (changed(source="other"), 'source: expected one of source, found "other"'),
    ],
)
def test_refusals_name_file_and_key(tmp_path, recipe, message):
    with pytest.raises(recipes.RecipeError, match=message):
        recipes.read(write(tmp_path / "x.json", recipe))


def test_not_json(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(recipes.RecipeError, match=r"x.json: expected JSON: .*line 1"):
        recipes.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "x.json: expected JSON, found brackets within brackets without end"),
        ('{"a": "\\ud800"}', r"x.json: expected text in a string, found '\\ud800', the half of a character"),
        ('{"a":' * 100_000, "x.json: expected JSON, found brackets within brackets without end"),
        ("[" * 900 + "]" * 900, "x.json: expected an object, found "),
        ('{"source": {"kind": "list"}, "source": {"kind": "folder"}}', "x.json: the key 'source' stands twice"),
        ('{"splits": {"a": {}, "a": {}}}', "x.json: the key 'a' stands twice in one object"),
        (b"\xff\xfe{}", "x.json: expected JSON: "),
        ("9" * 5000, "x.json: expected JSON: "),
        ("", "x.json: expected JSON: "),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    (tmp_path / "x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(recipes.RecipeError, match=message) as caught:
        recipes.read(tmp_path / "x.json")
    assert len(str(caught.value)) < 600


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path):
    (tmp_path / "birds.json").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert recipes.read(tmp_path / "birds.json").name == "birds"


def test_labels_by_name_and_what_a_listed_split_keeps(tmp_path):
    assert recipes.read(write(tmp_path / "x.json", changed(labels=["a", "b"]))).split(None).labels == ["a", "b"]
    listed = dict.fromkeys(("query", "train", "database"), "listed")
    for keys, keeps in (({}, False), (listed, True), ({**listed, "keep_unlabelled": False}, False)):
        assert recipes.read(write(tmp_path / "x.json", changed(**keys))).split(None).keep_unlabelled is keeps


def test_which_recipe_is_meant(tmp_path):
    write(tmp_path / "data" / "cifar10" / "recipe.json", GOOD)
    assert recipes.find("cifar10", tmp_path).path == tmp_path / "data" / "cifar10" / "recipe.json"
    path = write(tmp_path / "mine" / "recipe.json", GOOD)
    assert recipes.find(str(path), tmp_path).name == recipes.find(str(path.parent), tmp_path).name == "mine"
    with pytest.raises(recipes.RecipeError, match="no data set 'cifar': expected one of cifar10, or the path of a"):
        recipes.find("cifar", tmp_path)
    write(tmp_path / "data" / "mine" / "split.json", {"recipe": str(path)})
    assert recipes.find("mine", tmp_path).path == path  # once it was carried out
    other = write(tmp_path / "cifar10.json", GOOD)
    with pytest.raises(recipes.RecipeError, match=r"the name 'cifar10' is that of .*; give the recipe another one"):
        recipes.find(str(other), tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "expected an object with a 'kind' of folder, list, lists, cifar10, nus_wide, mirflickr"),
        ({"kind": "folder"}, "a source of kind 'folder' needs the key 'path'"),
        ({"kind": "folder", "path": "x", "root": "y"}, "unknown key 'root' in a source of kind 'folder'; known are"),
        ({"kind": "folder", "path": 3}, "path: expected text, found 3"),
        ({"kind": "list", "path": "x", "labels": "a"}, 'labels: expected a list of texts, found "a"'),
        ({"kind": "list", "path": "x", "labels": ["a\nb"]}, "labels: expected a list of texts"),
        ({"kind": "list", "path": "a\0b"}, 'path: expected text, found "a'),
        ({"kind": "list", "path": "\ud800"}, "path: expected text"),
        ({"kind": "list", "path": ""}, 'path: expected text, found ""'),
        ({"kind": "list", "path": "x", "first_class": -1}, "first_class: expected .* at least 0, found -1"),
        ({"kind": "list", "path": "x", "first_class": True}, "first_class: expected a whole number of at least 0"),
        ({"kind": "list", "path": "x", "encoding": 8}, "encoding: expected text, found 8"),
        ({"kind": ["list"]}, "expected an object with a 'kind' of folder"),
        ({"kind": {"list": 1}}, "expected an object with a 'kind' of folder"),
        ([["list"]], "expected an object with a 'kind' of folder"),
    ],
)
def test_sources_are_checked(source, message):
    with pytest.raises(SourceError, match=message):
        sources.check(source)
