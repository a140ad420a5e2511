"""Recipes on files as users have them: links, bad images, lists of other programs and encodings, archives."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import get_data
import image_lists
import miniatures
import numpy as np
import pytest
from dhn.datasets import lmdb_build, lmdb_records, recipes, splits
from dhn.datasets import prepare as recipe_data
from dhn.datasets.image_files import SourceError
from image_records import ListSource, LmdbSource


def listed(folder: Path) -> dict[str, list[str]]:
    return {name: image_lists.read(folder / f"{name}.txt").names for name in splits.LISTS}


def test_a_folder_says_what_it_leaves_out(tmp_path, capsys):
    miniatures.photos(tmp_path / "photos")
    for name in (".ipynb_checkpoints/crow.jpg", "crow/._1.jpg", "crow/notes.txt"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    facts = recipe_data.prepare(miniatures.own(tmp_path, {"kind": "folder", "path": "photos"}), tmp_path / "out")
    assert facts["label_names"] == ["crow", "tit"]
    assert facts["left_out"] == {"hidden": {"count": 2, "first": ".ipynb_checkpoints"},
                                 "not_images": {"count": 1, "first": "crow/notes.txt"}}  # fmt: skip
    printed = capsys.readouterr().out
    assert "left out 2 (names that begin with a dot, or __MACOSX); the first is .ipynb_checkpoints" in printed
    assert json.loads((tmp_path / "out" / "split.json").read_text()) == facts


@pytest.mark.parametrize("name", ["photo 12", "photo\n", "photo "])
def test_a_name_that_no_list_can_hold_is_refused(tmp_path, name):
    first = miniatures.photos(tmp_path / "photos")[0]
    (tmp_path / "photos" / first).rename(tmp_path / "photos" / "crow" / name)
    with pytest.raises(
        image_lists.ListError, match=r"birds.json: 'crow/photo.*a line of a list cannot hold the name of this image"
    ):
        recipe_data.prepare(miniatures.own(tmp_path, {"kind": "folder", "path": "photos"}), tmp_path / "out")


@pytest.mark.parametrize("linked", ["root", "folders", "files"])
@pytest.mark.parametrize("kind", ["folder", "list", "lists"])
def test_linked_images(tmp_path, kind, linked):
    names = miniatures.photos(tmp_path / "store")
    root = tmp_path / "photos"
    if linked == "root":
        root.symlink_to(tmp_path / "store")
    for name in names if linked == "files" else () if linked == "root" else {name.split("/")[0] for name in names}:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "lists").mkdir()
    lines = [f"/home/someone/photos/{name} {int('tit' in name)}\n" for name in names]
    for part, rows in (("all", lines), ("query", lines[::6]), ("train", lines[1::6]), ("database", lines[2:6])):
        (tmp_path / "lists" / f"{part}.txt").write_text("".join(rows))
    source = {"folder": {"kind": "folder", "path": "photos"}, "lists": {**miniatures.LISTS, "root": "photos"},
              "list": {"kind": "list", "path": "lists/all.txt", "root": "photos"}}[kind]  # fmt: skip
    split = miniatures.LISTED if kind == "lists" else {}
    facts = recipe_data.prepare(miniatures.own(tmp_path, source, **split), tmp_path / "out")
    assert facts["missing"] == 0 and facts["counts"]["query"] == 2
    assert lmdb_records.check(tmp_path / "out" / "query_lmdb")["records"] == 2


@pytest.mark.parametrize("dataset", ["flickr25k", "nus_wide"])
def test_linked_images_of_published_data_sets(tmp_path, dataset):
    how = {"archives": False} if dataset == "flickr25k" else {}
    recipe, _ = miniatures.published(tmp_path / "data", dataset, **how)
    folder = tmp_path / "data" / {"flickr25k": "mirflickr25k/mirflickr", "nus_wide": "images/folder3"}[dataset]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data")["missing"] == 0


def test_a_folder_that_cannot_be_read_is_named_with_the_missing_images(tmp_path, monkeypatch):
    names = miniatures.photos(tmp_path / "photos")
    (tmp_path / "all.txt").write_text("".join(f"{name} {int('tit' in name)}\n" for name in names))
    recipe = miniatures.own(tmp_path, {"kind": "list", "path": "all.txt", "root": "photos"})
    stat = recipe_data.sources.os.stat

    def refuse(path, **how):
        if "/tit/" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr("dhn.datasets.image_set.os.stat", refuse)
    with pytest.raises(recipes.RecipeError, match=r"6 of 12 images are not .*photos/tit: the folder cannot be read"):
        recipe_data.prepare(recipe, tmp_path / "out")


def test_bad_images_of_a_recipe_are_named_at_once_skipped_and_taken_again(tmp_path, capsys):
    names = miniatures.photos(tmp_path / "photos", count=10)
    good = (tmp_path / "photos" / names[0]).read_bytes()
    bad = [names[index] for index in (0, 1, 4, 7, 11, 12, 13, 15, 16, 17, 18, 19)]
    for name in bad:
        (tmp_path / "photos" / name).write_bytes(good[: len(good) // 2])
    recipe = miniatures.own(tmp_path, {"kind": "folder", "path": "photos"}, train={"per_label": 1})
    out = tmp_path / "out"
    with pytest.raises(recipes.RecipeError, match=r"12 of 20 images cannot be read") as caught:
        recipe_data.prepare(recipe, out)
    message = str(caught.value)
    assert [name in message for name in bad] == [True] * 10 + [False] * 2  # in the order of their names
    assert f"and 2 more; {out}/bad_images.txt names them all" in message
    assert "go on without them: SKIP_BAD=12" in message
    assert (out / "bad_images.txt").read_text().split("\n")[:-1] == bad
    with pytest.raises(recipes.RecipeError, match=r"12 of 20 images cannot be read"):
        recipe_data.prepare(recipe, out, skip_bad=11)
    with pytest.raises(recipes.RecipeError, match="label 'tit': the split needs 1 training images of it, found 0 left"):
        (tmp_path / "photos" / names[14]).rename(tmp_path / "kept.jpg")
        recipe_data.prepare(recipe, out, skip_bad=12)
    (tmp_path / "kept.jpg").rename(tmp_path / "photos" / names[14])
    facts = recipe_data.prepare(recipe, out, skip_bad=12)
    assert facts["bad"] == 12 and facts["counts"] == {"query": 2, "train": 2, "database": 4}
    assert not {*bad} & {name for found in listed(out).values() for name in found}
    assert "12 of 20 images cannot be read" in capsys.readouterr().out
    assert splits.verify(out)["bad"] == 12
    for name, count in facts["counts"].items():
        assert lmdb_records.check(out / f"{name}_lmdb")["records"] == count
    assert recipe_data.prepare(recipe, out) == facts  # as the last time
    miniatures.photos(tmp_path / "elsewhere" / "photos", count=10)  # FROM= names a folder where they are whole
    moved = recipe_data.prepare(recipe, out, base=tmp_path / "elsewhere")
    assert moved["bad"] == 0 and sum(moved["counts"].values()) == 20
    assert recipe_data.prepare(recipe, out, base=tmp_path, skip_bad=12)["counts"] == facts["counts"]
    for name in bad:
        (tmp_path / "photos" / name).write_bytes(good)
    facts = recipe_data.prepare(recipe, out)
    assert facts["bad"] == 0 and sum(facts["counts"].values()) == 20 and not (out / "bad_images.txt").exists()


def test_get_data_passes_the_options_on(tmp_path, capsys):
    names = miniatures.photos(tmp_path / "photos")
    (tmp_path / "photos" / names[3]).write_bytes(b"")
    (tmp_path / "birds.json").write_text(json.dumps({"source": {"kind": "folder", "path": "photos"},
                                                     "splits": {"mine": miniatures.NUMBERS}}))  # fmt: skip
    words = [str(tmp_path / "birds.json"), "--root", str(tmp_path / "data")]
    assert get_data.main(words) == 1
    assert f"{names[3]}: expected a picture, found 0 bytes" in capsys.readouterr().err
    assert get_data.main([*words, "--skip-bad", "1"]) == 0
    assert get_data.main(["fashion_mnist", "--root", str(tmp_path), "--allow-overlap"]) == 1
    assert "--allow-overlap does not go with it" in capsys.readouterr().err


def numbered(tmp_path: Path, first: int, **source) -> recipes.Recipe:
    names = miniatures.photos(tmp_path / "photos")
    (tmp_path / "all.txt").write_text("".join(f"{name} {first + ('tit' in name)}\n" for name in names))
    return miniatures.own(tmp_path, {"kind": "list", "path": "all.txt", "root": "photos", **source})


def test_classes_counted_from_1(tmp_path, capsys):
    with pytest.raises(SourceError, match=r"numbers are 1 to 2, and class 0 has no image.*\"first_class\": 1"):
        recipe_data.prepare(numbered(tmp_path, 1), tmp_path / "out")
    with pytest.raises(SourceError, match=r"class 0 has no image"):
        recipe_data.prepare(numbered(tmp_path, 1, labels=["a", "b", "c"]), tmp_path / "out")
    facts = recipe_data.prepare(numbered(tmp_path, 1, first_class=1), tmp_path / "out")
    assert facts["label_names"] == ["1", "2"] and facts["images"]["classes"] == 2
    assert "read as class numbers 1 to 2: 2 classes" in capsys.readouterr().out
    facts = recipe_data.prepare(numbered(tmp_path, 1, first_class=1, labels=["crow", "tit"]), tmp_path / "out")
    assert facts["label_names"] == ["crow", "tit"]
    assert {row for (row,) in image_lists.read(tmp_path / "out" / "train.txt").labels} == {0, 1}
    recipe = numbered(tmp_path, 1, first_class=0)
    with pytest.raises(recipes.RecipeError, match="label '0': the split needs 1 query images of it, found 0 left"):
        recipe_data.prepare(recipe, tmp_path / "out")
    assert "1 of 3 classes have no image: 0" not in capsys.readouterr().out  # the refusal says it


def test_a_list_of_one_class_is_that_class_everywhere(tmp_path):
    names = miniatures.photos(tmp_path / "photos", ("crow",))
    (tmp_path / "all.txt").write_text("".join(f"{name} 0\n" for name in names))
    source = {"kind": "list", "path": "all.txt", "root": "photos"}
    facts = recipe_data.prepare(miniatures.own(tmp_path, source), tmp_path / "out")
    assert facts["images"]["classes"] == 1
    for each in (ListSource(str(tmp_path / "out" / "query.txt"), str(tmp_path / "photos"), 1, None, None),
                 LmdbSource(str(tmp_path / "out" / "query_lmdb"), None, None, None)):  # fmt: skip
        assert each.read(0)[1].tolist() == [1]


@pytest.mark.parametrize("on_disk", ["utf-8", "latin-1"])
def test_a_list_in_another_encoding(tmp_path, on_disk):
    for name in miniatures.photos(tmp_path / "photos"):
        target = tmp_path / "photos" / name.replace(".jpg", "é ü.jpg")
        (tmp_path / "photos" / name).rename(lmdb_build.os.fsdecode(str(target).encode(on_disk)))
    lines = [f"D:\\photos\\{name}\\{index}é ü.jpg {label}\r\n" for label, name in enumerate(("crow", "tit"))
             for index in range(6)]  # fmt: skip
    (tmp_path / "all.txt").write_bytes("".join(lines).encode("latin-1"))
    source = {"kind": "list", "path": "all.txt", "root": "photos", "encoding": "latin-1"}
    facts = recipe_data.prepare(miniatures.own(tmp_path, source), tmp_path / "out")
    assert facts["missing"] == 0 and facts["counts"]["database"] == 6
    assert lmdb_records.check(tmp_path / "out" / "database_lmdb")["records"] == 6


def test_cifar10_as_an_unpacked_folder(tmp_path, capsys):
    recipe, made = miniatures.published(tmp_path / "data", "cifar10")
    archive = tmp_path / "data" / "cifar-10-binary.tar.gz"
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "data", filter="data")
    archive.unlink()
    facts = recipe_data.prepare(recipe, tmp_path / "data")
    assert "its files were not checked, only an archive has a checksum" in capsys.readouterr().out
    assert facts["counts"] == {"query": 10, "train": 20, "database": 30} and facts["facts"]["archive_sha256"] is None
    rgb = np.load(tmp_path / "data" / "images.npy")
    np.testing.assert_array_equal(rgb, made["images"].transpose(0, 2, 3, 1))
    assert recipe_data.prepare(recipe, tmp_path / "data") == facts
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    elsewhere = recipe_data.prepare(recipe, tmp_path / "other", base=folder)  # FROM= names the folder itself
    assert elsewhere["sha256"] == facts["sha256"]
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(
        recipes.RecipeError, match=r"cifar-10-batches-bin: expected it to hold data_batch_3.bin, found none"
    ):
        recipe_data.prepare(recipe, tmp_path / "third", base=tmp_path / "data")


def test_what_macos_adds_is_not_taken(tmp_path):
    recipe, _ = miniatures.published(tmp_path / "data", "flickr25k")
    for name, members in (("mirflickr25k", ["mirflickr/im1.jpg"]), ("mirflickr25k_annotations_v080", ["animals.txt"])):
        with zipfile.ZipFile(tmp_path / "data" / f"{name}.zip", "a") as archive:
            for member in members:
                start, _, last = member.rpartition("/")
                archive.writestr(f"__MACOSX/{start}{'/' * bool(start)}._{last}", b"\0\5\x16\7")
    facts = recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data")
    for name in ("mirflickr25k/._im1.jpg", "mirflickr25k_annotations_v080/._animals.txt"):
        (tmp_path / "data" / name).write_bytes(b"\0\5\x16\7")
    assert recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data") == facts
    assert len(facts["label_names"]) == 38


@pytest.mark.parametrize("text", ["²", "99999999999", "-1", "x"])
def test_annotations_that_are_no_image_numbers(tmp_path, text):
    recipe, _ = miniatures.published(tmp_path / "data", "flickr25k", archives=False)
    (tmp_path / "data" / "mirflickr25k_annotations_v080" / "animals.txt").write_text(f"1\n{text}\n")
    with pytest.raises(SourceError, match=f"animals.txt: expected the numbers of images, found '{text}'"):
        recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data")


@pytest.mark.parametrize("pattern", ["**", "/", "a**b", "[z", "..", "lists"])
def test_patterns_of_no_list(tmp_path, pattern):
    names = miniatures.photos(tmp_path / "photos")
    (tmp_path / "lists").mkdir()
    for part in splits.LISTS:
        (tmp_path / "lists" / f"{part}.txt").write_text(f"{names[0]} 0\n")
    source = {**miniatures.LISTS, "root": "photos", "query": pattern}
    with pytest.raises(
        recipes.RecipeError,
        match=r"birds.json, source: .*: (expected an image list, found none|expected a path or a pattern)",
    ):
        recipe_data.prepare(miniatures.own(tmp_path, source, **miniatures.LISTED), tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("crow/1.jpg ²", r"all.txt:13: expected a path and 1 whole number"),
        ("crow/1.jpg 99999999999", r"all.txt:13: found class number 99999999999"),
        ("crow\0/1.jpg 0", r"all.txt:13: .*NUL"),
        ("crow/1.jpg 0 1", r"all.txt:13: expected a path and 1 whole number"),
    ],
)
def test_lists_of_a_recipe_that_are_refused(tmp_path, capsys, line, message):
    recipe = numbered(tmp_path, 0)
    with open(tmp_path / "all.txt", "a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        recipe_data.prepare(recipe, tmp_path / "out")
    assert get_data.main([str(recipe.path), "--root", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_list_or_folder_that_is_missing_is_named_with_its_recipe(tmp_path):
    recipe = numbered(tmp_path, 0)
    (tmp_path / "all.txt").unlink()
    with pytest.raises(
        recipes.RecipeError, match=r"^\S+/birds.json, source: \S+/all.txt: expected an image list, found"
    ):
        recipe_data.prepare(recipe, tmp_path / "out")
    recipe = miniatures.own(tmp_path, {"kind": "folder", "path": "phot0s"})
    with pytest.raises(recipes.RecipeError, match=r"^\S+/birds.json, source: \S+/phot0s: expected a folder with a"):
        recipe_data.prepare(recipe, tmp_path / "out")


def test_a_set_that_is_left_empty_is_named_with_its_recipe(tmp_path):
    miniatures.photos(tmp_path / "photos", count=3)
    recipe = miniatures.own(tmp_path, {"kind": "folder", "path": "photos"})
    with pytest.raises(
        recipes.RecipeError, match=r"^\S+/birds.json, splits, mine: database: expected images, found none"
    ):
        recipe_data.prepare(recipe, tmp_path / "out")


def test_label_vectors_of_minus_one_and_one_are_refused_with_the_remedy(tmp_path):
    names = miniatures.photos(tmp_path / "photos")
    (tmp_path / "all.txt").write_text("".join(f"{name} 1 -1\n" for name in names))
    recipe = miniatures.own(tmp_path, {"kind": "list", "path": "all.txt", "root": "photos"})
    with pytest.raises(ValueError, match=r"all.txt:1: .*-1 among other labels. Write 0 where"):
        recipe_data.prepare(recipe, tmp_path / "out")


def test_a_damaged_split_json_or_source_json_is_made_again(tmp_path):
    miniatures.photos(tmp_path / "photos")
    recipe, out = miniatures.own(tmp_path, {"kind": "folder", "path": "photos"}), tmp_path / "out"
    facts = recipe_data.prepare(recipe, out)
    for text in ("", "[]", "3", '{"split": ["x"]}'):
        for path in (out / "split.json", out / "train_lmdb" / "source.json"):
            path.write_text(text)
            with pytest.raises(splits.SplitError, match="run: make data DATASET=out"):
                splits.verify(out)
            assert recipe_data.prepare(recipe, out) == facts
    shutil.rmtree(out / "train_lmdb")
    assert recipe_data.prepare(recipe, out) == facts
