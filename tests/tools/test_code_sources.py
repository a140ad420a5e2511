"""What codes are extracted of: pictures without labels, and the same picture wherever it lies and whoever reads it."""

from __future__ import annotations

import re

import caffe
import create_lmdb
import cv2
import extract_codes
import lmdb
import numpy as np
import picture_kinds as table
import pytest
import score_map
from caffe.proto import caffe_pb2
from dhn.codes import classifier as classifier_codes
from dhn.codes import files as codes

PICTURES = {name.replace(" ", "_"): data for name, (data, _, _) in table.pictures().items()}

DATA = """layer { name: "data" type: "%s" top: "data" top: "label" include { phase: TEST }
  transform_param { mean_value: 100 %s } %s }"""
MULTI = """layer { name: "data" type: "Python" top: "data" top: "label" include { phase: TEST }
  python_param { module: "multilabel_data" layer: "MultiLabelDataLayer"
    param_str: '{"source": "%s", "root": "%s", "batch_size": %d, "mean_value": 100, "resize": [14, 11]%s}' } }"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: %d dim: 14 dim: 11 } } }'
HASH = """layer { name: "hash_layer" type: "InnerProduct" bottom: "data" top: "hash_layer"
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 0.002 } } }"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures of every kind in pictures/, all turned and encoded ways, and a list of them with labels."""
    monkeypatch.setenv("GLOG_minloglevel", "2")
    (tmp_path / "pictures").mkdir()
    for name, data in PICTURES.items():
        (tmp_path / "pictures" / name).write_bytes(data)
    names = sorted(PICTURES)
    (tmp_path / "list.txt").write_text("".join(f"{name} {i % 2} {1 - i % 2}\n" for i, name in enumerate(names)))
    (tmp_path / "paths.txt").write_text("".join(f"{name}\n" for name in names))
    return tmp_path


def write_net(folder, channels):
    """A deploy net with weights; returns them."""
    (folder / "deploy.prototxt").write_text(INPUT % channels + HASH)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    net.save(str(folder / "w.caffemodel"))


def run(folder, *options, source, out="x.npz"):
    """The codes of a source, extracted with the command."""
    named = ["--model", "deploy.prototxt", "--weights", "w.caffemodel", "--out", out]
    words = [word if word.startswith("--") else str(folder / word) for word in named]
    sources = [str(folder / name) for name in ([source] if isinstance(source, str) else source)]
    assert extract_codes.main([*words, *options, "--source", *sources]) == 0
    return codes.load(folder / out)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_picture_has_the_same_code_wherever_it_lies(folder, channels):
    write_net(folder, channels)
    pictures, options = str(folder / "pictures"), ["--mean-value", "100", "--resize", "14", "11"]
    expected, labels = run(folder, *options, "--root", pictures, source="list.txt")
    assert len(expected) == len(PICTURES) and np.abs(expected).max() > 0.1 and labels.min() == 0
    ways = [["--encode", "raw"], ["--encode", "png"]] if channels == 3 else [["--encode", "raw", "--gray"]]
    for number, way in enumerate(ways):
        # resized by the same rule: an LMDB of raw or PNG records changes no pixel
        out = folder / f"{number}_lmdb"
        assert create_lmdb.main([str(folder / "list.txt"), str(out), "--root", pictures, *way]) == 0
        np.testing.assert_array_equal(run(folder, *options, source=out.name)[0], expected)
    np.testing.assert_array_equal(run(folder, *options, "--root", pictures, source="paths.txt")[0], expected)
    np.testing.assert_array_equal(run(folder, *options, source="pictures")[0], expected)
    several = [f"pictures/{name}" for name in sorted(PICTURES)]
    np.testing.assert_array_equal(run(folder, *options, source=several)[0], expected)


TURNED = ["color.jpg", "orientation_2_<.jpg", "orientation_3_>.jpg", "orientation_4_<.jpg"]  # all of 16 x 24 pixels


def write_records(path, encoded):
    """An LMDB of pictures as convert_imageset -encoded stores them: the files' own bytes."""
    with lmdb.open(str(path), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for number, name in enumerate(encoded):
            datum = caffe_pb2.Datum(channels=3, height=16, width=24, data=PICTURES[name], encoded=True, label=0)
            transaction.put(b"%08d_%s" % (number, name.encode()), datum.SerializeToString())


@pytest.mark.parametrize("of", ["create_lmdb", "convert_imageset"])
def test_turned_pictures_in_an_lmdb(folder, of):
    """The layers that read an LMDB of encoded pictures, and extraction from it as each layer prepares them."""
    forms = [f"transform_param {{ mean_value: 100 {force} }}" for force in ("", "force_color: true")]
    (folder / "deploy.prototxt").write_text((INPUT % 3).replace("14", "16").replace("11", "24") + HASH)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "w.caffemodel"))
    (folder / "list.txt").write_text("".join(f"{name} 1 0\n" for name in TURNED))
    if of == "create_lmdb":
        words = [str(folder / "list.txt"), str(folder / "lmdb"), "--root", str(folder / "pictures"), "--encode", "jpg"]
        assert create_lmdb.main(words) == 0
    else:
        write_records(folder / "lmdb", TURNED)
    root = ["--root", str(folder / "pictures")]
    upright = run(folder, "--mean-value", "100", *root, source="list.txt")[0]
    assert np.abs(np.diff(upright, axis=0)).max(1).min() > 0.1, "each is another picture"
    data = 'layer { name: "data" type: "Data" top: "data" top: "label" %s data_param { source: "%s" backend: LMDB '
    multi = (MULTI % (folder / "lmdb", "", len(TURNED), ', "labels": 2')).replace(', "resize": [14, 11]', "")
    for layer in (multi, *(f"{data % (each, folder / 'lmdb')} batch_size: {len(TURNED)} }} }}" for each in forms)):
        (folder / "train_val.prototxt").write_text(layer + HASH)
        net = caffe.Net(str(folder / "train_val.prototxt"), str(folder / "w.caffemodel"), caffe.TEST)
        net.forward()
        expected = net.blobs["hash_layer"].data.copy()
        del net
        found = run(folder, "--labels", "2", source="lmdb")[0]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=layer)
        as_stored = of == "convert_imageset" and layer.startswith(data[:30]) and "force" not in layer
        assert np.allclose(found, upright, atol=1e-5) != as_stored


@pytest.mark.parametrize("channels", [1, 3])
def test_training_and_extraction_see_the_same_picture(folder, channels):
    """The blob of the train_val net itself, its test data layer reading the pictures, is what is extracted."""
    write_net(folder, channels)
    count, pictures = len(PICTURES), str(folder / "pictures")
    gray = "true" if channels == 1 else "false"
    (folder / "classes.txt").write_text("".join(f"{name} 1\n" for name in sorted(PICTURES)))
    assert create_lmdb.main([str(folder / "list.txt"), str(folder / "lmdb"), "--root", pictures, "--encode", "jpg",
                             "--resize", "14", "11", *(["--gray"] if channels == 1 else [])]) == 0  # fmt: skip
    image = f'image_data_param {{ source: "{folder}/classes.txt" root_folder: "{pictures}/" batch_size: {count} '
    image += f"new_height: 14 new_width: 11 is_color: {'false' if channels == 1 else 'true'} }}"
    data = f'data_param {{ source: "{folder}/lmdb" backend: LMDB batch_size: {count} }}'
    for layer, source in (
        (MULTI % (folder / "list.txt", pictures, count, f', "gray": {gray}'), "list.txt"),
        (MULTI % (folder / "lmdb", "", count, ""), "lmdb"),
        (DATA % ("ImageData", "", image), "classes.txt"),
        (DATA % ("Data", "", data), "lmdb"),
    ):
        (folder / "train_val.prototxt").write_text(layer + HASH)
        net = caffe.Net(str(folder / "train_val.prototxt"), str(folder / "w.caffemodel"), caffe.TEST)
        net.forward()
        expected = net.blobs["hash_layer"].data.copy()
        del net
        found = run(folder, "--root", pictures, "--labels", "2", source=source)[0]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=layer)


def test_the_classifier_sees_the_same_picture(folder):
    """At 256 x 256 it resizes nothing: its codes are those of the net fed with the decoded pictures' centres."""
    (folder / "deploy.prototxt").write_text((INPUT % 3).replace("dim: 14 dim: 11", "dim: 224 dim: 224") + HASH)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "w.caffemodel"))
    random = np.random.default_rng(0)
    picture = cv2.resize(random.integers(0, 256, (16, 16, 3), dtype=np.uint8), (256, 256))
    jpeg = table.encode(".jpg", picture)
    (folder / "turned.jpg").write_bytes(table.turned_jpeg(jpeg, 6))
    (folder / "deep.png").write_bytes(table.encode(".png", picture.astype(np.uint16) * 257))
    both, paths = ["turned.jpg", "deep.png"], [str(folder / name) for name in ("deploy.prototxt", "w.caffemodel")]
    sources = tuple(str(folder / name) for name in both)
    job = classifier_codes.Job(*paths, "hash_layer", sources, "", None, (104, 117, 123), "centre", None, 1)
    classifier_codes._begin(job)  # in this process: a worker of its own takes seconds to start
    found, labels = classifier_codes._codes(range(2))
    expected = run(folder, "--mean-value", "104", "117", "123", source=both)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 1 and labels.tolist() == [[-1], [-1]]  # the one is turned


def test_pictures_without_labels(folder, capsys):
    write_net(folder, 3)
    resize = ["--resize", "14", "11"]
    picture = "pictures/color.png"
    found, labels = run(folder, *resize, source=picture)
    assert found.shape == (1, 6) and labels.tolist() == [[-1]]
    with np.load(folder / "x.npz") as arrays:
        assert arrays["names"].tolist() == [str(folder / picture)] and arrays["labels"].dtype == np.int8
    assert "1 codes of 6 bits, labels unknown (" in capsys.readouterr().out
    assert run(folder, *resize, "--labels", "3", source=picture)[1].tolist() == [[-1, -1, -1]]
    (folder / "pictures" / "._color.png").write_bytes(b"a Mac's")
    (folder / "pictures" / "notes.txt").write_text("none")
    assert len(run(folder, *resize, source="pictures")[0]) == len(PICTURES)
    said = capsys.readouterr().out
    assert "left out 1 (names that begin with a dot" in said and "left out 1 (not an image" in said
    with np.load(folder / "x.npz") as arrays:
        assert arrays["names"].tolist() == sorted(PICTURES)
    assert run(folder, *resize, "--root", str(folder / "pictures"), source="paths.txt")[1].shape == (len(PICTURES), 1)
    with np.load(folder / "x.npz") as arrays:
        assert arrays["names"].tolist() == sorted(PICTURES)


def test_pictures_without_labels_have_codes_but_no_score(tmp_path, capsys):
    random = np.random.default_rng(0)
    codes.save(tmp_path / "database.npz", random.standard_normal((5, 8)), np.eye(5, 3))
    codes.save(tmp_path / "picture.npz", random.standard_normal((1, 8)), np.full((1, 1), -1), names=["x.jpg"])
    files = [word for side, name in (("query", "picture"), ("database", "database"))
             for word in (f"--{side}", str(tmp_path / f"{name}.npz"))]  # fmt: skip
    assert score_map.main([*files, "--protocol", "standard"]) != 0
    assert "picture.npz: the labels are unknown (-1) in all 1 rows: nothing to score" in capsys.readouterr().err


def test_a_net_whose_own_data_are_missing_is_named_by_its_layer(folder, capsys):
    model = folder / "with_data.prototxt"
    model.write_text(
        'layer { name: "mine" type: "Python" top: "data" top: "label" python_param { module: "multilabel_data" '
        'layer: "MultiLabelDataLayer" param_str: \'{"source": "nowhere", "batch_size": 2}\' } }'
    )
    (folder / "w.caffemodel").write_bytes(b"")
    words = ["--model", str(model), "--weights", str(folder / "w.caffemodel"), "--out", str(folder / "x.npz")]
    assert extract_codes.main([*words, "--source", "list.txt"]) == 2
    assert re.search(r"^extract_codes: layer 'mine' \(Python.*'nowhere' must be", capsys.readouterr().err, re.MULTILINE)


def test_what_is_no_source_is_named(folder, capsys):
    write_net(folder, 3)
    (folder / "cut.jpg").write_bytes(PICTURES["color.jpg"][:200])
    (folder / "gone.txt").write_text("pictures/color.png\nnowhere.png\n")
    (folder / "empty").mkdir()
    for sources, message in (
        (["cut.jpg"], "cut.jpg: expected a picture, found a JPEG that is cut short (200 bytes"),
        (["gone.txt"], "gone.txt:2: nowhere.png: cannot read"),
        (["empty"], "empty: expected an LMDB (data.mdb) or pictures in the folder, found none"),
        (["pictures/color.png", "pictures"], "pictures: expected pictures where several are given, found a folder"),
        (["pictures/color.png", "nowhere.png"], "nowhere.png: cannot read"),
    ):
        words = ["--model", str(folder / "deploy.prototxt"), "--weights", str(folder / "w.caffemodel")]
        words += ["--out", str(folder / "x.npz"), "--root", str(folder), "--resize", "14", "11", "--source"]
        assert extract_codes.main([*words, *(str(folder / name) for name in sources)]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1], "one sentence"
