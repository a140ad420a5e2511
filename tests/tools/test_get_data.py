"""Fashion-MNIST's sources in their order, its files' check, and the split."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct

import get_data
import numpy as np
import pytest
from dhn.datasets import fashion_mnist
from dhn.download import DownloadError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def small(monkeypatch):
    """Fashion-MNIST in small: 2 classes, 50 images; returns its files by name."""
    rng = np.random.RandomState(0)
    contents = {}
    for part, count in (("train", 40), ("t10k", 10)):
        contents[f"{part}-images-idx3-ubyte.gz"] = idx(rng.randint(0, 256, (count, 4, 4)).astype(np.uint8))
        contents[f"{part}-labels-idx1-ubyte.gz"] = idx((np.arange(count) % 2).astype(np.uint8))
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in contents.items()}
    monkeypatch.setattr(fashion_mnist, "FILES", digests)
    monkeypatch.setattr(fashion_mnist, "split", lambda labels, seed, real=fashion_mnist.split: real(labels, seed, 3, 5))
    return contents


def test_split_is_disjoint_complete_and_seeded():
    labels = np.random.RandomState(1).randint(0, 4, 2000)
    rows = fashion_mnist.split(labels, 7, query=10, train=50)
    for name, count in (("query", 10), ("train", 50)):
        assert np.bincount(labels[rows[name]]).tolist() == [count] * 4
        assert (np.diff(rows[name]) > 0).all()
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(2000))
    again, other = fashion_mnist.split(labels, 7, 10, 50), fashion_mnist.split(labels, 8, 10, 50)
    assert np.array_equal(rows["query"], again["query"])
    assert not np.array_equal(rows["query"], other["query"])


def test_split_refuses_a_class_that_is_too_small():
    with pytest.raises(ValueError, match=r"class 1: .*more than 2 \+ 3 images, found 5"):
        fashion_mnist.split(np.array([0] * 9 + [1] * 5), 0, query=2, train=3)


def test_read_idx_checks_its_file(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(array)))
    assert np.array_equal(fashion_mnist.read_idx(path), array)
    path.write_bytes(gzip.compress(idx(array)[:-1]))
    with pytest.raises(ValueError, match="expected 24 values"):
        fashion_mnist.read_idx(path)
    path.write_bytes(gzip.compress(b"GIF89a"))
    with pytest.raises(ValueError, match="expected an idx file"):
        fashion_mnist.read_idx(path)
    whole = gzip.compress(idx(array))
    for raw in (whole[:-9], whole[:12] + b"\xff" + whole[13:], b"PK" + whole[2:], whole[:-8] + bytes(8)):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"x.gz: is not a complete gzip file"):
            fashion_mnist.read_idx(path)
    for head in (b"\0\0\x08", b"\0\0\x08\x03\0\0", b"\0\0\x08\x02" + b"\xff" * 8):
        path.write_bytes(gzip.compress(head))
        with pytest.raises(ValueError, match=r"x.gz: expected "):
            fashion_mnist.read_idx(path)


@pytest.mark.parametrize("text", ["", "[]", '{"seed": "x"}', '{"seed": -1}', '{"seed": 4294967296}', "[" * 3000])
def test_a_damaged_split_json_of_fashion_mnist_is_made_again(tmp_path, monkeypatch, text):
    seeds = []
    monkeypatch.setattr(fashion_mnist, "fashion_mnist", lambda folder, seed: seeds.append(seed))
    monkeypatch.setattr(fashion_mnist, "from_list", lambda *_, **__: None)
    monkeypatch.setattr(fashion_mnist.lmdb_build, "build", lambda *_: None)
    (tmp_path / "split.json").write_text(text)
    fashion_mnist.prepare_fashion_mnist(tmp_path, None)
    assert seeds == [0]


def test_files_already_there_come_first(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fashion_mnist, "from_debian", lambda folder: pytest.fail("the files are already there"))
    for name, raw in small.items():
        (tmp_path / name).write_bytes(gzip.compress(raw, 1))
    fashion_mnist.fashion_mnist(tmp_path, seed=3)
    assert "seed 3" in capsys.readouterr().out
    images, labels = np.load(tmp_path / "images.npy"), np.load(tmp_path / "labels.npy")
    assert images.shape == (50, 4, 4) and labels.shape == (50,)
    seen = []
    for name, count in (("query", 6), ("train", 10), ("database", 34)):
        lines = [line.split() for line in (tmp_path / f"{name}.txt").read_text().splitlines()]
        assert len(lines) == count
        assert all(labels[int(row)] == int(label) for row, label in lines)
        seen += [int(row) for row, _ in lines]
    assert sorted(seen) == list(range(50))

    before = (tmp_path / "query.txt").stat().st_mtime_ns
    fashion_mnist.fashion_mnist(tmp_path, seed=3)
    assert "already there and complete" in capsys.readouterr().out
    assert (tmp_path / "query.txt").stat().st_mtime_ns == before

    (tmp_path / "query.txt").write_text("0 0\n")  # damaged: written again
    fashion_mnist.fashion_mnist(tmp_path, seed=3)
    assert len((tmp_path / "query.txt").read_text().splitlines()) == 6
    fashion_mnist.fashion_mnist(tmp_path, seed=4)
    assert json.loads((tmp_path / "split.json").read_text())["seed"] == 4


def test_debian_then_upstream(small, tmp_path, monkeypatch, capsys):
    tried = []

    def fetch(urls, target, digest, gunzip):
        tried.append(target.name)
        target.write_bytes(gzip.compress(small[target.name]))

    monkeypatch.setattr(fashion_mnist, "from_debian", lambda folder: "no network")
    monkeypatch.setattr(fashion_mnist, "download", fetch)
    first, *others = small
    (tmp_path / first).write_bytes(gzip.compress(small[first]))
    fashion_mnist.fetch_fashion_mnist(tmp_path)
    assert tried == others
    assert "no network" in capsys.readouterr().out


def test_offline_says_which_files_to_put_where(small, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "from_debian", lambda folder: "apt-get is not installed")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError) as caught:
        fashion_mnist.fetch_fashion_mnist(tmp_path, sources=("http://127.0.0.1:9/",))
    for name in small:
        assert str(tmp_path / name) in str(caught.value)


def test_debian_package_is_fetched_and_unpacked_without_root(small, tmp_path, monkeypatch):
    """apt-get and dpkg-deb as scripts: lists missing at first, then a package whose files are not compressed."""
    programs, files = tmp_path / "bin", tmp_path / "files"
    programs.mkdir()
    files.mkdir()
    for name, raw in small.items():
        (files / name[:-3]).write_bytes(raw)
    apt = f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
case "$*" in
"download {fashion_mnist.PACKAGE}") echo "E: Unable to locate package {fashion_mnist.PACKAGE}" >&2; exit 100;;
download*) : > package.deb;;
esac
"""
    dpkg = f'#!/bin/sh\nmkdir -p "$3/usr/share" && cp {files}/* "$3/usr/share/"\n'
    for name, text in (("apt-get", apt), ("dpkg-deb", dpkg)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    folder = tmp_path / "data"
    folder.mkdir()
    assert fashion_mnist.from_debian(folder) is None
    assert fashion_mnist.missing_files(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == sorted(small)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["download", "update", "download"]

    (files / "t10k-labels-idx1-ubyte").write_bytes(b"something else")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "does not hold what was expected" in fashion_mnist.from_debian(folder)
    assert fashion_mnist.missing_files(folder) == ["t10k-labels-idx1-ubyte.gz"]


def test_options_that_do_not_go_together(tmp_path, capsys):
    assert get_data.main(["fashion_mnist", "--root", str(tmp_path), "--split", "paper"]) == 1
    assert "fashion_mnist has one split and nothing missing; --split does not go with it" in capsys.readouterr().err
    assert get_data.main(["cifar10", "--root", str(tmp_path), "--from", str(tmp_path / "none")]) == 1
    assert "expected the data set's files or their folder, found none" in capsys.readouterr().err
    assert get_data.main(["imagenet", "--root", str(tmp_path)]) == 1
    assert "there is no data set 'imagenet': expected one of cifar10" in capsys.readouterr().err


def test_debian_needs_its_tools(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fashion_mnist.from_debian(tmp_path) == "apt-get is not installed"
