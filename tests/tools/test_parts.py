"""Parts of a codes file: extracted by shards and merged, they are the file that one process writes."""

from __future__ import annotations

import json
import os
import shutil

import caffe
import cv2
import extract_codes
import merge_codes
import numpy as np
import pytest
from dhn.codes import classifier, parts
from dhn.codes.array_files import CodesError

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 1 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "hash_layer" type: "InnerProduct" bottom: "conv" top: "hash_layer"
  inner_product_param { num_output: 8 weight_filler { type: "gaussian" std: 0.1 } } }
"""
COUNT, BATCH = 11, 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A net with weights, and 11 pictures: with labels in list.txt, one of them unknown, and without in paths.txt."""
    monkeypatch.setenv("GLOG_minloglevel", "2")
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    rng = np.random.default_rng(0)
    names = [f"{'long' * (i == 9)}{i}.png" for i in range(COUNT)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (6, 5), dtype=np.uint8))
    rows = ["-1 -1" if i == 4 else f"{i % 2} 1" for i in range(COUNT)]
    (tmp_path / "list.txt").write_text("".join(f"{name} {row}\n" for name, row in zip(names, rows, strict=True)))
    (tmp_path / "paths.txt").write_text("".join(f"{name}\n" for name in names))
    return tmp_path


def run(folder, *options, source="list.txt", out="x.npz", weights="w.caffemodel"):
    named = {"--model": "deploy.prototxt", "--weights": weights, "--source": source, "--out": out}
    words = [word for name, file in named.items() for word in (name, str(folder / file))]
    return extract_codes.main([*words, "--root", str(folder), *options])


def shards(folder, count, *options, indices=None, **more):
    for index in range(count) if indices is None else indices:
        assert run(folder, "--shard", f"{index}/{count}", *options, out="parts", **more) == 0


def merge(folder):
    return merge_codes.main([str(folder / "parts"), "--out", str(folder / "merged.npz")])


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("source", ["list.txt", "paths.txt"])
def test_merged_parts_are_the_file_of_one_process(folder, source, count):
    assert run(folder, source=source) == 0
    shards(folder, count, source=source)
    assert merge(folder) == 0
    assert (folder / "merged.npz").read_bytes() == (folder / "x.npz").read_bytes()


def test_the_authors_way_too(folder, monkeypatch):
    monkeypatch.setattr(classifier, "CHUNK", 4)
    monkeypatch.setattr(classifier, "ProcessPoolExecutor", InThisProcess)
    deploy = (folder / "deploy.prototxt").read_text()
    (folder / "deploy.prototxt").write_text(deploy.replace("dim: 3 dim: 1 dim: 6", "dim: 4 dim: 3 dim: 6"))
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "w.caffemodel"))
    options = ["--classifier", "centre", "--mean-value", "100", "100", "100"]
    assert run(folder, *options) == 0
    shards(folder, 3, *options)
    assert merge(folder) == 0
    assert (folder / "merged.npz").read_bytes() == (folder / "x.npz").read_bytes()


class InThisProcess:
    """A pool of processes that has none."""

    def __init__(self, workers, context, initializer, initargs):
        initializer(*initargs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    map = staticmethod(map)


def test_shards_are_complete_batches_and_cover_each_row_once():
    for items, batch, count in [(11, 3, 4), (100, 7, 6), (1, 5, 1), (64_000, 64, 7)]:
        rows = [parts.Shard(index, count).rows(items, batch) for index in range(count)]
        assert [row for each in rows for row in each] == list(range(items))
        assert all(each.start % batch == 0 for each in rows)
        batches = [-(-len(each) // batch) for each in rows]
        assert max(batches) - min(batches) <= 1
    with pytest.raises(ValueError, match="11 images in batches of 3 are 4 batches; expected at most as many shards"):
        parts.Shard(0, 5).rows(11, 3)


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/0", "a/b", "1/2/3"])
def test_a_shard_that_is_none_is_refused(folder, capsys, text):
    with pytest.raises(SystemExit):
        run(folder, f"--shard={text}")
    assert "expected a shard I/N with I from 0 to N - 1" in capsys.readouterr().err


def test_a_complete_part_is_left_as_it_is_and_a_damaged_one_extracted_again(folder, capsys):
    shards(folder, 2)
    path = folder / "parts" / "part-1-of-2.npz"
    whole, time = path.read_bytes(), path.stat().st_mtime_ns
    shards(folder, 2, indices=[1])
    assert path.stat().st_mtime_ns == time
    assert "part-1-of-2.npz: complete, left as it is (5 codes)" in capsys.readouterr().out.replace("\n", "")
    path.write_bytes(whole[:-200])
    shards(folder, 2, indices=[1])
    assert path.read_bytes() == whole
    damaged = bytearray(whole)
    damaged[300] ^= 1  # within the codes
    path.write_bytes(damaged)
    assert merge(folder) == 2
    assert "part-1-of-2.npz: is not an .npz file, or not a complete one" in capsys.readouterr().err
    arrays = dict(np.load(folder / "parts" / "part-0-of-2.npz"))
    arrays["codes"][2, 1] += 1
    np.savez(folder / "parts" / "part-0-of-2.npz", **arrays)
    shards(folder, 2, indices=[1])
    assert path.read_bytes() == whole
    assert merge(folder) == 2
    assert "part-0-of-2.npz: the digest of codes is another than when it was written" in capsys.readouterr().err
    shards(folder, 2)
    assert merge(folder) == 0


def test_an_interrupted_part_is_not_there(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("killed")))
    assert run(folder, "--shard", "0/2", out="parts") == 2
    assert not list((folder / "parts").glob("*.npz"))


def test_a_part_of_another_net_weights_source_or_setting_is_refused(folder, capsys):
    shards(folder, 2)
    shutil.copy(folder / "w.caffemodel", folder / "other.caffemodel")
    with open(folder / "other.caffemodel", "ab") as file:
        file.write(b"\x0a\x01a")  # the same weights in a net of another name
    assert run(folder, "--shard", "1/2", out="parts", weights="other.caffemodel") == 2
    assert "part-1-of-2.npz: expected the weights of this command, found others; remove" in capsys.readouterr().err
    assert run(folder, "--shard", "1/2", "--scale", "2", out="parts") == 2
    assert "expected the settings of this command, found others" in capsys.readouterr().err
    (folder / "parts" / "part-1-of-2.npz").unlink()
    listed = (folder / "list.txt").read_text()
    (folder / "list.txt").write_text(listed.replace("1.png 1 1", "1.png 0 1"))  # a label
    shards(folder, 2, indices=[1])
    assert merge(folder) == 2
    assert "part-1-of-2.npz: expected the source of" in capsys.readouterr().err
    assert not (folder / "merged.npz").exists()


def test_a_source_is_the_same_wherever_it_lies(folder):
    def digest(where):
        return parts.source_digest(classifier.open_source(job(where)), [str(where / "list.txt")])

    def job(where):
        return classifier.Job("", "", "", (str(where / "list.txt"),), str(where), None, (), "centre", None, 1)

    other = folder / "elsewhere"
    shutil.copytree(folder, other)
    assert digest(folder) == digest(other)
    cv2.imwrite(str(other / "0.png"), np.zeros((6, 5), np.uint8))
    assert digest(folder) != digest(other)


def test_missing_parts_are_named(folder, capsys):
    assert merge(folder) == 2
    assert "expected a folder of parts" in capsys.readouterr().err
    shards(folder, 4, indices=[0, 3])
    assert merge(folder) == 2
    said = capsys.readouterr().err
    assert "expected 4 parts, part-1-of-4.npz and 1 more is missing; extract it with --shard 1/4" in said
    shards(folder, 2)
    assert merge(folder) == 2
    assert "expected the parts part-I-of-N.npz of one N, found parts of 2 and parts of 4" in capsys.readouterr().err


def test_a_file_that_is_no_part_is_refused(folder):
    shards(folder, 2)
    path = folder / "parts" / "part-0-of-2.npz"
    arrays = dict(np.load(path))
    for about in ("[]", "{}", "x", json.dumps({"first": "a", "sha256": {}})):
        np.savez(path, **{**arrays, "part": np.array(about)})
        with pytest.raises(CodesError, match=r"part-0-of-2.npz: expected a part as extract_codes --shard writes it"):
            parts.merge(str(folder / "parts"), folder / "merged.npz")
    np.savez(path, codes=arrays["codes"], labels=arrays["labels"])
    with pytest.raises(CodesError, match="expected a part"):
        parts.merge(str(folder / "parts"), folder / "merged.npz")
