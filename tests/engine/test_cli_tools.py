"""convert_imageset, compute_image_mean, extract_features and upgrade_*: against what BVLC's tools made (cli_recorded),
and, where the reference is installed, each reading what the other wrote."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import caffe
import cli_cases
import cv2
import lmdb
import numpy as np
import pytest
import reference
from caffe.blob import Blob
from caffe.cli import compute_image_mean, convert_imageset, database, extract_features, upgrade_proto
from caffe.proto import caffe_pb2, text

RECORDED = Path(cli_cases.RECORDED)
MADE = json.loads((RECORDED / "made.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the cases' files and the databases that the engine's convert_imageset made of them."""
    folder = tmp_path_factory.mktemp("tools")
    cli_cases.write(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in cli_cases.DATABASES.items():
            assert convert_imageset.main([*words.split(), name]) == 0
    return folder


@pytest.fixture
def folder(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def run(capfd, command, words: str) -> tuple[int, str]:
    capfd.readouterr()
    return command(words.split()), capfd.readouterr().err


@pytest.mark.parametrize("name", cli_cases.DATABASES)
def test_the_records_are_bvlcs(folder, name):
    assert cli_cases.digests(name) == MADE["databases"][name]


def test_the_log_of_convert_imageset(folder, capfd):
    status, log = run(capfd, convert_imageset.main, "-shuffle --encode_type png img/ list.txt shuffled")
    lines = [line.split("] ", 1)[1] for line in log.splitlines()]
    assert status == 0
    assert lines == [
        "Shuffling data",
        "A total of 6 images.",
        "encode_type specified, assuming encoded=true.",
        "Opened lmdb shuffled",
        "Could not open or find file img/missing.png",
        "Processed 5 files.",
    ]
    found = cli_cases.records("shuffled")
    assert sorted(key[9:] for key in found) == sorted(cli_cases.IMAGES)
    assert all(caffe_pb2.Datum.FromString(value).encoded for value in found.values())


REFUSED = {
    "img/ list.txt raw": (1, "raw: it exists already"),
    "img/ nowhere.txt x": (1, "Cannot read the image list nowhere.txt"),
    "-encoded img/ list.txt x": (1, "Failed to guess the encoding of 'noext'"),
    "-encode_type xyz img/ list.txt x": (1, "cannot encode images of type 'xyz'"),
    "-encode_type \udc80 img/ list.txt x": (1, r"cannot encode images of type '\udc80'"),
    "-check_size -gray=false img/ named.txt nofolder/x": (1, "there is no folder"),
    "-backend foo img/ list.txt x": (1, "Unknown database backend 'foo'"),
    "-bogus img/ list.txt x": (1, "unknown command line flag 'bogus'"),
    "-gray=maybe img/ list.txt x": (1, "illegal value 'maybe' specified for bool flag 'gray'"),
    "img/ list.txt x -resize_width": (1, "flag '-resize_width' is missing its argument"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_convert_imageset_refuses_and_leaves_nothing(folder, capfd, words):
    before = sorted(path.name for path in folder.iterdir())
    status, log = run(capfd, convert_imageset.main, words)
    assert (status, REFUSED[words][1] in log) == (REFUSED[words][0], True), log
    assert sorted(path.name for path in folder.iterdir()) == before


def test_check_size(folder, capfd):
    cv2.imwrite("img/wide.png", np.zeros((7, 10, 3), np.uint8))
    Path("sizes.txt").write_text("a.png 0\nwide.png 1\n")
    status, log = run(capfd, convert_imageset.main, "-check_size img/ sizes.txt sizes")
    assert status == 1 and "img/wide.png: Incorrect data field size 210, expected the first image's 189" in log
    assert (
        run(capfd, convert_imageset.main, "-check_size -resize_height 3 -resize_width 3 img/ sizes.txt sizes")[0] == 0
    )


def test_usage(folder, capfd):
    assert convert_imageset.main(["img/", "list.txt"]) == 1
    assert "convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME" in capfd.readouterr().out
    assert compute_image_mean.main([]) == 1
    assert "compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]" in capfd.readouterr().out
    assert run(capfd, extract_features.main, "a b c")[0] == 1
    assert run(capfd, upgrade_proto.net_text, "a")[0] == 1
    assert convert_imageset.main(["-help"]) == 1
    assert '-backend (The backend {lmdb, leveldb} for storing the result) type: string default: "lmdb"' in (
        capfd.readouterr().out
    )


def test_the_mean_is_bvlcs(folder, capfd):
    status, log = run(capfd, compute_image_mean.main, "small mean.binaryproto")
    assert status == 0
    assert hashlib.sha256(Path("mean.binaryproto").read_bytes()).hexdigest()[:16] == MADE["mean"]
    images = [caffe.io.datum_to_array(caffe_pb2.Datum.FromString(v)) for v in cli_cases.records("small").values()]
    assert "Processed 5 files." in log and "Number of channels: 3" in log
    for channel, value in enumerate(np.mean(images, (0, 2, 3))):
        assert f"mean_value channel [{channel}]: {value:g}" in log


def test_the_mean_refuses(folder, capfd):
    for words, said in {
        "encoded": "record 00000002_g.png: Incorrect data field size 1x7x9, expected the first record's 3x7x9",
        "nowhere": "Cannot open LMDB nowhere",
        "small nofolder/mean": "there is no folder",
    }.items():
        status, log = run(capfd, compute_image_mean.main, words)
        assert status == 1 and said in log, log


def test_the_features_are_bvlcs(folder, capfd):
    caffe.Net("features.prototxt", caffe.TEST).save("features.caffemodel")
    status, log = run(capfd, extract_features.main, cli_cases.FEATURE_COMMAND)
    assert status == 0, log
    assert "Extracted features of 6 query images for feature blob ip" in log
    for name, expected in MADE["features"].items():
        found = cli_cases.features(name, caffe_pb2)
        assert list(found) == list(expected)
        for key, (shape, values) in expected.items():
            assert found[key][0] == shape
            np.testing.assert_allclose(found[key][1], values, rtol=1e-3)
    for words, said in {
        "conv,ip x 1 lmdb": "the number of blob names and dataset names must be equal; found 2 and 1",
        "nope x 1 lmdb": "Unknown feature blob name nope in the network features.prototxt; it has data, label, conv",
        "ip x many lmdb": "num_mini_batches",
        f"ip x {10**400} lmdb": "num_mini_batches: expected a whole number from 1 to 2147483647, found '1000",
        "ip x 1 sql": "Unknown database backend 'sql'",
        "ip x 1 lmdb GPU 99": "Cannot use GPU 99",
        "ip x 1 lmdb GPU DEVICE_ID=99": "Cannot use GPU 99",
        "ip x 1 lmdb GPU first": "DEVICE_ID: expected a whole number",
    }.items():
        status, log = run(capfd, extract_features.main, f"features.caffemodel features.prototxt {words}")
        assert status == 1 and said in log, log
        assert not Path("x").exists()


def test_a_features_record_is_the_datum(tmp_path):
    blob = Blob((3, 2, 5))
    blob.data[...] = np.random.RandomState(0).standard_normal(blob.shape)
    blob.data[1, 0, :3] = np.nan, np.inf, -0.0
    with database.new(str(tmp_path / "made"), "lmdb") as writer:
        extract_features._put(blob, "blob", writer)
    with lmdb.open(str(tmp_path / "made"), readonly=True) as environment, environment.begin() as transaction:
        records = list(transaction.cursor())
    expected = [caffe_pb2.Datum(channels=2, height=5, width=1, float_data=values.reshape(-1)) for values in blob.data]
    assert [key for key, _ in records] == [b"0000000000", b"0000000001", b"0000000002"]
    assert [value for _, value in records] == [datum.SerializeToString() for datum in expected]


@pytest.mark.parametrize("name", [*cli_cases.NETS, *cli_cases.SOLVERS])
def test_upgraded_texts_are_bvlcs(folder, capfd, name):
    command = upgrade_proto.net_text if name in cli_cases.NETS else upgrade_proto.solver_text
    status, log = run(capfd, command, f"{name}.prototxt up_{name}.prototxt")
    assert status == 0
    assert Path(f"up_{name}.prototxt").read_bytes() == (RECORDED / f"{name}.prototxt").read_bytes()
    assert ("File already in latest proto format" in log) == name.startswith("new")


@pytest.mark.parametrize("name", cli_cases.NETS)
def test_upgraded_binaries_are_bvlcs(folder, capfd, name):
    message = text.parse(cli_cases.NETS[name], caffe_pb2.NetParameter())
    Path(f"{name}.bin").write_bytes(message.SerializeToString())
    assert run(capfd, upgrade_proto.net_binary, f"{name}.bin {name}.new")[0] == 0
    assert hashlib.sha256(Path(f"{name}.new").read_bytes()).hexdigest()[:16] == MADE["binary"][name]


def test_what_cannot_be_upgraded(folder, capfd):
    Path("bad.prototxt").write_text('name: "x"\nlayer { nme: "y" }\n')
    Path("mixed.prototxt").write_text('layers { name: "x" type: RELU }\nlayer { name: "y" type: "ReLU" }\n')
    Path("both.prototxt").write_text('net: "n" solver_type: ADAM type: "Adam"')
    for command, words, status, said in [
        (upgrade_proto.net_text, "bad.prototxt x", 2, "Failed to parse input text file as NetParameter: bad.prototxt"),
        (upgrade_proto.solver_text, "bad.prototxt x", 2, "Failed to parse input text file as SolverParameter"),
        (upgrade_proto.net_binary, "v1.prototxt x", 2, "found a net prototxt; give it with -model"),
        (upgrade_proto.net_text, "mixed.prototxt x", 1, "Refusing to upgrade inconsistent NetParameter"),
        (upgrade_proto.solver_text, "both.prototxt x", 1, "cannot be both specified in solver proto text"),
        (upgrade_proto.net_text, "nowhere.prototxt x", 1, "Cannot read nowhere.prototxt"),
        (upgrade_proto.net_text, "v1.prototxt nofolder/x", 1, "there is no folder"),
    ]:
        found = run(capfd, command, words)
        assert found[0] == status and said in found[1], found
        assert not Path("x").exists()


@pytest.mark.skipif(reference.missing() is not None, reason="the reference is not installed (make reference)")
def test_bvlc_reads_what_the_engine_wrote(folder):
    """BVLC's compute_image_mean over the engine's LMDBs gives the engine's mean, and its Data layer takes them."""
    compute_image_mean.main(["small", "mine.binaryproto"])
    caffe.Net("features.prototxt", caffe.TEST).save("features.caffemodel")
    if not Path("ip_again").exists():
        extract_features.main(
            cli_cases.FEATURE_COMMAND.replace("conv,ip conv_features,ip_features", "ip ip_again").split()
        )
    script = (
        "compute_image_mean small theirs.binaryproto && cmp mine.binaryproto theirs.binaryproto && "
        "compute_image_mean ip_again && compute_image_mean raw > /dev/null && "
        "extract_features features.caffemodel features.prototxt ip theirs 3 lmdb"
    )
    done = reference.run(
        ["sh", "-c", script], cwd=folder, env={"GLOG_minloglevel": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (cli_cases.features(name, caffe_pb2) for name in ("ip_again", "theirs"))
    assert list(ours) == list(theirs)
    np.testing.assert_allclose([v for _, v in ours.values()], [v for _, v in theirs.values()], rtol=1e-3)


def test_leveldb(folder, capfd):
    pytest.importorskip("plyvel")
    words = "-backend leveldb --resize_height 4 -resize_width=5 img/ list.txt level"
    assert run(capfd, convert_imageset.main, words)[0] == 0
    assert run(capfd, compute_image_mean.main, "-backend leveldb level level_mean")[0] == 0
    assert hashlib.sha256(Path("level_mean").read_bytes()).hexdigest()[:16] == MADE["mean"]


def test_leveldb_without_its_package(folder, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "plyvel", None)
    status, log = run(capfd, convert_imageset.main, "-backend leveldb img/ list.txt level_missing")
    assert status == 1 and "the package plyvel is not installed" in log
    assert not list(folder.glob("level_missing*"))
