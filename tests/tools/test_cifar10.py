"""CIFAR-10 in its forms: copies of the pictures, the Python version, which of them is read, and that numbers say so."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import cv2
import get_data
import lmdb
import miniatures
import numpy as np
import pictures
import pytest
from caffe.proto import caffe_pb2
from dhn.datasets import archives, cifar10, cifar10_pictures, cifar10_python, recipes, splits
from dhn.datasets import prepare as recipe_data
from dhn.datasets.image_files import LeftOut, SourceError
from dhn.download import DownloadError
from dhn.runs.folder import caveats

ROOT = Path(__file__).resolve().parents[2]
RELEASED = Path(os.environ.get("CIFAR10_PICTURES") or ROOT.parent / "shared" / "data" / "cifar10-jpeg.zip")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """4 training and 2 test pictures a class."""
    monkeypatch.setattr(cifar10_pictures, "PER_CLASS", {"train": 4, "test": 2})


@pytest.fixture
def recipe(tmp_path) -> recipes.Recipe:
    (tmp_path / "recipe").mkdir()
    return recipes.read(miniatures.recipe("cifar10", ROOT / "data/cifar10/recipe.json", tmp_path / "recipe"))


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    facts = json.loads((folder / "images.json").read_text())
    return np.load(folder / "images.npy"), np.load(folder / "labels.npy"), facts


def other_bytes(name: str, *channels: int, dtype: type = np.uint8, size: int = 32) -> bytes:
    """A picture of another form than CIFAR-10's."""
    return cv2.imencode(Path(name).suffix, np.full((size, size, *channels), 7, dtype))[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".PNG"])
def test_pictures_in_a_zip_become_lists_and_lmdbs(tmp_path, recipe, suffix, capsys):
    files, pixels = miniatures.cifar10_pictures(suffix)
    (tmp_path / "source").mkdir()
    miniatures.write_zip(tmp_path / "source" / "copy.zip", files)
    out = tmp_path / "data"
    facts = recipe_data.prepare(recipe, out, base=tmp_path / "source")
    images, labels, made = arrays(out)
    np.testing.assert_array_equal(images, pixels)  # natural order: 8, 9, 10, 11
    assert labels.tolist() == [*np.repeat(np.arange(10), 4), *np.repeat(np.arange(10), 2)]
    form = {".jpg": "JPEG copies", ".PNG": "PNG copies"}[suffix]
    assert made["form"] == facts["form"] == splits.verify(out)["form"] == form
    assert caveats({"split": splits.verify(out)}) == [f"the images are {form}, not the originals"]
    assert facts["counts"] == {"query": 10, "train": 20, "database": 30} and facts["label_names"] == miniatures.CLASSES
    assert f"images: {form}, read from copy.zip; they are not the lossless originals" in capsys.readouterr().out
    with lmdb.open(str(out / "query_lmdb"), readonly=True, lock=False) as environment, environment.begin() as txn:
        for key, value in txn.cursor():
            datum, row = caffe_pb2.Datum.FromString(value), int(key.decode().split("_")[1])
            assert datum.label == labels[row]
            planes = np.frombuffer(datum.data, np.uint8).reshape(3, 32, 32)
            np.testing.assert_array_equal(planes, pixels[row].transpose(2, 0, 1)[::-1])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert recipe_data.prepare(recipe, out) == facts  # from where it was read the last time
    (tmp_path / "source" / "copy.zip").unlink()
    assert recipe_data.prepare(recipe, out) == facts  # what was made is enough
    assert "source holds no form of CIFAR-10; what was made before is taken" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "source")
    assert recipe_data.prepare(recipe, out) == facts
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["zip", "folder", "top folder", "zip with a top folder", "tar", "classes alone"])
def test_the_same_pictures_wherever_they_lie(tmp_path, recipe, place):
    files, pixels = miniatures.cifar10_pictures()
    base = tmp_path / "source"
    base.mkdir()
    if place == "classes alone":
        files, pixels = miniatures.cifar10_pictures(per_class={"": 6})
    if place == "zip":
        base = miniatures.write_zip(base / "any.zip", files)
    elif place.startswith("zip"):
        miniatures.write_zip(base / "any.zip", {f"CIFAR-10-images-master/{name}": raw for name, raw in files.items()})
    else:
        folder = miniatures.write_folder(base / "images" if place in ("tar", "top folder") else base, files)
        (folder / "README.md").write_text("read me")
        (folder / ".DS_Store").write_text("")
    if place == "tar":
        base = Path(shutil.make_archive(str(tmp_path / "any"), "gztar", base, "images"))
    source, notes = cifar10.find(recipe.split(None).source, base)
    assert source.form == cifar10.PICTURES and notes == []
    found = recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data", base)
    assert found["form"] == "JPEG copies"
    images, labels, _ = arrays(tmp_path / "data")
    np.testing.assert_array_equal(images, pixels)
    assert np.bincount(labels).tolist() == [6] * 10


CAT = "train/cat/9.jpg"
BAD = {
    "another class": ({CAT: None, "train/tiger/9.jpg": b"x"}, "the classes being airpl.*; found train/tiger/9.jpg"),
    "a missing picture": ({CAT: None}, r"found 59: train/cat has 3 and not 4\. Get a complete copy"),
    "a picture more": ({"test/dog/1.jpg": b"x"}, "found 61: test/dog has 3 and not 2"),
    "a folder in a class": ({"train/cat/more/9.jpg": b"x"}, "found train/cat/more/9.jpg"),
    "both layouts": ({"cat/9.jpg": b"x"}, "found cat/9.jpg next to train/ or test/"),
    "two copies": ({"copy/train/cat/9.jpg": b"x"}, r"found class folders in \./, copy/"),
    "grey": ({CAT: other_bytes(CAT)}, "cat/9.jpg: expected a JPEG or PNG .*, found a JPEG of 32 x 32, 1 channel of 8"),
    "another size": ({CAT: other_bytes(CAT, 3, size=33)}, "found a JPEG of 33 x 33, 3 channels of 8 bits"),
    "alpha": ({CAT: other_bytes("a.png", 4)}, "found a PNG of 32 x 32, 4 channels of 8 bits"),
    "16 bits": ({CAT: other_bytes("a.png", 3, dtype=np.uint16)}, "found a PNG of 32 x 32, 3 channels of 16 bits"),
    "cut short": ({CAT: other_bytes(CAT, 3)[:-40]}, "1 of 60 pictures cannot be taken:\n  train/cat/9.*cut short"),
    "not a picture": ({CAT: b"GIF89a"}, r"train/cat/9.jpg: expected .*, found 6 bytes that begin with b'GIF89a'"),
    "too large": ({CAT: other_bytes(CAT, 3) + bytes(1 << 17)}, "9.jpg: expected a picture of 32 x 32 pixels, found 13"),
}  # fmt: skip


@pytest.mark.parametrize("how", ["zip", "folder"])
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_whole_copy_is_refused_by_name(tmp_path, recipe, case, how):
    files, _ = miniatures.cifar10_pictures()
    changes, message = BAD[case]
    files = {name: raw for name, raw in {**files, **changes}.items() if raw is not None}
    write = {"zip": miniatures.write_zip, "folder": miniatures.write_folder}[how]
    base = write(tmp_path / f"source.{how}", files)
    with pytest.raises(SourceError, match=message):
        recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data", base)
    assert not (tmp_path / "data" / "images.npy").exists() and not (tmp_path / "data" / "split.json").exists()


def test_half_a_copy_and_many_bad_pictures(tmp_path):
    files, _ = miniatures.cifar10_pictures()
    half = miniatures.write_zip(tmp_path / "half.zip", {name: files[name] for name in files if name < "train"})
    with pytest.raises(SourceError, match=r"found 20: train/airplane has 0 and not 4; .*train/truck has 0 and not 4"):
        cifar10_pictures.read(half, LeftOut())
    bad = {name: raw[:-9] if "train" in name else raw for name, raw in files.items()}
    with pytest.raises(SourceError, match=r"40 of 60 pictures cannot be taken:(?s:.*)and 30 more") as caught:
        cifar10_pictures.read(miniatures.write_zip(tmp_path / "bad.zip", bad), LeftOut())
    assert str(caught.value).count("cut short") == 10


def test_archives_that_lie_are_refused(tmp_path, monkeypatch):
    files, _ = miniatures.cifar10_pictures()
    path = miniatures.write_zip(tmp_path / "a.zip", {**files, "../train/cat/9.jpg": b"x"})
    with pytest.raises(archives.ArchiveError, match=r"'\.\./train/cat/9.jpg' is not a path inside"):
        cifar10_pictures.read(path, LeftOut())
    raw = bytearray(miniatures.write_zip(tmp_path / "b.zip", files).read_bytes())
    place = raw.index(files[CAT])
    raw[place + 300] ^= 1
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(archives.ArchiveError, match=f"Bad CRC-32 for file '{CAT}'"):
        cifar10_pictures.read(tmp_path / "b.zip", LeftOut())
    monkeypatch.setattr(cifar10_pictures, "ALL_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/1.jpg", bytes((1 << 20) + 1))
    with pytest.raises(archives.ArchiveError, match="expected at most"):
        cifar10_pictures.read(tmp_path / "c.zip", LeftOut())


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_claims_gigabytes_is_not_decoded(suffix, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    raw = bytearray(other_bytes(f"a{suffix}", 3))
    place = raw.index(b"\xff\xc0") + 5 if suffix == ".jpg" else 18  # of the height, of the width's lower half
    raw[place : place + 2] = b"\xff\xf0"
    with pytest.raises(
        pictures.PictureError, match=r"^a: expected .* of 32 x 32 pixels, .* (32 x 65520|65520 x 32), 3 c"
    ):
        cifar10_pictures.decode(bytes(raw), "a")


def test_which_form_is_read(tmp_path, recipe, capsys):
    given, base = recipe.split(None).source, tmp_path / "source"
    files, _ = miniatures.cifar10_pictures()
    base.mkdir()
    assert cifar10.find(given, base) == (None, []) == cifar10.find(given, tmp_path / "nowhere")
    (base / "cut.zip").write_bytes(miniatures.write_zip(tmp_path / "copy.zip", files).read_bytes()[:-90])
    with pytest.raises(SourceError, match=r"cut\.zip: is not a complete zip archive"):
        cifar10.find(given, base)
    miniatures.write_zip(base / "pets.zip", {"cat/1.jpg": b"x", "dog/1.jpg": b"x"})
    shutil.move(tmp_path / "copy.zip", base)
    assert cifar10.find(given, base) == (cifar10.Source(base / "copy.zip", "pictures"), [])
    miniatures.write_folder(base / "copy", files)
    with pytest.raises(SourceError, match=r"one copy of .*, found .*copy, .*copy\.zip; name one of them: FROM=.*copy"):
        cifar10.find(given, base)
    (base / "cifar-10-batches-py").mkdir()
    (base / "cifar-10-batches-py" / "data_batch_1").touch()
    miniatures.cifar10(base)
    chosen, notes = cifar10.find(given, base)
    assert chosen == cifar10.Source(base / "cifar-10-binary.tar.gz", "binary version")
    assert notes == [f"{base / 'cifar-10-batches-py'} is there too and is not read"] + [
        f"{base / name} is there too and is not read: the binary version has the original pixels"
        for name in ("copy", "copy.zip")
    ]
    for name in ("cifar-10-binary.tar.gz", "copy.zip"):
        assert cifar10.find(given, base / name)[0].path == base / name
    shutil.copy(base / "cifar-10-binary.tar.gz", base / "renamed.tgz")
    assert cifar10.find(given, base / "renamed.tgz")[0].form == "binary version"
    with zipfile.ZipFile(base / "other.zip", "w") as archive:
        archive.writestr("birds/1.jpg", b"x")
    with pytest.raises(SourceError, match=r"other\.zip: expected CIFAR-10: .*; found 1 files, the first of them birds"):
        cifar10.find(given, base / "other.zip")


def test_another_source_is_read_once_it_is_named(tmp_path, recipe, capsys):
    """Copies give way to the originals, and a copy that was changed is read again."""
    folder, copy = tmp_path / "recipe", tmp_path / "copy.zip"
    miniatures.write_zip(copy, miniatures.cifar10_pictures()[0])
    out = tmp_path / "data"
    assert recipe_data.prepare(recipe, out, base=copy)["form"] == "JPEG copies"
    (out / "images.npy").rename(tmp_path / "moved")  # the arrays are made again, the LMDBs stay as they are
    assert recipe_data.prepare(recipe, out)["form"] == "JPEG copies"
    assert capsys.readouterr().out.count("already there and complete (") == 3
    made = miniatures.cifar10(folder)
    recipe = recipes.read(miniatures.recipe("cifar10", ROOT / "data/cifar10/recipe.json", folder))
    facts = recipe_data.prepare(recipe, out, base=folder)
    assert facts["form"] == splits.verify(out)["form"] == "binary version" and caveats({"split": facts}) == []
    np.testing.assert_array_equal(arrays(out)[0], made["images"].transpose(0, 2, 3, 1))
    png, pixels = miniatures.cifar10_pictures(".png")
    miniatures.write_zip(copy, png)
    assert recipe_data.prepare(recipe, out, base=copy)["form"] == "PNG copies"
    np.testing.assert_array_equal(arrays(out)[0], pixels)


def test_arrays_of_an_older_version_stay(tmp_path, recipe, capsys):
    folder = tmp_path / "recipe"
    miniatures.cifar10(folder)
    recipe = recipes.read(miniatures.recipe("cifar10", ROOT / "data/cifar10/recipe.json", folder))
    recipe_data.prepare(recipe, folder)
    _, _, facts = arrays(folder)
    (folder / "images.json").write_text(json.dumps({key: facts[key] for key in ("archive", "labels", "sha256")}))
    before = (folder / "images.npy").stat().st_mtime_ns
    assert recipe_data.prepare(recipe, folder)["form"] == "binary version"
    assert (folder / "images.npy").stat().st_mtime_ns == before
    miniatures.write_zip(tmp_path / "copy.zip", miniatures.cifar10_pictures()[0])
    assert recipe_data.prepare(recipe, folder, base=tmp_path / "copy.zip")["form"] == "JPEG copies"


@pytest.mark.parametrize("stopped", ["labels.npy", "images.json", "split.json", "query_lmdb"])
def test_an_interrupted_run_leaves_nothing_wrong(tmp_path, recipe, monkeypatch, stopped):
    """Killed while the arrays of the binary version give way to copies."""
    folder, out = tmp_path / "recipe", tmp_path / "data"
    miniatures.cifar10(folder)
    recipe = recipes.read(miniatures.recipe("cifar10", ROOT / "data/cifar10/recipe.json", folder))
    recipe_data.prepare(recipe, out, base=folder)
    files, pixels = miniatures.cifar10_pictures()
    copy = miniatures.write_zip(tmp_path / "copy.zip", files)

    def stop(real):
        def call(path, *rest, **named):
            path = Path(getattr(path, "name", path)) if not isinstance(path, (str, os.PathLike)) else Path(path)
            if path.name == stopped:
                raise KeyboardInterrupt
            return real(path, *rest, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(cifar10, "write_atomic", stop(cifar10.write_atomic))
        patch.setattr(cifar10, "write_json", stop(cifar10.write_json))
        patch.setattr(recipe_data, "write_atomic", stop(recipe_data.write_atomic))
        build = recipe_data.lmdb_build.build
        patch.setattr(recipe_data.lmdb_build, "build",
                      lambda source, path, **how: stop(lambda path: build(source, path, **how))(path))  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            recipe_data.prepare(recipe, out, base=copy)
    if stopped in ("split.json", "query_lmdb"):
        with pytest.raises(splits.SplitError, match="run: make data"):
            splits.verify(out)
    assert recipe_data.prepare(recipe, out, base=copy)["form"] == "JPEG copies"
    np.testing.assert_array_equal(arrays(out)[0], pixels)
    assert splits.verify(out)["form"] == "JPEG copies"


def test_lmdbs_of_other_images_are_refused(tmp_path, recipe):
    """Two copies have the same lists; only the images differ."""
    for name, suffix in (("one", ".jpg"), ("two", ".png")):
        miniatures.write_zip(tmp_path / f"{name}.zip", miniatures.cifar10_pictures(suffix)[0])
    recipe_data.prepare(recipe, tmp_path / "data", base=tmp_path / "one.zip")
    recipe_data.write_lists(recipe, recipe.split(None), 0, tmp_path / "data", tmp_path / "two.zip")
    with pytest.raises(splits.SplitError, match=r"query_lmdb was not made from the images that .*split\.json names"):
        splits.verify(tmp_path / "data")
    recipe_data.prepare(recipe, tmp_path / "data")
    assert splits.verify(tmp_path / "data")["form"] == "PNG copies"


def test_the_python_version_is_the_binary_version(tmp_path, capsys):
    folder, out = tmp_path / "recipe", tmp_path / "data"
    folder.mkdir()
    made = miniatures.cifar10_python(folder)
    recipe = recipes.read(miniatures.recipe("cifar10", ROOT / "data/cifar10/recipe.json", folder))
    facts = recipe_data.prepare(recipe, out, base=folder)
    assert facts["form"] == "Python version" and caveats({"split": facts}) == []
    images, labels, _ = arrays(out)
    np.testing.assert_array_equal(images, made["images"].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(labels, made["labels"])
    archives.unpack(
        folder / "cifar-10-python.tar.gz", folder / "cifar-10-batches-py", lambda name: name.split("/")[-1], 1 << 20
    )
    (folder / "cifar-10-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"cifar-10-python\.tar\.gz: expected a file of SHA-256"):
        recipe_data.prepare(recipe, out, base=folder)
    (folder / "cifar-10-python.tar.gz").unlink()
    capsys.readouterr()
    assert recipe_data.prepare(recipe, out, base=folder)["form"] == "Python version"
    assert "its files were not checked, only an archive has a checksum" in capsys.readouterr().out


class Harm:
    """An object whose pickle makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_never_carried_out(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    batch = miniatures.python_batch(images, [6, 9, 0])
    as_upstream_reads_it = pickle.loads(batch, encoding="bytes")
    np.testing.assert_array_equal(as_upstream_reads_it[b"data"], images.reshape(3, -1))
    found, labels = cifar10_python.read_batch(batch, "batch")
    np.testing.assert_array_equal(found, images.transpose(0, 2, 3, 1))
    assert labels.tolist() == as_upstream_reads_it[b"labels"] == [6, 9, 0]
    harm = pickle.dumps(Harm(tmp_path / "harm"), protocol=2)
    bad = harm[:-1] + b"0" + batch[2:]  # it does the harm, drops what comes of it, and goes on as a batch
    pickle.loads(bad, encoding="bytes")
    (tmp_path / "harm").rmdir()  # so it did
    cifar10_python.read_batch(bad, "batch")
    with pytest.raises(SourceError, match=r"^batch: expected a batch .* found 0 labels and long strings of no bytes"):
        cifar10_python.read_batch(harm, "batch")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"\x89PNG",
        b"\x80\x02}q\x01(U\xff",
        b"T\xff\xff\xff\xff.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        miniatures.python_batch(np.zeros((2, 3, 32, 32), np.uint8), [1]),
        miniatures.python_batch(np.zeros((2, 3, 32, 32), np.uint8), [1, 10]),
        miniatures.python_batch(np.zeros((2, 3, 32, 32), np.uint8), [1, 2])[:-7000],
    ],
)
def test_damaged_batches_are_refused(batch):
    with pytest.raises(SourceError, match=r"^batch: expected a batch of CIFAR-10's Python version"):
        cifar10_python.read_batch(batch, "batch")


def test_typed_as_a_user_types_it(tmp_path, capsys, monkeypatch):
    """Where there is nothing, the archive is downloaded; a file is no folder of NUS-WIDE."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    copy = miniatures.write_zip(tmp_path / "copy.zip", miniatures.cifar10_pictures()[0])
    assert get_data.main(["nus_wide", "--root", str(tmp_path / "data"), "--from", str(copy)]) == 1
    assert "expected the folder of the data set's files, found a file; name its folder" in capsys.readouterr().err
    (tmp_path / "recipe").mkdir()
    recipe = recipes.read(miniatures.recipe("cifar10", ROOT / "data/cifar10/recipe.json", tmp_path / "recipe"))
    with pytest.raises(DownloadError, match=r"cifar-10-binary\.tar\.gz"):
        recipe_data.prepare(recipe, tmp_path / "data" / "cifar10")


def test_the_released_pictures(monkeypatch):
    """The real zip, 60,000 JPEGs: its layout, and some of its pictures."""
    if not RELEASED.exists():
        pytest.skip(f"CIFAR-10's pictures are not here ({RELEASED}); CIFAR10_PICTURES names them")
    monkeypatch.undo()
    with cifar10_pictures.opened(RELEASED) as members:
        rows, labels = cifar10_pictures.arrange(RELEASED, members, LeftOut())
        assert (
            np.bincount(labels[:50000]).tolist() == [5000] * 10 and np.bincount(labels[50000:]).tolist() == [1000] * 10
        )
        assert [rows[row].name for row in (0, 4999, 5000, 50000, 59999)] == [
            "train/airplane/0000.jpg", "train/airplane/4999.jpg", "train/automobile/0000.jpg",
            "test/airplane/0000.jpg", "test/truck/0999.jpg"]  # fmt: skip
        for row in rows[::500]:
            pixels, kind = cifar10_pictures.decode(row.read(), row.name)
            assert kind == "JPEG" and pixels.shape == (32, 32, 3) and pixels.std() > 5
