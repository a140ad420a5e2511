"""build_index and search as they are typed, on a small run made by hand: net, weights, LMDBs, codes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import build_index
import caffe
import cv2
import extract_codes
import lmdb
import numpy as np
import pytest
import search
from caffe.proto import caffe_pb2
from dhn.codes import files as codes
from dhn.runs.by_hand import open_run
from dhn.search import collection, encoder
from dhn.search.index import open_index
from dhn.search.items import Options, SearchError

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "hash_layer" inner_product_param { num_output: 12 } }
layer { name: "tanh" type: "TanH" bottom: "hash_layer" top: "hash_layer" }
"""
TRAIN_VAL = """
layer {{ name: "data" type: "Python" top: "data" top: "label" include {{ phase: TEST }}
  python_param {{ module: "multilabel_data" layer: "MultiLabelDataLayer"
    param_str: '{{"source": "{data}/query_lmdb", "batch_size": 8, "mean_value": [90, 100, 110], "scale": 0.02}}' }} }}
"""
NAMES, HEIGHT, WIDTH, COUNT = ["crow", "tit"], 8, 9, 20


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")


def write_lmdb(folder: Path, random: np.random.Generator, count: int) -> None:
    """Colour images of HEIGHT x WIDTH, raw and encoded, of two classes in turn."""
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for row in range(count):
            image = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            datum = caffe_pb2.Datum(channels=3, height=HEIGHT, width=WIDTH, label=row % 2)
            datum.float_data.extend([1 - row % 2, row % 2])
            datum.encoded = row % 3 == 1
            datum.data = (
                cv2.imencode(".png", image)[1].tobytes() if datum.encoded else image.transpose(2, 0, 1).tobytes()
            )
            transaction.put(b"%08d_birds/%d.png" % (row, row), datum.SerializeToString())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with birds/ (LMDBs) and run/ (net, weights, codes of both sides)."""
    root, random = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    (root / "birds").mkdir()
    (root / "run").mkdir()
    (root / "birds" / "label_names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (root / "run" / "deploy.prototxt").write_text(DEPLOY)
    (root / "run" / "train_val.prototxt").write_text(TRAIN_VAL.format(data=root / "birds"))
    net = caffe.Net(str(root / "run" / "deploy.prototxt"), caffe.TEST)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.normal(size=blob.data.shape) * 0.3
    net.save(str(root / "run" / "dhn_iter_5.caffemodel"))
    for side, count in (("query", 7), ("database", COUNT)):
        write_lmdb(root / "birds" / f"{side}_lmdb", random, count)
        paths = {"model": "run/deploy.prototxt", "weights": "run/dhn_iter_5.caffemodel",
                 "source": f"birds/{side}_lmdb", "out": f"run/{side}.npz"}  # fmt: skip
        words = [word for name, path in paths.items() for word in (f"--{name}", str(root / path))]
        assert extract_codes.main([*words, "--batch-size", "4"]) == 0
    assert build_index.main([str(root / "run")]) == 0
    return root


@pytest.fixture
def index(made):
    return open_index(made / "run" / "index", verify=True)


def said(capsys, command, *words: object) -> str:
    """What a command prints; it must succeed."""
    capsys.readouterr()
    assert command.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def refused(capsys, command, *words: object) -> str:
    """What a command says as it fails."""
    capsys.readouterr()
    assert command.main([str(word) for word in words]) == 1
    return capsys.readouterr().err


def test_an_index_of_a_run_says_what_it_is(made, index):
    saved, labels = codes.load(made / "run" / "database.npz")
    np.testing.assert_array_equal(index.codes, saved)
    np.testing.assert_array_equal(index.labels, labels)
    assert (len(index), index.bits, index.label_names) == (COUNT, 12, NAMES)
    assert (
        list(index.keys)[:2] == ["00000000_birds/0.png", "00000001_birds/1.png"] and index.path_of(1) == "birds/1.png"
    )
    net = index.about["net"]
    assert net["prepared"] == {"mean_value": [90, 100, 110], "scale": 0.02} and net["size"] == [HEIGHT, WIDTH]


def test_a_picture_of_the_index_has_its_code_again(made, index):
    """Bit by bit in batches as the extraction's; one by one within what batches of another size change."""
    pictures = [index.picture(row) for row in range(COUNT)]
    assert {kind for _, kind in pictures} == {"image/png"}
    made_again = encoder.Encoder(index)
    np.testing.assert_array_equal(made_again.encode([data for data, _ in pictures]), index.codes)
    single = np.concatenate([made_again.encode([data]) for data, _ in pictures])
    np.testing.assert_allclose(single, index.codes, atol=1e-6)


def test_a_picture_of_another_size_is_brought_to_that_of_the_data_set(index):
    image = np.random.default_rng(5).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    large = cv2.imencode(".png", image)[1].tobytes()
    small = cv2.imencode(".png", cv2.resize(image, (WIDTH, HEIGHT)))[1].tobytes()
    gray = cv2.imencode(".png", np.repeat(image[:, :, :1], 3, axis=2))[1].tobytes()
    one, other, third = encoder.Encoder(index).encode([large, small, gray])
    np.testing.assert_array_equal(one, other)
    assert np.abs(third - one).max() > 0.01


def test_search_by_picture_key_and_code_find_the_same(made, index, capsys, tmp_path):
    (tmp_path / "q.png").write_bytes(index.picture(3)[0])
    key = index.keys[3]
    np.savez(tmp_path / "q.npz", codes=index.codes[3:4])
    asked = {"image": tmp_path / "q.png", "key": key, "codes": tmp_path / "q.npz"}
    found = {}
    for kind, word in asked.items():
        line = said(capsys, search, made / "run", f"--{kind}", word, "--top", 5, "--json")
        found[kind] = json.loads(line)
    assert found["key"]["query"] == {"key": key, "top": 5, "ties": "product"}
    assert found["codes"]["query"] == {"codes": str(tmp_path / "q.npz"), "row": 0, "top": 5, "ties": "product"}
    assert found["image"]["query"]["image"] == str(tmp_path / "q.png")
    first = dict(found["key"]["results"][0])
    assert first.pop("similarity") == pytest.approx(float(np.square(index.codes[3].astype(float)).sum()))
    expected = {"rank": 1, "row": 3, "key": key, "distance": 0, "labels": ["tit"], "path": "birds/3.png"}
    assert first == expected and list(first) == list(expected)
    assert found["codes"]["results"] == found["key"]["results"]
    assert [each["row"] for each in found["image"]["results"]] == [each["row"] for each in found["key"]["results"]]


def test_a_batch_of_queries_as_json_csv_and_text(made, index, capsys):
    asked = made / "run" / "query.npz"
    lines = said(capsys, search, made / "run", "--codes", asked, "--top", 3, "--label", "tit", "--json").splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["query"]["row"] for answer in answers] == list(range(7))
    expected = index.search(codes.load(asked)[0], Options(3, label="tit"))
    assert [[each["row"] for each in answer["results"]] for answer in answers] == [
        [each.row for each in results] for results in expected
    ]
    rows = list(csv.reader(io.StringIO(said(capsys, search, made / "run", "--codes", asked, "--top", 3, "--csv"))))
    assert rows[0] == ["query", "rank", "row", "key", "distance", "similarity", "labels", "path"] and len(rows) == 22
    assert rows[1][0] == f"{asked}: 0" and rows[1][1] == "1" and float(rows[1][5]) > 0
    text = said(capsys, search, made / "run", "--codes", asked, "--radius", 2, "--ties", "key", "--unique")
    assert f"{asked}: 6 (crow)" in text and "distance" in text


def test_a_page_of_an_index_of_codes_alone(made, capsys, tmp_path):
    codes = made / "run" / "database.npz"
    assert build_index.main(["--codes", str(codes), "--out", str(tmp_path / "index")]) == 0
    said(capsys, search, tmp_path / "index", "--codes", codes, "--top", 3, "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f"{COUNT} queries in {tmp_path / 'index'}</h1>" in text and f"{COUNT} items, codes of " in text


def test_a_page_has_the_pictures_right_and_wrong(made, index, capsys, tmp_path, chromium):
    page = tmp_path / "page.html"
    said(capsys, search, made / "run", "--key", *index.keys[3:5], "--top", 6, "--html", page)
    for width, dark in ((390, False), (1200, True)):
        seen = chromium.visit(page, width, dark)
        assert seen["errors"] == [] and seen["asked"] == [] and seen["wide"] <= width
        assert len(seen["widths"]) == 14 and all(seen["widths"]), "each query and its results are decoded"
    text = page.read_text()
    hits = sum("tit" in each.labels for each in index.search(index.codes[3:4], Options(6))[0][1:])
    assert f"precision {hits} of 5" in text, "the query itself, which the index holds, is not counted"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key", "none"], "expected the key of one of its 20 items, found 'none'"),
        (["--codes", "{made}/run/query.npz", "--label", "owl"], "label 'owl': expected one of the index's labels"),
        (["--codes", "{made}/missing.npz"], "missing.npz: cannot be read (No such file or directory)"),
        (["--image", "{made}/missing.png"], "No such file or directory"),
        (["--image", "{made}/run/deploy.prototxt"], "deploy.prototxt: expected a picture"),
        (["--key", "00000003_birds/3.png", "--top", "0"], "top: expected at least 1, found 0"),
    ],
)
def test_what_search_refuses(made, capsys, words, message):
    *_, line = refused(capsys, search, made / "run", *(word.format(made=made) for word in words)).splitlines()
    assert line.startswith("search: ") and message in line


def test_other_weights_are_refused(made, index, tmp_path):
    copy = tmp_path / "moved"
    shutil.copytree(made, copy)
    encoder.Encoder(open_index(copy / "run" / "index"))  # of the copy: relative paths come first
    with open(copy / "run" / "dhn_iter_5.caffemodel", "ab") as stream:
        stream.write(b"\0")
    with pytest.raises(SearchError, match=r"moved/run/.*caffemodel: expected the weights that made the codes of"):
        encoder.Encoder(open_index(copy / "run" / "index"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("blob", "nope", r"index: its codes are the blob 'nope', but .*deploy\.prototxt has data, "),
        ("size", [], r"index\.json: is damaged: 'net' cannot be "),
        ("size", [1, 8], r"index: size \(1, 8\) is less than .*deploy\.prototxt takes, \("),
        ("prepared", {"resize": 0}, r"index\.json: is damaged: 'net' cannot be "),
        ("prepared", {"resize": [8, 8, 8]}, r"index\.json: is damaged: 'net' cannot be "),
        ("prepared", {"resize": 1}, r"index: resize \(1, 1\) is less than "),
    ],
)
def test_a_net_entry_that_cannot_be_is_refused(made, index, tmp_path, key, value, message):
    copy = tmp_path / "moved"
    shutil.copytree(made, copy)
    path = copy / "run" / "index" / "index.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "net": {**facts["net"], key: value}}))
    with pytest.raises(SearchError, match=message):
        encoder.Encoder(open_index(path.parent))


def test_codes_of_another_net_leave_the_net_out(made, capsys, tmp_path):
    values, labels = codes.load(made / "run" / "database.npz")
    codes.save(tmp_path / "x.npz", -values, labels)
    words = ["--codes", tmp_path / "x.npz", "--images", made / "birds" / "database_lmdb", "--out", tmp_path / "index"]
    out = said(capsys, build_index, made / "run", *words)
    assert "the net gives other codes for the pictures than the file has" in out
    (tmp_path / "q.png").write_bytes(open_index(tmp_path / "index").picture(0)[0])
    assert "expected an index of a run" in refused(capsys, search, tmp_path / "index", "--image", tmp_path / "q.png")


def test_codes_older_than_the_weights_and_pictures_of_others_are_refused(made, capsys, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    os.utime(tmp_path / "run" / "database.npz", (1, 1))
    assert "is older than dhn_iter_5.caffemodel" in refused(capsys, build_index, tmp_path / "run")
    database = made / "run" / "database.npz"
    words = ["--codes", database, "--out", tmp_path / "index", "--images"]
    message = refused(capsys, build_index, *words, made / "birds" / "query_lmdb")
    assert "query_lmdb: expected the pictures of the codes, 20 of them, found 7" in message
    values, labels = codes.load(database)
    codes.save(tmp_path / "x.npz", values, 1 - labels)
    words[1] = tmp_path / "x.npz"
    message = refused(capsys, build_index, *words, made / "birds" / "database_lmdb")
    assert "expected the labels of code 0, columns [1], found [0]; name the pictures" in message


def test_append_and_delete(made, capsys, tmp_path):
    index, more = tmp_path / "index", made / "run" / "query.npz"
    said(capsys, build_index, "--codes", made / "run" / "database.npz", "--out", index)
    assert open_index(index).keys[19] == "00000019"
    said(capsys, build_index, "--delete", "00000019", "00000003", "--out", index)
    out = said(capsys, build_index, "--append", "--codes", more, "--out", index)
    assert "7 added; 25 items" in out
    assert list(open_index(index).keys)[-8:] == ["00000018", *(f"{number:08d}" for number in range(19, 26))]
    message = refused(
        capsys, build_index, "--append", "--codes", made / "run" / "database.npz",
        "--images", made / "birds" / "database_lmdb", "--prefix", "a/", "--codes-are", "packed", "--out", index,
    )  # fmt: skip
    assert "expected packed bits, whole numbers from 0 to 255 as declared" in message
    said(capsys, build_index, "--append", "--codes", more, "--images", made / "birds" / "query_lmdb", "--prefix", "a/",
         "--out", index)  # fmt: skip
    opened = open_index(index)
    assert opened.keys[-1] == "a/00000006_birds/6.png" and opened.path_of(-1) == "birds/6.png"
    assert opened.picture(len(opened) - 1)[1] == "image/png"
    with pytest.raises(SearchError, match="has no picture of 00000018; build it with --images"):
        opened.picture(opened.row_of("00000018"))


def test_pictures_in_a_folder_and_in_a_list(made, index, capsys, tmp_path):
    """Their codes carry names, which become the keys."""
    for row in range(3):
        (tmp_path / f"{row}.png").write_bytes(index.picture(row)[0])
    run = made / "run"
    words = [
        "--model",
        run / "deploy.prototxt",
        "--weights",
        run / "dhn_iter_5.caffemodel",
        "--out",
        tmp_path / "x.npz",
    ]
    assert extract_codes.main([str(word) for word in (*words, "--source", tmp_path)]) == 0
    said(capsys, build_index, "--codes", tmp_path / "x.npz", "--images", tmp_path, "--out", tmp_path / "a")
    opened = open_index(tmp_path / "a")
    assert list(opened.keys) == ["0.png", "1.png", "2.png"] and opened.labels_of(0) is None
    assert opened.picture(1) == ((tmp_path / "1.png").read_bytes(), "image/png")
    (tmp_path / "list.txt").write_text("".join(f"{row}.png {row % 2}\n" for row in range(3)))
    said(capsys, build_index, "--codes", tmp_path / "x.npz", "--images", tmp_path / "list.txt", "--root", tmp_path,
         "--out", tmp_path / "b")  # fmt: skip
    assert open_index(tmp_path / "b").picture(2)[0] == (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").unlink()
    with pytest.raises(SearchError, match=r"2.png: cannot be read \(No such file"):
        open_index(tmp_path / "b").picture(2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --out INDEX"),
        (["--out", "x"], "expected RUN, or --codes FILE"),
        (["--append", "--out", "x"], "--append goes with --codes FILE and --out INDEX"),
        (["--delete", "a", "--codes", "c", "--out", "x"], "--delete does not go with codes"),
    ],
)
def test_options_that_do_not_go_together(capsys, words, message):
    with pytest.raises(SystemExit):
        build_index.main(words)
    assert message in capsys.readouterr().err


def test_a_run_that_is_not_there(tmp_path, capsys):
    words = ["fashion_mnist", "--bits", "13"]
    for command, more in ((build_index, []), (search, ["--key", "k"])):
        message = refused(capsys, command, *words, *more)
        assert "runs/fashion_mnist-dhn-13: expected the folder of a run, found nothing; run: make train" in message
    assert "expected the folder of an index, found nothing" in refused(capsys, search, tmp_path / "no", "--key", "k")


def test_the_demo_builds_the_index_once(made, capsys):
    run = open_run(made / "run")
    assert collection.ensure_index(run) == made / "run" / "index"
    assert "already there, newer than the codes" in capsys.readouterr().out
    os.utime(made / "run" / "database.npz")
    collection.ensure_index(run)
    assert "wrote " in capsys.readouterr().out
