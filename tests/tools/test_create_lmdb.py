"""LMDBs from lists, folders and arrays; what a record holds; builds that fail, are killed or repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import create_lmdb
import cv2
import image_lists
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from dhn.datasets import lmdb_build, lmdb_records
from dhn.datasets.image_files import SourceError
from dhn.datasets.labelled_images import from_arrays, from_folder, from_list

TOOLS = Path(create_lmdb.__file__).parent


def records(folder) -> list[tuple[str, caffe_pb2.Datum]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(key.decode(), caffe_pb2.Datum.FromString(value)) for key, value in transaction.cursor()]


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of five png images, one with a space in its name, and a list of three labels each."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["a.png", "b c.png", "d.png", "e.png", "f.png"]
    rows = ["0 1 1", "1 0 0", "0 0 0", "-1 -1 -1", "0 0 1"]
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), picture(index))
    (tmp_path / "list.txt").write_text("".join(f"{name} {row}\n" for name, row in zip(names, rows, strict=True)))
    return folder


def test_list_of_label_vectors(images, tmp_path, capsys):
    source = from_list(tmp_path / "list.txt", root=images)
    assert lmdb_build.build(source, tmp_path / "lmdb") == (5, 0)
    found = records(tmp_path / "lmdb")
    assert [key for key, _ in found] == [f"{i:08d}_{name}" for i, name in enumerate(source.names)]
    assert source.names[1] == "b c.png"
    assert [list(datum.float_data) for _, datum in found][:2] == [[0, 1, 1], [1, 0, 0]]
    assert [datum.label for _, datum in found] == [1, 0, -1, -1, 2]
    for index, (_, datum) in enumerate(found):
        assert (datum.channels, datum.height, datum.width, datum.encoded) == (3, 12, 16, False)
        assert datum.data == picture(index).transpose(2, 0, 1).tobytes()  # CHW, BGR
    assert "wrote 5 records" in capsys.readouterr().out
    assert lmdb_records.check(tmp_path / "lmdb") == {"records": 5, "shapes": {(3, 12, 16): 5}, "labels": 3}


def test_class_indices_become_one_hot(images, tmp_path):
    (tmp_path / "list.txt").write_text("a.png 2\n\nd.png 0\ne.png -1\n")
    lmdb_build.build(from_list(tmp_path / "list.txt", root=images, classes=4), tmp_path / "lmdb")
    found = [(datum.label, list(datum.float_data)) for _, datum in records(tmp_path / "lmdb")]
    assert found == [(2, [0, 0, 1, 0]), (0, [1, 0, 0, 0]), (-1, [-1, -1, -1, -1])]


def test_resize_gray_and_encodings(images, tmp_path):
    source = from_list(tmp_path / "list.txt", root=images)
    how = {"resize": (6, 8), "gray": True}
    for encode in ("raw", "png", "jpg"):
        lmdb_build.build(source, tmp_path / encode, encode=encode, **how)
        assert lmdb_records.check(tmp_path / encode)["shapes"] == {(1, 6, 8): 5}
    expected = cv2.resize(cv2.imread(str(images / "a.png"), cv2.IMREAD_GRAYSCALE), (8, 6))
    assert records(tmp_path / "raw")[0][1].data == expected.tobytes()
    for encode, tolerance in (("png", 0), ("jpg", 60)):
        datum = records(tmp_path / encode)[0][1]
        assert datum.encoded
        pixels = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def test_a_file_of_the_wanted_encoding_is_stored_as_it_is(images, tmp_path):
    lmdb_build.build(from_list(tmp_path / "list.txt", root=images), tmp_path / "lmdb", encode="png")
    assert records(tmp_path / "lmdb")[0][1].data == (images / "a.png").read_bytes()


def test_shuffle_is_seeded_and_keys_stay_in_order(images, tmp_path):
    source = from_list(tmp_path / "list.txt", root=images)
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        lmdb_build.build(source, tmp_path / name, shuffle=True, seed=seed)
    one, again, two = (records(tmp_path / name) for name in ("one", "again", "two"))
    assert one == again and [key for key, _ in one] != [key for key, _ in two]
    assert [key[:8] for key, _ in one] == [f"{i:08d}" for i in range(5)]
    assert sorted(key[9:] for key, _ in one) == sorted(source.names)


def test_folder_per_class(tmp_path):
    for index, name in enumerate(("cat/1.png", "cat/2.png", "bird/x.png")):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "tree" / name), picture(index))
    lmdb_build.build(from_folder(tmp_path / "tree"), tmp_path / "lmdb")
    found = [(key, list(datum.float_data)) for key, datum in records(tmp_path / "lmdb")]
    assert found == [("00000000_bird/x.png", [1, 0]), ("00000001_cat/1.png", [0, 1]), ("00000002_cat/2.png", [0, 1])]
    (tmp_path / "tree" / "dog").mkdir()
    with pytest.raises(SourceError, match="dog: expected the images of a class, found none"):
        from_folder(tmp_path / "tree")


def test_arrays(tmp_path):
    colour = np.stack([picture(i) for i in range(3)])
    np.savez(tmp_path / "a.npz", images=colour, labels=np.array([1, 0, 1]))
    lmdb_build.build(from_arrays(tmp_path / "a.npz"), tmp_path / "colour")
    assert records(tmp_path / "colour")[0][1].data == colour[0, :, :, ::-1].transpose(2, 0, 1).tobytes()  # RGB to BGR
    np.savez(tmp_path / "g.npz", images=colour[..., 0], labels=np.eye(3, dtype=int))
    lmdb_build.build(from_arrays(tmp_path / "g.npz"), tmp_path / "gray")
    key, datum = records(tmp_path / "gray")[2]
    assert (key, datum.channels, datum.label, list(datum.float_data)) == ("00000002_2", 1, 2, [0, 0, 1])
    assert datum.data == colour[2, :, :, 0].tobytes()


def test_list_of_rows_of_an_array(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3))
    (tmp_path / "list.txt").write_text("3 1\n0 0\n")
    lmdb_build.build(from_list(tmp_path / "list.txt", images=tmp_path / "images.npy"), tmp_path / "lmdb")
    assert [(key, list(datum.data)) for key, datum in records(tmp_path / "lmdb")] == [
        ("00000000_3", list(range(18, 24))),
        ("00000001_0", list(range(6))),
    ]
    (tmp_path / "list.txt").write_text("3 1\n4 0\n")
    with pytest.raises(SourceError, match=r"list.txt:2: expected a row of .*images.npy \(0 to 3\), found '4'"):
        from_list(tmp_path / "list.txt", images=tmp_path / "images.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 0 1\nb.png 1\n", r"list.txt:2: .* 2 whole numbers, as on line 1, found 1 in 'b.png 1'"),
        ("a.png 0 1\nb.png 1 0 1\n", r"list.txt:2: expected a path and 2 whole numbers, as on line 1, found 3"),
        ("a.png 0 1\nb.png x 1\n", r"list.txt:2: expected a path and 2 whole numbers"),
        ("a.png\n", r"list.txt:1: expected a path and its labels"),
        ("a.png 0 1\nb.png 0 7\n", r"list.txt:2: expected label vectors of 0 and 1, or -1 throughout; found 7"),
        ("a.png 0\nb.png -2\n", r"list.txt:2: expected a class number from 0 to 0, or -1 for unknown; found -2"),
        ("\n", r"list.txt: expected at least one line"),
    ],
)
def test_a_wrong_list_names_its_line(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        from_list(tmp_path / "list.txt")


def test_a_list_keeps_spaces_in_paths(tmp_path):
    (tmp_path / "list.txt").write_text("my  photo 3.jpg 1 0\nb.jpg 0 1\r\n")
    assert image_lists.read(tmp_path / "list.txt") == (["my  photo 3.jpg", "b.jpg"], [[1, 0], [0, 1]], [1, 2])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "expected the arrays images and labels, found no labels"),
        ({"images": np.zeros((2, 3, 3)), "labels": [0, 1]}, "expected uint8 images"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8), "labels": [0, 1]}, "expected uint8 images"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0]}, r"expected labels \(2,\) or \(2, C\), found \(1,\)"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0.5, 1]}, "row 0: expected label vectors of 0 and 1"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        from_arrays(tmp_path / "a.npz")


def test_an_unreadable_image_stops_the_build_with_its_line_or_is_skipped(images, tmp_path, capsys):
    (images / "d.png").write_bytes(b"not an image")
    (images / "e.png").unlink()
    arguments = [str(tmp_path / "list.txt"), str(tmp_path / "lmdb"), "--root", str(images)]
    assert create_lmdb.main(arguments) == 1
    message = capsys.readouterr().err
    assert "2 of 5 images cannot be read" in message and "leave them out: --skip-bad 2" in message
    for line, name in ((3, "d.png"), (4, "e.png")):
        assert f"{tmp_path}/list.txt:{line}: {images}/{name}: " in message  # all of them in one run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "list.txt"]

    assert create_lmdb.main([*arguments, "--skip-bad", "--check"]) == 0
    assert "wrote 3 records" in (out := capsys.readouterr().out) and "2 skipped as bad" in out
    assert [key[:8] for key, _ in records(tmp_path / "lmdb")] == ["00000000", "00000001", "00000004"]
    skipped = (tmp_path / "lmdb" / "skipped.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in skipped] == [f"{tmp_path}/list.txt:{n}" for n in (3, 4)]

    (tmp_path / "list.txt").write_text("d.png 0\n")
    assert create_lmdb.main([*arguments, "--skip-bad"]) == 1
    assert "none of the 1 images can be read" in capsys.readouterr().err
    assert len(records(tmp_path / "lmdb")) == 3  # what was there stays


def test_the_map_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_build, "FIRST_MAP", 1 << 16)
    rng = np.random.RandomState(0)
    np.savez(tmp_path / "a.npz", images=rng.randint(0, 256, (300, 40, 40)).astype(np.uint8), labels=np.arange(300) % 7)
    lmdb_build.build(from_arrays(tmp_path / "a.npz"), tmp_path / "lmdb")
    assert (tmp_path / "lmdb" / "data.mdb").stat().st_size > 1 << 18
    assert lmdb_records.check(tmp_path / "lmdb")["records"] == 300


def test_the_same_inputs_are_not_built_twice_and_others_are(images, tmp_path, capsys):
    arguments = [str(tmp_path / "list.txt"), str(tmp_path / "lmdb"), "--root", str(images)]
    written = tmp_path / "lmdb" / "data.mdb"

    def run(*more: str) -> tuple[str, int]:
        assert create_lmdb.main([*arguments, *more]) == 0
        return capsys.readouterr().out, written.stat().st_ino

    _, first = run()
    text, second = run()
    assert "already there and complete (5 records)" in text and first == second
    assert "wrote 5 records" in run("--gray")[0]
    assert "wrote 5 records" in run()[0]
    cv2.imwrite(str(images / "a.png"), picture(9))
    assert "wrote 5 records" in run()[0]
    written.write_bytes(written.read_bytes()[:8192])  # cut short: built again
    text, _ = run()
    assert "wrote 5 records" in text
    assert lmdb_records.check(tmp_path / "lmdb")["records"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "list.txt", "lmdb"]


def test_a_foreign_folder_is_left_alone(images, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.mdb").write_text("precious")
    assert create_lmdb.main([str(tmp_path / "list.txt"), str(tmp_path / "mine"), "--root", str(images)]) == 1
    assert "was not built by this tool" in capsys.readouterr().err
    assert (tmp_path / "mine" / "data.mdb").read_text() == "precious"


def test_check_finds_what_is_wrong(images, tmp_path):
    lmdb_build.build(from_list(tmp_path / "list.txt", root=images), tmp_path / "lmdb")
    datum = records(tmp_path / "lmdb")[0][1]

    def with_record(key: bytes, value: bytes, message: str) -> None:
        with lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 20) as environment:
            with environment.begin(write=True) as transaction:
                transaction.put(key, value)
            with pytest.raises(lmdb_records.LmdbError, match=message):
                environment.close()
                lmdb_records.check(tmp_path / "lmdb")
        with lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 20) as environment, environment.begin(write=True) as t:
            t.delete(key)

    with_record(b"00000009_x", datum.SerializeToString(), "expected 5 records, found 6")
    with_record(b"zebra", datum.SerializeToString(), "expected keys such as 00000000_path, found b'zebra'")
    with_record(b"00000004_z", datum.SerializeToString(), "keys must ascend")
    with_record(b"00000009_x", b"\xff\xff", "record 00000009_x: not a Datum")
    bad = caffe_pb2.Datum.FromString(datum.SerializeToString())
    bad.data = datum.data[:-1]
    with_record(b"00000009_x", bad.SerializeToString(), "expected 576 bytes for an image of")
    bad.encoded = True
    with_record(b"00000009_x", bad.SerializeToString(), "record 00000009_x: expected a picture that OpenCV")
    bad = caffe_pb2.Datum.FromString(datum.SerializeToString())
    del bad.float_data[:]
    with_record(b"00000009_x", bad.SerializeToString(), "expected 3 labels as in the first record, found 0")
    with pytest.raises(lmdb_records.LmdbError, match="expected an LMDB"):
        lmdb_records.check(tmp_path / "images")


def test_check_names_every_bad_record(images, tmp_path):
    lmdb_build.build(from_list(tmp_path / "list.txt", root=images), tmp_path / "lmdb")
    stored = records(tmp_path / "lmdb")
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        for key, _ in stored[1:4:2]:
            transaction.put(key.encode(), b"\xff\xff")
    with pytest.raises(lmdb_records.LmdbError) as caught:
        lmdb_records.check(tmp_path / "lmdb")
    lines = str(caught.value).split("\n")
    assert [key in line for (key, _), line in zip(stored[1:4:2], lines, strict=False)] == [True, True]
    assert lines[2] == "2 of 5 records are bad"


def test_check_of_an_lmdb_that_was_cut_off(images, tmp_path, capsys):
    lmdb_build.build(from_list(tmp_path / "list.txt", root=images), tmp_path / "lmdb")
    file = tmp_path / "lmdb" / "data.mdb"
    os.truncate(file, file.stat().st_size - 4096)
    assert create_lmdb.main([str(tmp_path / "lmdb"), "--check"]) == 1
    assert "data.mdb was cut off: expected" in capsys.readouterr().err


def test_kill_9_leaves_no_lmdb_and_the_next_build_clears_up(tmp_path):
    count = 60000
    np.savez(tmp_path / "a.npz", images=np.zeros((count, 16, 16), np.uint8), labels=np.arange(count) % 10)
    command = [sys.executable, str(TOOLS / "create_lmdb.py"), str(tmp_path / "a.npz"), str(tmp_path / "lmdb")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    partial = tmp_path / "lmdb.partial"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (partial / "data.mdb").exists() or (partial / "data.mdb").stat().st_size < 1 << 20:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        with pytest.raises(BlockingIOError, match=r"process \d+ on .* is writing it"):
            lmdb_build.build(from_arrays(tmp_path / "a.npz"), tmp_path / "lmdb")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert partial.exists() and not (tmp_path / "lmdb").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert not partial.exists()
    assert lmdb_records.check(tmp_path / "lmdb")["records"] == count


def test_command_line_refuses_what_does_not_fit(images, tmp_path, capsys):
    for arguments in ([str(images), "out", "--root", "x"], ["a.npz", "out", "--images", "x.npy"]):
        assert create_lmdb.main(arguments) == 1
        assert "does not go with" in capsys.readouterr().err
    assert create_lmdb.main([str(tmp_path / "none.txt"), str(tmp_path / "out")]) == 1
    assert "none.txt" in capsys.readouterr().err
    for arguments in (["one"], ["a", "b", "c"], ["a", "b", "--resize", "0", "4"]):
        with pytest.raises(SystemExit):
            create_lmdb.main(arguments)


def test_source_json_says_what_it_was_made_from(images, tmp_path):
    lmdb_build.build(from_list(tmp_path / "list.txt", root=images), tmp_path / "lmdb", resize=(6, 8))
    facts = json.loads((tmp_path / "lmdb" / "source.json").read_text())
    assert facts["records"] == 5 and facts["recipe"]["resize"] == [6, 8] and facts["recipe"]["classes"] == 3
