"""What an LMDB holds of image files of every kind: one image for every reader; bad ones are all named in one run."""

from __future__ import annotations

import json
from pathlib import Path

import create_lmdb
import cv2
import lmdb
import numpy as np
import picture_kinds
import pictures
import pytest
from caffe.proto import caffe_pb2
from dhn.datasets import lmdb_build, lmdb_records
from dhn.datasets.labelled_images import from_list

# how readers decode a record: as stored, as colour, turned by EXIF or not
READERS = (cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR, cv2.IMREAD_ANYCOLOR,
           cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)  # fmt: skip


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "list.txt").write_text("".join(f"{name} 0\n" for name in files))
    return folder / "list.txt"


def records(folder: Path) -> dict[str, caffe_pb2.Datum]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode()[9:]: caffe_pb2.Datum.FromString(value) for key, value in transaction.cursor()}


@pytest.mark.parametrize("encode", ["raw", "png", "jpg"])
def test_every_reader_sees_the_same_image(tmp_path, encode):
    """Caffe 1.0's Data layer read the LMDBs of this table as the same pixels."""
    table = picture_kinds.pictures()
    source = from_list(write(tmp_path / "in", {name: data for name, (data, _, _) in table.items()}), tmp_path / "in")
    lmdb_build.build(source, tmp_path / "lmdb", encode=encode)
    for name, datum in records(tmp_path / "lmdb").items():
        expected = pictures.decode(table[name][0], False, name)
        shape = expected.shape
        assert (datum.height, datum.width, datum.channels) == shape, name
        lossy = encode == "jpg" and not name.endswith(".jpg")  # what --encode jpg asks for
        if encode == "raw":
            seen = [np.frombuffer(datum.data, np.uint8).reshape(3, *shape[:2]).transpose(1, 2, 0)]
        else:
            seen = [cv2.imdecode(np.frombuffer(datum.data, np.uint8), reader) for reader in READERS]
        for pixels in seen:
            assert pixels.shape == shape and pixels.dtype == np.uint8, name
            assert np.abs(pixels.astype(int) - expected).max() <= (80 if lossy else 0), name
    assert lmdb_records.check(tmp_path / "lmdb")["records"] == len(table)


def test_plain_files_keep_their_bytes_and_others_are_counted(tmp_path, capsys):
    table = {name: data for name, (data, _, _) in picture_kinds.pictures().items()}
    plain = {name: table[name] for name in ("color.jpg", "orientation 1 <.jpg", "orientation 9.jpg")}
    others = {name: table[name] for name in ("orientation 6 <.jpg", "orientation 3 >.jpg", "gray.jpg")}
    source = from_list(write(tmp_path / "in", {**plain, **others}), tmp_path / "in")
    lmdb_build.build(source, tmp_path / "lmdb", encode="jpg")
    assert "3 stored as PNG" in capsys.readouterr().out
    assert json.loads((tmp_path / "lmdb" / "source.json").read_text())["encoded_again"] == 3
    found = records(tmp_path / "lmdb")
    assert {name for name, datum in found.items() if datum.data == table[name]} == set(plain)
    names = {"a PNG.jpg": table["color.png"], "a BMP.jpg": table["color.bmp"], "a JPEG.png": table["color.jpg"]}
    source_of_names = from_list(write(tmp_path / "names", names), tmp_path / "names")
    lmdb_build.build(source_of_names, tmp_path / "by name", encode="jpg")
    found = records(tmp_path / "by name")
    assert found["a PNG.jpg"].data == names["a PNG.jpg"] and found["a JPEG.png"].data == names["a JPEG.png"]
    assert found["a BMP.jpg"].data.startswith(lmdb_build.FIRST_BYTES["png"])  # without loss
    lmdb_build.build(source, tmp_path / "gray", encode="jpg", gray=True)
    gray = records(tmp_path / "gray")
    assert gray["gray.jpg"].data == table["gray.jpg"] and gray["orientation 6 <.jpg"].height == 24
    lmdb_build.build(source, tmp_path / "small", encode="jpg", resize=(4, 6))
    assert {(datum.height, datum.width) for datum in records(tmp_path / "small").values()} == {(4, 6)}


def test_check_refuses_an_image_that_readers_see_differently(tmp_path):
    data = picture_kinds.pictures()["orientation 6 <.jpg"][0]
    datum = caffe_pb2.Datum(channels=3, height=16, width=24, encoded=True, data=data, label=0)
    with lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 20) as environment, environment.begin(write=True) as writing:
        writing.put(b"00000000_x.jpg", datum.SerializeToString())
    with pytest.raises(lmdb_records.LmdbError, match=r"x.jpg: its image has the EXIF orientation 6, which Caffe's"):
        lmdb_records.check(tmp_path / "lmdb")


def test_bad_images_are_all_named_in_one_run(tmp_path, capsys):
    bad = {f"{name}.jpg": data for name, data in picture_kinds.broken().items()}
    good = picture_kinds.encode(".png", picture_kinds.COLOR)
    files = {"good 1.png": good, **bad, "good 2.png": good}
    words = [str(write(tmp_path / "in", files)), str(tmp_path / "lmdb"), "--root", str(tmp_path / "in")]
    (tmp_path / "in" / "empty.jpg.jpg").unlink()
    assert create_lmdb.main(words) == 1
    message = capsys.readouterr().err
    assert f"{len(bad)} of {len(bad) + 2} images cannot be read" in message
    assert f"and {len(bad) - 10} more; {tmp_path}/lmdb.bad.txt names them all" in message
    named = (tmp_path / "lmdb.bad.txt").read_text().splitlines()
    assert [f"{tmp_path}/in/{name}" in line for name, line in zip(bad, named, strict=True)] == [True] * len(bad)
    assert message.count(f"{tmp_path}/in/list.txt:") == 10 and not (tmp_path / "lmdb").exists()
    assert create_lmdb.main([*words, "--skip-bad", str(len(bad) - 1)]) == 1
    assert f"--skip-bad {len(bad)}" in capsys.readouterr().err
    assert create_lmdb.main([*words, "--skip-bad", str(len(bad))]) == 0
    assert f"wrote 2 records, 0.0 MB, {len(bad)} skipped as bad" in capsys.readouterr().out
    assert set(records(tmp_path / "lmdb")) == {"good 1.png", "good 2.png"}
    assert not (tmp_path / "lmdb.bad.txt").exists()
    facts = json.loads((tmp_path / "lmdb" / "source.json").read_text())
    assert (facts["records"], facts["skipped"]) == (2, len(bad))
    assert create_lmdb.main(["--skip-bad", *words]) == 0  # any number, wherever the flag stands
    assert "already there and complete (2 records)" in capsys.readouterr().out
    assert create_lmdb.main(words) == 1  # an LMDB without them is not what was asked for
    assert "images cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in", "out", "--labels", "classes"], "--labels does not go with a folder per class"),
        (["in", "out", "--first-class", "1"], "--first-class does not go with a folder per class"),
        (["in", "out", "--encoding", "latin-1"], "--encoding does not go with a folder per class"),
        (["in/list.txt", "out", "--labels", "vectors"], "--labels does not go with a list file"),
    ],
)
def test_options_that_do_not_go_with_a_source(tmp_path, monkeypatch, capsys, words, message):
    write(tmp_path / "in", {"a.png": b"x"})
    monkeypatch.chdir(tmp_path)
    assert create_lmdb.main(words) == 1
    assert message in capsys.readouterr().err
    for wrong in ("-1", "x", "nan"):
        with pytest.raises(SystemExit):
            create_lmdb.main(["in/list.txt", "out", f"--skip-bad={wrong}"])
