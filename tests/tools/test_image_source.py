"""What a folder of class folders gives and leaves out; what labels of lists and arrays mean; names that lists hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import create_lmdb
import cv2
import image_lists
import labels
import numpy as np
import pytest
from dhn.datasets import image_files
from dhn.datasets.image_files import SourceError
from dhn.datasets.labelled_images import from_arrays, from_folder, from_list

JPEG, PNG = (cv2.imencode(suffix, np.zeros((4, 6, 3), np.uint8))[1].tobytes() for suffix in (".jpg", ".png"))


def tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_folder_takes_every_image_and_counts_what_it_leaves_out(tmp_path, capsys):
    taken = {"cat/1.JPG": JPEG, "cat/2.gif": PNG, "cat/3.jfif": JPEG, "cat/no suffix": PNG, "cat/5.dat": PNG,
             "dog/a.Tiff": JPEG, "dog/old/b.jpg": JPEG, "dog/caf\udce9.dat": PNG}  # fmt: skip
    left = {".DS_Store": b"x", ".ipynb_checkpoints/1.jpg": JPEG, "cat/.ipynb_checkpoints/1.jpg": JPEG,
            "cat/._1.JPG": b"x", "__MACOSX/cat/._1.JPG": b"x", "dog/Thumbs.db": b"x", "dog/notes.txt": b"x",
            "README.md": b"x", "stray.png": PNG, "dog/empty": b"", "dog/\udce9 [red]": b""}  # fmt: skip
    root = tree(tmp_path / "photos", {**taken, **left})
    (root / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(root / "dog" / "pipe.jpg")
    source = from_folder(root)
    assert sorted(source.names) == sorted(taken) and source.classes == 2
    assert [name for name, label in zip(source.names, source.labels, strict=True) if label == 0] == [
        "cat/1.JPG", "cat/2.gif", "cat/3.jfif", "cat/5.dat", "cat/no suffix"]  # fmt: skip
    counts = {kind: (entry["count"], entry["first"]) for kind, entry in source.left_out.kinds.items()}
    assert counts == {"hidden": (5, ".DS_Store"), "not_images": (6, "README.md"), "outside_classes": (1, "stray.png"),
                      "broken_links": (1, "dog/gone.jpg")}  # fmt: skip
    assert create_lmdb.main([str(root), str(tmp_path / "lmdb"), "--resize", "4", "6"]) == 0
    printed = capsys.readouterr().out
    for line in ("5 (names that begin with a dot, or __MACOSX); the first is .DS_Store",
                 "6 (not an image that OpenCV can read); the first is README.md",
                 "1 (in no class folder); the first is stray.png",
                 "1 (a link that leads nowhere); the first is dog/gone.jpg"):  # fmt: skip
        assert f"{root}: left out {line}\n" in printed
    assert json.loads((tmp_path / "lmdb" / "source.json").read_text())["left_out"] == source.left_out.kinds


@pytest.mark.skipif(not cv2.haveImageWriter("x.gif"), reason="OpenCV reads GIF from 4.11 on")
def test_a_gif_is_read(tmp_path):
    data = cv2.imencode(".gif", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
    source = from_folder(tree(tmp_path / "photos", {"cat/2.gif": data, "dog/1.png": PNG}))
    assert source.read(0, False)[0].shape == (4, 6, 3)


def test_links_are_followed_and_loops_end(tmp_path):
    tree(tmp_path / "store", {"many/1.jpg": JPEG, "many/in/2.jpg": JPEG, "one.jpg": JPEG, "more/1.jpg": JPEG})
    root = tree(tmp_path / "photos", {"cat/a.jpg": JPEG})
    (root / "dog").symlink_to(tmp_path / "store" / "many")
    (root / "cat" / "b.jpg").symlink_to(tmp_path / "store" / "one.jpg")
    (root / "cat" / "more").symlink_to(tmp_path / "store" / "more")
    (root / "cat" / "z.jpg").symlink_to("a.jpg")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat" / "self")
    (tmp_path / "linked").symlink_to(root)
    source = from_folder(tmp_path / "linked")
    assert source.names == ["cat/a.jpg", "cat/b.jpg", "cat/more/1.jpg", "dog/1.jpg", "dog/in/2.jpg"]
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.left_out.kinds == {"broken_links": {"count": 1, "first": "cat/self"},
                                     "repeated": {"count": 1, "first": "cat/z.jpg"}}  # fmt: skip
    (root / "pet").symlink_to(root / "cat")
    with pytest.raises(SourceError, match=r"cat/a.jpg and pet/a.jpg are links to one file, in two classes"):
        from_folder(root)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg"], r"train: expected the images of a class, found only"),
        (["cat/1.jpg", "dog/a/1.jpg"], r"dog: expected .*, found only folders, which hold dog/a/1.jpg"),
        (["train/notes.txt", "train/cat/1.jpg"], r"train: .*recipe of kind `lists`"),
        (["train/1.jpg", "Val/2.jpg"], r"found the parts of a data set: Val, train. Name the folder that holds"),
        (["cat/1.jpg", "dog/notes.txt"], r"dog: expected the images of a class, found none"),
        (["1.jpg"], r"expected a folder per class, found none"),
        ([".hidden/1.jpg"], r"expected a folder per class, found none"),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path, files, message):
    root = tree(tmp_path / "photos", {name: JPEG if name.endswith("g") else b"x" for name in files})
    with pytest.raises(SourceError, match=message):
        from_folder(root)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    root, scan = tree(tmp_path / "photos", {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG}), os.scandir

    def refuse(path):
        if os.path.basename(path) == "dog":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(image_files.os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"photos/dog: the folder cannot be read \(Permission denied\)"):
        from_folder(root)


def read_list(tmp_path: Path, text: str | bytes, **how):
    (tmp_path / "list.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return from_list(tmp_path / "list.txt", **how)


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("a.jpg 1\nb.jpg 3\n", {}, r"are 1 to 3, and class 0 has no image.*--first-class 1 .*\"first_class\""),
        ("a.jpg 1\nb.jpg 0\n", {"first_class": 1}, r"list.txt:2: .* from 1 \(the first class\), found 0"),
        ("a.jpg 1\nb.jpg 10\n", {"classes": 10}, r"list.txt:2: .*class number from 0 to 9.*found 10"),
        ("a.jpg -1\n", {}, r"found -1 \(unknown\) alone; declare how many classes"),
        ("a.jpg 1 0\n", {"first_class": 1}, r"expected class numbers, one an image, as declared; found \(1, 2\)"),
        ("a.jpg 1 0\nb.jpg -1 1\n", {}, r"list.txt:2: .*found -1 among other labels. Write 0 where"),
        ("a.jpg 0\nb.jpg ²\n", {}, r"list.txt:2: expected a path and 1 whole number"),
        ("a.jpg 0\nb.jpg 99999999999\n", {}, r"list.txt:2: found class number 99999999999.*must be declared"),
        ("a.jpg 0\nb.jpg 999999999999999999999999\n", {}, r"list.txt:2: expected a path and 1 whole number"),
        ("a\0.jpg 0\n", {}, r"list.txt:1: .*NUL"),
        ("a.jpg 0\n".encode("utf-16"), {}, r"UTF-16"),
        ("a.jpg 0\n", {"encoding": "klingon"}, r"unknown encoding 'klingon'"),
    ],
)
def test_lists_that_are_refused(tmp_path, text, how, message):
    with pytest.raises(ValueError, match=message):
        read_list(tmp_path, text, **how)


def test_the_first_class_is_declared_and_empty_classes_are_told(tmp_path, capsys):
    source = read_list(tmp_path, "a.jpg 1\nb.jpg 3\nc.jpg -1\n", first_class=1)
    assert source.labels.tolist() == [0, 2, -1] and source.classes == 3
    assert source.vector(1).tolist() == [0, 0, 1] and source.vector(2).tolist() == [-1, -1, -1]
    assert source.notes == [f"{tmp_path}/list.txt: read as class numbers 1 to 3: 3 classes",
                            f"{tmp_path}/list.txt: 1 of 3 classes have no image: 2"]  # fmt: skip
    assert read_list(tmp_path, "a.jpg 1\n", first_class=0).classes == 2
    assert read_list(tmp_path, "a.jpg 3\n", classes=5).notes == []  # a part of a data set
    (tmp_path / "a.jpg").write_bytes(JPEG)
    words = [str(tmp_path / "list.txt"), str(tmp_path / "lmdb"), "--root", str(tmp_path)]
    (tmp_path / "list.txt").write_text("a.jpg 1\n")
    assert create_lmdb.main(words) == 1
    assert "the class numbers are 1 to 1, and class 0 has no image" in capsys.readouterr().err
    assert create_lmdb.main([*words, "--first-class", "1"]) == 0
    assert "read as class numbers 1 to 1: 1 class\n" in capsys.readouterr().out


def test_a_list_of_one_class_has_that_class(tmp_path):
    source = read_list(tmp_path, "a.jpg 0\nb.jpg 0\n")
    assert source.classes == 1 and source.vector(0).tolist() == [1] and source.first(1) == 0


def test_lists_as_others_write_them(tmp_path):
    plain = "/a b.jpg 0 1\ncaf\xe9 1.jpg 1 0"
    windows = "\ufeff/a b.jpg 0 1\r\n\r\n  caf\xe9 1.jpg\t1  0 \r\n"
    for text, encoding in ((windows, "utf-8"), (plain, "latin-1"), (plain, "utf-16")):
        source = read_list(tmp_path, text.encode(encoding), encoding=encoding)
        assert source.names == ["/a b.jpg", "caf\xe9 1.jpg"] and source.labels.tolist() == [[0, 1], [1, 0]]
    (tmp_path / "a b.jpg").write_bytes(JPEG)
    assert from_list(tmp_path / "list.txt", tmp_path, encoding="utf-16").read(0, False)[0].shape == (4, 6, 3)


IMAGES = np.zeros((4, 2, 2), np.uint8)


@pytest.mark.parametrize(
    ("array", "how", "rows"),
    [
        ([[2], [0], [1], [-1]], {}, [2, 0, 1, -1]),
        ([2, 0, 1, 1], {}, [2, 0, 1, 1]),
        ([[0], [1], [0], [1]], {"declared": "classes"}, [0, 1, 0, 1]),
        ([[0], [1], [0], [1]], {"declared": "vectors"}, [[0], [1], [0], [1]]),
        ([[0], [1], [0], [1]], {"classes": 2}, [0, 1, 0, 1]),
        (np.eye(4, dtype=np.float32), {}, np.eye(4).tolist()),
        (np.eye(4, dtype=bool), {}, np.eye(4).tolist()),
        ([[1, 0], [0, 1], [-1, -1], [0, 0]], {}, [[1, 0], [0, 1], [-1, -1], [0, 0]]),
        ([[1], [2], [3], [1]], {"first_class": 1}, [0, 1, 2, 0]),
        (np.array([[1.0], [2.0], [3.0], [1.0]]), {"first_class": 1}, [0, 1, 2, 0]),
    ],
)
def test_arrays_of_labels(tmp_path, array, how, rows):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array(array))
    assert from_arrays(tmp_path / "a.npz", **how).labels.tolist() == rows


@pytest.mark.parametrize(
    ("array", "how", "message"),
    [
        ([[0], [1], [0], [1]], {}, "declare `classes` or `vectors`"),
        ([True, False, True, True], {}, "declare `classes` or `vectors`"),
        ([[1, -1], [-1, 1], [1, 1], [1, -1]], {}, "row 0: .*-1 among other labels. Write 0 where"),
        ([[0.5, 1], [0, 1], [0, 1], [1, 1]], {}, "row 0: .*found 0.5"),
        ([1, 2, 3, 1], {}, "class 0 has no image.*--first-class 1"),
        ([[1], [2], [3], [1]], {}, "class 0 has no image.*--first-class 1"),
        ([0, 1, 2, 99999999999], {}, "row 3: found class number 99999999999"),
        ([[1, 0], [0, 1], [0, 1], [1, 1]], {"first_class": 1}, "expected class numbers, one an image"),
        ([[1], [0], [1], [1]], {"first_class": 1, "declared": "vectors"}, "does not go with label vectors"),
        (["a", "b", "a", "b"], {}, "expected whole numbers"),
        (np.array([None] * 4), {}, "expected arrays of numbers as numpy saves them"),
    ],
)
def test_arrays_of_labels_that_are_refused(tmp_path, array, how, message):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array(array))
    with pytest.raises(ValueError, match=message):
        from_arrays(tmp_path / "a.npz", **how)


def test_a_file_that_is_no_array_is_one_sentence(tmp_path, capsys):
    for data in (b"PK\3\4 and no more", b"neither", b""):
        (tmp_path / "a.npz").write_bytes(data)
        assert create_lmdb.main([str(tmp_path / "a.npz"), str(tmp_path / "out")]) == 1
        assert "a.npz: expected arrays of numbers as numpy saves them" in (message := capsys.readouterr().err)
        assert "pickle" not in message
    (tmp_path / "list.txt").write_text("² 0\n")
    np.save(tmp_path / "images.npy", IMAGES)
    words = [str(tmp_path / "list.txt"), str(tmp_path / "out"), "--images", str(tmp_path / "images.npy")]
    assert create_lmdb.main(words) == 1
    assert "list.txt:1: expected a row of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        *("a.jpg", "a b.jpg", "dir 1/a", "7", "a 3", "a\t-2", " a", "a ", "a\nb", "a\rb", "", "a 3 b", "a +1", "1 2"),
        *("\ufeffa", "a\x85b", "a\x1cb", "caf\xe9", "\udce9"),
    ],
)
def test_what_a_line_can_hold(tmp_path, name):
    """can_hold says of each name what the parser makes of it."""
    for row in ("0", "0 1"):
        (tmp_path / "list.txt").write_bytes(f"{name} {row}\nx {row}\n".encode("utf-8", "surrogateescape"))
        try:
            same = image_lists.read(tmp_path / "list.txt").names == [name, "x"]
        except image_lists.ListError:
            same = False
        assert same == image_lists.can_hold(name)


def test_the_rule_of_labels_is_that_of_the_layers(tmp_path):
    """The vectors of a source are those that python_layers/labels.py makes of the same table."""
    for table in ([[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 1]], [2, 0, 1, -1]):
        np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array(table))
        source = from_arrays(tmp_path / "a.npz")
        vectors, _ = labels.vectors(np.array(table))
        assert [source.vector(row).tolist() for row in range(4)] == vectors.tolist()
