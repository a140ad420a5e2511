"""draw_net, classify and detect: their flags and files. What they compute is tested with their modules."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import caffe
import cv2
import numpy as np
import pytest
from caffe.cli import classify, detect, draw_net

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param { pool: AVE global_pooling: true } }
"""
MODEL = "--model_def net.prototxt --pretrained_model net.caffemodel --mean_file"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The net, and three images, each of one colour; their values are 10 to 30 in blue, 20 in green, 30 in red."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    caffe.Net("net.prototxt", caffe.TEST).save("net.caffemodel")
    Path("images").mkdir()
    for number in range(3):
        cv2.imwrite(f"images/{number}.png", np.full((9, 8, 3), (10 * (number + 1), 20, 30), np.uint8))
    return tmp_path


def run(capsys, command, words: str) -> tuple[int, str]:
    status = command.main(words.split() + ([""] if words.endswith("--mean_file") else []))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_classify_a_folder(folder, capsys):
    status, said = run(capsys, classify, f"images out --images_dim 6,6 --ext png {MODEL}")
    assert status == 0
    lines = said.splitlines()
    assert lines[:3] == ["CPU mode", "Loading folder: images", "Classifying 3 inputs."]
    assert lines[3].startswith("Done in ") and lines[4] == "Saving results into out.npy"
    np.testing.assert_allclose(np.load("out.npy"), [[10, 20, 30], [20, 20, 30], [30, 20, 30]], atol=0.01)


def test_classify_an_image_and_an_npy(folder, capsys):
    np.save("mean.npy", np.float32([1, 2, 3]))
    image = "images/1.png one.npy --images_dim 9,8 --channel_swap 0,1,2 --input_scale 0.5 --raw_scale 255"
    assert run(capsys, classify, f"{image} {MODEL} mean.npy")[0] == 0
    np.testing.assert_allclose(np.load("one.npy"), [[14.5, 9, 8.5]], atol=0.01)
    mean = caffe.io.array_to_blobproto(np.float32([1, 2, 3]).reshape(1, 3, 1, 1) * np.ones((1, 1, 4, 4)))
    Path("mean.binaryproto").write_bytes(mean.SerializeToString())
    np.save("two.npy", np.full((2, 6, 6, 3), 0.5, np.float32))
    words = f"two.npy two_out.npy --images_dim 6,6 --center_only --raw_scale 2 {MODEL} mean.binaryproto"
    assert run(capsys, classify, words)[0] == 0
    np.testing.assert_allclose(np.load("two_out.npy").reshape(2, 3), [[0, -1, -2]] * 2, atol=1e-4)


def test_classify_refuses(folder, capsys):
    np.save("number.npy", 3.0)
    for words, said in {
        f"number.npy out {MODEL}": "number.npy: expected images (N, height, width, channels), found one number",
        f"images out --ext jpg {MODEL}": "expected images that end in .jpg, found none",
        f"nowhere.png out {MODEL}": "Cannot load nowhere.png",
        f"images nofolder/out {MODEL}": "there is no folder",
        f"images out --images_dim 6 {MODEL}": "expected height,width, found '6'",
        f"images out --images_dim 0,6 {MODEL}": "expected height,width, found '0,6'",
        f"images out --channel_swap 2,3,0 {MODEL}": "expected channels below 3, found (2, 3, 0)",
        f"images out {MODEL} mean.npy": "--mean_file: expected a file at mean.npy, found none.\n",
    }.items():
        status, found = run(capsys, classify, words)
        assert status == 1 and said in found, found


def test_arrays_and_means_that_cannot_be_are_named(folder, capsys):
    good = np.full((2, 6, 6, 3), 0.5, np.float32)
    for name, array in {"gray": good[..., :1], "flat": good[0, 0], "none": good[:0], "words": good.astype(str)}.items():
        np.save(f"{name}.npy", array)
        status, found = run(capsys, classify, f"{name}.npy out --images_dim 6,6 {MODEL}")
        assert status == 1 and f"classify: {name}.npy: expected an " in found, found
    np.save("good.npy", good)
    Path("cut.npy").write_bytes(Path("good.npy").read_bytes()[:90])
    np.save("five.npy", np.zeros((5, 4, 4)))
    np.save("nan.npy", np.float32([1, 2, np.nan]))
    Path("cut.binaryproto").write_bytes(caffe.proto.caffe_pb2.BlobProto(data=[1] * 7, channels=3).SerializeToString())
    for count in (0, 2):
        blob = caffe.proto.caffe_pb2.BlobProto(data=[1] * 3 * count)
        blob.shape.dim[:] = [count, 3, 1, 1]
        Path(f"{count}.binaryproto").write_bytes(blob.SerializeToString())
    table = "filename,ymin,xmin,ymax,xmax\nimages/0.png,0,0,4,4\n"
    Path("w.csv").write_text(table)
    for mean in ("cut.npy", "five.npy", "nan.npy", "cut.binaryproto", "0.binaryproto", "2.binaryproto"):
        for command, words in ((classify, "good.npy out"), (detect, "w.csv out.csv --crop_mode list --context_pad 0")):
            status, found = run(capsys, command, f"{words} {MODEL} {mean}")
            assert status == 1 and f": {mean}: " in found, found
    assert not list(folder.glob("out*"))


def test_the_defaults_are_bvlcs(folder, capsys, monkeypatch):
    """Below the folder above python/classify.py's, as in BVLC's tree; below the working folder for `classify`."""
    for root, script in (("", "bin/classify"), ("python/../", "python/classify.py")):
        monkeypatch.setattr("sys.argv", [script])
        for flag, path, source in (
            ("model_def", "models/bvlc_reference_caffenet/deploy.prototxt", "source tree"),
            ("pretrained_model", "models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel", "download_model"),
            ("mean_file", "python/caffe/imagenet/ilsvrc_2012_mean.npy", "`caffe shim DIR MEAN` makes it"),
        ):
            Path(path).unlink(missing_ok=True)
            for command, output in ((classify, "out"), (detect, "out.csv")):
                status, found = run(capsys, command, f"images {output} ")
                assert status == 1 and f": --{flag}: expected a file at {root}{path}, found none. Its" in found
                assert source in found
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if flag == "mean_file":
                np.save(path, np.float64([1, 2, 3]).reshape(3, 1, 1) * np.ones((1, 4, 4)))
            else:
                Path(path).write_bytes(Path("net.prototxt" if flag == "model_def" else "net.caffemodel").read_bytes())
        Path("python").mkdir(exist_ok=True)
        assert run(capsys, classify, "images out --ext png --images_dim 6,6")[0] == 0
        np.testing.assert_allclose(np.load("out.npy")[0], [9, 18, 27], atol=0.01)


def test_detect_windows_of_a_list(folder, capsys):
    Path("w.csv").write_text(
        "filename,ymin,xmin,ymax,xmax\nimages/0.png,0,0,4,4\nimages/2.png,1,1,6,7\nimages/0.png,2,2,8,8.0\n"
    )
    status, said = run(capsys, detect, f"w.csv out.csv --crop_mode list --context_pad 0 {MODEL}")
    assert status == 0 and "Processed 3 windows in" in said and "Saved to out.csv" in said
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["filename"], row["xmax"]) for row in rows] == [
        ("images/0.png", "4"),
        ("images/0.png", "8"),
        ("images/2.png", "7"),
    ]
    odd = "images/caf\udce9.png"  # Latin-1
    os.rename("images/2.png", odd)
    Path("w.csv").write_bytes(os.fsencode(f"filename,ymin,xmin,ymax,xmax\n{odd},1,1,6,7\n"))
    assert run(capsys, detect, f"w.csv odd.csv --crop_mode list --context_pad 0 {MODEL}")[0] == 0
    assert Path("odd.csv").read_bytes().splitlines()[1].startswith(b"images/caf\xe9.png,1,1,6,7,")
    blue = [float(row["class0"]) for row in rows]
    assert blue == pytest.approx([10, 10, 30], abs=0.01) and float(rows[0]["class2"]) == pytest.approx(30, abs=0.01)


def test_detect_refuses(folder, capsys, monkeypatch):
    Path("w.csv").write_text("filename,ymin,xmin,ymax\n")
    Path("bad.csv").write_text("filename,ymin,xmin,ymax,xmax\na.png,1,2,3,x\n")
    for name, coordinate in {"far": "2147483648", "beyond": "inf", "outside": "2000000", "small": "-1000000"}.items():
        Path(f"{name}.csv").write_text(f"filename,ymin,xmin,ymax,xmax\nimages/0.png,0,{coordinate},4,4\n")
    Path("long.csv").write_text("filename,ymin,xmin,ymax,xmax\n" + "a" * 200000 + ",1,2,3,4\n")
    Path("names.txt").write_text("images/0.png\n")
    for words, said in {
        f"w.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "xmin, ymax, xmax; ['xmax'] missing",
        f"bad.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "bad.csv:2: expected four numbers",
        f"far.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "far.csv:2: expected four numbers of pixels",
        f"beyond.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "beyond.csv:2: expected four numbers of pixels",
        f"outside.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "images/0.png: crop: expected a window",
        f"small.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "images/0.png: crop: expected a window",
        f"long.csv out.csv --context_pad 1 --crop_mode list {MODEL}": "long.csv: is no table of windows behind line 1",
        f"names.txt out.csv --context_pad 1 --crop_mode list {MODEL}": "--crop_mode list needs a .csv with windows",
        f"names.txt out.csv --context_pad 1 {MODEL}": "needs the module selective_search_ijcv_with_python",
        f"net.prototxt out.csv --context_pad 1 {MODEL}": "Unknown input file type",
    }.items():
        status, found = run(capsys, detect, words)
        assert status == 1 and said in found, found
    monkeypatch.setitem(__import__("sys").modules, "tables", None)
    status, found = run(capsys, detect, f"w.csv out.h5 --crop_mode list {MODEL}")
    assert status == 1 and "needs the packages pandas and tables" in found


def test_draw_net(folder, capsys, monkeypatch):
    status, said = run(capsys, draw_net, "net.prototxt net.dot --rankdir TB --phase TEST --display_lrm")
    assert (status, said) == (0, "Drawing net to net.dot\n")
    text = Path("net.dot").read_text()
    assert "rankdir=TB" in text and "(Pooling AVE)" in text
    for words, words_said in {
        "nowhere.prototxt x.dot": "Cannot read nowhere.prototxt",
        "net.caffemodel x.dot": "found a caffemodel; give it with -weights",
        "net.prototxt x": "expected a file name that ends in its type",
        "net.prototxt net.png": "needs Graphviz's program dot on PATH, and there is none: install graphviz",
    }.items():
        monkeypatch.setenv("PATH", "")
        status, found = run(capsys, draw_net, words)
        assert status == 1 and words_said in found and found.count("\n") == 1, found  # and no "Drawing net" before
